# SPDX-License-Identifier: BSD-2-Clause
"""The memory that an initiator brings: which files a target maps, where frames lie in them, rings of granted pages."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from grant_memory import (
    DOMID,
    EACCES,
    EBUSY,
    EFAULT,
    EFBIG,
    EINVAL,
    EPERM,
    FIRST,
    PAGE,
    PERMIT,
    READONLY,
    Memory,
    memfd,
    new_mapper,
)

from vscsi.native import ffi, lib


@pytest.fixture
def memory() -> Any:
    memory = Memory(16, 8, table_frame=3)
    yield memory
    memory.close()


# ---- regions ----


def test_frames_number_through_the_regions(memory: Memory) -> None:
    """Frame 16 is the first of the second region; nothing lies behind the last."""
    for gref, frame in ((20, 15), (21, 16), (22, 23)):
        memory.grant(gref, frame)
        assert memory.get(gref, True) == 0
        memory.page[0][0] = frame
        assert int(ffi.cast("uintptr_t", memory.page[0])) == memory.address(frame)
    memory.grant(23, 24)
    assert memory.get(23) == EFAULT


def holders(file: os.stat_result) -> int:
    """Descriptors of this process that lead to that file; others come and go with threads and garbage."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.path.samestat(os.fstat(int(entry.name)), file)
    return count


def refused(fd: int, expected: int, **where: int) -> None:
    file = os.fstat(fd)
    before = holders(file)
    assert before > 0
    mapper, error = new_mapper([fd], **where)
    if mapper:
        lib.vscsi_mapper_free(mapper)
    assert (mapper == ffi.NULL, error) == (True, expected)
    assert holders(file) == before, "a descriptor was left open"
    os.close(fd)


def test_memory_without_the_seal_is_refused() -> None:
    refused(memfd(4 * PAGE, seal=False), EPERM)


def test_memory_that_cannot_be_sealed_is_refused() -> None:
    refused(memfd(4 * PAGE, seal=False, flags=0), EPERM)


def test_ordinary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * PAGE))
    expected = {EINVAL, EPERM}  # a file of tmpfs knows seals, and has none
    fd = os.open(path, os.O_RDWR)
    mapper, error = new_mapper([fd])
    os.close(fd)
    assert mapper == ffi.NULL
    assert error in expected


def test_pipe_is_refused() -> None:
    reader, writer = os.pipe()
    refused(reader, EINVAL)
    os.close(writer)


def test_closed_descriptor_is_refused() -> None:
    mapper, error = new_mapper([1 << 20])
    assert mapper == ffi.NULL
    assert error == EINVAL


def test_huge_pages_are_refused() -> None:
    """Their faults can fail with SIGBUS long after they were mapped."""
    try:
        fd = memfd(2 << 20, flags=os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"no huge pages here: {error}")
    refused(fd, EINVAL)


def test_memory_open_for_reading_only_is_refused() -> None:
    fd = memfd(4 * PAGE)
    refused(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), EACCES)
    os.close(fd)


@pytest.mark.parametrize("nbytes", [0, 1, PAGE - 1, PAGE + 1])
def test_odd_size_is_refused(nbytes: int) -> None:
    refused(memfd(nbytes), EINVAL)


def test_too_much_memory_is_refused() -> None:
    refused(memfd(lib.VSCSI_MAX_FRAMES * PAGE + PAGE), EFBIG)


def test_too_much_memory_in_sum_is_refused() -> None:
    fds = [memfd(lib.VSCSI_MAX_FRAMES * PAGE), memfd(PAGE)]
    mapper, error = new_mapper(fds)
    assert (mapper, error) == (ffi.NULL, EFBIG)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    ("table_frame", "table_pages"),
    [(0, 0), (0, 5), (4, 1), (3, 2), ((1 << 32) - 1, 1), (3, (1 << 32) - 1), (0, 32770), (0, (1 << 23) + 1)],
)
def test_table_outside_the_memory_is_refused(table_frame: int, table_pages: int) -> None:
    refused(memfd(4 * PAGE), EINVAL, table_frame=table_frame, table_pages=table_pages)


