# SPDX-License-Identifier: BSD-2-Clause
"""Commands whose protection information travels with the data (xxPROTECT not 0): what is checked and compared when.

Run in the place of the same commands' plain functions on units that are formatted for it; the commands of 32 bytes
(`cdb32.py`) are always these. Knows the tables of SBC-3 5.9, 5.32, 5.36. Must not know where the information is kept.
"""

from dataclasses import dataclass

from target import pi
from target.commands import blocks as steps
from target.commands.table import protects
from target.commands.task import Task
from target.pi import ALL, ESCAPE, GUARD_ONLY, NO_GUARD, NONE, PI_NBYTES, Checks, Data, Tags
from target.protection import Protection
from vscsi.scsi import cdb, sense
from vscsi.scsi.sense import Key, Sense

BY_VALUE = {1: ALL, 2: NO_GUARD, 3: NONE, 4: GUARD_ONLY, 5: ALL}
"""What is checked, by the value of xxPROTECT; others but 0 are reserved."""
COMPARED = {1: ALL, 2: NO_GUARD, 3: ALL, 4: GUARD_ONLY, 5: ALL}
"""What VERIFY with BYTCHK compares beside the data."""
_BYTES, _ONE = 1, 3


@dataclass(frozen=True, slots=True)
class Terms:
    """What a command says of protection information. `value` is its xxPROTECT; 0: none travels."""

    value: int
    protection: Protection
    tags: Tags

    @property
    def on_medium(self) -> Checks:
        """What is checked when blocks are read."""
        return BY_VALUE[self.value] if self.value else NONE if self.protection.dpicz else ALL

    @property
    def sent(self) -> Checks:
        """What is checked of what the initiator sends."""
        return BY_VALUE.get(self.value, NONE)

    @property
    def compared(self) -> Checks:
        """What is compared with what the initiator sends. The device server owns the tags that ATO leaves to it."""
        wanted, ato = COMPARED.get(self.value, NONE), self.protection.ato
        ref = wanted.ref and (ato or self.protection.unit.protection_type != 3)
        return Checks(wanted.guard, wanted.app and ato, ref)

    def block_nbytes(self) -> int:
        """Size of a block as it travels."""
        return self.protection.unit.block_nbytes + (PI_NBYTES if self.value else 0)


