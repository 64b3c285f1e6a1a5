# SPDX-License-Identifier: BSD-2-Clause
"""The initiator's memory: the page allocator against a model, seals, grants, and pages the target still uses."""

import fcntl
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from vscsi.bus.local import BusError, Memory
from vscsi.bus.memory import table_pages
from vscsi.bus.pages import PageAllocator
from vscsi.native import ffi, lib

PAGE = 4096
FIRST, COUNT = 3, 40


class AllocatorAgainstModel(RuleBasedStateMachine):
    """The model is a set of free pages."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = PageAllocator(FIRST, COUNT)
        self.free = set(range(FIRST, FIRST + COUNT))
        self.taken: dict[int, int] = {}

    def _fits(self, count: int) -> bool:
        return any(self.free.issuperset(range(at, at + count)) for at in self.free)

    @rule(target=runs, count=st.integers(1, COUNT + 1))
    def alloc(self, count: int) -> int | None:
        if not self._fits(count):
            with pytest.raises(MemoryError):
                self.allocator.alloc(count)
            return None
        start = self.allocator.alloc(count)
        assert self.free.issuperset(range(start, start + count)), "handed out twice"
        self.free -= set(range(start, start + count))
        self.taken[start] = count
        return start

    @rule(start=consumes(runs))
    def give_back(self, start: int | None) -> None:
        if start is None:
            return
        self.allocator.free(start)
        self.free |= set(range(start, start + self.taken.pop(start)))

    @rule(start=st.integers(0, FIRST + COUNT + 1))
    def give_back_what_was_not_taken(self, start: int) -> None:
        if start not in self.taken:
            with pytest.raises(KeyError):
                self.allocator.free(start)

    @invariant()
    def neighbours_are_joined(self) -> None:
        starts, sizes = self.allocator._starts, self.allocator._sizes
        covered = [page for start, size in zip(starts, sizes, strict=True) for page in range(start, start + size)]
        assert covered == sorted(self.free)
        assert all(start + size < after for start, size, after in zip(starts, sizes, starts[1:], strict=False))
        assert self.allocator.free_pages == len(self.free)


TestAllocator = AllocatorAgainstModel.TestCase


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(64 * PAGE)
    yield made
    made.close()


@pytest.fixture
def mapper(memory: Memory) -> Iterator[Any]:
    """The target's view of `memory`."""
    error = ffi.new("int *")
    made = lib.vscsi_mapper_new([memory.fd], 1, 0, memory.first_frame, 0, error)
    assert error[0] == 0
    yield made
    lib.vscsi_mapper_free(made)


def use(mapper: Any, gref: int, *, write: bool = True, persistent: bool = False) -> int:
    return int(lib.vscsi_mapper_get(mapper, gref, int(write), int(persistent), ffi.new("uint8_t **")))


def test_seals(memory: Memory) -> None:
    seals = fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS)
    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    assert seals & wanted == wanted
    assert not os.get_inheritable(memory.fd)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, PAGE)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, memory.nbytes + PAGE)


def inherited(fd: int) -> dict[bool, int]:
    """Mappings of this file in our process, counted by whether a forked child would have them too."""
    inode, counts, ours = os.fstat(fd).st_ino, {True: 0, False: 0}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            ours = int(words[4]) == inode and "memfd:" in line
        elif ours and words[0] == "VmFlags:":
            counts["dc" not in words[1:]] += 1
    return counts


def test_no_mapping_goes_to_a_forked_child(memory: Memory, mapper: Any) -> None:
    at = memory.alloc(2 * PAGE)
    grefs = ffi.new("uint32_t[]", memory.grant(at, 2 * PAGE))
    ring = ffi.new("uint8_t **")
    assert lib.vscsi_mapper_map_ring(mapper, grefs, 2, ring) == 0
    counts = inherited(memory.fd)
    lib.vscsi_mapper_unmap_ring(mapper, grefs, 2, ring[0])
    assert counts[True] == 0
    assert counts[False] >= 3, "ours, the target's, and its ring"


@given(st.integers(1, 1 << 18))
def test_every_frame_has_an_entry_and_no_page_of_table_is_wasted(nr_frames: int) -> None:
    pages = table_pages(nr_frames)
    assert nr_frames + 8 <= pages * 512 < nr_frames + 8 + 512


def test_layout(memory: Memory) -> None:
    assert memory.first_frame == 1
    assert memory.nbytes == os.fstat(memory.fd).st_size == 64 * PAGE
    assert int(ffi.cast("uintptr_t", memory.base)) == memory.address
    assert memory.granter.nr_grants == 512
    assert memory.gref(5) == 13
    memory.view[5 * PAGE] = 7
    assert memory.base[5 * PAGE] == 7


def test_too_little_memory() -> None:
    with pytest.raises(BusError, match="leave no room"):
        Memory(PAGE)
    odd = Memory(PAGE + 1)
    assert odd.nbytes == 2 * PAGE
    odd.close()


def test_alloc_is_page_aligned_and_behind_the_table(memory: Memory) -> None:
    offsets = [memory.alloc(nbytes) for nbytes in (1, PAGE, PAGE + 1)]
    assert offsets == [PAGE, 2 * PAGE, 3 * PAGE]
    assert memory.free_nbytes == (63 - 4) * PAGE
    for offset in offsets:
        memory.free(offset)
    assert memory.free_nbytes == 63 * PAGE
    memory.free(memory.alloc(63 * PAGE))
    with pytest.raises(MemoryError):
        memory.alloc(63 * PAGE + 1)
    with pytest.raises(ValueError, match="0 bytes"):
        memory.alloc(0)


