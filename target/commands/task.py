# SPDX-License-Identifier: BSD-2-Clause
"""What a command's function sees: the task, its logical unit, its data, and the target device around it.

States what the caller must provide (`Port`). Must not know rings, threads or the native core.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from target.access import Access
from target.lu import LogicalUnit
from target.scsi_device import LockRefused, TargetDevice
from vscsi.scsi import lun as lun_
from vscsi.scsi import sense
from vscsi.scsi.cdb import Cdb
from vscsi.scsi.status import Status


class Aborted(Exception):
    """The task was aborted while it ran; nothing is answered any more."""


class StatusOnly(Exception):
    """The command ends with a status that has no sense data, such as RESERVATION CONFLICT."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Port(Protocol):
    """One task's way to its initiator."""

    @property
    def request(self) -> int:
        """The native core's number for it; 0: it has none."""

    @property
    def data_out_nbytes(self) -> int:
        """Size of the initiator's data-out buffer."""

    @property
    def data_in_nbytes(self) -> int:
        """Size of the initiator's data-in buffer."""

    def fetch(self, offset: int, nbytes: int) -> bytes:
        """Copies that much, once, from the data-out buffer; Aborted or CheckCondition if it cannot."""

    def store(self, offset: int, data: bytes | memoryview) -> None:
        """Copies into the data-in buffer; silently drops what lies beyond its end."""

    def aborted(self) -> bool:
        """Whether to stop as soon as possible."""


@dataclass(frozen=True, slots=True)
class InBackground:
    """What a function returns whose command goes on elsewhere: `run` gives what it would have returned.

    `start` gets what is to be called when its time has come, in whatever thread; None: at once, in one of its own.
    """

    run: "Callable[[], bytes | InBackground | None]"
    start: "Callable[[Callable[[], None]], None] | None" = None


class Task:
    """One command being executed."""

    def __init__(
        self, port: Port, device: TargetDevice, row: Cdb, raw: bytes, *, lu: LogicalUnit | None, lun: bytes, nexus: int
    ) -> None:
        self.port, self.device, self.row, self.raw = port, device, row, raw
        self.lu, self.nexus = lu, nexus
        self._store = None if lu is None else lu.store
        self.fields = row.parse(raw)
        self.well_known = lu is None and lun_.decode(lun) == lun_.WLUN_REPORT_LUNS
        self.out_nbytes = 0
        """Bytes of data-out that the command takes by its CDB; residuals follow from it."""
        self.in_nbytes = 0
        """Bytes of data-in sent so far."""
        self.status = Status.GOOD
        """What the command ends with if nothing goes wrong; PRE-FETCH knows another."""
        self.touches: tuple[int, int] | None = None
        """LBA and blocks, where the CDB does not say which."""
        self.clears = 0
        """The unit attention (ASC << 8 | ASCQ) that GOOD spares its nexus, on every unit; 0: none."""

    @property
    def unit(self) -> LogicalUnit:
        """The logical unit; LOGICAL UNIT NOT SUPPORTED if there is none."""
        if self.lu is None:
            raise sense.LOGICAL_UNIT_NOT_SUPPORTED.error()
        return self.lu

    @property
    def write_protection(self) -> sense.Sense | None:
        """What a command that writes ends with on this nexus, if it may not."""
        protection = self.unit.write_protection
        if protection is None and self.unit.part(Access).readonly(self.nexus):
            return sense.WRITE_PROTECTED
        return protection

    def sees(self, unit: LogicalUnit) -> bool:
        """Whether a unit exists for this nexus."""
        return not unit.part(Access).hidden(self.nexus)

    def invalid(self, name: str) -> sense.CheckCondition:
        """INVALID FIELD IN CDB, pointing at a field by its name."""
        byte, bit = self.row.fields[name].pointer
        return sense.INVALID_FIELD_IN_CDB.at(byte, bit)

    def check_range(self, lba: int, blocks: int) -> None:
        """Ends the command if the blocks are not all on the medium."""
        if not self.unit.contains(lba, blocks):
            raise sense.LBA_OUT_OF_RANGE.error(information=lba)

    def expect_out(self, nbytes: int, field: str) -> None:
        """Declares how much data-out the CDB asks for. A buffer of another size makes the CDB's `field` invalid."""
        if self.port.data_out_nbytes != nbytes:
            raise self.invalid(field)
        self.out_nbytes = nbytes

    def parameter_list(self) -> bytes:
        """The parameter list, copied once. PARAMETER LIST LENGTH ERROR if the buffer does not hold it all."""
        nbytes = self.fields["parameter_list_length"]
        if self.port.data_out_nbytes < nbytes:
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        self.out_nbytes = nbytes
        return self.port.fetch(0, nbytes)

    def send(self, data: bytes | memoryview) -> None:
        """Appends to data-in, at most up to the allocation length: the one place where that truncates."""
        room = self.fields.get("allocation_length")
        if room is not None:
            data = data[: max(0, room - self.in_nbytes)]
        self.port.store(self.in_nbytes, data)
        self.in_nbytes += len(data)

    def check_aborted(self) -> None:
        """For long commands, between chunks."""
        if self.device.stopping or self.port.aborted():
            raise Aborted

    def in_background(self, function: Callable[[], bytes | None]) -> InBackground:
        """For commands that take long, to be returned by the handler once everything has been checked: `function` runs
        in a thread of its own, and workers stay free for others. It gives and raises what a handler may."""
        return InBackground(function)

    @contextlib.contextmanager
    def locked(self, lba: int, blocks: int, unit: LogicalUnit | None = None) -> Iterator[None]:
        """Keeps every other command, from whatever nexus, off these blocks of the unit (or of another one).

        Whoever reads or writes blocks in Python does it inside, or COMPARE AND WRITE would not be atomic. Of several
        ranges take the one on the lower unit index, then the one with the lower LBA, first.
        """
        try:
            with self.device.locked(unit or self.unit, lba, blocks, self.port.request):
                (unit or self.unit).check_occupied()
                self._check_medium()
                yield
        except LockRefused as refused:
            if refused.aborted:
                raise Aborted from refused
            raise sense.NOT_READY_CAUSE_NOT_REPORTABLE.error() from refused

    def _check_medium(self) -> None:
        """Ends a command between two of its ranges if the medium that it began on has been taken out meanwhile."""
        gone = sense.MEDIUM_NOT_PRESENT_TRAY_OPEN
        if self.lu is not None and (self.lu.not_ready is gone or self.lu.store is not self._store):
            raise gone.error()

    def flush(self) -> None:
        """Makes everything on the unit durable, or ends the command: never a success after a failure."""
        if self.device.sync_failed(self.unit):
            raise sense.WRITE_ERROR.error()
        self.unit.flush()

    def settle(self) -> None:
        """Makes what this command wrote durable if the unit has no write cache."""
        if not self.unit.write_cache:
            self.flush()
