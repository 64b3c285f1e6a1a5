# SPDX-License-Identifier: BSD-2-Clause
"""SCSI status codes (SAM-5 5.3). Knows their numbers and names, and nothing of when they are given."""

from enum import IntEnum


class Status(IntEnum):
    """Status byte of a command that ended."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40

    @property
    def text(self) -> str:
        """The standard's spelling."""
        return self.name.replace("_", " ")


def describe(status: int) -> str:
    """Name of a status byte, or its number if the standard has none for it."""
    try:
        return Status(status).text
    except ValueError:
        return f"status {status:02X}h"
