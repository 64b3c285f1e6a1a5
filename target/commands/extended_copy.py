# SPDX-License-Identifier: BSD-2-Clause
"""EXTENDED COPY in both its forms, and COPY OPERATION ABORT: reads the parameter list and says what has to be moved.

Knows CSCD and segment descriptors. What moves the blocks is `target.copying`.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from target import errors
from target.commands.table import AS_WRITE, handles
from target.commands.task import Aborted, InBackground, Task
from target.commands.vpd_pages import unit_designators
from target.copying import Copies, CopyOperation, Piece, in_own_thread, run
from target.lu import LogicalUnit
from vscsi.scsi import cdb, copy, sense
from vscsi.scsi.copy import ListIdUsage
from vscsi.scsi.fields import Layout
from vscsi.scsi.status import Status

MAX_CSCDS = 16
MAX_SEGMENTS = 16
MAX_LIST_NBYTES = 2048
MAX_SEGMENT_NBYTES = 256 << 20
DESCRIPTORS = (copy.BLOCK_TO_BLOCK, copy.CSCD_IDENTIFICATION)
_BAD = sense.INVALID_FIELD_IN_PARAMETER_LIST
LID1, LID4, ABORT = 0x00, 0x01, 0x1C


@dataclass(frozen=True, slots=True)
class _List:
    """A parameter list, taken apart. Offsets are those of its first byte."""

    fields: dict[str, int]
    cscds: bytes
    segments: bytes
    cscds_at: int
    segments_at: int


@handles(cdb.EXTENDED_COPY_LID1, AS_WRITE, timeouts=(10, 600))
def extended_copy_lid1(task: Task) -> InBackground | None:
    """SPC-4 6.4."""
    return _extended_copy(task, copy.LIST_LID1, lambda _: None)


@handles(cdb.EXTENDED_COPY_LID4, AS_WRITE, timeouts=(10, 600))
def extended_copy_lid4(task: Task) -> InBackground | None:
    """SPC-4 6.5. With IMMED the command ends when the list has been checked."""
    return _extended_copy(task, copy.LIST_LID4, _check_lid4)


@handles(cdb.COPY_OPERATION_ABORT, AS_WRITE)
def copy_operation_abort(task: Task) -> None:
    """SPC-4 6.3: ends the operation; what has been copied stays."""
    actions = frozenset((LID4, 0x10, 0x11))
    operation = task.unit.part(Copies).find(task.nexus, task.fields["list_identifier"], actions)
    if operation is None:
        raise task.invalid("list_identifier")
    operation.aborted.set()
    operation.finished.wait(10)


def _check_lid4(fields: dict[str, int]) -> None:
    expected = {
        "parameter_list_format": copy.LID4_FORMAT,
        "header_cscd_descriptor_list_length": copy.LID4_HEADER_CSCD_NBYTES,
        "header_cscd_descriptor_type_code": copy.LID4_HEADER_CSCD_TYPE,
    }
    for name, value in expected.items():
        if fields[name] != value:
            raise _at(copy.LIST_LID4, name)


def _at(layout: Layout, name: str, base: int = 0) -> sense.CheckCondition:
    byte, bit = layout.fields[name].pointer
    return _BAD.at(base + byte, bit, in_cdb=False)


def _extended_copy(task: Task, layout: Layout, check: Callable[[dict[str, int]], None]) -> InBackground | None:
    data = task.parameter_list()
    if not data:
        return None
    parts = _take_apart(data, layout, check)
    fields = parts.fields
    usage, list_id = fields["list_id_usage"], fields["list_identifier"]
    if usage not in tuple(ListIdUsage):
        raise _at(layout, "list_id_usage")
    if usage == ListIdUsage.NONE and list_id:
        raise _at(layout, "list_identifier")
    cscds = _cscds(task, parts)
    segments = _segments(parts)
    action = task.row.sa or 0
    copies = task.unit.part(Copies)
    operation = copies.begin(task.nexus, None if usage == ListIdUsage.NONE else list_id, action)

    def work() -> None:
        _perform(task, operation, lambda: _pieces(task.unit, cscds, segments), copies, usage)

    if fields.get("immed"):
        operation.status = copy.Status.IN_PROGRESS_BACKGROUND
        in_own_thread(work)
        return None
    return task.in_background(work)


def _perform(task: Task, operation: CopyOperation, plan: Callable[[], list[Piece]], copies: Copies, usage: int) -> None:
    immediate = operation.status == copy.Status.IN_PROGRESS_BACKGROUND
    with concluded(task.unit, operation):
        run(task.device, operation, plan(), None if immediate else task.port)
    if usage in (ListIdUsage.DISCARD, ListIdUsage.NONE):
        copies.discard(operation)


@contextlib.contextmanager
def concluded(unit: LogicalUnit, operation: CopyOperation, good: int = copy.Status.COMPLETED) -> Iterator[None]:
    """Puts into the operation how its work went, and lets the exception on its way."""
    try:
        yield
    except Aborted:
        operation.end(copy.Status.TERMINATED, scsi_status=Status.TASK_ABORTED)
        raise
    except BaseException as error:
        failure = errors.check_condition(error, writing=True) if isinstance(error, OSError) else error
        if not isinstance(failure, sense.CheckCondition):
            failure = sense.INTERNAL_TARGET_FAILURE.error()
        data = failure.encode(descriptor=unit.descriptor_sense)
        operation.end(copy.Status.FAILED, scsi_status=Status.CHECK_CONDITION, sense_data=data)
        raise
    operation.end(good)


# ---- the parameter list ----


def _take_apart(data: bytes, layout: Layout, check: Callable[[dict[str, int]], None]) -> _List:
    if len(data) < layout.nbytes or len(data) > MAX_LIST_NBYTES:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    fields = layout.numbers(data)
    check(fields)
    cscds_nbytes = fields["cscd_descriptor_list_length"]
    segments_nbytes = fields["segment_descriptor_list_length"]
    cscds_at = layout.nbytes
    segments_at = cscds_at + cscds_nbytes
    if segments_at + segments_nbytes + fields["inline_data_length"] > len(data):
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    if fields["inline_data_length"]:
        raise sense.INLINE_DATA_LENGTH_EXCEEDED.error()
    if cscds_nbytes % copy.CSCD_NBYTES:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    if cscds_nbytes // copy.CSCD_NBYTES > MAX_CSCDS:
        raise sense.TOO_MANY_TARGET_DESCRIPTORS.error()
    return _List(
        fields, data[cscds_at:segments_at], data[segments_at : segments_at + segments_nbytes], cscds_at, segments_at
    )


def _cscds(task: Task, parts: _List) -> list[LogicalUnit | None]:
    """The unit that each descriptor names; None for one that is not here."""
    found: list[LogicalUnit | None] = []
    for start in range(0, len(parts.cscds), copy.CSCD_NBYTES):
        raw = parts.cscds[start : start + copy.CSCD_NBYTES]
        fields, base = copy.CSCD.numbers(raw), parts.cscds_at + start
        if fields["descriptor_type_code"] != copy.CSCD_IDENTIFICATION:
            raise sense.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE.at(base, in_cdb=False)
        nbytes = fields["designator_length"]
        if nbytes > copy.MAX_DESIGNATOR_NBYTES:
            raise _at(copy.CSCD, "designator_length", base)
        name = (fields["code_set"], fields["association"], fields["designator_type"], raw[8 : 8 + nbytes])
        units = [one for one in task.device.units.values() if task.sees(one)]
        unit = next((one for one in units if name in names_of(one)), None)
        wanted = fields["disk_block_length"]
        if unit is not None and wanted and wanted != unit.block_nbytes:
            raise _at(copy.CSCD, "disk_block_length", base)
        found.append(unit)
    return found


def names_of(unit: LogicalUnit) -> set[tuple[int, int, int, bytes]]:
    """(code set, association, type, value) of the unit's designators in VPD page 83h."""
    return {(one.code_set, one.association, one.kind, one.value) for one in unit_designators(unit)}


