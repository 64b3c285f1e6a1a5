# SPDX-License-Identifier: BSD-2-Clause
"""Persistent reservations of one logical unit as values: every action makes a new state, and says who is to be told.

The rules of SPC-4 5.13, and nothing else: knows initiator ports only as names, and no CDB, parameter list, nexus, file
or lock. What can be decided wrongly about reservations is decided here, where it can be tried out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from vscsi.scsi import sense
from vscsi.scsi.reservations import Type

Port = bytes
"""An initiator port identifier. The target has one port, so this names an I_T nexus, logged in or not."""

Told = tuple[tuple[Port, int], ...]
"""Unit attentions to establish: ports, and ASC << 8 | ASCQ."""

RESERVATIONS_PREEMPTED = 0x2A03
RESERVATIONS_RELEASED = 0x2A04
REGISTRATIONS_PREEMPTED = 0x2A05

_KEY, _SA_KEY = 0, 8
_FIRST_TRANSPORTID_OF_MOVE = 24


class ReservationConflict(Exception):
    """The action ends with RESERVATION CONFLICT."""


@dataclass(frozen=True, slots=True)
class State:
    """Who is registered with which key, and who holds what. `holder` is None for all-registrants types."""

    keys: Mapping[Port, int] = field(default_factory=lambda: MappingProxyType({}))
    generation: int = 0
    type: Type | None = None
    holder: Port | None = None
    aptpl: bool = False
    all_tg_pt: frozenset[Port] = frozenset()

    def holds(self, port: Port | None) -> bool:
        """Whether this port holds the reservation, alone or as one of all registrants."""
        if self.type is None or port not in self.keys:
            return False
        return self.type.all_registrants or port == self.holder

    def excludes(self, port: Port | None) -> tuple[bool, bool]:
        """Whether reads, and whether writes, of this port conflict (SPC-4 table 51)."""
        if self.type is None or self.holds(port) or (self.type.registrants_only and port in self.keys):
            return False, False
        return self.type.excludes_reads, True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action leads to. `removed` are ports that have lost their registration to somebody else."""

    state: State
    told: Told = ()
    removed: frozenset[Port] = frozenset()


def register(
    state: State,
    port: Port,
    key: int,
    new_key: int,
    *,
    ignore: bool = False,
    aptpl: bool = False,
    all_tg_pt: bool = False,
    others: Collection[Port] | None = None,
) -> Outcome:
    """REGISTER; with `ignore` REGISTER AND IGNORE EXISTING KEY. `others` (SPEC_I_PT) are registered along with a new
    registrant; those that are already keep what they have. ReservationConflict, CheckCondition."""
    registered = port in state.keys
    if not ignore and key != state.keys.get(port, 0):
        raise ReservationConflict
    if not new_key:
        return _unregister(state, port, aptpl) if registered else Outcome(state)
    if registered and others is not None:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(20, 3, in_cdb=False)
    joining = [other for other in dict.fromkeys(others or ()) if other not in state.keys and other != port]
    keys = {**state.keys, port: new_key, **dict.fromkeys(joining, new_key)}
    everywhere = state.all_tg_pt - {port} | ({port, *joining} if all_tg_pt else set())
    return Outcome(_next(replace(state, keys=_frozen(keys), all_tg_pt=frozenset(everywhere), aptpl=aptpl)))


def _unregister(state: State, port: Port, aptpl: bool) -> Outcome:
    after = _without(state, {port})
    told: Told = ()
    if state.type is not None and after.type is None and state.type.registrants_only:
        told = _tell(after, port, RESERVATIONS_RELEASED)
    return Outcome(_next(replace(after, aptpl=aptpl)), told)


def reserve(state: State, port: Port, key: int, kind: Type) -> Outcome:
    """RESERVE. ReservationConflict."""
    _check_key(state, port, key)
    if state.type is None:
        return Outcome(_taken(state, port, kind))
    if not state.holds(port) or kind is not state.type:
        raise ReservationConflict
    return Outcome(state)


