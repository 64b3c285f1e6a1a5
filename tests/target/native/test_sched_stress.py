# SPDX-License-Identifier: BSD-2-Clause
"""Turns at a device under load: two loops, two units on one device, SRP and blkif, aborts and changing shares.

Every command has one answer, what it read is what was written there, and the queue is empty at the end.
"""

import os
import random

import pytest
from raw_wire import (
    ABORT_TASK,
    ABORT_TASK_SET,
    HEAD_OF_QUEUE,
    ORDERED,
    RSPVALID,
    SIMPLE,
    direct,
    parse_rsp,
    read10,
    srp_cmd,
    tsk_mgmt,
    write10,
)
from schedulers import add, config, share, stats, until

from target.native import ffi, lib

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0"))
SEED = int(os.environ.get("VSCSI_STRESS_SEED", random.randrange(1 << 32)))
COMMANDS = 3000 + int(SECONDS * 3000)
BLOCKS = 8
NBYTES = BLOCKS * 512
REGION = 256
"""Blocks that one connection has for itself, so that it knows what stands there."""
TMF_TAG = 1 << 33


class Connection:
    """Writes what it can recognise into its own region of either unit, reads it back, and aborts some of it."""

    def __init__(self, rig, number, loop):
        self.rng, self.number = random.Random(SEED + number), number
        self.memory = rig.memory()
        self.channel = rig.srp(self.memory, loop=loop)
        self.free = [self.memory.alloc(1) for _ in range(24)]
        self.running: dict[int, tuple] = {}
        self.functions: set[int] = set()
        self.content: dict[tuple[int, int], bytes | None] = {}
        self.tag = self.good = self.aborted = 0

    def send(self):
        ius = []
        while self.free:
            self.tag += 1
            frame, lun = self.free.pop(), self.rng.randrange(2)
            lba = self.number * REGION + self.rng.randrange(REGION // BLOCKS) * BLOCKS
            attribute = self.rng.choice((SIMPLE,) * 12 + (HEAD_OF_QUEUE, ORDERED))
            buffer, place = direct(frame + 8, NBYTES), (lun, lba)
            busy = any(place == other[1] for other in self.running.values())
            if self.rng.random() < 0.5 and not busy:
                data = self.tag.to_bytes(8, "little") * (NBYTES // 8)
                self.memory.write(frame, data)
                ius.append(srp_cmd(self.tag, write10(lba, BLOCKS), lun=lun, attribute=attribute, out=buffer))
                self.running[self.tag] = (frame, place, data)
            else:
                expected = None if busy else self.content.get(place, bytes(NBYTES))
                ius.append(srp_cmd(self.tag, read10(lba, BLOCKS), lun=lun, attribute=attribute, in_=buffer))
                self.running[self.tag] = (frame, place, ("read", expected))
            if self.rng.random() < 0.05:
                function = self.rng.choice((ABORT_TASK, ABORT_TASK, ABORT_TASK_SET))
                self.functions.add(TMF_TAG + self.tag)
                victim = self.rng.choice(list(self.running))
                ius.append(tsk_mgmt(TMF_TAG + self.tag, function, lun=lun, task_tag=victim))
        self.channel.send(*ius)

    def receive(self):
        self.channel.poll()
        while self.channel.ready:
            rsp = parse_rsp(self.channel.ready.pop(0))
            if rsp.tag >= TMF_TAG:
                assert rsp.response == b"\0\0\0\0", rsp
                self.functions.remove(rsp.tag)
                continue
            frame, place, what = self.running.pop(rsp.tag)
            if rsp.flags & RSPVALID:
                self.aborted += 1
                if isinstance(what, bytes):
                    self.content[place] = None  # it may have been written, or not
            elif isinstance(what, bytes):
                assert rsp.status == 0, rsp
                self.content[place] = what
            else:
                assert rsp.status == 0, rsp
                self.good += 1
                expected = what[1]
                if expected is not None and self.content.get(place, bytes(NBYTES)) == expected:
                    assert self.memory.read(frame, NBYTES) == expected, f"seed {SEED}"
            self.free.append(frame)

    @property
    def waits(self):
        return self.running or self.functions


@pytest.mark.parametrize("rotational", [0, 1])
@pytest.mark.parametrize("engine", [1, 2], ids=["io_uring", "pool"])
@pytest.mark.timeout(SECONDS * 4 + 240)
def test_turns_of_many(make_rig, engine, rotational):
    rig, rng = make_rig(loops=2, engine=engine), random.Random(SEED)
    for lun in (0, 1):
        rig.lu(lun=lun, fd=rig.file())
    sched = add(rig, 0, 1, rotational=rotational, depth=1 + rotational)
    disk = ffi.gc(
        lib.vt_disk_new(ffi.new("struct vt_disk_config *", (1 << 20, 1 << 30, 20, 20, 1, 0))), lib.vt_disk_free
    )
    if rotational:
        for lun in (0, 1):
            assert lib.vt_lu_disk(rig.t, lun, disk, lun << 20) == 0
    connections = [Connection(rig, i, i % 2) for i in range(3)]
    memory = rig.memory()
    vbd = rig.blkif(memory, loop=1, lu=1)
    page, vbds = memory.alloc(1) + 8, 0
    vbd.send(vbd.request(0, 77, 2000, [(page, 0, 7)]))
    while sum(c.tag for c in connections) < COMMANDS:
        for connection in connections:
            connection.send()
            connection.receive()
        vbd.poll()
        if vbd.ready:
            assert vbd.status(0) == 0
            vbds += 1
            vbd.send(vbd.request(0, 77, 2000, [(page, 0, 7)]))
        nexus = rng.choice([c.channel.nexus for c in connections])
        limit = rng.choice((0, 0, 2000))
        assert lib.vt_sched_share(rig.t, sched, nexus, share(rng.randrange(1, 500), limit, limit * NBYTES)) == 0
        settings = config(rotational=rotational, depth=rng.randrange(1, 5))
        assert lib.vt_sched_update(rig.t, sched, settings) == 0
    assert lib.vt_sched_share(rig.t, sched, lib.VT_ALL, share()) == 0
    for connection in connections:
        while connection.waits:
            iu = connection.channel.receive(20)
            connection.channel.ready.insert(0, iu)
            connection.receive()
    assert vbd.status(0) == 0
    for channel in (*(c.channel for c in connections), vbd):
        until(lambda channel=channel: stats(rig, sched, channel.nexus).running == 0)
        assert stats(rig, sched, channel.nexus).waiting == 0
    assert all(c.good and c.aborted for c in connections) and vbds
    for channel in (*(c.channel for c in connections), vbd):
        channel.stop()
    lib.vt_stop(rig.t)
