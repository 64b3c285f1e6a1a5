# SPDX-License-Identifier: BSD-2-Clause
"""Protection information in C against a CRC made bit by bit here, and against the tags as SBC-3 has them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target.native import ffi, lib

GUARD, APP, REF = 1, 2, 4
ALL = GUARD | APP | REF


def crc(data: bytes) -> int:
    """CRC16-T10DIF, bit by bit."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8BB7 if value & 0x8000 else 0)) & 0xFFFF
    return value


def generate(data: bytes, size: int, type_: int, ref: int, app: int) -> bytes:
    pi = bytearray(len(data) // size * 8)
    lib.vt_pi_generate(ffi.from_buffer(data), ffi.from_buffer(pi), len(data) // size, size, type_, ref, app)
    return bytes(pi)


def check(data, pi, size, type_, ref, app, mask=0xFFFF, checks=ALL):
    """(index, which), or None."""
    rc = lib.vt_pi_check(
        ffi.from_buffer(data), ffi.from_buffer(pi), len(data) // size, size, type_, ref, app, mask, checks
    )
    return (rc >> lib.VT_PI_INDEX_SHIFT, rc & 7) if rc else None


def test_check_value_of_the_crc():
    assert crc(b"123456789") == lib.vt_pi_crc(b"123456789", 9) == 0xD0DB
    assert lib.vt_pi_crc(bytes(512), 512) == 0


@given(st.binary(max_size=200))
def test_crc_is_the_one_made_bit_by_bit(data):
    assert lib.vt_pi_crc(data, len(data)) == crc(data)


@given(
    st.sampled_from([1, 2, 3]),
    st.sampled_from([8, 16, 512]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 0xFFFF),
    st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=5),
)
def test_what_is_generated_is_what_the_standard_says_and_passes(type_, size, ref, app, seeds):
    blocks = [(seed * size)[:size] for seed in seeds]
    data = b"".join(blocks)
    pi = generate(data, size, type_, ref, app)
    tags = [(ref if type_ == 3 else ref + i) & 0xFFFFFFFF for i in range(len(blocks))]
    assert pi == b"".join(struct.pack(">HHI", crc(b), app, tag) for b, tag in zip(blocks, tags, strict=True))
    assert check(data, pi, size, type_, ref, app) is None
    joined = bytearray(len(data) + len(pi))
    lib.vt_pi_join(ffi.from_buffer(joined), ffi.from_buffer(data), ffi.from_buffer(pi), len(blocks), size)
    assert joined == b"".join(b + pi[i * 8 : i * 8 + 8] for i, b in enumerate(blocks))
    again, pi_again = bytearray(len(data)), bytearray(len(pi))
    lib.vt_pi_split(ffi.from_buffer(joined), ffi.from_buffer(again), ffi.from_buffer(pi_again), len(blocks), size)
    assert (again, pi_again) == (data, pi)


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_first_failure_is_named(type_):
    data, size = bytes(range(256)) * 8, 512
    good = generate(data, size, type_, 0xFFFFFFFE, 0x1234)
    assert good[20:24] == (b"\xff\xff\xff\xfe" if type_ == 3 else bytes(4)), "the tag wraps around"

    def spoil(index, offset):
        pi = bytearray(good)
        pi[index * 8 + offset] ^= 1
        return bytes(pi)

    args = (size, type_, 0xFFFFFFFE, 0x1234)
    assert check(data, spoil(2, 0), *args) == (2, GUARD)
    assert check(data, spoil(3, 2), *args) == (3, APP)
    assert check(data, spoil(0, 7), *args) == (None if type_ == 3 else (0, REF))
    for offset, which in ((1, GUARD), (3, APP), (4, REF)):
        assert check(data, spoil(1, offset), *args, checks=ALL & ~which) is None
    assert check(data, spoil(1, 3), *args, mask=0xFF00) is None
    assert check(data, spoil(1, 2), *args, mask=0xFF00) == (1, APP)
    both = bytes(a ^ b ^ c for a, b, c in zip(good, spoil(1, 0), spoil(1, 4), strict=True))
    assert check(data, both, *args) == (1, GUARD), "guard, application tag, reference tag: in this order"


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_escapes(type_):
    data = b"anything" * 64
    assert check(data, b"\0\0\xff\xff\xff\xff\xff\xff", 512, type_, 5, 0) is None, "as FORMAT UNIT leaves it"
    other = check(data, b"\0\0\xff\xff\0\0\0\0", 512, type_, 5, 0)
    assert other == ((0, GUARD) if type_ == 3 else None)