@pytest.mark.parametrize("offset", [0, PAGE, 2 * PAGE, 3 * PAGE + 1, -PAGE, 1 << 40])
def test_free_of_what_was_not_allocated(memory: Memory, offset: int) -> None:
    memory.free(memory.alloc(PAGE))
    kept = memory.alloc(5 * PAGE)
    assert kept == PAGE
    if offset == PAGE:
        memory.free(offset)
    with pytest.raises(BusError, match="nothing was allocated"):
        memory.free(offset)


def test_grants_end_with_their_allocation(memory: Memory, mapper: Any) -> None:
    offset = memory.alloc(3 * PAGE)
    grefs = memory.grant(offset + 100, 2 * PAGE)
    assert grefs == [memory.gref(offset // PAGE + n) for n in range(3)]
    assert memory.grant(offset, PAGE) == grefs[:1], "idempotent"
    assert use(mapper, grefs[1]) == 0
    with pytest.raises(BusError, match="still in use by the target"):
        memory.free(offset)
    with pytest.raises(BusError, match="still in use by the target"):
        memory.revoke(offset, 3 * PAGE)
    assert use(mapper, grefs[0]) == 0, "nothing was ended"
    for gref in grefs[:2]:
        lib.vscsi_mapper_put(mapper, gref, 1, 0)
    memory.free(offset)
    assert [use(mapper, gref) for gref in grefs] == [-13] * 3
    with pytest.raises(BusError, match="nothing was allocated"):
        memory.free(offset)


def test_read_only(memory: Memory, mapper: Any) -> None:
    offset = memory.alloc(PAGE)
    (gref,) = memory.grant(offset, PAGE, readonly=True)
    assert use(mapper, gref) == -13
    assert use(mapper, gref, write=False) == 0
    with pytest.raises(BusError, match="other permissions"):
        memory.grant(offset, PAGE)
    lib.vscsi_mapper_put(mapper, gref, 0, 0)
    memory.revoke(offset, PAGE)
    memory.revoke(offset, PAGE)
    assert memory.grant(offset, PAGE) == [gref]
    memory.free(offset)


def test_standing_grants_outlive_allocations_over_them(memory: Memory, mapper: Any) -> None:
    grefs = memory.grant(memory.first_frame * PAGE, memory.nbytes - memory.first_frame * PAGE)
    assert len(grefs) == 63
    ring = memory.alloc(2 * PAGE)
    pinned = memory.grant(ring, 2 * PAGE)
    assert pinned == grefs[:2]
    assert use(mapper, pinned[0], persistent=True) == 0
    memory.revoke(ring, 2 * PAGE)
    memory.free(ring)
    assert use(mapper, pinned[1], persistent=True) == 0, "still granted"
    assert memory.alloc(63 * PAGE) == ring, "and the pages are free although the target holds them"


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 1), (PAGE - 1, 2), (64 * PAGE, 1), (PAGE, 64 * PAGE), (PAGE, 0)])
def test_only_the_arena_is_granted(memory: Memory, offset: int, nbytes: int) -> None:
    with pytest.raises(BusError, match="outside the arena"):
        memory.grant(offset, nbytes)
    with pytest.raises(BusError, match="outside the arena"):
        memory.revoke(offset, nbytes)
    assert [lib.vscsi_granter_flags(memory.granter, gref) for gref in range(8, 80)] == [0] * 72


def test_closed_memory_says_so_and_leaves_slices_alone(memory: Memory) -> None:
    part = memory.view[PAGE : PAGE + 4]
    memory.close()
    memory.close()
    for attempt in (lambda: memory.alloc(1), lambda: memory.free(PAGE), lambda: memory.view):
        with pytest.raises(BusError, match="this memory is closed"):
            attempt()
    part[:] = b"safe"
    assert bytes(part) == b"safe"
    part.release()


def test_closing_unmaps() -> None:
    memory = Memory(64 * PAGE)
    mapped = f"{memory.address:x}-"
    assert mapped in Path("/proc/self/maps").read_text()
    memory.close()
    assert "/memfd:vscsi" not in Path("/proc/self/maps").read_text()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 30))
def test_many_threads(seed: int) -> None:
    memory = Memory(200 * PAGE)
    clashes: list[str] = []

    def worker(number: int) -> None:
        choose = random.Random(seed + number)
        mine: list[tuple[int, int]] = []
        for _ in range(150):
            if mine and choose.random() < 0.5:
                offset, nbytes = mine.pop(choose.randrange(len(mine)))
                if memory.view[offset : offset + nbytes].tobytes() != bytes([number]) * nbytes:
                    clashes.append(f"{offset} was not {number}'s alone")
                memory.free(offset)
                continue
            nbytes = choose.randrange(1, 6 * PAGE)
            try:
                offset = memory.alloc(nbytes)
            except MemoryError:
                continue
            memory.view[offset : offset + nbytes] = bytes([number]) * nbytes
            memory.grant(offset, nbytes)
            mine.append((offset, nbytes))
        for offset, _ in mine:
            memory.free(offset)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
    assert memory.free_nbytes == memory.nbytes - memory.first_frame * PAGE
    assert memory._allocator._starts == [memory.first_frame]
    memory.close()
