# SPDX-License-Identifier: BSD-2-Clause
"""Ranges of blocks: who overlaps waits its turn, and both doors write parts of a block alone with it."""

import threading

import pytest
from real_server import Target

from initiator import Initiator
from initiator.door import disk as door
from initiator.mount import disk as mount
from initiator.ranges import Ranges


def test_ranges_are_first_come_first_served():
    ranges, order = Ranges(), []
    inside, go_on = threading.Event(), threading.Event()

    def hold(first, count, name):
        with ranges.held(first, count):
            order.append(name)

    def hold_long():
        with ranges.held(0, 10):
            inside.set()
            go_on.wait(30)

    long = threading.Thread(target=hold_long)
    long.start()
    assert inside.wait(30)
    waiting = []
    for name, (first, count) in {"a": (5, 10), "b": (14, 1)}.items():
        waiting.append(threading.Thread(target=hold, args=(first, count, name)))
        waiting[-1].start()
        while len(ranges._queue) < 1 + len(waiting):
            assert waiting[-1].is_alive()
    assert order == [], "b overlaps a, which came first"
    hold(20, 5, "free")
    go_on.set()
    for thread in (long, *waiting):
        thread.join()
    assert order == ["free", "a", "b"]


@pytest.mark.parametrize("kind", [mount.Disk, door.Disk])
def test_a_part_and_the_whole_of_a_block_never_mix(kind, tmp_path):
    """While one thread writes a part, another's whole block lands before or after it, never in between."""
    target = Target(tmp_path / "s", "0=mem:64k")
    with Initiator(tmp_path / "s") as initiator:
        never_mix(kind(initiator.lun(0)), initiator.lun(0))
    target.stop()


def never_mix(disk, lun):
    entered, go_on = threading.Event(), threading.Event()
    read = disk.lun.read

    def slow_read(lba, blocks):
        data = read(lba, blocks)
        entered.set()
        assert go_on.wait(30)
        return data

    disk.lun.read = slow_read
    part = threading.Thread(target=disk.write, args=(10, memoryview(b"part")))
    part.start()
    assert entered.wait(30)
    whole = threading.Thread(target=disk.write, args=(0, memoryview(b"w" * 512)))
    whole.start()
    beside = threading.Thread(target=disk.write, args=(512, memoryview(b"b" * 512)))
    beside.start()
    beside.join(30)
    assert not beside.is_alive(), "other blocks need not wait"
    assert whole.is_alive()
    go_on.set()
    part.join()
    whole.join()
    assert lun.read(0, 1) == b"w" * 512
