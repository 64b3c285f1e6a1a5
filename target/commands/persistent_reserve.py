# SPDX-License-Identifier: BSD-2-Clause
"""PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16): parameter lists checked, answers built.

The rules of reservations are `target.reservations_state`; layouts are in `vscsi.scsi.reservations`. REPLACE LOST
RESERVATION is not supported (RLR_C=0): what was kept and cannot be read is lost with the registrations themselves.
"""

from target import reservations_state as rules
from target.access import Access
from target.commands.table import Conflict, handles
from target.commands.task import Task
from target.modes import Modes
from target.reservations import Reservations
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi import reservations as layout
from vscsi.scsi.reservations import Registration, Type
from vscsi.scsi.sense import CheckCondition

RELATIVE_TARGET_PORT = 1
MAX_LIST_NBYTES = 1 << 16
"""More TransportIDs than this holds could not be registered anyway."""
_LIST_NBYTES = layout.OUT_LIST.nbytes
_TUR_ALLOWED = 1
"""ALLOW COMMANDS: TEST UNIT READY passes every reservation; of other commands nothing is said."""


_REGISTERED = Conflict.SPC2 | Conflict.UNREGISTERED
_HOLDER = _REGISTERED | Conflict.NOT_HOLDER


# ---- IN ----


@handles(cdb.PERSISTENT_RESERVE_IN_READ_KEYS, Conflict.SPC2)
def read_keys(task: Task) -> bytes:
    state = task.unit.part(Reservations).look()
    return layout.encode_keys(state.generation, state.keys.values())


@handles(cdb.PERSISTENT_RESERVE_IN_READ_RESERVATION, Conflict.SPC2)
def read_reservation(task: Task) -> bytes:
    state = task.unit.part(Reservations).look()
    held = None
    if state.type is not None:
        held = (0 if state.holder is None else state.keys[state.holder]), state.type
    return layout.encode_reservation(state.generation, held)


@handles(cdb.PERSISTENT_RESERVE_IN_REPORT_CAPABILITIES, Conflict.SPC2)
def report_capabilities(task: Task) -> bytes:
    part = task.unit.part(Reservations)
    state = part.look()
    return layout.CAPABILITIES.build(
        length=layout.CAPABILITIES.nbytes, crh=1, sip_c=1, atp_c=1, ptpl_c=part.durable, ptpl_a=state.aptpl,
        tmv=1, allow_commands=_TUR_ALLOWED,
        wr_ex=1, ex_ac=1, wr_ex_ro=1, ex_ac_ro=1, wr_ex_ar=1, ex_ac_ar=1,
    )  # fmt: skip


@handles(cdb.PERSISTENT_RESERVE_IN_READ_FULL_STATUS, Conflict.SPC2)
def read_full_status(task: Task) -> bytes:
    state = task.unit.part(Reservations).look()
    return layout.encode_full_status(
        state.generation,
        (
            Registration(
                key,
                layout.encode_srp_transportid(port),
                RELATIVE_TARGET_PORT,
                holder=state.holds(port),
                type=state.type if state.type is not None and state.holds(port) else 0,
                all_tg_pt=port in state.all_tg_pt,
            )
            for port, key in state.keys.items()
        ),
    )


# ---- OUT ----


def _bad(byte: int, bit: int | None = None) -> CheckCondition:
    return sense.INVALID_FIELD_IN_PARAMETER_LIST.at(byte, bit, in_cdb=False)


def _check_reserved(data: bytes, usage: bytes, start: int) -> None:
    for byte, (value, mask) in enumerate(zip(data, usage, strict=False)):
        if byte >= start and (extra := value & ~mask):
            raise _bad(byte, extra.bit_length() - 1)


_OUT_USAGE = bytes(16) + b"\xff" * 4 + layout.OUT_LIST.usage()[20:22] + b"\xff\xff"
"""Bytes 16 to 19, 22 and 23 are obsolete: whatever stands there is ignored."""


def _parameters(task: Task, *, transportids: bool = False) -> tuple[dict[str, int], bytes]:
    """The parameter list of every action but REGISTER AND MOVE, and all of its bytes."""
    nbytes = task.fields["parameter_list_length"]
    if nbytes < _LIST_NBYTES or nbytes > (MAX_LIST_NBYTES if transportids else _LIST_NBYTES):
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    data = task.parameter_list()
    _check_reserved(data[:_LIST_NBYTES], _OUT_USAGE, 16)
    fields = layout.OUT_LIST.numbers(data)
    if fields["spec_i_pt"] and not transportids:
        raise _bad(20, 3)
    if nbytes != _LIST_NBYTES and not fields["spec_i_pt"]:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    return fields, data


def _ports(data: bytes, start: int) -> list[bytes]:
    """Initiator ports from the TransportIDs that stand there, behind their length in 4 bytes."""
    if len(data) < start or start + int.from_bytes(data[start - 4 : start]) != len(data):
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    ports = []
    while start < len(data):
        nbytes = layout.transportid_nbytes(data[start:])
        if not nbytes or start + nbytes > len(data):
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        ports.append(_port(data[start : start + nbytes], start))
        start += nbytes
    return ports


def _port(transportid: bytes, at: int) -> bytes:
    port = layout.decode_srp_transportid(transportid)
    if port is None:
        raise _bad(at)
    return port


def _check_aptpl(part: Reservations, aptpl: int, byte: int) -> None:
    if aptpl and not part.durable:
        raise _bad(byte, 0)


def _type(task: Task) -> Type | None:
    """The type that the CDB asks for; None if that or the scope does not exist."""
    kind = task.fields["type"]
    return Type(kind) if kind in set(Type) and task.fields["scope"] == layout.SCOPE_LOGICAL_UNIT else None


