# SPDX-License-Identifier: BSD-2-Clause
"""FORMAT UNIT: everything is checked here, then an operation of the unit does the work (`target.operation`).

Knows CDB and parameter list, and which fields together choose a type of protection. Must not know how blocks are
written. Number and size of blocks never change; there are no defects to add.
"""

from dataclasses import dataclass

from target.commands.sanitize import wait
from target.commands.table import AS_WRITE, handles
from target.commands.task import InBackground, Task
from target.erase import Format
from target.operation import Operation
from target.protection import Protection
from vscsi.scsi import cdb, medium, sense
from vscsi.scsi.fields import Layout

_TYPES = {0b00: {0: 0}, 0b10: {0: 1}, 0b11: {0: 2, 1: 3}}
"""Protection type by FMTPINFO, then by PROTECTION FIELDS USAGE (SBC-3 table 37)."""
_OPTIONS = ("dpry", "dcrt", "stpf", "ip")
_IP = medium.INITIALIZATION_PATTERN


@dataclass(frozen=True, slots=True)
class _List:
    """What a parameter list asks for; `pattern` empty: the default one."""

    usage: int = 0
    pattern: bytes = b""
    immed: bool = False


@handles(cdb.FORMAT_UNIT, AS_WRITE, writes=True, without=("vendor_specific", "ffmt"), timeouts=(60, 86400))
def format_unit(task: Task) -> InBackground | None:
    """SBC-3 5.3."""
    unit, fields = task.unit, task.fields
    types = _TYPES.get(fields["fmtpinfo"])
    if types is None:
        raise task.invalid("fmtpinfo")
    if not fields["fmtdata"]:
        for name in ("cmplst", "defect_list_format"):
            if fields[name]:
                raise task.invalid(name)
    wanted = _parameters(task) if fields["fmtdata"] else _List()
    if wanted.usage not in types:
        raise _invalid(*medium.FORMAT_SHORT_HEADER.fields["protection_fields_usage"].pointer)
    type_ = types[wanted.usage]
    if type_ and not unit.part(Protection).possible:
        raise task.invalid("fmtpinfo")
    if unit.not_ready is not None and unit.not_ready is not sense.FORMAT_COMMAND_FAILED:
        raise unit.not_ready.error()
    run = unit.part(Operation).begin(Format.to(unit, type_, wanted.pattern or b"\0", nexus=task.nexus))
    return None if wanted.immed else task.in_background(lambda: wait(task, run))


def _parameters(task: Task) -> _List:
    """Reads the parameter list, of which the CDB has no length: header, initialization pattern, defect list."""
    header = medium.FORMAT_LONG_HEADER if task.fields["longlist"] else medium.FORMAT_SHORT_HEADER
    most = header.nbytes + _IP.nbytes + task.unit.block_nbytes
    data = task.port.fetch(0, min(task.port.data_out_nbytes, most))
    task.out_nbytes = header.nbytes
    if len(data) < header.nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    fields = header.numbers(data)
    for name in _OPTIONS:
        if fields[name] and not fields["fov"]:
            raise _invalid(*header.fields[name].pointer)
    # One interval to a block, and nobody has information to begin with.
    for name in ("vendor_specific", "p_i_information", "protection_interval_exponent"):
        if fields.get(name):
            raise _invalid(*header.fields[name].pointer)
    pattern = _pattern(task, header, data) if fields["ip"] else b""
    if fields["defect_list_length"]:
        if task.port.data_out_nbytes < task.out_nbytes + fields["defect_list_length"]:
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        raise _invalid(*header.fields["defect_list_length"].pointer)
    return _List(fields["protection_fields_usage"], pattern, bool(fields["immed"]))


def _pattern(task: Task, header: Layout, data: bytes) -> bytes:
    start = header.nbytes
    if len(data) < start + _IP.nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    fields = _IP.numbers(data[start:])
    kind, length = fields["initialization_pattern_type"], fields["initialization_pattern_length"]
    if kind not in (medium.PATTERN_DEFAULT, medium.PATTERN_REPEAT):
        raise _invalid(start + 1)
    # The default has no pattern of its own; another must have one, that fits a block.
    if bool(length) != (kind == medium.PATTERN_REPEAT) or length > task.unit.block_nbytes:
        raise _invalid(start + 2)
    task.out_nbytes = start + _IP.nbytes + length
    if len(data) < task.out_nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    return data[start + _IP.nbytes : task.out_nbytes]


def _invalid(byte: int, bit: int | None = None) -> sense.CheckCondition:
    return sense.INVALID_FIELD_IN_PARAMETER_LIST.at(byte, bit, in_cdb=False)
