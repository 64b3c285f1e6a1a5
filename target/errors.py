# SPDX-License-Identifier: BSD-2-Clause
"""What a backing store's errno means to an initiator: the one table from errno to sense, for commands run in Python.

Must not know commands or stores.
"""

import errno

from vscsi.scsi import sense
from vscsi.scsi.sense import CheckCondition, Sense

_TABLE: dict[int, Sense] = {
    errno.ENOSPC: sense.SPACE_ALLOCATION_FAILED,
    errno.EDQUOT: sense.SPACE_ALLOCATION_FAILED,
    errno.EROFS: sense.WRITE_PROTECTED,
    errno.EPERM: sense.WRITE_PROTECTED,
    errno.EACCES: sense.WRITE_PROTECTED,
    errno.ENODEV: sense.LOGICAL_UNIT_COMMUNICATION_FAILURE,
    errno.ENXIO: sense.LOGICAL_UNIT_COMMUNICATION_FAILURE,
    errno.ENOTCONN: sense.LOGICAL_UNIT_COMMUNICATION_FAILURE,
    errno.ECONNRESET: sense.LOGICAL_UNIT_COMMUNICATION_FAILURE,
    errno.EPIPE: sense.LOGICAL_UNIT_COMMUNICATION_FAILURE,
    errno.ETIMEDOUT: sense.LOGICAL_UNIT_COMMUNICATION_FAILURE,
}


def sense_of(error: OSError, *, writing: bool) -> Sense:
    """The sense for an OSError of a store; anything not in the table is an error of the medium."""
    default = sense.WRITE_ERROR if writing else sense.UNRECOVERED_READ_ERROR
    return _TABLE.get(error.errno or 0, default)


def check_condition(error: OSError, *, writing: bool, lba: int | None = None) -> CheckCondition:
    """The exception that ends the command; `lba` is the first bad block, if it is known."""
    code = sense_of(error, writing=writing)
    medium = code.key == sense.Key.MEDIUM_ERROR
    return code.error(information=lba if medium else None)
