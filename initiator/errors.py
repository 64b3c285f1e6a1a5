# SPDX-License-Identifier: BSD-2-Clause
"""What the initiator library raises. The text of each is one clear line for a person.

Two families: the transport failed (nobody knows whether the command was executed), or the target answered and the
answer is no. Knows statuses and sense data; knows no channel.
"""

import errno
import os

from vscsi.scsi import sense
from vscsi.scsi.sense import DecodedSense
from vscsi.scsi.status import describe


class InitiatorError(Exception):
    """Base of all."""


class ConnectError(InitiatorError):
    """The target cannot be reached, refuses us, or rejects the login."""


class TransportError(InitiatorError):
    """The channel failed under a command; it may or may not have been executed."""


class NotSent(TransportError):
    """There was no nexus, and none came in time; the command was not executed."""


class CommandTimeout(TransportError):
    """No answer in time. The command has been aborted, or the channel given up."""


class CommandAborted(TransportError):
    """A task management function ended the command."""


class CacheLost(InitiatorError):
    """Told once by a flush: the target started anew, and writes answered before that may not have become durable.

    Whoever keeps what they wrote since the last flush can write it again; what is flushed from now on is durable.
    """


class ScsiError(InitiatorError):
    """A command ended with a status other than GOOD and CONDITION MET."""

    def __init__(self, status: int, sense_bytes: bytes = b"", what: str = "") -> None:
        self.status = status
        self.sense_bytes = sense_bytes
        self.sense: DecodedSense = sense.decode(sense_bytes)
        words = self.sense.describe() if sense_bytes else describe(status)
        super().__init__(f"{what}: {words}" if what else words)


class BlkifError(InitiatorError):
    """A blkif request ended with BLKIF_RSP_ERROR (-1) or BLKIF_RSP_EOPNOTSUPP (-2)."""

    def __init__(self, operation: str, status: int) -> None:
        self.operation, self.status = operation, status
        super().__init__(f"{operation}: {'not supported' if status == -2 else 'error'} (blkif status {status})")


_WORDS = {
    errno.EPIPE: "the target is gone",
    errno.ECONNRESET: "the target has closed the channel",
    errno.EPROTO: "the target broke the protocol; the channel is closed",
    errno.EBUSY: "the target still uses memory of a request that it has answered; the channel is closed",
    errno.ESHUTDOWN: "this initiator is closed",
    errno.ENOTCONN: "not logged in",
    errno.ETIMEDOUT: "the target does not answer",
    errno.EIO: "the target refused the request as malformed",
    errno.EMSGSIZE: "too many buffers for one request",
}


def transport_error(rc: int, why: str | None = None) -> TransportError:
    """The exception for a negative errno of the native channel; `why` is what was heard of it by other ways."""
    if -rc == errno.ECANCELED:
        return CommandAborted("the command was ended by a task management function")
    words = _WORDS.get(-rc, os.strerror(-rc))
    return TransportError(f"{words}: {why}" if why and why != words else words)
