# SPDX-License-Identifier: BSD-2-Clause
"""The virtual HBA as a library: log in, send SCSI commands, use logical units as disks.

    with Initiator() as initiator:
        disk = initiator.lun(0)
        disk.write(0, b"x" * disk.block_nbytes)

What others use is exported here; `initiator.vbd` has the same over blkif, `initiator.device` the door for pyscsi.
"""

from initiator.done import Done, PeerInfo
from initiator.errors import (
    BlkifError,
    CacheLost,
    CommandAborted,
    CommandTimeout,
    ConnectError,
    InitiatorError,
    NotSent,
    ScsiError,
    TransportError,
)
from initiator.initiator import Initiator
from initiator.lun import Lun
from initiator.recovery import Backoff

__all__ = [
    "Backoff",
    "BlkifError",
    "CacheLost",
    "CommandAborted",
    "CommandTimeout",
    "ConnectError",
    "Done",
    "Initiator",
    "InitiatorError",
    "Lun",
    "NotSent",
    "PeerInfo",
    "ScsiError",
    "TransportError",
]
