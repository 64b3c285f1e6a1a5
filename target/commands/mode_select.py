# SPDX-License-Identifier: BSD-2-Clause
"""MODE SELECT: takes a parameter list apart, and gives its pages to `target.modes` all at once.

Layouts are in `vscsi.scsi.mode`. Must not know what any page holds.
"""

from target.commands.mode_sense import block_descriptor
from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from target.modes import Modes, Sent
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.fields import Layout
from vscsi.scsi.sense import CheckCondition


@handles(cdb.MODE_SELECT_6, AS_WRITE)
@handles(cdb.MODE_SELECT_10, AS_WRITE)
def mode_select(task: Task) -> None:
    """SPC-4 6.11, 6.12. Either everything in the list is done, or nothing."""
    modes = task.unit.part(Modes)
    save, revert = bool(task.fields["sp"]), bool(task.fields["rtd"])
    if save and not modes.savable:
        raise task.invalid("sp")
    if revert:
        if task.fields["parameter_list_length"]:
            raise task.invalid("parameter_list_length")
        changed = modes.revert(save=save)
    else:
        if not task.fields["pf"]:
            raise task.invalid("pf")
        changed = modes.select(_pages(task, modes, task.parameter_list()), save=save)
    if changed:
        code = sense.MODE_PARAMETERS_CHANGED.code & 0xFFFF
        task.device.attention(code, besides=task.nexus, unit=task.unit)


def _wrong(byte: int, bit: int | None = None) -> CheckCondition:
    return sense.INVALID_FIELD_IN_PARAMETER_LIST.at(byte, bit, in_cdb=False)


def _field(layout: Layout, name: str, offset: int = 0) -> CheckCondition:
    byte, bit = layout.fields[name].pointer
    return _wrong(offset + byte, bit)


def _pages(task: Task, modes: Modes, data: bytes) -> list[Sent]:
    """The pages of a list whose header and block descriptor are in order. MODE DATA LENGTH and the device-specific
    parameter mean nothing here, and are not looked at."""
    if not data:
        return []
    header = mode.HEADER_10 if task.row is cdb.MODE_SELECT_10 else mode.HEADER_6
    if len(data) < header.nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    fields = header.numbers(data)
    if fields["medium_type"]:
        raise _field(header, "medium_type")
    layout = mode.LONG_DESCRIPTOR if fields.get("longlba") else mode.SHORT_DESCRIPTOR
    nbytes = fields["block_descriptor_length"]
    if nbytes not in (0, layout.nbytes):
        raise _field(header, "block_descriptor_length")
    at = header.nbytes + nbytes
    if len(data) < at:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    if nbytes:
        _check_descriptor(task, layout, data, header.nbytes)
    found = []
    while at < len(data):
        found.append(_page(modes, data, at))
        at += len(found[-1].data)
    return found


def _check_descriptor(task: Task, layout: Layout, data: bytes, at: int) -> None:
    """Capacity and block length cannot be changed (SBC-3 6.5.2); no blocks or all ones ask for what there is."""
    own = layout.numbers(block_descriptor(task.unit, long=layout is mode.LONG_DESCRIPTOR))
    sent = layout.numbers(data[at : at + layout.nbytes])
    name = "number_of_logical_blocks"
    if sent[name] not in (own[name], 0, layout.fields[name].mask):
        raise _field(layout, name, at)
    name = "logical_block_length"
    if sent[name] != own[name]:
        raise _field(layout, name, at)


def _page(modes: Modes, data: bytes, at: int) -> Sent:
    long = bool(data[at] & mode.SUBPAGE_FORMAT)
    head = 4 if long else 2
    if len(data) < at + head:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    key = data[at] & 0x3F, data[at + 1] if long else 0
    known = modes.listed()
    if not any(code == key[0] for code, _ in known):
        raise _wrong(at, 5)
    if long and not key[1]:
        raise _wrong(at, 6)
    if key not in known:
        raise _wrong(at + 1) if long else _wrong(at, 6)
    nbytes = modes.page(key).layout.nbytes
    length_at = 2 if long else 1
    if int.from_bytes(data[at + length_at : at + head]) != nbytes - head:
        raise _wrong(at + length_at)
    if len(data) < at + nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    return Sent(at, key, data[at : at + nbytes])
