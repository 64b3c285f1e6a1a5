# SPDX-License-Identifier: BSD-2-Clause
"""The grant table against a model in Python: version 1 entries, permission, in-use bits, revoking.

Knows both roles; the initiator's entries are also written raw, as a hostile one would.
"""

import errno
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from grant_memory import (
    DOMID,
    EACCES,
    EBUSY,
    EFAULT,
    ERANGE,
    FIRST,
    NR_GRANTS,
    PAGE,
    PERMIT,
    READING,
    READONLY,
    SUB_PAGE,
    WRITING,
    Memory,
    memfd,
    new_mapper,
)
from hypothesis import given
from hypothesis import strategies as st

from vscsi.native import ffi, lib


@pytest.fixture
def memory() -> Any:
    memory = Memory(16, 8, table_frame=3)
    yield memory
    memory.close()


def test_a_run_of_grants(memory: Memory) -> None:
    at = ffi.new("uint32_t *")

    def run(gref: int, frame: int, count: int, readonly: bool = False) -> int:
        return lib.vscsi_granter_grant_run(memory.granter, gref, DOMID, frame, count, readonly, at)

    assert run(FIRST, 4, 10) == 0
    assert [memory.flags(FIRST + k) for k in range(11)] == [PERMIT] * 10 + [0]
    assert memory.get(FIRST + 9) == 0
    assert ffi.cast("uintptr_t", memory.page[0]) == memory.address(13)
    assert run(FIRST, 4, 12) == 0, "one granted alike already stays, in use or not"
    assert memory.flags(FIRST + 9) == PERMIT | READING
    assert memory.flags(FIRST + 11) == PERMIT
    memory.put(FIRST + 9)
    assert memory.grant(FIRST + 14, 18, readonly=True) == 0
    assert (run(FIRST, 4, 16), at[0]) == (-errno.EEXIST, 14)
    assert memory.flags(FIRST + 12) == 0, "nothing is granted then"
    assert run(FIRST + 14, 18, 1, readonly=True) == 0
    assert run(NR_GRANTS - 2, 4, 2) == 0
    for gref, count in ((NR_GRANTS - 2, 3), (FIRST - 1, 1), (FIRST, 0xFFFFFFFF), (0xFFFFFFFF, 2)):
        assert run(gref, 4, count) == ERANGE


# ---- the model ----


@dataclass
class Entry:
    flags: int = 0
    domid: int = 0
    frame: int = 0
    readers: int = 0
    writers: int = 0
    pinned_read: int | None = None
    pinned_write: int | None = None

    def in_use(self) -> bool:
        return bool(self.readers or self.writers or self.pinned_read is not None)

    def bits(self) -> int:
        writing = self.writers or self.pinned_write is not None
        return (READING if self.in_use() else 0) | (WRITING if writing else 0)


@dataclass
class Model:
    frames: int
    entries: dict[int, Entry] = field(default_factory=dict)

    def grant(self, gref: int, frame: int, domid: int, readonly: bool) -> int:
        if not FIRST <= gref < NR_GRANTS:
            return ERANGE
        entry = self.entries.setdefault(gref, Entry())
        if entry.flags & 3:
            return EBUSY
        entry.flags, entry.domid, entry.frame = PERMIT | (READONLY if readonly else 0), domid, frame
        return 0

    def end(self, gref: int) -> int:
        if not FIRST <= gref < NR_GRANTS:
            return ERANGE
        entry = self.entries.setdefault(gref, Entry())
        if entry.in_use():
            return EBUSY
        entry.flags = entry.domid = 0
        return 0

    def get(self, gref: int, write: bool, persistent: bool) -> int:
        if not FIRST <= gref < NR_GRANTS:
            return ERANGE
        entry = self.entries.setdefault(gref, Entry())
        if entry.flags & 3 != PERMIT or entry.domid != DOMID or (write and entry.flags & READONLY):
            return EACCES
        if entry.frame >= self.frames:
            return EFAULT
        if persistent:
            entry.pinned_read = entry.frame
            entry.pinned_write = entry.frame if write else entry.pinned_write
        elif write:
            entry.writers += 1
        else:
            entry.readers += 1
        return 0

    def put(self, gref: int, write: bool) -> None:
        entry = self.entries[gref]
        if write:
            entry.writers -= 1
        else:
            entry.readers -= 1


grefs = st.one_of(st.integers(FIRST, FIRST + 4), st.sampled_from([0, 7, NR_GRANTS - 1, NR_GRANTS, (1 << 32) - 1]))
frames = st.one_of(st.integers(5, 26), st.sampled_from([(1 << 32) - 1, 1 << 31]))
steps = st.one_of(
    st.tuples(st.just("grant"), grefs, frames, st.sampled_from([DOMID, DOMID, DOMID, 0, 6]), st.booleans()),
    st.tuples(st.just("end"), grefs),
    st.tuples(st.just("get"), grefs, st.booleans(), st.sampled_from([False, False, False, True])),
    st.tuples(st.just("put"), st.integers(0, 100)),
)