def test_table_across_two_regions_is_refused() -> None:
    """They lie apart in the target's memory: a table that began in one would run out of it."""
    fds = [memfd(4 * PAGE), memfd(4 * PAGE)]
    assert new_mapper(fds, 3, 2) == (ffi.NULL, EINVAL)
    mapper, error = new_mapper(fds, 4, 4)
    assert error == 0
    lib.vscsi_mapper_free(mapper)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("count", [0, 17])
def test_number_of_regions_is_bounded(count: int) -> None:
    fds = [memfd(PAGE) for _ in range(count)]
    assert new_mapper(fds) == (ffi.NULL, EINVAL)
    for fd in fds:
        os.close(fd)


def test_memory_cannot_shrink_under_the_target() -> None:
    fd = memfd(4 * PAGE)
    mapper, _ = new_mapper([fd])
    with pytest.raises(PermissionError):
        os.ftruncate(fd, PAGE)
    os.ftruncate(fd, 8 * PAGE)
    assert mapper.nr_frames == 4, "growing it later grants nothing"
    lib.vscsi_mapper_free(mapper)
    os.close(fd)


def test_forked_child_has_no_part_in_it(memory: Memory) -> None:
    """The mappings are not inherited: a child that touches them dies, instead of playing target."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        memory.mapper.table[FIRST] = 1
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) != 0
    assert memory.flags(FIRST) == 0


# ---- rings ----


def map_ring(memory: Memory, grefs: list[int]) -> tuple[int, Any]:
    address = ffi.new("uint8_t **")
    return lib.vscsi_mapper_map_ring(memory.mapper, grefs, len(grefs), address), address[0]


def test_ring_pages_lie_side_by_side_in_the_order_given(memory: Memory) -> None:
    """Whatever frames and regions they come from; in use until unmapped."""
    granted = {30: 15, 31: 6, 32: 20, 33: 16}
    for gref, frame in granted.items():
        memory.grant(gref, frame)
    rc, ring = map_ring(memory, list(granted))
    assert rc == 0
    for position, frame in enumerate(granted.values()):
        ring[position * PAGE + 5] = frame
        assert ffi.cast("uint8_t *", memory.address(frame))[5] == frame
    assert lib.vscsi_mapper_in_use(memory.mapper) == 4
    assert memory.end(31) == EBUSY
    lib.vscsi_mapper_unmap_ring(memory.mapper, list(granted), 4, ring)
    assert lib.vscsi_mapper_in_use(memory.mapper) == 0
    assert memory.end(31) == 0


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda memory, gref: memory.raw(gref, 0, DOMID, 6), EACCES),
        (lambda memory, gref: memory.raw(gref, PERMIT | READONLY, DOMID, 6), EACCES),
        (lambda memory, gref: memory.raw(gref, PERMIT, DOMID + 1, 6), EACCES),
        (lambda memory, gref: memory.raw(gref, PERMIT, DOMID, 24), EFAULT),
    ],
)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_bad_page_spoils_the_ring_and_leaves_nothing_in_use(
    memory: Memory, spoil: Any, expected: int, bad: int
) -> None:
    for gref in (30, 31, 32):
        memory.grant(gref, gref - 20)
    spoil(memory, 30 + bad)
    maps = Path("/proc/self/maps").read_text().count("memfd:test")
    assert map_ring(memory, [30, 31, 32])[0] == expected
    assert lib.vscsi_mapper_in_use(memory.mapper) == 0
    assert Path("/proc/self/maps").read_text().count("memfd:test") == maps


@pytest.mark.parametrize("count", [0, 17])
def test_number_of_ring_pages_is_bounded(memory: Memory, count: int) -> None:
    assert map_ring(memory, [FIRST] * count)[0] == EINVAL