@handles(cdb.PERSISTENT_RESERVE_OUT_REGISTER, Conflict.SPC2)
def register(task: Task) -> None:
    """SPC-4 5.13.7; scope and type are ignored."""
    _register(task, ignore=False)


@handles(cdb.PERSISTENT_RESERVE_OUT_REGISTER_AND_IGNORE_EXISTING_KEY, Conflict.SPC2)
def register_and_ignore_existing_key(task: Task) -> None:
    """SPC-4 5.13.7."""
    _register(task, ignore=True)


def _register(task: Task, *, ignore: bool) -> None:
    part = task.unit.part(Reservations)
    fields, data = _parameters(task, transportids=not ignore)
    _check_aptpl(part, fields["aptpl"], 20)
    others = _ports(data, _LIST_NBYTES + 4) if fields["spec_i_pt"] else None
    if not all(map(task.unit.part(Access).allows, others or ())):
        raise _bad(_LIST_NBYTES + 4)  # the unit does not exist for that port
    part.change(
        task.nexus,
        lambda state, port: rules.register(
            state,
            port,
            fields["reservation_key"],
            fields["service_action_reservation_key"],
            ignore=ignore,
            aptpl=bool(fields["aptpl"]),
            all_tg_pt=bool(fields["all_tg_pt"]),
            others=others,
        ),
    )


@handles(cdb.PERSISTENT_RESERVE_OUT_RESERVE, _HOLDER)
def reserve(task: Task) -> None:
    """SPC-4 5.13.9."""
    fields, _ = _parameters(task)
    if task.fields["scope"] != layout.SCOPE_LOGICAL_UNIT:
        raise task.invalid("scope")
    kind = _type(task)
    if kind is None:
        raise task.invalid("type")
    wanted = kind
    task.unit.part(Reservations).change(
        task.nexus, lambda state, port: rules.reserve(state, port, fields["reservation_key"], wanted)
    )


@handles(cdb.PERSISTENT_RESERVE_OUT_RELEASE, _REGISTERED)
def release(task: Task) -> None:
    """SPC-4 5.13.11.2. NUAR of the control mode page: nobody is told."""
    fields, _ = _parameters(task)
    kind = _type(task)
    quiet = bool(task.unit.part(Modes).field(mode.CONTROL, "nuar"))
    task.unit.part(Reservations).change(
        task.nexus, lambda state, port: rules.release(state, port, fields["reservation_key"], kind or 0, quiet=quiet)
    )


@handles(cdb.PERSISTENT_RESERVE_OUT_CLEAR, _REGISTERED)
def clear(task: Task) -> None:
    """SPC-4 5.13.11.6."""
    fields, _ = _parameters(task)
    task.unit.part(Reservations).change(
        task.nexus, lambda state, port: rules.clear(state, port, fields["reservation_key"])
    )


@handles(cdb.PERSISTENT_RESERVE_OUT_PREEMPT, _REGISTERED)
def preempt(task: Task) -> None:
    """SPC-4 5.13.11.4."""
    _preempt(task)


def _preempt(task: Task) -> tuple[rules.Outcome, dict[str, int]]:
    fields, _ = _parameters(task)
    kind = _type(task)
    outcome = task.unit.part(Reservations).change(
        task.nexus,
        lambda state, port: rules.preempt(
            state, port, fields["reservation_key"], fields["service_action_reservation_key"], kind
        ),
    )
    return outcome, fields


@handles(cdb.PERSISTENT_RESERVE_OUT_PREEMPT_AND_ABORT, _REGISTERED)
def preempt_and_abort(task: Task) -> None:
    """SPC-4 5.13.11.5. Other commands of the issuer end only where its own key is the one preempted."""
    outcome, fields = _preempt(task)
    victims = task.unit.part(Reservations).indexes(outcome.removed)
    if fields["reservation_key"] == fields["service_action_reservation_key"]:
        victims.append(task.nexus)
    if victims and not task.device.abort_tasks(task.unit, victims, task.port.request):
        task.check_aborted()
        raise sense.INTERNAL_TARGET_FAILURE.error()


_MOVE_USAGE = bytes(16) + layout.MOVE_LIST.usage()[16:]


@handles(cdb.PERSISTENT_RESERVE_OUT_REGISTER_AND_MOVE, _HOLDER)
def register_and_move(task: Task) -> None:
    """SPC-4 5.13.8. The nexus to move to need not be there now; scope and type are ignored."""
    part = task.unit.part(Reservations)
    nbytes = task.fields["parameter_list_length"]
    if not _LIST_NBYTES + layout.TRANSPORTID_NBYTES <= nbytes <= MAX_LIST_NBYTES:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    data = task.parameter_list()
    _check_reserved(data[:_LIST_NBYTES], _MOVE_USAGE, 16)
    fields = layout.MOVE_LIST.numbers(data)
    _check_aptpl(part, fields["aptpl"], 17)
    if fields["relative_target_port_identifier"] != RELATIVE_TARGET_PORT:
        raise _bad(18)
    ports = _ports(data, _LIST_NBYTES)
    if len(ports) != 1:
        raise _bad(_LIST_NBYTES + layout.TRANSPORTID_NBYTES)
    part.change(
        task.nexus,
        lambda state, port: rules.register_and_move(
            state,
            port,
            fields["reservation_key"],
            fields["service_action_reservation_key"],
            ports[0],
            unregister=bool(fields["unreg"]),
            aptpl=bool(fields["aptpl"]),
        ),
    )
