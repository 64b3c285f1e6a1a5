# SPDX-License-Identifier: BSD-2-Clause
"""The timestamp of a logical unit: the system's clock, until an initiator sets it.

Must not know CDBs. What was set counts on by a clock that never jumps, and lasts until the target ends.
"""

from typing import TYPE_CHECKING

from target.part import Part
from vscsi.scsi.reports import ORIGIN_SET_BY_COMMAND, ORIGIN_SET_OTHERWISE

if TYPE_CHECKING:
    from target.lu import LogicalUnit


class Timestamp(Part):
    """Milliseconds since the epoch of 1970 (SPC-4 5.2). Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._zero: float | None = None
        """Timestamp, in seconds, at which the monotonic clock was zero."""

    def get(self) -> tuple[int, int]:
        """Milliseconds and TIMESTAMP ORIGIN."""
        device, zero = self.unit.device, self._zero
        assert device is not None
        if zero is None:
            return int(device.now() * 1000), ORIGIN_SET_OTHERWISE
        return int((zero + device.monotonic()) * 1000), ORIGIN_SET_BY_COMMAND

    def set(self, milliseconds: int) -> None:
        """It counts on from there."""
        assert self.unit.device is not None
        self._zero = milliseconds / 1000 - self.unit.device.monotonic()