@given(st.lists(steps, max_size=80))
def test_both_roles_follow_the_model(todo: list[Any]) -> None:
    """Results, addresses, in-use bits and the number of grants in use are the model's after every step."""
    memory, model = Memory(16, 8, table_frame=3), Model(24)
    held: list[tuple[int, bool]] = []
    try:
        for step in todo:
            if step[0] == "grant":
                _, gref, frame, domid, readonly = step
                assert memory.grant(gref, frame, domid=domid, readonly=readonly) == model.grant(
                    gref, frame, domid, readonly
                )
            elif step[0] == "end":
                assert memory.end(step[1]) == model.end(step[1])
            elif step[0] == "get":
                _, gref, write, persistent = step
                rc = model.get(gref, write, persistent)
                assert memory.get(gref, write, persistent) == rc
                if rc == 0:
                    address = int(ffi.cast("uintptr_t", memory.page[0]))
                    assert address == memory.address(model.entries[gref].frame)
                    if not persistent:
                        held.append((gref, write))
            elif held:
                gref, write = held.pop(step[1] % len(held))
                memory.put(gref, write)
                model.put(gref, write)
            for gref, entry in model.entries.items():
                assert memory.flags(gref) == entry.flags | entry.bits(), gref
            assert lib.vscsi_mapper_in_use(memory.mapper) == sum(entry.in_use() for entry in model.entries.values())
        for gref, write in held:
            memory.put(gref, write)
            model.put(gref, write)
        pinned = sum(entry.pinned_read is not None for entry in model.entries.values())
        assert lib.vscsi_mapper_in_use(memory.mapper) == pinned
    finally:
        memory.close()


# ---- entries as a hostile granter writes them ----


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, (1 << 32) - 1), st.booleans(), st.booleans())
def test_any_entry_is_judged_by_its_words(flags: int, domid: int, frame: int, ours: bool, near: bool) -> None:
    memory = Memory(16, 8)
    domid, frame = DOMID if ours else domid, frame % 30 if near else frame
    try:
        for write in (False, True):
            memory.raw(FIRST, flags, domid, frame)
            permitted = flags & 3 == PERMIT and not flags & SUB_PAGE and domid == DOMID
            permitted = permitted and not (write and flags & READONLY)
            expected = EACCES if not permitted else 0 if frame < 24 else EFAULT
            assert memory.get(FIRST, write) == expected
            if expected == 0:
                assert int(ffi.cast("uintptr_t", memory.page[0])) == memory.address(frame)
                assert memory.flags(FIRST) == flags | READING | (WRITING if write else 0)
                memory.put(FIRST, write)
            else:
                assert memory.flags(FIRST) == flags, "a refused entry is left as it was"
    finally:
        memory.close()


def test_entry_rewritten_while_pinned_keeps_its_page(memory: Memory) -> None:
    """A persistent use was validated once; what a hostile granter writes over it later moves nothing."""
    memory.grant(20, 7)
    assert memory.get(20, True, True) == 0
    first = memory.page[0]
    memory.raw(20, 0, 0, (1 << 32) - 1)
    assert memory.get(20, True, True) == 0
    assert memory.page[0] == first


def test_pinned_for_reading_is_not_pinned_for_writing(memory: Memory) -> None:
    memory.grant(20, 7, readonly=True)
    assert memory.get(20, False, True) == 0
    assert memory.get(20, True, True) == EACCES
    assert memory.flags(20) == PERMIT | READONLY | READING


def test_free_clears_what_is_in_use() -> None:
    """The target lets go of a connection: its initiator may use every page again."""
    fd = memfd(8 * PAGE)
    mapper, _ = new_mapper([fd])
    granter = ffi.new("struct vscsi_granter *", {"table": mapper.table, "nr_grants": 512})
    page = ffi.new("uint8_t **")
    for gref in range(FIRST, FIRST + 4):
        assert lib.vscsi_granter_grant(granter, gref, DOMID, gref - FIRST + 1, 0) == 0
        assert lib.vscsi_mapper_get(mapper, gref, gref % 2, gref > FIRST + 1, page) == 0
        assert lib.vscsi_granter_end(granter, gref) == EBUSY
    lib.vscsi_mapper_free(mapper)
    table = os.pread(fd, PAGE, 0)
    for gref in range(FIRST, FIRST + 4):
        assert int.from_bytes(table[gref * 8 : gref * 8 + 2], "little") == PERMIT
    os.close(fd)


@pytest.mark.parametrize("gref", [0, 7, NR_GRANTS, NR_GRANTS + 1, (1 << 32) - 1])
def test_reference_out_of_range(memory: Memory, gref: int) -> None:
    assert memory.get(gref) == memory.get(gref, False, True) == ERANGE
    assert memory.grant(gref, 1) == memory.end(gref) == ERANGE
    memory.put(gref)  # must not touch anything
    assert lib.vscsi_mapper_in_use(memory.mapper) == 0
