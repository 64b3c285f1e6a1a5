# SPDX-License-Identifier: BSD-2-Clause
"""Frames: what was encoded comes out, whole or byte by byte; anything else is a ProtocolError and nothing else."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vscsi.bus.errors import BusError, ProtocolError
from vscsi.bus.wire import FRAME_NBYTES_MAX, FrameReader, decode, encode, integer

FIELDS = st.dictionaries(st.text(max_size=8).filter(lambda name: name != "op"), st.text() | st.integers(), max_size=4)


@given(st.lists(st.tuples(st.text(), FIELDS), max_size=5), st.integers(1, 40))
def test_frames_come_out_as_they_went_in(frames: list[tuple[str, dict[str, object]]], step: int) -> None:
    data = b"".join(encode(op, **fields) for op, fields in frames)
    expected = [{"op": op, **fields} for op, fields in frames]
    whole = FrameReader()
    assert list(whole.feed(data)) == expected
    assert not whole.partial
    pieces = FrameReader()
    got = [frame for at in range(0, len(data), step) for frame in pieces.feed(data[at : at + step])]
    assert got == expected
    assert not pieces.partial


@given(st.lists(st.tuples(st.text(), FIELDS), max_size=5), st.binary(max_size=3))
def test_frames_wait_until_they_are_taken(frames: list[tuple[str, dict[str, object]]], rest: bytes) -> None:
    """One at a time, however many came at once; an incomplete one is none that waits."""
    reader, got = FrameReader(), []
    data = b"".join(encode(op, **fields) for op, fields in frames) + rest
    while len(got) < len(frames):
        got.append(next(reader.feed(data)))
        data = b""
        assert reader.ready is (len(got) < len(frames))
    assert got == [{"op": op, **fields} for op, fields in frames]
    assert list(reader.feed(data)) == []
    assert (reader.partial, reader.ready) == (bool(rest), False)


@given(st.binary(max_size=200))
@example(b"\x02\0\0\0{}")
@example(b'\x0a\0\0\0{"op":"x"}')
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    def outcome(step: int) -> tuple[list[object], bool]:
        reader, got = FrameReader(), list[object]()
        try:
            for at in range(0, len(data), step):
                got.extend(reader.feed(data[at : at + step]))
        except ProtocolError:
            return got, False
        return got, True

    bytewise, chunked = outcome(1), outcome(max(1, len(data)))
    assert bytewise[1] == chunked[1]


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_body_is_an_object_or_a_protocol_error(body: bytes) -> None:
    try:
        assert isinstance(decode(body)["op"], str)
    except ProtocolError as error:
        assert len(str(error)) < 200


def test_an_unfinished_frame_shows() -> None:
    reader = FrameReader()
    assert list(reader.feed(b"\x0a")) == []
    assert reader.partial
    assert list(reader.feed(b'\0\0\0{"op":"x"}')) == [{"op": "x"}]
    assert not reader.partial


def test_we_do_not_send_what_the_peer_would_refuse() -> None:
    with pytest.raises(BusError, match="longer than"):
        encode("x", value="v" * FRAME_NBYTES_MAX)
    with pytest.raises(ValueError, match="JSON"):
        encode("x", value=float("nan"))


@pytest.mark.parametrize("value", [None, "1", 1.0, True, 0, 11, 10**30])
def test_integer(value: object) -> None:
    assert integer({"op": "x", "n": 10}, "n", 1, 10) == 10
    with pytest.raises(ProtocolError, match="n is not a number from 1 to 10"):
        integer({"op": "x", "n": value}, "n", 1, 10)