def _segments(parts: _List) -> list[dict[str, int]]:
    segments: list[dict[str, int]] = []
    at = 0
    while at < len(parts.segments):
        raw, base = parts.segments[at:], parts.segments_at + at
        if len(raw) < copy.SEGMENT_HEADER.nbytes:
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        if len(segments) == MAX_SEGMENTS:
            raise sense.TOO_MANY_SEGMENT_DESCRIPTORS.error()
        layout = copy.SEGMENT_BLOCKS
        if raw[0] != copy.BLOCK_TO_BLOCK:
            raise sense.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE.at(base, in_cdb=False)
        if int.from_bytes(raw[2:4]) != layout.nbytes - 4:
            raise _at(layout, "descriptor_length", base)
        if len(raw) < layout.nbytes:
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        segments.append(layout.numbers(raw))
        at += layout.nbytes
    return segments


def _pieces(here: LogicalUnit, cscds: list[LogicalUnit | None], segments: list[dict[str, int]]) -> list[Piece]:
    """What the segments ask for. CheckCondition (COPY ABORTED): a unit that is not there, sizes that do not match."""
    pieces = []
    for number, fields in enumerate(segments):
        units = [_unit(here, cscds, fields[name]) for name in ("source_cscd", "destination_cscd")]
        source, destination = units
        if source is None or destination is None:
            raise sense.COPY_TARGET_DEVICE_NOT_REACHABLE.error(command_specific=number << 16)
        counted = destination if fields["dc"] else source
        nbytes = fields["number_of_blocks"] * counted.block_nbytes
        if nbytes % source.block_nbytes or nbytes % destination.block_nbytes:
            raise sense.THIRD_PARTY_DEVICE_FAILURE.error(command_specific=number << 16)
        pieces.append(Piece(source, fields["source_lba"], destination, fields["destination_lba"], nbytes, number))
    return pieces


def _unit(here: LogicalUnit, cscds: list[LogicalUnit | None], index: int) -> LogicalUnit | None:
    if index == copy.CSCD_ID_THIS_UNIT:
        return here
    return cscds[index] if index < len(cscds) else None
