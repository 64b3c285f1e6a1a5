# SPDX-License-Identifier: BSD-2-Clause
"""The reservations of a logical unit: persistent ones, kept over restarts where asked for, and those of SPC-2.

Brings the rules (`reservations_state`) together with the nexuses that are there, the native core, which enforces them
on every command, and what is kept beside the image. Must not know CDBs or parameter lists.
"""

import logging
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from target.native import lib
from target.part import Nexus, Part, part
from target.reservations_state import Outcome, Port, ReservationConflict, State
from vscsi.scsi import sense
from vscsi.scsi.reservations import Type
from vscsi.scsi.status import Status

if TYPE_CHECKING:
    from target.commands.table import Conflict
    from target.lu import LogicalUnit

log = logging.getLogger(__name__)

MAX_REGISTRATIONS = 128
"""Of one unit."""
MAX_REGISTRANTS = 512
"""Initiator ports registered with any unit: a nexus of the native core is kept for each that was ever there, and some
must be left for those who come."""
COMMANDS_CLEARED = 0x2F00

_DOCUMENT = "reservations"
_READ, _WRITE, _SPC2 = int(lib.VT_CONFLICT_READ), int(lib.VT_CONFLICT_WRITE), int(lib.VT_CONFLICT_SPC2)
_UNREGISTERED, _NOT_HOLDER = int(lib.VT_CONFLICT_UNREGISTERED), int(lib.VT_CONFLICT_NOT_HOLDER)


