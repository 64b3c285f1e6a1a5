# SPDX-License-Identifier: BSD-2-Clause
"""Helper: schedulers of the native core made by hand, and READs whose device is the test.

Knows the native core's functions; must not know policy.
"""

import random
import time
from collections import Counter

from raw_wire import SIMPLE, direct, read10, srp_cmd

from target.native import ffi, lib

MiB = 1 << 20
RIDES = 1 << 62
AGAIN = -11
NEVER = (1 << 64) - 1


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


# ---- the queue by itself ----


class Queue:
    """The native queue, and what a test wants to know of it."""

    def __init__(self, nexuses=4, **kw) -> None:
        self.config = {"depth": 1, "rotational": 1, "quantum_us": 40000, **kw}
        self.m = ffi.gc(lib.vt_sched_model_new(config(**self.config), nexuses), lib.vt_sched_model_free)
        self.again = ffi.new("uint64_t *")
        self.requests: dict[int, tuple[int, int, int]] = {}
        self.waiting: set[int] = set()
        self.running: set[int] = set()
        self.riding: set[int] = set()
        self.now = 1_000_000_000

    def share(self, nexus, **kw) -> None:
        assert lib.vt_sched_model_share(self.m, nexus, share(**kw)) == 0

    def put(self, nexus, at, nbytes=4096, *, write=0, urgent=0) -> int:
        number = int(lib.vt_sched_model_put(self.m, nexus, at, nbytes, write, urgent, self.now))
        self.requests[number] = (nexus, at, nbytes)
        self.waiting.add(number)
        return number

    def next(self) -> int | None:
        number = int(lib.vt_sched_model_next(self.m, self.now, self.again))
        if number == AGAIN:
            return None
        self.riding |= {number & ~RIDES} if number & RIDES else set()
        number &= ~RIDES
        self.waiting.remove(number)
        self.running.add(number)
        return number

    def done(self, number, took_ns=5_000_000) -> None:
        self.now += took_ns
        self.running.remove(number)
        assert lib.vt_sched_model_done(self.m, number, self.now) == 0

    def drop(self, number) -> None:
        self.waiting.remove(number)
        assert lib.vt_sched_model_drop(self.m, number) == 0

    def serve(self, count=1 << 30, took_ns=5_000_000) -> list[int]:
        """Numbers in the order in which the device got them."""
        order = []
        while len(order) < count and (number := self.next()) is not None:
            order.append(number)
            self.done(number, took_ns)
        return order

    def keep(self, *, until_ns, took, depth=8, nexuses=(0, 1), place=None, nbytes=65536) -> Counter:
        """Nexuses with `depth` requests each, all the time: requests served by nexus. `took`: ns of a request."""
        rng, served, at = random.Random(4), Counter(), {n: n << 36 for n in nexuses}

        def put(nexus):
            at[nexus] += nbytes
            self.put(nexus, place(rng) if place else at[nexus], nbytes)

        for nexus in nexuses:
            for _ in range(depth):
                put(nexus)
        head = 0
        while self.now < until_ns and (number := self.next()) is not None:
            nexus, where, size = self.requests[number]
            self.done(number, took(head, where, size))
            head = where + size
            served[nexus] += 1
            put(nexus)
        return served
