# SPDX-License-Identifier: BSD-2-Clause
"""The third-party copy VPD page, 8Fh (SPC-4 7.8.17, SBC-3 6.6.6): a list of descriptors; both ways.

Knows where fields stand. Must not know what a target's copy manager can do.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum

from vscsi.scsi.fields import Layout, be8, be16, be32, be64, bit, bits
from vscsi.scsi.vpd import body_of, with_header

CODE = 0x8F


class Descriptor(IntEnum):
    """THIRD-PARTY COPY DESCRIPTOR TYPE."""

    BLOCK_ROD_LIMITS = 0x0000
    SUPPORTED_COMMANDS = 0x0001
    PARAMETER_DATA = 0x0004
    SUPPORTED_DESCRIPTORS = 0x0008
    SUPPORTED_CSCD_IDS = 0x000C
    ROD_TOKEN_FEATURES = 0x0106
    SUPPORTED_ROD_TYPES = 0x0108
    GENERAL_OPERATIONS = 0x8001


BLOCK_ROD_LIMITS = Layout(
    36, descriptor_type=be16(0), descriptor_length=be16(2), maximum_range_descriptors=be16(10),
    maximum_inactivity_timeout=be32(12), default_inactivity_timeout=be32(16), maximum_token_transfer_size=be64(20),
    optimal_transfer_count=be64(28),
)  # fmt: skip
"""Time-outs in seconds, sizes in blocks."""
PARAMETER_DATA = Layout(
    32, descriptor_type=be16(0), descriptor_length=be16(2), maximum_cscd_descriptor_count=be16(8),
    maximum_segment_descriptor_count=be16(10), maximum_descriptor_list_length=be32(12),
    maximum_inline_data_length=be32(16),
)  # fmt: skip
ROD_TOKEN_FEATURES = Layout(
    48, descriptor_type=be16(0), descriptor_length=be16(2), remote_tokens=bits(4, 3, 0),
    minimum_token_lifetime=be32(16), maximum_token_lifetime=be32(20), maximum_token_inactivity_timeout=be32(24),
    rod_device_type_specific_features_length=be16(46),
)  # fmt: skip
"""Lifetimes in seconds; `DEVICE_ROD_FEATURES` follow."""
DEVICE_ROD_FEATURES = Layout(
    40, descriptor_format=bits(0, 7, 5), peripheral_device_type=bits(0, 4, 0), descriptor_length=be16(2),
    optimal_rod_length_granularity=be16(6), maximum_rod_length=be64(8), optimal_rod_length=be64(16),
    optimal_length_to_rod=be64(24), optimal_length_from_rod=be64(32),
)  # fmt: skip
ROD_TYPE = Layout(
    64, rod_type=be32(0), ecpy_int=bit(4, 7), token_in=bit(4, 1), token_out=bit(4, 0), preference_indicator=be16(6)
)
GENERAL_OPERATIONS = Layout(
    36, descriptor_type=be16(0), descriptor_length=be16(2), total_concurrent_copies=be32(4),
    maximum_identified_concurrent_copies=be32(8), maximum_segment_length=be32(12), data_segment_granularity=be8(16),
    inline_data_granularity=be8(17),
)  # fmt: skip


def encode_fixed(layout: Layout, kind: Descriptor, **values: int) -> bytes:
    """A descriptor of a fixed layout, with its type and length."""
    return layout.build(descriptor_type=kind, descriptor_length=layout.nbytes - 4, **values)


def encode_descriptor(kind: Descriptor, body: bytes) -> bytes:
    """Any descriptor, filled up to a multiple of four bytes."""
    body += bytes(-len(body) % 4)
    return kind.to_bytes(2) + len(body).to_bytes(2) + body


def encode_commands(actions: Mapping[int, Iterable[int]]) -> bytes:
    """The service actions of each opcode."""
    body = b""
    for opcode, numbers in sorted(actions.items()):
        sas = bytes(sorted(numbers))
        body += bytes([opcode, len(sas)]) + sas
    return encode_descriptor(Descriptor.SUPPORTED_COMMANDS, bytes([len(body)]) + body)


def encode_codes(codes: Iterable[int]) -> bytes:
    """Types of CSCD and segment descriptors, ascending."""
    body = bytes(sorted(codes))
    return encode_descriptor(Descriptor.SUPPORTED_DESCRIPTORS, bytes([len(body)]) + body)


def encode_cscd_ids(ids: Iterable[int]) -> bytes:
    """CSCD ids that need no descriptor, ascending."""
    body = b"".join(number.to_bytes(2) for number in sorted(ids))
    return encode_descriptor(Descriptor.SUPPORTED_CSCD_IDS, len(body).to_bytes(2) + body)


def encode_rod_types(types: Iterable[bytes]) -> bytes:
    """`ROD_TYPE` structures."""
    body = b"".join(types)
    return encode_descriptor(Descriptor.SUPPORTED_ROD_TYPES, bytes(2) + len(body).to_bytes(2) + body)


def encode_features(devices: Iterable[bytes], **values: int) -> bytes:
    """ROD token features, with `DEVICE_ROD_FEATURES` structures."""
    body = b"".join(devices)
    nbytes = ROD_TOKEN_FEATURES.nbytes + len(body)
    head = ROD_TOKEN_FEATURES.build(
        descriptor_type=Descriptor.ROD_TOKEN_FEATURES,
        descriptor_length=nbytes - 4,
        rod_device_type_specific_features_length=len(body),
        **values,
    )
    return head + body


def encode(descriptors: Iterable[bytes], device: int = 0) -> bytes:
    """The page; descriptors have to come in ascending order of their types."""
    return with_header(CODE, b"".join(descriptors), device)


def decode(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, whole descriptor) of each complete descriptor; ends where the data ends, whatever the bytes are."""
    rest = body_of(data)
    while len(rest) >= 4:
        end = 4 + int.from_bytes(rest[2:4])
        if end > len(rest):
            return
        yield int.from_bytes(rest[:2]), rest[:end]
        rest = rest[end:]