@part
class Reservations(Part):
    """Any thread may call. Reads of `state` need no lock: it is a value, replaced as a whole."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self.state = State()
        self._lock = threading.Lock()
        self._ports: dict[int, Port] = {}
        self._legacy: Port | None = None
        """Who has the unit by RESERVE(6) or RESERVE(10)."""

    # ---- what a command may ask ----

    @property
    def durable(self) -> bool:
        """Whether reservations can outlive the target (PTPL_C)."""
        return self.unit.state.durable

    def denies(self, nexus: int, conflict: "Conflict") -> bool:
        """Whether a reservation stands in the way of a command of these classes from a nexus."""
        classes = sum(getattr(lib, f"VT_CONFLICT_{flag.name}") for flag in conflict)
        return bool(self._denied(self._ports.get(nexus)) & classes)

    def _denied(self, port: Port | None) -> int:
        reads, writes = self.state.excludes(port)
        if self._legacy is not None and port != self._legacy:
            return _READ | _WRITE | _SPC2  # whatever has any class
        unregistered, held = port not in self.state.keys, self.state.type is not None
        strange = _UNREGISTERED * unregistered | _NOT_HOLDER * (held and not self.state.holds(port))
        return _READ * reads | _WRITE * writes | strange

    # ---- persistent reservations ----

    def look(self) -> State:
        """The state, for PERSISTENT RESERVE IN. StatusOnly while the unit is reserved by RESERVE (SPC-2 5.5.1)."""
        if self._legacy is not None:
            raise _conflict()
        return self.state

    def change(self, nexus: int, action: Callable[[State, Port], Outcome]) -> Outcome:
        """Carries out an action of `reservations_state` for a nexus: what must survive is durable, every nexus denied
        what it is to be denied, and those told who must be told, on return. StatusOnly, CheckCondition; OSError:
        nothing could be kept, and nothing has changed."""
        with self._lock:
            port = self._ports.get(nexus)
            if self._legacy is not None or port is None:
                raise _conflict()
            try:
                outcome = action(self.state, port)
            except ReservationConflict:
                raise _conflict() from None
            self._check_room(outcome.state)
            self._keep(outcome.state)
            self.state = outcome.state
            self._enforce()
            self._tell(outcome)
        return outcome

    def indexes(self, ports: frozenset[Port]) -> list[int]:
        """The nexuses of these ports that are known, by index."""
        with self._lock:
            return [index for index, port in self._ports.items() if port in ports]

    def _check_room(self, after: State) -> None:
        if len(after.keys) <= len(self.state.keys):
            return
        device = self.unit.device
        assert device is not None
        ports = set(after.keys)
        for unit in list(device.units.values()):
            if unit is not self.unit:
                ports |= unit.part(Reservations).state.keys.keys()
        if len(after.keys) > MAX_REGISTRATIONS or len(ports) > MAX_REGISTRANTS:
            raise sense.INSUFFICIENT_REGISTRATION_RESOURCES.error()

    def _keep(self, after: State) -> None:
        if after.aptpl:
            self.unit.state.save(_DOCUMENT, _encode(after))
        elif self.state.aptpl:
            self.unit.state.remove(_DOCUMENT)

    def _enforce(self) -> None:
        device = self.unit.device
        if device is not None:
            device.deny(self.unit, self._denied(None), {i: self._denied(port) for i, port in self._ports.items()})

    def _tell(self, outcome: Outcome) -> None:
        device = self.unit.device
        assert device is not None
        for port, code in outcome.told:
            for index, known in self._ports.items():
                if known == port:
                    device.attention(code, nexus=index, unit=self.unit)

    # ---- RESERVE and RELEASE of SPC-2 ----

    def reserve_legacy(self, nexus: int) -> None:
        """RESERVE(6), RESERVE(10). StatusOnly."""
        with self._lock:
            port = self._ports.get(nexus)
            if port is None or (self._legacy is not None and self._legacy != port):
                raise _conflict()
            if not self._shadowed(port):
                self._legacy = port
                self._enforce()

    def release_legacy(self, nexus: int) -> None:
        """RELEASE(6), RELEASE(10): no effect but for the holder. StatusOnly."""
        with self._lock:
            port = self._ports.get(nexus)
            if not self._shadowed(port) and port is not None and port == self._legacy:
                self._legacy = None
                self._enforce()

    def _shadowed(self, port: Port | None) -> bool:
        """Compatible reservation handling (SPC-4 5.13.3): where a persistent reservation lets this port write, the old
        commands end with GOOD and do nothing; otherwise any registration is in conflict with them."""
        if not self.state.keys:
            return False
        if self.state.type is None or port not in self.state.keys or any(self.state.excludes(port)):
            raise _conflict()
        return True

    # ---- the part ----

    def start(self) -> None:
        with self._lock:
            self.state = self._load()
            self._enforce()

    def reset(self) -> None:
        self._drop_legacy(None)

    def nexus_known(self, nexus: Nexus) -> None:
        with self._lock:
            self._ports[nexus.index] = bytes(nexus.initiator_port_id)
            self._enforce()

    def nexus_lost(self, nexus: Nexus) -> None:
        self._drop_legacy(bytes(nexus.initiator_port_id))

    def nexus_forgotten(self, nexus: Nexus) -> None:
        with self._lock:
            if self._ports.pop(nexus.index, None) is not None:
                self._enforce()

    def remembers(self, nexus: Nexus) -> bool:
        return bytes(nexus.initiator_port_id) in self.state.keys

    def _drop_legacy(self, port: Port | None) -> None:
        with self._lock:
            if self._legacy is not None and port in (None, self._legacy):
                self._legacy = None
                self._enforce()

    # ---- over restarts ----

    def _load(self) -> State:
        document = self.unit.state.load(_DOCUMENT)
        if document is None:
            return State()
        try:
            return _decode(document)
        except (KeyError, TypeError, ValueError) as error:
            self.unit.state.reject(_DOCUMENT, repr(error))
            return State()


def _conflict() -> Exception:
    from target.commands.task import StatusOnly

    return StatusOnly(Status.RESERVATION_CONFLICT)


def _encode(state: State) -> dict[str, Any]:
    """PRGENERATION is not kept: it begins at 0 after a power loss (SPC-4 6.15.2)."""
    return {
        "registrations": [
            {"port": port.hex(), "key": f"{key:016x}", "all_tg_pt": port in state.all_tg_pt}
            for port, key in state.keys.items()
        ],
        "type": state.type,
        "holder": None if state.holder is None else state.holder.hex(),
    }


def _decode(document: dict[str, Any]) -> State:
    """KeyError, TypeError, ValueError: this is not what `_encode` makes."""
    keys: dict[Port, int] = {}
    everywhere = set()
    for row in document["registrations"]:
        port, key = bytes.fromhex(row["port"]), int(row["key"], 16)
        if len(port) != 16 or not 0 < key < 1 << 64:
            raise ValueError("not a registration")
        keys[port] = key
        if row["all_tg_pt"]:
            everywhere.add(port)
    kind = None if document["type"] is None else Type(document["type"])
    holder = None if document["holder"] is None else bytes.fromhex(document["holder"])
    wants_holder = kind is not None and not kind.all_registrants
    if (holder is not None) is not wants_holder or (wants_holder and holder not in keys) or (kind and not keys):
        raise ValueError("a reservation without its holder")
    return State(MappingProxyType(keys), 0, kind, holder, True, frozenset(everywhere))
