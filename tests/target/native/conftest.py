# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: a started C target that is taken down, and checked for leaks, at the end."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from raw_initiator import PAGE, Rig
from raw_wire import direct

from target.native import lib


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**kw) -> Rig:
        rigs.append(Rig(tmp_path, **kw))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig) -> Rig:
    return make_rig()


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def two_nexuses(request, make_rig):
    """Two nexuses on one LU, on one loop or on two."""
    rig = make_rig(loops=request.param)
    rig.lu(fd=rig.file())
    rig.a = rig.srp(loop=0)
    rig.b = rig.srp(loop=request.param - 1)
    return rig


# ---- range locks ----


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def disk(request, make_rig):
    rig = make_rig(loops=request.param)
    rig.fd = rig.file()
    rig.lu(fd=rig.fd, flags=1 | 32)
    rig.mem = rig.memory()
    rig.a = rig.srp(rig.mem, loop=0)
    rig.b = rig.srp(loop=request.param - 1)
    rig.buffer = direct(rig.mem.alloc(2) + 8, PAGE)
    return rig


@pytest.fixture
def stuck(make_rig):
    """A unit whose READs end when something is written into its pipe."""
    rig = make_rig(nowait=0, abort_limit_ms=200)
    if lib.vt_engine_used(rig.t) != lib.VT_ENGINE_URING:
        pytest.skip("only io_uring reads a pipe as if it were a file")
    reader, rig.pipe = os.pipe()
    rig.fds += [reader, rig.pipe]
    rig.lu(fd=reader)
    rig.a, rig.b = rig.srp(), rig.srp()
    rig.buffer = direct(rig.a.memory.alloc(1) + 8, 512)
    return rig