def terms(task: Task) -> Terms:
    """Reads them from the CDB. INVALID FIELD IN CDB for reserved values."""
    name = next(name for name in task.fields if name.endswith("protect"))
    value, protection = task.fields[name], task.unit.part(Protection)
    if value and value not in BY_VALUE:
        raise task.invalid(name)
    if "application_tag_mask" not in task.fields:
        return Terms(value, protection, protection.tags(task.fields["lba"]))
    mask = task.fields["application_tag_mask"] if protection.ato else 0
    ref, app = task.fields["expected_initial_reference_tag"], task.fields["expected_application_tag"]
    return Terms(value, protection, Tags(ref, app, mask))


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks as an initiator sent them; `info` None: without protection information."""

    data: Data
    info: Data | None

    def part(self, first: int, blocks: int, size: int) -> "Blocks":
        """Some of them."""
        info = None if self.info is None else self.info[first * PI_NBYTES : (first + blocks) * PI_NBYTES]
        return Blocks(self.data[first * size : (first + blocks) * size], info)


def _fetch(task: Task, how: Terms, first: int, blocks: int, *, lba: int, tags: Tags) -> Blocks:
    """Copies so many of the blocks sent, and checks them before anything is done with them."""
    pitch = how.block_nbytes()
    wire = task.port.fetch(first * pitch, blocks * pitch)
    if not how.value:
        return Blocks(wire, None)
    data, info = pi.split(wire, task.unit.block_nbytes)
    how.protection.check(data, info, lba, how.sent, tags)
    return Blocks(data, info)


def _expect(task: Task, how: Terms, blocks: int) -> None:
    task.expect_out(blocks * how.block_nbytes(), steps.count_field(task))


@protects(cdb.READ_10)
@protects(cdb.READ_12)
@protects(cdb.READ_16)
def read(task: Task) -> None:
    """SBC-3 5.11 and after."""
    unit, how = task.unit, terms(task)
    lba, blocks = steps.extent(task)
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    with task.locked(lba, blocks):
        for start, count, _ in steps.chunks(task, lba, blocks):
            chunk = buffer[: count * unit.block_nbytes]
            info = how.protection.read_into(chunk, start, how.on_medium, how.tags.after(start - lba))
            task.send(memoryview(pi.join(chunk, info, unit.block_nbytes)) if how.value else chunk)
    if task.fields["fua"] and not unit.readonly:
        task.flush()


@protects(cdb.WRITE_10)
@protects(cdb.WRITE_12)
@protects(cdb.WRITE_16)
def write(task: Task) -> None:
    """SBC-3 5.36 and after. Everything is checked before anything is written."""
    how, (lba, blocks) = terms(task), steps.extent(task)
    if not blocks:
        return
    task.out_nbytes = blocks * how.block_nbytes()
    if task.port.data_out_nbytes < task.out_nbytes:
        raise sense.INVALID_FIELD_IN_COMMAND_IU.error()
    sent = _fetch(task, how, 0, blocks, lba=lba, tags=how.tags)
    fua = bool(task.fields["fua"])
    with task.locked(lba, blocks):
        _put(task, how, sent, lba, fua=fua)
    if not fua:
        task.settle()


def _put(task: Task, how: Terms, sent: Blocks, lba: int, *, fua: bool) -> None:
    size = task.unit.block_nbytes
    for start, count, _ in steps.chunks(task, lba, len(sent.data) // size):
        some = sent.part(start - lba, count, size)
        how.protection.write(some.data, start, info=some.info, fua=fua)


@protects(cdb.WRITE_AND_VERIFY_10)
@protects(cdb.WRITE_AND_VERIFY_12)
@protects(cdb.WRITE_AND_VERIFY_16)
def write_and_verify(task: Task) -> None:
    """SBC-3 5.40 and after."""
    unit, how = task.unit, terms(task)
    if task.fields["bytchk"] > _BYTES:
        raise task.invalid("bytchk")
    lba, blocks = steps.extent(task)
    if not blocks:
        return
    _expect(task, how, blocks)
    sent = _fetch(task, how, 0, blocks, lba=lba, tags=how.tags)
    with task.locked(lba, blocks):
        _put(task, how, sent, lba, fua=True)
        unit.evict(lba, blocks)
        _look(task, how, lba, blocks, sent if task.fields["bytchk"] else None)


@protects(cdb.VERIFY_10)
@protects(cdb.VERIFY_12)
@protects(cdb.VERIFY_16)
def verify(task: Task) -> None:
    """SBC-3 5.32 and after."""
    how, check = terms(task), task.fields["bytchk"]
    if check not in (0, _BYTES, _ONE):
        raise task.invalid("bytchk")
    lba, blocks = steps.extent(task)
    if not blocks:
        return
    sent = None
    if check:
        count = blocks if check == _BYTES else 1
        _expect(task, how, count)
        sent = _fetch(task, how, 0, count, lba=lba, tags=how.tags)
    with task.locked(lba, blocks):
        _look(task, how, lba, blocks, sent, repeated=check == _ONE)


def _look(task: Task, how: Terms, lba: int, blocks: int, sent: Blocks | None, *, repeated: bool = False) -> None:
    """Reads blocks and checks their information, or compares all that was sent with them."""
    unit, size = task.unit, task.unit.block_nbytes
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    checks = NONE if sent is not None and how.value else how.on_medium
    for start, count, _ in steps.chunks(task, lba, blocks):
        chunk = buffer[: count * size]
        info = how.protection.read_into(chunk, start, checks, how.tags.after(start - lba))
        if sent is None:
            continue
        if repeated:
            _compare(how, chunk, info, _repeat(how, sent, start - lba, count), size, 0, one=True)
        else:
            _compare(how, chunk, info, sent.part(start - lba, count, size), size, start - lba)


_FIELDS: tuple[tuple[str, slice, Sense], ...] = (
    ("guard", slice(0, 2), sense.LOGICAL_BLOCK_GUARD_CHECK_FAILED),
    ("app", slice(2, 4), sense.LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED),
    ("ref", slice(4, 8), sense.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED),
)


def _compare(
    how: Terms, medium: memoryview, info: Data, sent: Blocks, size: int, first: int, *, one: bool = False
) -> None:
    """MISCOMPARE with the offset in the data-out buffer of what differs. `first`: how many blocks came before."""
    pitch = how.block_nbytes()
    if medium == sent.data and (sent.info is None or info == sent.info):
        return
    for index in range(len(medium) // size):
        offset = 0 if one else (first + index) * pitch
        here = slice(index * size, (index + 1) * size)
        if (at := steps.first_difference(medium[here], memoryview(sent.data)[here])) is not None:
            raise sense.MISCOMPARE_DURING_VERIFY_OPERATION.error(information=offset + at)
        if sent.info is None:
            continue
        mine = info[index * PI_NBYTES : (index + 1) * PI_NBYTES]
        theirs = sent.info[index * PI_NBYTES : (index + 1) * PI_NBYTES]
        for name, place, failed in _FIELDS:
            if getattr(how.compared, name) and mine[place] != theirs[place]:
                code = Sense(Key.MISCOMPARE, failed.asc, failed.ascq, failed.name)
                raise code.error(information=offset + size + place.start)


def _repeat(how: Terms, one: Blocks, first: int, count: int) -> Blocks:
    """One block as many; its reference tag counts up from block to block, but not under type 3."""
    if one.info is None:
        return Blocks(bytes(one.data) * count, None)
    step = 0 if how.protection.unit.protection_type == 3 else 1
    head, ref = bytes(one.info[:4]), int.from_bytes(one.info[4:])
    tags = ((ref + step * (first + i) & pi.NO_REF).to_bytes(4) for i in range(count))
    return Blocks(bytes(one.data) * count, b"".join(head + tag for tag in tags))


@protects(cdb.WRITE_SAME_10)
@protects(cdb.WRITE_SAME_16)
def write_same(task: Task) -> None:
    """SBC-3 5.43. UNMAP gives blocks back only if they then read as what was sent, information included."""
    unit, how = task.unit, terms(task)
    lba, blocks = task.fields["lba"], task.fields["number_of_logical_blocks"]
    task.check_range(lba, blocks)
    blocks = blocks or unit.blocks - lba
    if blocks > unit.max_write_same_blocks:
        raise task.invalid("number_of_logical_blocks")
    if task.fields.get("ndob"):
        one = Blocks(bytes(unit.block_nbytes), ESCAPE)
    else:
        _expect(task, how, 1)
        one = _fetch(task, how, 0, 1, lba=lba, tags=how.tags)
    with task.locked(lba, blocks):
        if task.fields["unmap"] and unit.zeroing and not any(one.data) and one.info in (None, ESCAPE):
            unit.trim(lba, blocks)
        else:
            for start, count, _ in steps.chunks(task, lba, blocks):
                same = Blocks(bytes(one.data) * count, ESCAPE * count) if one.info == ESCAPE else None
                same = same or _repeat(how, one, start - lba, count)
                how.protection.write(same.data, start, info=same.info)
    task.settle()


@protects(cdb.COMPARE_AND_WRITE)
def compare_and_write(task: Task) -> None:
    """SBC-3 5.2. Both halves are checked first."""
    unit, how = task.unit, terms(task)
    lba, blocks = steps.extent(task, unit.max_compare_and_write_blocks)
    if not blocks and task.port.data_out_nbytes:
        raise task.invalid("number_of_logical_blocks")
    if not blocks:
        return
    _expect(task, how, 2 * blocks)
    old = _fetch(task, how, 0, blocks, lba=lba, tags=how.tags)
    new = _fetch(task, how, blocks, blocks, lba=lba, tags=how.tags)
    fua = bool(task.fields["fua"])
    with task.locked(lba, blocks):
        _look(task, how, lba, blocks, old)
        _put(task, how, new, lba, fua=fua)
    if not fua:
        task.settle()


@protects(cdb.ORWRITE_16)
def orwrite(task: Task) -> None:
    """SBC-3 5.6. The guard is that of the result, the tags are those that were sent."""
    unit, how, size = task.unit, terms(task), task.unit.block_nbytes
    lba, blocks = steps.extent(task)
    if not blocks:
        return
    _expect(task, how, blocks)
    sent = _fetch(task, how, 0, blocks, lba=lba, tags=how.tags)
    fua = bool(task.fields["fua"])
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    with task.locked(lba, blocks):
        for start, count, _ in steps.chunks(task, lba, blocks):
            some, chunk = sent.part(start - lba, count, size), buffer[: count * size]
            how.protection.read_into(chunk, start, how.on_medium, how.tags.after(start - lba))
            chunk[:] = (int.from_bytes(chunk) | int.from_bytes(some.data)).to_bytes(len(chunk))
            info = some.info and pi.with_guards(chunk, some.info, size)
            how.protection.write(chunk, start, info=info, fua=fua)
    if not fua:
        task.settle()
