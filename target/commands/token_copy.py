# SPDX-License-Identifier: BSD-2-Clause
"""POPULATE TOKEN, WRITE USING TOKEN and REPORT ALL ROD TOKENS: copies without data, in two steps.

Knows the parameter lists. Tokens are `target.rod_tokens`', blocks are moved by `target.copying`.
"""

from target.commands.copy_results import POPULATE, WRITE_USING
from target.commands.extended_copy import concluded
from target.commands.table import AS_READ, AS_WRITE, Conflict, handles
from target.commands.task import InBackground, Task
from target.copying import Copies, Piece, in_own_thread, run
from target.lu import LogicalUnit
from target.rod_tokens import DEFAULT_SECONDS, MAX_SECONDS, Rod, Tokens
from vscsi.scsi import cdb, copy, sense, token
from vscsi.scsi.fields import Layout
from vscsi.scsi.token import RodType

MAX_RANGES = 64
_BAD = sense.INVALID_FIELD_IN_PARAMETER_LIST
_RANGE = token.RANGE.nbytes
_MIN_POPULATE, _MIN_WRITE_USING = 0x1E, 0x226


def max_blocks(unit: LogicalUnit) -> int:
    """The most blocks that one token stands for, or one command writes."""
    return (1 << 30) // unit.block_nbytes


@handles(cdb.POPULATE_TOKEN, AS_READ, needs_ready=True, timeouts=(1, 60))
def populate_token(task: Task) -> None:
    """SBC-3 5.9. The token is there at once, so that IMMED makes no difference."""
    data = task.parameter_list()
    if not data:
        return
    fields = _header(data, token.POPULATE_TOKEN, "populate_token_data_length", _MIN_POPULATE)
    seconds = fields["inactivity_timeout"] or DEFAULT_SECONDS
    if seconds > MAX_SECONDS:
        raise _at(token.POPULATE_TOKEN, "inactivity_timeout")
    if fields["rtv"] and fields["rod_type"] != RodType.ACCESS_UPON_REFERENCE:
        raise sense.TOKEN_TYPE_UNSUPPORTED.error()
    ranges = _ranges(task, data, token.POPULATE_TOKEN)
    operation = task.unit.part(Copies).begin(task.nexus, task.fields["list_identifier"], POPULATE)
    with concluded(task.unit, operation):
        now = task.device.monotonic()
        operation.token = task.device.shared(Tokens).create(task.unit, ranges, seconds, now)
        operation.blocks = sum(blocks for _, blocks in ranges)


@handles(cdb.WRITE_USING_TOKEN, AS_WRITE, needs_ready=True, writes=True, timeouts=(10, 600))
def write_using_token(task: Task) -> InBackground | None:
    """SBC-3 5.50. What the token does not stand for is not written; the operation's status tells, with a count."""
    data = task.parameter_list()
    if not data:
        return None
    layout = token.WRITE_USING_TOKEN
    fields = _header(data, layout, "write_using_token_data_length", _MIN_WRITE_USING)
    ranges = _ranges(task, data, layout)
    raw = data[16 : 16 + token.TOKEN_NBYTES]
    blocks = sum(count for _, count in ranges)
    source, offset = _source(task, raw), fields["offset_into_rod"]
    if source is not None:
        if source.unit.block_nbytes != task.unit.block_nbytes:
            raise sense.COPY_SEGMENT_GRANULARITY_VIOLATION.error()
        if offset >= source.blocks:
            raise _at(layout, "offset_into_rod")
    given = blocks if source is None else min(blocks, source.blocks - offset)
    operation = task.unit.part(Copies).begin(task.nexus, task.fields["list_identifier"], WRITE_USING)
    immediate = bool(fields["immed"])

    def work() -> None:
        good = copy.Status.COMPLETED if given == blocks else copy.Status.COMPLETED_RESIDUAL
        with concluded(task.unit, operation, good):
            pieces = _pieces(task.unit, ranges, source, offset, given)
            run(task.device, operation, pieces, None if immediate else task.port)
            if fields["del_tkn"] and source is not None:
                task.device.shared(Tokens).delete(raw)

    if immediate:
        operation.status = copy.Status.IN_PROGRESS_BACKGROUND
        in_own_thread(work)
        return None
    return task.in_background(work)


@handles(cdb.REPORT_ALL_ROD_TOKENS, Conflict.SPC2)
def report_all_rod_tokens(task: Task) -> bytes:
    """SPC-4 6.36: the management part of each token."""
    living = task.device.shared(Tokens).living(task.device.monotonic(), task.sees)
    return token.encode_report_all(one[:96] for one in living)


def _source(task: Task, raw: bytes) -> Rod | None:
    """What the token stands for; None: zeros."""
    if raw[:8] == token.BLOCK_ZERO_TOKEN[:8]:
        return None
    source = task.device.shared(Tokens).find(raw, task.device.monotonic())
    if not task.sees(source.unit):
        raise sense.TOKEN_UNKNOWN.error()
    return source


def _at(layout: Layout, name: str) -> sense.CheckCondition:
    byte, bit = layout.fields[name].pointer
    return _BAD.at(byte, bit, in_cdb=False)


def _header(data: bytes, layout: Layout, length: str, least: int) -> dict[str, int]:
    if len(data) < layout.nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    fields = layout.numbers(data)
    descriptors = fields["block_device_range_descriptor_length"]
    if fields[length] < least:
        raise _at(layout, length)
    if descriptors < _RANGE or descriptors % _RANGE:
        raise _at(layout, "block_device_range_descriptor_length")
    if layout.nbytes + descriptors > min(len(data), fields[length] + 2):
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    return fields


def _ranges(task: Task, data: bytes, layout: Layout) -> list[tuple[int, int]]:
    """(lba, blocks), checked: on the medium, not too many, none over another."""
    nbytes = layout.numbers(data)["block_device_range_descriptor_length"]
    ranges = token.decode_ranges(data[layout.nbytes : layout.nbytes + nbytes])
    if len(ranges) > MAX_RANGES:
        raise _at(layout, "block_device_range_descriptor_length")
    total = 0
    for number, (lba, blocks) in enumerate(ranges):
        task.check_range(lba, blocks)
        total += blocks
        if total > max_blocks(task.unit):
            raise _BAD.at(layout.nbytes + number * _RANGE + 8, in_cdb=False)
        for other, count in ranges[:number]:
            if lba < other + count and other < lba + blocks:
                raise _BAD.at(layout.nbytes + number * _RANGE, in_cdb=False)
    return [(lba, blocks) for lba, blocks in ranges if blocks]


def _pieces(
    unit: LogicalUnit, ranges: list[tuple[int, int]], source: Rod | None, offset: int, blocks: int
) -> list[Piece]:
    pieces: list[Piece] = []
    size = unit.block_nbytes
    for lba, count in ranges:
        count = min(count, blocks)
        if not count:
            break
        if source is None:
            pieces.append(Piece(None, 0, unit, lba, count * size, 0))
        else:
            at = lba
            for source_lba, part in source.at(offset, count):
                pieces.append(Piece(source.unit, source_lba, unit, at, part * size, 0))
                at += part
        offset, blocks = offset + count, blocks - count
    return pieces
