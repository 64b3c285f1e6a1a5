# SPDX-License-Identifier: BSD-2-Clause
"""Which errno a program gets for what a target answers, as Linux's block layer tells it to those who use a disk.

A table only: status and sense to errno. Knows the words of SCSI; must not know files.
"""

import errno

from initiator.errors import CommandTimeout, InitiatorError, ScsiError, TransportError
from vscsi.scsi.sense import Key
from vscsi.scsi.status import Status

# Sense key, ASC, ASCQ (None: any); the first that fits. Linux: scsi_check_sense and the table of BLK_STS. Where Linux
# would say ENODATA (an unrecovered medium error), programs that use files know EIO.
_SENSE: tuple[tuple[int, int | None, int | None, int], ...] = (
    (Key.DATA_PROTECT, 0x27, 0x07, errno.ENOSPC),
    (Key.DATA_PROTECT, 0x27, None, errno.EROFS),
    (Key.DATA_PROTECT, None, None, errno.EACCES),
    (Key.NOT_READY, 0x3A, None, errno.ENOMEDIUM),
    (Key.ILLEGAL_REQUEST, None, None, errno.EREMOTEIO),
    (Key.ABORTED_COMMAND, 0x10, None, errno.EILSEQ),
    (Key.MISCOMPARE, None, None, errno.EREMOTEIO),
    (Key.COPY_ABORTED, None, None, errno.EREMOTEIO),
    (Key.BLANK_CHECK, None, None, errno.EREMOTEIO),
    (Key.VOLUME_OVERFLOW, None, None, errno.EREMOTEIO),
)
_STATUS: dict[int, int] = {
    Status.RESERVATION_CONFLICT: errno.EBADE,
    Status.BUSY: errno.EBUSY,
    Status.TASK_SET_FULL: errno.EBUSY,
}


def errno_of(error: InitiatorError) -> int:
    """EIO for everything that has no better name."""
    if isinstance(error, CommandTimeout):
        return errno.ETIMEDOUT
    if isinstance(error, TransportError) or not isinstance(error, ScsiError):
        return errno.EIO
    if error.status != Status.CHECK_CONDITION:
        return _STATUS.get(error.status, errno.EIO)
    for key, asc, ascq, number in _SENSE:
        sense = error.sense
        if sense.key == key and asc in (None, sense.asc) and ascq in (None, sense.ascq):
            return number
    return errno.EIO
