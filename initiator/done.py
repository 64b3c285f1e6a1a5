# SPDX-License-Identifier: BSD-2-Clause
"""What came of a command, and who is at the other end. Plain values; knows no channel."""

from dataclasses import dataclass
from typing import Any

from initiator.errors import InitiatorError, ScsiError
from vscsi.scsi.status import Status


@dataclass(slots=True)
class Done:
    """`error` is set when the transport failed; then status and data mean nothing.

    Residuals in bytes: positive UNDER (so much of the buffer was not used), negative OVER (so much did not fit).
    """

    status: int = 0
    sense: bytes = b""
    data_in: bytes | memoryview = b""
    in_residual: int = 0
    out_residual: int = 0
    error: InitiatorError | None = None
    tag: int = 0
    cookie: Any = None

    @property
    def data_in_len(self) -> int:
        """Bytes that came in."""
        return len(self.data_in)

    def raise_for_status(self, what: str = "") -> "Done":
        """Self, or the TransportError, or ScsiError for a status other than GOOD and CONDITION MET."""
        if self.error is not None:
            raise self.error
        if self.status not in (Status.GOOD, Status.CONDITION_MET):
            raise ScsiError(self.status, self.sense, what)
        return self


@dataclass(frozen=True)
class PeerInfo:
    """Who the target is. `max_transfer`: bytes one command may carry, 0 if it does not say; `pid` of its process."""

    name: str
    version: str
    os: str
    max_transfer: int
    target_port_id: bytes
    pid: int
