# SPDX-License-Identifier: BSD-2-Clause
"""What a logical unit has been asked to do, as log pages: the native core's counts since the last LOG SELECT reset.

Knows what is counted: READ and WRITE. Times are not measured, and what is not known is left out or zero.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from target.log_pages import log_page
from target.part import Part
from target.scsi_device import Counts
from vscsi.scsi import log
from vscsi.scsi.fields import Value

if TYPE_CHECKING:
    from target.lu import LogicalUnit

_TOTAL_BYTES, _TOTAL_UNCORRECTED = 0x0005, 0x0006
_GENERAL_ACCESS, _IDLE_TIME, _TIME_INTERVAL = 0x0001, 0x0002, 0x0003


class Statistics(Part):
    """Counts since the last reset of each: a LOG SELECT, never a LOGICAL UNIT RESET. Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._zero = {page: Counts() for page in (log.READ_ERRORS, log.WRITE_ERRORS, log.STATISTICS)}

    def _now(self) -> Counts:
        assert self.unit.device is not None
        return self.unit.device.counts(self.unit)

    def of(self, page: log.Page) -> Counts:
        """As the page tells them."""
        return Counts(*(now - then for now, then in zip(self._now(), self._zero[page], strict=True)))

    def clear(self, page: log.Page) -> None:
        """The page's counters begin at zero again."""
        self._zero[page] = self._now()


def _clear_reads(unit: "LogicalUnit") -> None:
    unit.part(Statistics).clear(log.READ_ERRORS)


def _clear_writes(unit: "LogicalUnit") -> None:
    unit.part(Statistics).clear(log.WRITE_ERRORS)


def _clear_all(unit: "LogicalUnit") -> None:
    unit.part(Statistics).clear(log.STATISTICS)


@log_page(log.READ_ERRORS, reset=_clear_reads)
def read_errors(unit: "LogicalUnit") -> Mapping[int, Mapping[str, Value]]:
    """No error is ever corrected here, hence no counters of that."""
    counts = unit.part(Statistics).of(log.READ_ERRORS)
    return {
        _TOTAL_BYTES: {"value": counts.blocks_read * unit.block_nbytes},
        _TOTAL_UNCORRECTED: {"value": counts.read_errors},
    }


@log_page(log.WRITE_ERRORS, reset=_clear_writes)
def write_errors(unit: "LogicalUnit") -> Mapping[int, Mapping[str, Value]]:
    """As for reads."""
    counts = unit.part(Statistics).of(log.WRITE_ERRORS)
    return {
        _TOTAL_BYTES: {"value": counts.blocks_written * unit.block_nbytes},
        _TOTAL_UNCORRECTED: {"value": counts.write_errors},
    }


@log_page(log.STATISTICS, reset=_clear_all)
def statistics(unit: "LogicalUnit") -> Mapping[int, Mapping[str, Value]]:
    """Blocks are received by writes and transmitted by reads. No time is measured: an interval is zero seconds, and
    there are none. The parameters that say so are there all the same, for programs that count on them."""
    counts = unit.part(Statistics).of(log.STATISTICS)
    return {
        _GENERAL_ACCESS: {
            "number_of_read_commands": counts.reads,
            "number_of_write_commands": counts.writes,
            "number_of_logical_blocks_received": counts.blocks_written,
            "number_of_logical_blocks_transmitted": counts.blocks_read,
        },
        _IDLE_TIME: {},
        _TIME_INTERVAL: {},
    }
