# SPDX-License-Identifier: BSD-2-Clause
"""The door for pyscsi (python-scsi): `SCSI(initiator.device.open("vscsi+unix:///0"), 512).inquiry()` works.

pyscsi is not thread-safe: the constructor of every command keeps the CDB under construction on its class, so two
threads that build commands at once produce wrong CDBs without an exception. Hold `LOCK` round every `SCSI.x()` call
where more than one thread uses pyscsi, whatever the devices.

Knows pyscsi's contract and nothing of rings.
"""

import functools
import threading
from pathlib import Path
from typing import Any

from initiator import uri
from initiator.errors import ScsiError
from initiator.initiator import Initiator
from vscsi.scsi import sense
from vscsi.scsi.sense_data import Detail, Sense
from vscsi.scsi.status import Status

LOCK = threading.RLock()
"""Hold it while a pyscsi command is built and executed."""

QUIET = frozenset({0x03, 0x12, 0xA0})
"""REQUEST SENSE, INQUIRY, REPORT LUNS: executed whatever unit attention is pending, and not ended by it."""


class StatusError(ScsiError):
    """A status other than GOOD, CONDITION MET and CHECK CONDITION."""


def to_fixed(data: bytes) -> bytes:
    """Sense data in fixed format, current: the only one that pyscsi decodes."""
    found = sense.decode(data)
    if found.response_code == 0x70 or not found.response_code:
        return data
    detail = Detail(found.information, found.command_specific, found.field_pointer, found.progress)
    return Sense(found.key, found.asc, found.ascq, "").encode(detail)


@functools.cache
def _device_class() -> Any:
    """`PyscsiDevice`: its metaclass plants CheckCondition on it, so it cannot exist before pyscsi is imported."""
    from pyscsi.pyscsi.scsi_enum_command import spc
    from pyscsi.pyscsi.scsi_exception import SCSIDeviceCommandExceptionMeta

    class PyscsiDevice(metaclass=SCSIDeviceCommandExceptionMeta):  # type: ignore[metaclass]
        """What `pyscsi.pyscsi.scsi.SCSI` needs of a device.

        The unit attention that meets a new nexus is absorbed; later ones are raised as CheckCondition.
        `owned`: close the Initiator with the device.
        """

        CheckCondition: type[Exception]

        def __init__(self, initiator: Initiator, lun: int = 0, *, owned: bool = False) -> None:
            self.opcodes: Any = spc
            self.devicetype: Any = None
            self._initiator, self._lun, self._owned = initiator, lun, owned
            self._greeted = False

        def execute(self, cmd: Any, en_raw_sense: bool = False) -> None:
            """Runs a pyscsi command: fills `cmd.datain`, replaced by a shorter one if less came, or raises.

            CheckCondition with sense in fixed format (and `cmd.sense` as it came); StatusError; TransportError.
            """
            done = self._run(cmd)
            if not self._greeted and cmd.cdb[0] not in QUIET:
                found = sense.decode(done.sense)
                if done.status == Status.CHECK_CONDITION and (found.key, found.asc) == (sense.Key.UNIT_ATTENTION, 0x29):
                    done = self._run(cmd)
                self._greeted = True
            if len(cmd.datain):
                cmd.datain = bytearray(done.data_in)
            if done.status == Status.CHECK_CONDITION:
                cmd.sense = bytearray(done.sense)
                if en_raw_sense:
                    cmd.raw_sense_data = bytes(done.sense)
                raise self.CheckCondition(bytearray(to_fixed(done.sense)))
            if done.status not in (Status.GOOD, Status.CONDITION_MET):
                raise StatusError(done.status)

        def _run(self, cmd: Any) -> Any:
            return self._initiator.execute(self._lun, bytes(cmd.cdb), data_out=cmd.dataout, data_in=len(cmd.datain))

        def close(self) -> None:
            """Logs out, if the connection was made for this device alone."""
            if self._owned:
                self._initiator.close()

    return PyscsiDevice


def __getattr__(name: str) -> Any:
    if name == "PyscsiDevice":
        return _device_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(text: str | None = None, **options: Any) -> Any:
    """A PyscsiDevice by URI (None: $VSCSI_URI, or the default socket and LUN 0). ValueError; ConnectError."""
    place = uri.parse(text) if text else uri.default()
    path: Path | None = place.socket
    return _device_class()(Initiator(path, **options), place.lun or 0, owned=True)
