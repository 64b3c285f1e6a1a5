# SPDX-License-Identifier: BSD-2-Clause
"""Frames of the local bus: 4 bytes of length, little-endian, then one JSON object. Sans-IO.

Knows framing, size limits and well-formed JSON; opens nothing, and knows no operation but its name.
Whatever bytes arrive, they either come out as frames or ProtocolError is raised, never anything else.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

from .errors import BusError, ProtocolError

VERSION = 1
FRAME_NBYTES_MAX = 1 << 20
_LENGTH = struct.Struct("<I")


def encode(op: str, **fields: Any) -> bytes:
    """One frame. BusError if it is too long."""
    body = json.dumps({"op": op, **fields}, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > FRAME_NBYTES_MAX:
        raise BusError(f"a bus message of {len(body)} bytes is longer than {FRAME_NBYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def decode(body: bytes) -> dict[str, Any]:
    """The object in a frame's body, which has a text `op`. ProtocolError."""
    try:
        frame = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"malformed JSON in a bus message: {str(error)[:80]!a}") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("op"), str):
        raise ProtocolError("a bus message is not an object with an operation")
    return frame


class FrameReader:
    """Bytes in, frames out. Holds at most one unfinished frame and what one `feed` brought and nobody has taken."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def partial(self) -> bool:
        """True while a frame has begun and not ended."""
        return bool(self._buffer)

    @property
    def ready(self) -> bool:
        """True while `feed` has something to say, be it ProtocolError, without any more bytes."""
        if len(self._buffer) < _LENGTH.size:
            return False
        nbytes: int = _LENGTH.unpack_from(self._buffer)[0]
        return nbytes > FRAME_NBYTES_MAX or len(self._buffer) >= _LENGTH.size + nbytes

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Each frame that `data` completes; those that are not taken are given by the next call.

        ProtocolError on the first that is malformed or too long.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _LENGTH.size:
                (nbytes,) = _LENGTH.unpack_from(self._buffer, at)
                if nbytes > FRAME_NBYTES_MAX:
                    raise ProtocolError(f"a bus message of {nbytes} bytes is longer than {FRAME_NBYTES_MAX}")
                end = at + _LENGTH.size + nbytes
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[at + _LENGTH.size : end])
                at = end
                yield decode(body)
        finally:
            del self._buffer[:at]


def integer(frame: dict[str, Any], key: str, low: int, high: int) -> int:
    """The integer at `key`, between low and high inclusive. ProtocolError."""
    value = frame.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"{frame['op'][:32]!a}: {key} is not a number from {low} to {high}")
    return value