def release(state: State, port: Port, key: int, kind: int, *, quiet: bool = False) -> Outcome:
    """RELEASE; `kind` as it came, `quiet` (NUAR): nobody is told. ReservationConflict, CheckCondition."""
    _check_key(state, port, key)
    if state.type is None or not state.holds(port):
        return Outcome(state)
    if kind != state.type:
        raise sense.INVALID_RELEASE_OF_PERSISTENT_RESERVATION.error()
    told: Told = ()
    if not quiet and (state.type.registrants_only or state.type.all_registrants):
        told = _tell(state, port, RESERVATIONS_RELEASED)
    return Outcome(replace(state, type=None, holder=None), told)


def clear(state: State, port: Port, key: int) -> Outcome:
    """CLEAR. ReservationConflict."""
    _check_key(state, port, key)
    after = replace(state, keys=_frozen({}), type=None, holder=None, all_tg_pt=frozenset())
    return Outcome(_next(after), _tell(state, port, RESERVATIONS_PREEMPTED))


def preempt(state: State, port: Port, key: int, victim_key: int, kind: Type | None) -> Outcome:
    """PREEMPT. `kind` (None: an invalid type or scope) matters only where the reservation is taken over.

    The issuer's own registration stays, even when its key is the victims'. ReservationConflict, CheckCondition.
    """
    _check_key(state, port, key)
    if not victim_key and not (state.type and state.type.all_registrants):
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(_SA_KEY, in_cdb=False)
    if victim_key:
        matching = {other for other, its in state.keys.items() if its == victim_key}
        takes_over = state.holder is not None and state.holder in matching
    else:
        matching, takes_over = set(state.keys), True
    if not matching:
        raise ReservationConflict
    if takes_over and kind is None:
        raise sense.INVALID_FIELD_IN_CDB.at(2)
    removed = frozenset(matching - {port})
    after = _without(state, removed)
    told = tuple((other, REGISTRATIONS_PREEMPTED) for other in state.keys if other in removed)
    if takes_over and kind is not None:
        after = _taken(after, port, kind)
        if kind is not state.type:
            told += _tell(after, port, RESERVATIONS_RELEASED)
    return Outcome(_next(after), told, removed)


def register_and_move(
    state: State, port: Port, key: int, new_key: int, to: Port, *, unregister: bool, aptpl: bool
) -> Outcome:
    """REGISTER AND MOVE. ReservationConflict, CheckCondition."""
    _check_key(state, port, key)
    if state.type is None:
        raise sense.INVALID_FIELD_IN_CDB.at(1, 4)
    if not state.holds(port):
        raise ReservationConflict
    if not new_key:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(_SA_KEY, in_cdb=False)
    if state.type.all_registrants:
        raise ReservationConflict
    if to == port:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(_FIRST_TRANSPORTID_OF_MOVE, in_cdb=False)
    after = replace(state, keys=_frozen({**state.keys, to: new_key}), holder=to, aptpl=aptpl)
    return Outcome(_next(_without(after, {port}) if unregister else after))


def _check_key(state: State, port: Port, key: int) -> None:
    if state.keys.get(port) != key:
        raise ReservationConflict


def _taken(state: State, port: Port, kind: Type) -> State:
    return replace(state, type=kind, holder=None if kind.all_registrants else port)


def _without(state: State, ports: Collection[Port]) -> State:
    """Without these registrations, and without a reservation that nobody is left to hold."""
    keys = {port: key for port, key in state.keys.items() if port not in ports}
    after = replace(state, keys=_frozen(keys), all_tg_pt=state.all_tg_pt.difference(ports))
    held = after.holder in keys if after.holder is not None else bool(keys)
    return after if held else replace(after, type=None, holder=None)


def _tell(state: State, besides: Port, code: int) -> Told:
    """Every registrant but one."""
    return tuple((port, code) for port in state.keys if port != besides)


def _next(state: State) -> State:
    return replace(state, generation=state.generation + 1 & 0xFFFFFFFF)


def _frozen(keys: dict[Port, int]) -> Mapping[Port, int]:
    return MappingProxyType(keys)
