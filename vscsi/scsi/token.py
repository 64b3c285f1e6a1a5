# SPDX-License-Identifier: BSD-2-Clause
"""Token copy: POPULATE TOKEN, WRITE USING TOKEN, ROD tokens, RECEIVE ROD TOKEN INFORMATION (SPC-4 6.29, SBC-3 5.8).

Knows where fields stand. Must not know what stands for data, how long, nor what is inside a token.
"""

from collections.abc import Iterable
from enum import IntEnum

from vscsi.scsi.fields import Layout, be, be16, be32, be64, bit


class RodType(IntEnum):
    """ROD TYPE (SPC-4 table 113; the last from SBC-3)."""

    INTERNAL = 0x00000000
    ACCESS_UPON_REFERENCE = 0x00010000
    POINT_IN_TIME_DEFAULT = 0x00800000
    POINT_IN_TIME_VULNERABLE = 0x00800001
    POINT_IN_TIME_PERSISTENT = 0x00800002
    POINT_IN_TIME_ANY = 0x0080FFFF
    BLOCK_ZERO = 0xFFFF0001


TOKEN_NBYTES = 512
TOKEN_LENGTH = TOKEN_NBYTES - 8
"""ROD TOKEN LENGTH: what follows that field."""
TOKEN = Layout(TOKEN_NBYTES, rod_type=be32(0), rod_token_length=be16(6), content=be(8, TOKEN_NBYTES - 8))
BLOCK_ZERO_TOKEN = TOKEN.build(rod_type=RodType.BLOCK_ZERO, rod_token_length=TOKEN_LENGTH)
"""The token of as many zeros as one wants."""

RANGE = Layout(16, lba=be64(0), number_of_logical_blocks=be32(8))
POPULATE_TOKEN = Layout(
    16, populate_token_data_length=be16(0), rtv=bit(2, 1), immed=bit(2, 0), inactivity_timeout=be32(4),
    rod_type=be32(8), block_device_range_descriptor_length=be16(14),
)  # fmt: skip
"""Ranges follow. INACTIVITY TIMEOUT in seconds, 0 the default; ROD TYPE counts with RTV only."""
WRITE_USING_TOKEN = Layout(
    536, write_using_token_data_length=be16(0), del_tkn=bit(2, 1), immed=bit(2, 0), offset_into_rod=be64(8),
    rod_token=be(16, TOKEN_NBYTES), block_device_range_descriptor_length=be16(534),
)  # fmt: skip
"""Ranges follow. OFFSET INTO ROD in blocks."""


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Block device range descriptors of (lba, blocks) pairs."""
    return b"".join(RANGE.build(lba=lba, number_of_logical_blocks=blocks) for lba, blocks in ranges)


def decode_ranges(data: bytes) -> list[tuple[int, int]]:
    """(lba, blocks) of each whole descriptor."""
    return [
        (int.from_bytes(data[i : i + 8]), int.from_bytes(data[i + 8 : i + 12])) for i in range(0, len(data) - 15, 16)
    ]


def encode_populate(ranges: Iterable[tuple[int, int]], **values: int) -> bytes:
    """The parameter list of POPULATE TOKEN; a `rod_type` sets RTV."""
    body = encode_ranges(ranges)
    if "rod_type" in values:
        values = {**values, "rtv": 1}
    head = POPULATE_TOKEN.build(
        populate_token_data_length=POPULATE_TOKEN.nbytes - 2 + len(body),
        block_device_range_descriptor_length=len(body),
        **values,
    )
    return head + body


def encode_write_using(token: bytes, ranges: Iterable[tuple[int, int]], offset: int = 0, **flags: int) -> bytes:
    """The parameter list of WRITE USING TOKEN; `offset` into the data that the token stands for, in blocks."""
    body = encode_ranges(ranges)
    head = WRITE_USING_TOKEN.build(
        write_using_token_data_length=WRITE_USING_TOKEN.nbytes - 2 + len(body),
        offset_into_rod=offset,
        rod_token=int.from_bytes(token),
        block_device_range_descriptor_length=len(body),
        **flags,
    )
    return head + body


# RECEIVE ROD TOKEN INFORMATION: `copy.encode_status_lid4` with this at the end


def encode_token_descriptors(token: bytes | None) -> bytes:
    """ROD token descriptors: their length, and an id of two bytes before the token; a length of 0 if there is none."""
    if token is None:
        return bytes(4)
    return (2 + len(token)).to_bytes(4) + bytes(2) + token


def decode_token_descriptors(data: bytes) -> bytes | None:
    """The first token of RECEIVE ROD TOKEN INFORMATION's end, None if there is none or it is cut."""
    nbytes = min(int.from_bytes(data[:4]), len(data) - 4)
    return bytes(data[6 : 6 + TOKEN_NBYTES]) if nbytes >= 2 + TOKEN_NBYTES else None


def encode_report_all(tokens: Iterable[bytes]) -> bytes:
    """REPORT ALL ROD TOKENS parameter data: the management part of each token."""
    body = b"".join(tokens)
    return (4 + len(body)).to_bytes(4) + bytes(4) + body
