# SPDX-License-Identifier: BSD-2-Clause
"""What a thinly provisioned logical unit uses of what there is, and who is told when it gets scarce.

Knows how the store's bytes become threshold sets and percent (SBC-3 4.7.3.7, 6.4.5), and when a threshold is crossed.
Must not know CDBs, nor how often it is asked to look.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from target.log_pages import log_page
from target.part import Part, part
from vscsi.scsi import log, sense
from vscsi.scsi.fields import Value

if TYPE_CHECKING:
    from target.lu import LogicalUnit

_SETS = 4096
"""About how many threshold sets a unit is cut into."""


@part
class Provisioning(Part):
    """Counts blocks. `threshold` is in percent of what the unit uses and could use; None: nobody is told."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self.threshold = unit.threshold if unit.discard else None
        self._reached = False

    @property
    def exponent(self) -> int:
        """THRESHOLD EXPONENT: a threshold set is 2 to the power of it blocks. 0: nothing is counted."""
        counted = self.unit.discard and self.unit.store.used() is not None
        return max(1, (self.unit.blocks // _SETS).bit_length()) if counted else 0

    def used_blocks(self) -> int:
        """Blocks that have space of their own."""
        used = self.unit.store.used() or 0
        return min(self.unit.blocks, -(-used // self.unit.block_nbytes))

    def available_blocks(self) -> int:
        """Blocks that could still be given space."""
        unit = self.unit
        missing, free = unit.blocks - self.used_blocks(), unit.store.free()
        return missing if free is None else min(missing, free // unit.block_nbytes)

    def used_percent(self) -> int:
        """Of all that is used and available together; a store that is full has used all."""
        used, available = self.used_blocks(), self.available_blocks()
        return used * 100 // (used + available) if used + available else 100

    def tick(self) -> None:
        """Tells every nexus that the threshold is reached, once: again only after use has fallen below it."""
        if self.threshold is None or self.unit.device is None:
            return
        was, self._reached = self._reached, self.used_percent() >= self.threshold
        if self._reached and not was:
            row = sense.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED
            self.unit.device.attention(row.asc << 8 | row.ascq, unit=self.unit)


def _counts(unit: "LogicalUnit") -> bool:
    return unit.part(Provisioning).exponent > 0


@log_page(log.BLOCK_PROVISIONING, supported=_counts)
def block_provisioning(unit: "LogicalUnit") -> Mapping[int, Mapping[str, Value]]:
    """What is used is rounded up to whole threshold sets, what is available down. A file system has other users."""
    this = unit.part(Provisioning)
    shared = log.SCOPE_LOGICAL_UNIT if unit.store.free() is None else log.SCOPE_SHARED
    return {
        0x0001: {"resource_count": this.available_blocks() >> this.exponent, "scope": shared},
        0x0002: {
            "resource_count": -(-this.used_blocks() >> this.exponent),
            "scope": log.SCOPE_LOGICAL_UNIT,
        },
        0x0003: {"percentage": 100 - this.used_percent(), "scope": shared},
    }
