# SPDX-License-Identifier: BSD-2-Clause
"""Parameter data about the medium: LBA status, defects, format, sanitize, buffers; both ways (SBC-3 5, SPC-4 6.18).

Knows where fields stand. Must not know what a target answers, nor which values it accepts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from vscsi.scsi.fields import Layout, be8, be16, be24, be32, be64, bit, bits

# GET LBA STATUS (SBC-3 5.10, SBC-4 5.13)


class Provisioning(IntEnum):
    """PROVISIONING STATUS."""

    MAPPED = 0
    DEALLOCATED = 1
    ANCHORED = 2
    MAPPED_SBC4 = 3
    UNKNOWN = 4


LBA_STATUS_HEADER = Layout(8, parameter_data_length=be32(0), completion_condition=bits(7, 3, 1), rtp=bit(7, 0))
LBA_STATUS_DESCRIPTOR = Layout(
    16, lba=be64(0), number_of_logical_blocks=be32(8), provisioning_status=bits(12, 3, 0), additional_status=be8(13)
)


@dataclass(frozen=True, slots=True)
class LbaStatus:
    """So many blocks from `lba` on have that status."""

    lba: int
    blocks: int
    status: int
    additional_status: int = 0


def encode_lba_status(extents: Iterable[LbaStatus], **header: int) -> bytes:
    """GET LBA STATUS parameter data; the length counts what follows it."""
    body = b"".join(
        LBA_STATUS_DESCRIPTOR.build(
            lba=e.lba,
            number_of_logical_blocks=e.blocks,
            provisioning_status=e.status,
            additional_status=e.additional_status,
        )
        for e in extents
    )
    return LBA_STATUS_HEADER.build(parameter_data_length=4 + len(body), **header) + body


def decode_lba_status(data: bytes) -> list[LbaStatus]:
    """Whole descriptors, as far as the data goes; never raises."""
    end = min(len(data), 4 + int.from_bytes(data[:4]))
    found = []
    for at in range(8, end - 15, 16):
        f = LBA_STATUS_DESCRIPTOR.numbers(data[at : at + 16])
        found.append(LbaStatus(*f.values()))
    return found


# READ DEFECT DATA (SBC-3 5.17)


class DefectFormat(IntEnum):
    """DEFECT LIST FORMAT."""

    SHORT_BLOCK = 0
    EXTENDED_BYTES_FROM_INDEX = 1
    EXTENDED_PHYSICAL_SECTOR = 2
    LONG_BLOCK = 3
    BYTES_FROM_INDEX = 4
    PHYSICAL_SECTOR = 5
    VENDOR_SPECIFIC = 6


DEFECT_HEADER_10 = Layout(
    4, plistv=bit(1, 4), glistv=bit(1, 3), defect_list_format=bits(1, 2, 0), defect_list_length=be16(2)
)
DEFECT_HEADER_12 = Layout(
    8, plistv=bit(1, 4), glistv=bit(1, 3), defect_list_format=bits(1, 2, 0), generation_code=be16(2),
    defect_list_length=be32(4),
)  # fmt: skip

# FORMAT UNIT (SBC-3 5.3): header, then the initialization pattern if IP is set, then the defect list

FORMAT_SHORT_HEADER = Layout(
    4, protection_fields_usage=bits(0, 2, 0), fov=bit(1, 7), dpry=bit(1, 6), dcrt=bit(1, 5), stpf=bit(1, 4),
    ip=bit(1, 3), immed=bit(1, 1), vendor_specific=bit(1, 0), defect_list_length=be16(2),
)  # fmt: skip
FORMAT_LONG_HEADER = Layout(
    8, protection_fields_usage=bits(0, 2, 0), fov=bit(1, 7), dpry=bit(1, 6), dcrt=bit(1, 5), stpf=bit(1, 4),
    ip=bit(1, 3), immed=bit(1, 1), vendor_specific=bit(1, 0), p_i_information=bits(3, 7, 4),
    protection_interval_exponent=bits(3, 3, 0), defect_list_length=be32(4),
)  # fmt: skip
INITIALIZATION_PATTERN = Layout(
    4, si=bit(0, 5), initialization_pattern_type=be8(1), initialization_pattern_length=be16(2)
)
PATTERN_DEFAULT, PATTERN_REPEAT = 0, 1

# SANITIZE, OVERWRITE (SBC-3 5.30.2): the pattern follows

OVERWRITE_LIST = Layout(
    4, invert=bit(0, 7), test=bits(0, 6, 5), overwrite_count=bits(0, 4, 0), initialization_pattern_length=be16(2)
)


def encode_overwrite(pattern: bytes, count: int = 1, *, invert: bool = False) -> bytes:
    """The parameter list of SANITIZE, OVERWRITE."""
    return OVERWRITE_LIST.build(
        invert=invert, overwrite_count=count, initialization_pattern_length=len(pattern)
    ) + bytes(pattern)


# READ BUFFER (SPC-4 6.18.5, 6.18.8)

BUFFER_DESCRIPTOR = Layout(4, offset_boundary=be8(0), buffer_capacity=be24(1))
"""Offsets of WRITE BUFFER have to be multiples of two to the power of OFFSET BOUNDARY."""
ECHO_BUFFER_DESCRIPTOR = Layout(4, ebos=bit(0, 0), buffer_capacity=be16(2))
"""BUFFER CAPACITY has 13 bits."""
