# SPDX-License-Identifier: BSD-2-Clause
"""Memory of a logical unit for initiators that test the way to it: a data buffer, and an echo buffer for each nexus.

Must not know CDBs. Bounded: nothing grows with what initiators send.
"""

import threading
from typing import TYPE_CHECKING

from target.part import Nexus, Part

if TYPE_CHECKING:
    from target.lu import LogicalUnit

DATA_NBYTES = 64 << 10
ECHO_NBYTES = 4096


class Buffers(Part):
    """Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._lock = threading.Lock()
        self._data = bytearray(DATA_NBYTES)
        self._echo: dict[int, bytes] = {}

    def read(self, offset: int) -> bytes:
        """The data buffer from `offset` on."""
        with self._lock:
            return bytes(self._data[offset:])

    def write(self, offset: int, data: bytes) -> None:
        """It must fit."""
        assert offset + len(data) <= DATA_NBYTES
        with self._lock:
            self._data[offset : offset + len(data)] = data

    def echo(self, nexus: int) -> bytes | None:
        """What the nexus, by index, wrote last; None: nothing yet."""
        return self._echo.get(nexus)

    def set_echo(self, nexus: int, data: bytes) -> None:
        """Of at most ECHO_NBYTES."""
        assert len(data) <= ECHO_NBYTES
        self._echo[nexus] = data

    def reset(self) -> None:
        self._echo.clear()

    def nexus_lost(self, nexus: Nexus) -> None:
        self._echo.pop(nexus.index, None)
