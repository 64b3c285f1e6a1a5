# SPDX-License-Identifier: BSD-2-Clause
"""Notices that an image has grown or shrunk, and makes the unit follow.

Knows how a new size becomes a new number of blocks, and what a unit without blocks is. Must not know who asks.
"""

import logging
from typing import TYPE_CHECKING

from target.medium import Medium
from target.protection import Protection
from vscsi.scsi import sense

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger("vscsi.target")


def follow(unit: "LogicalUnit") -> bool:
    """Takes the image's size as it is now; True if that is another number of blocks. Every nexus is told (2A/09).

    Blocks beyond the end of a shrunk image are gone for every later command; commands on their way there end with a
    read or write error. OSError if the image cannot be measured.
    """
    if unit.device is None or not unit.part(Medium).present:
        return False
    blocks = unit.store.measure() // unit.block_nbytes
    if blocks == unit.blocks:
        return False
    log.info("lun %d: %s has %d blocks now, it had %d", unit.lun, unit.name, blocks, unit.blocks)
    unit.blocks = blocks
    unit.part(Protection).resize()
    if not blocks:
        log.error("lun %d: %s is empty: the unit is not ready until it has a size again", unit.lun, unit.name)
        unit.set_state(sense.NOT_READY_MANUAL_INTERVENTION_REQUIRED)
    elif unit.not_ready is sense.NOT_READY_MANUAL_INTERVENTION_REQUIRED:
        unit.set_state(None)
    unit.device.resized(unit)
    return True
