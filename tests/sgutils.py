# SPDX-License-Identifier: BSD-2-Clause
"""sg3_utils' own library through ctypes: the second witness for names of commands and for TransportIDs.

Knows its few functions. Must not know what our tables say.
"""

import ctypes
import functools

_NAMES = ("libsgutils2-1.46.so.2", "libsgutils2-1.47.so.2", "libsgutils2-1.48.so.2", "libsgutils2.so.2")


class Library:
    """What the tests ask of libsgutils2."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self._handle = handle

    def command_name(self, opcode: int, sa: int, device_type: int = 0) -> str:
        """What it calls a command."""
        text = ctypes.create_string_buffer(128)
        self._handle.sg_get_opcode_sa_name(opcode, sa, device_type, len(text), text)
        return text.value.decode()

    def transportid(self, raw: bytes) -> str:
        """What it reads in a TransportID."""
        text = ctypes.create_string_buffer(1024)
        self._handle.sg_decode_transportid_str(b"", raw, len(raw), True, len(text), text)
        return text.value.decode()

    def additional_sense(self, asc: int, ascq: int) -> str:
        """Its words for an additional sense code."""
        text = ctypes.create_string_buffer(256)
        self._handle.sg_get_asc_ascq_str(asc, ascq, len(text), text)
        return text.value.decode()


@functools.cache
def library() -> Library:
    """The installed library, whichever version it is."""
    for name in _NAMES:
        try:
            return Library(ctypes.CDLL(name))
        except OSError:
            continue
    raise AssertionError("sg3_utils' library is not installed: run scripts/setup.sh")
