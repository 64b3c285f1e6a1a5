# SPDX-License-Identifier: BSD-2-Clause
"""`vt_direct_load` and `vt_discard` through cffi: what the bench and the Python workers call.

Knows the load's contract (what is counted, when it ends) and that every byte of the image stays where it was.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from target.native import ffi, lib
from vscsi.native import lib as shared

SPAN = 1 << 20
ENGINES = {"uring": 1, "pool": 2}


def engine_or_skip(name: str) -> int:
    """The engine's number; skips where io_uring is refused."""
    spec = load_spec(max_ios=1)
    result = ffi.new("struct vscsi_load_result *")
    if lib.vt_direct_load(-1, lib.VT_LU_NULL, ENGINES[name], 1, spec, result) < 0:
        pytest.skip(f"engine {name} is refused here")
    return ENGINES[name]


def load_spec(**fields: int) -> Any:
    given = {"block_nbytes": 4096, "queue_depth": 8, "read_percent": 100, "random": 1, "span_nbytes": SPAN, "seed": 7}
    return ffi.new("struct vscsi_load_spec *", given | fields)


def load(fd: int, spec: Any, *, flags: int | None = None, engine: int = 0, nowait: int = 1) -> tuple[int, Any]:
    result = ffi.new("struct vscsi_load_result *")
    flags = lib.VT_LU_WRITE_CACHE if flags is None else flags
    return lib.vt_direct_load(fd, flags, engine, nowait, spec, result), result


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    """A descriptor of SPAN random bytes and one block more, which no load may touch."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SPAN) + b"\xa5" * 4096)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def pattern_offsets(spec: Any, ios: int) -> list[tuple[int, bool]]:
    """The offsets of `vscsi_pattern_next`, written down a second time."""
    mask = (1 << 64) - 1
    state, blocks = (spec.seed * 2 + 1) & mask, spec.span_nbytes // spec.block_nbytes

    def draw() -> int:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    found = []
    for i in range(ios):
        block = draw() * blocks >> 64 if spec.random else i % blocks
        mixed = 0 < spec.read_percent < 100
        read = draw() % 100 < spec.read_percent if mixed else spec.read_percent != 0
        found.append((block * spec.block_nbytes, read))
    return found


@pytest.mark.parametrize("nowait", [0, 1])
@pytest.mark.parametrize("depth", [1, 3, 64])
@pytest.mark.parametrize("name", ENGINES)
def test_counts(image: int, name: str, depth: int, nowait: int) -> None:
    """max_ios I/Os, each in the histogram once, for reads and writes on every engine and depth."""
    engine = engine_or_skip(name)
    for read_percent in (100, 0, 50):
        spec = load_spec(queue_depth=depth, max_ios=500, read_percent=read_percent)
        status, result = load(image, spec, engine=engine, nowait=nowait)
        assert (status, result.ios, result.errors) == (0, 500, 0)
        assert sum(result.histogram) == 500
        assert 0 < shared.vscsi_hist_quantile(result, 0.5) <= result.max_ns * 1.02
        assert result.max_ns <= result.elapsed_ns
        assert result.cpu_ns > 0
        assert os.pread(image, 4096, SPAN) == b"\xa5" * 4096


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("random", [0, 1])
@pytest.mark.parametrize("flags", [0, "VT_LU_WRITE_CACHE"])
def test_writes_what_the_pattern_says(image: int, name: str, random: int, flags: int | str) -> None:
    """Only the blocks that the shared pattern writes change, in a load that reads others between."""
    engine = engine_or_skip(name)
    before = os.pread(image, SPAN, 0)
    spec = load_spec(queue_depth=5, max_ios=60, random=random, read_percent=50)
    number = getattr(lib, flags) if isinstance(flags, str) else flags
    status, result = load(image, spec, flags=number, engine=engine)
    assert (status, result.ios) == (0, 60)
    after = os.pread(image, SPAN, 0)
    offsets = pattern_offsets(spec, 60)
    written = {offset for offset, read in offsets if not read}
    assert written
    changed = {at for at in range(0, SPAN, 4096) if after[at : at + 4096] != before[at : at + 4096]}
    assert changed == written


def test_duration(image: int) -> None:
    """Ends on time, and counts the time it took."""
    start = time.monotonic()
    status, result = load(image, load_spec(duration_ns=200_000_000, queue_depth=4))
    took = time.monotonic() - start
    assert status == 0
    assert 0.2 <= result.elapsed_ns / 1e9 <= took < 5
    assert result.ios > 100


def test_open_loop_sends_no_sooner_than_due(image: int) -> None:
    """The k-th I/O is due k/rate after the start, and the load sleeps until then."""
    status, result = load(image, load_spec(max_ios=20, rate_per_s=200))
    assert (status, result.ios, result.unsent) == (0, 20, 0)
    assert result.elapsed_ns >= 19 * 10**9 // 200
    assert result.sleeps >= 1


def test_open_loop_counts_from_when_an_io_was_due() -> None:
    """At a rate nobody can follow what is done last has been due almost from the start, and the rest is unsent."""
    spec = load_spec(duration_ns=50_000_000, queue_depth=1, rate_per_s=10**9)
    status, result = load(-1, spec, flags=lib.VT_LU_NULL)
    assert status == 0
    assert result.max_ns >= 50_000_000 - result.ios
    assert result.unsent == 50_000_000 - result.ios > 0


def test_null_needs_no_image() -> None:
    """VT_LU_NULL: no descriptor, and no sleep either."""
    status, result = load(-1, load_spec(max_ios=1000, read_percent=50), flags=lib.VT_LU_NULL)
    assert (status, result.ios, result.sleeps) == (0, 1000, 0)


def test_direct_io(tmp_path: Path) -> None:
    """An O_DIRECT descriptor, with blocks of 512 bytes and of 4096."""
    path = tmp_path / "image"
    path.write_bytes(bytes(SPAN))
    try:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    except OSError:
        pytest.skip("no O_DIRECT on this file system")
    try:
        for block in (4096, 65536):
            spec = load_spec(max_ios=50, read_percent=50, block_nbytes=block)
            status, result = load(fd, spec, flags=lib.VT_LU_DIRECT | lib.VT_LU_WRITE_CACHE)
            assert (status, result.ios) == (0, 50)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ENGINES)
def test_error_ends_the_load(image: int, name: str) -> None:
    """An image shorter than the span: the first -EIO ends it; what went well is counted beside it."""
    engine = engine_or_skip(name)
    os.ftruncate(image, SPAN // 2)
    for nowait in (0, 1):
        spec = load_spec(random=0, max_ios=10_000, queue_depth=4)
        status, result = load(image, spec, engine=engine, nowait=nowait)
        assert status == -errno.EIO
        assert SPAN // 2 // 4096 - 4 < result.ios <= SPAN // 2 // 4096 + 4
        assert 1 <= result.errors <= 4


@pytest.mark.parametrize(
    "fields",
    [
        {"block_nbytes": 0},
        {"block_nbytes": 1000},
        {"queue_depth": 0},
        {"queue_depth": 1 << 20},
        {"span_nbytes": 0},
        {"span_nbytes": 5000},
        {"span_nbytes": 1 << 63},
        {"max_ios": 0, "duration_ns": 0},
    ],
    ids=str,
)
def test_refuses_nonsense(image: int, fields: dict[str, int]) -> None:
    """-EINVAL for a load that cannot be."""
    status, result = load(image, load_spec(**({"max_ios": 10} | fields)))
    assert (status, result.ios) == (-errno.EINVAL, 0)


def test_unknown_engine(image: int) -> None:
    assert load(image, load_spec(max_ios=1), engine=9)[0] == -errno.EINVAL


def test_bad_descriptor() -> None:
    status, result = load(-1, load_spec(max_ios=10))
    assert status == -errno.EBADF
    assert result.ios == 0


def test_releases_the_gil(image: int) -> None:
    """Python runs on while a load runs."""
    thread = threading.Thread(target=load, args=(image, load_spec(duration_ns=400_000_000)))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0.01)
    thread.join()
    assert turns > 10


# ---- vt_discard ----


def allocated(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def test_discard_frees_space(image: int) -> None:
    """A hole reads as zeros, takes no space, and leaves size and neighbours alone."""
    before, data = allocated(image), os.pread(image, SPAN + 4096, 0)
    os.fsync(image)
    assert lib.vt_discard(image, 0, 65536, 262144) == 0
    assert os.fstat(image).st_size == SPAN + 4096
    assert before - allocated(image) == 262144
    assert os.pread(image, SPAN + 4096, 0) == data[:65536] + bytes(262144) + data[65536 + 262144 :]


def test_discard_nothing(image: int) -> None:
    """No bytes: no harm, whatever the offset."""
    data = os.pread(image, SPAN, 0)
    assert lib.vt_discard(image, 0, 4096, 0) == 0
    assert os.pread(image, SPAN, 0) == data


@pytest.mark.parametrize(("offset", "nbytes"), [(1 << 63, 512), (0, 1 << 63), ((1 << 63) - 512, 1024)])
def test_discard_overflow(image: int, offset: int, nbytes: int) -> None:
    """Sums that no file offset holds."""
    assert lib.vt_discard(image, 0, offset, nbytes) == -errno.EINVAL


def test_discard_where_it_cannot_be(image: int) -> None:
    """A regular file is no block device; a pipe is neither; a descriptor may be read only."""
    assert lib.vt_discard(image, 1, 0, 4096) == -errno.ENOTTY
    ends = os.pipe()
    try:
        assert lib.vt_discard(ends[1], 0, 0, 4096) < 0
    finally:
        for fd in ends:
            os.close(fd)
    readonly = os.open(f"/proc/self/fd/{image}", os.O_RDONLY)
    try:
        assert lib.vt_discard(readonly, 0, 0, 4096) == -errno.EBADF
    finally:
        os.close(readonly)
    assert lib.vt_discard(-1, 0, 0, 4096) == -errno.EBADF
