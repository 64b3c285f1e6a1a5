# SPDX-License-Identifier: BSD-2-Clause
"""Helper: schedulers of the native core made by hand, and READs whose device is the test.

Knows the native core's functions; must not know policy.
"""

import time

from raw_wire import SIMPLE, direct, read10, srp_cmd

from target.native import ffi, lib

MiB = 1 << 20


def config(**kw):
    return ffi.new("struct vt_sched_config *", {"depth": 1, "rotational": 1, "quantum_us": 40000, "seed": 1} | kw)


def share(weight=100, iops=0, bytes_per_s=0):
    return ffi.new("struct vt_sched_share *", (weight, iops, bytes_per_s))


def add(rig, *lus, bases=(), **kw) -> int:
    """A scheduler for these LUs."""
    number = int(lib.vt_sched_add(rig.t, config(**kw)))
    assert number >= 0
    for i, lu in enumerate(lus or (0,)):
        assert lib.vt_lu_schedule(rig.t, lu, number, bases[i] if bases else i << 40) == 0
    return number


def stats(rig, number, nexus):
    out = ffi.new("struct vt_sched_stats *")
    assert lib.vt_sched_stats(rig.t, number, nexus, out) == 0
    return out


def until(condition, timeout=5.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.001)


def read(channel, tag, lba, *, blocks=1, attribute=SIMPLE, lun=0) -> None:
    """Sends a READ, and waits until the target has taken it."""
    if not hasattr(channel, "page"):
        channel.page = channel.memory.alloc(4) + 8
    in_ = direct(channel.page, blocks * 512)
    channel.send(srp_cmd(tag, read10(lba, blocks), attribute=attribute, lun=lun, in_=in_))
    channel.taken()


def finish(rig, request) -> None:
    """The device is done with a READ that it was given."""
    assert rig.complete(request, in_=request.blocks * 512) == 0
