# SPDX-License-Identifier: BSD-2-Clause
"""Range locks under load: threads that compare and write in two halves, against fast commands of several connections.

What a lock covers is seen as it was before or as it is after, by READ and blkif alike, and no WRITE comes in between.
"""

import os
import random
import threading

import pytest
from raw_wire import ABORT_TASK, RSPVALID, direct, parse_rsp, read10, srp_cmd, tsk_mgmt, write10

from target.native import ffi, lib

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0"))
SEED = int(os.environ.get("VSCSI_STRESS_SEED", random.randrange(1 << 32)))
UPDATES = 1500 + int(SECONDS * 1500)
BLOCKS = 16
"""Each half of a locked update writes 8 of them."""
WRITTEN = 64
"""LBA of the blocks that fast WRITEs write, too."""
SLOW = b"\x41" + bytes(9)
SLOW_TAG, TMF_TAG = 1 << 32, 1 << 33
NBYTES, HALF = BLOCKS * 512, BLOCKS * 256


def stamp(number: int) -> bytes:
    return number.to_bytes(8, "little")


class Connection:
    """Keeps reads, writes, slow commands and aborts going on one channel, and checks what comes back."""

    def __init__(self, rig, number, loop):
        self.rig, self.rng = rig, random.Random(SEED + number)
        self.memory = rig.memory()
        self.channel = rig.srp(self.memory, loop=loop)
        self.frames = [self.memory.alloc(2) for _ in range(8)]
        self.number, self.tag, self.running = number, 0, {}
        self.reads = self.writes = self.aborted = self.slow = 0

    def send(self):
        free = [f for f in self.frames if f not in self.running.values()]
        ius = []
        for frame in free:
            self.tag += 1
            self.running[self.tag] = frame
            buffer = direct(frame + 8, NBYTES)
            kind = self.rng.random()
            if kind < 0.5:
                ius.append(srp_cmd(self.tag, read10(0, BLOCKS), in_=buffer))
            elif kind < 0.8:
                self.memory.write(frame, stamp(self.number << 40 | self.tag) * (NBYTES // 8))
                ius.append(srp_cmd(self.tag, write10(WRITTEN, BLOCKS), out=buffer))
            else:
                ius.append(srp_cmd(self.tag, SLOW, in_=buffer, attribute=self.rng.choice((0, 0, 1, 2))))
            if self.rng.random() < 0.1:
                ius.append(tsk_mgmt(TMF_TAG + self.tag, ABORT_TASK, task_tag=self.rng.choice(list(self.running))))
        self.channel.send(*ius)

    def receive(self):
        self.channel.poll()
        while self.channel.ready:
            rsp = parse_rsp(self.channel.ready.pop(0))
            if rsp.tag >= TMF_TAG:
                assert rsp.response == b"\0\0\0\0", rsp
                continue
            frame = self.running.pop(rsp.tag)
            if rsp.flags & RSPVALID:
                self.aborted += 1
                continue
            assert rsp.status == 0, rsp
            data = self.memory.read(frame, NBYTES)
            if rsp.in_residual == 0 and rsp.out_residual == 0 and data[:4] == b"LOCK":
                self.reads += 1
                assert data == data[:8] * (NBYTES // 8), f"torn: {data[:8]!r} {data[HALF : HALF + 8]!r}, seed {SEED}"
            else:
                self.writes += 1


class Locker(threading.Thread):
    """A Python worker: takes a slow command, locks both regions in order, and updates them in two halves."""

    def __init__(self, rig):
        super().__init__()
        self.rig, self.updates, self.canceled, self.error = rig, 0, 0, None
        self.buffer = stamp(0)

    def run(self):
        request = ffi.new("struct vt_request *")
        try:
            while lib.vt_request_next(self.rig.t, request, -1) == 1:
                self.serve(request)
                self.rig.complete(request)
        except BaseException as error:
            self.error = error

    def serve(self, request):
        fd, held = self.rig.fd, []
        for lba in (0, WRITTEN):
            held.append(lib.vt_range_lock(self.rig.t, request.task, 0, lba, BLOCKS, 20000))
        try:
            if min(held) < 0:
                assert min(held) == -125, held
                self.canceled += 1
                return
            before = os.pread(fd, NBYTES, 0)
            assert before == before[:8] * (NBYTES // 8), "another lock came in between"
            still = os.pread(fd, NBYTES, WRITTEN * 512)
            number = b"LOCK" + (int.from_bytes(before[4:8], "little") + 1).to_bytes(4, "little")
            os.pwrite(fd, number * (HALF // 8), 0)
            os.pwrite(fd, number * (HALF // 8), HALF)
            assert os.pread(fd, NBYTES, WRITTEN * 512) == still, "a WRITE came in between"
            self.updates += 1
        finally:
            for id_ in held:
                if id_ > 0:
                    assert lib.vt_range_unlock(self.rig.t, 0, id_) == 0


@pytest.mark.parametrize("engine", [1, 2], ids=["io_uring", "pool"])
@pytest.mark.timeout(SECONDS * 4 + 240)
def test_locked_updates_are_whole_and_alone(make_rig, engine):
    rig = make_rig(loops=2, engine=engine)
    rig.fd = rig.file()
    os.pwrite(rig.fd, (b"LOCK" + bytes(4)) * (NBYTES // 8), 0)
    rig.lu(fd=rig.fd)
    connections = [Connection(rig, i, i % 2) for i in range(3)]
    memory = rig.memory()
    vbd = rig.blkif(memory, loop=1)
    pages = [memory.alloc(1) + 8 for _ in range(2)]
    lockers = [Locker(rig) for _ in range(3)]
    for locker in lockers:
        locker.start()
    looks = 0
    vbd.send(vbd.request(0, 77, 0, [(p, 0, 7) for p in pages]))
    while sum(locker.updates for locker in lockers) < UPDATES and not any(locker.error for locker in lockers):
        for connection in connections:
            connection.send()
            connection.receive()
        vbd.poll()
        if vbd.ready:
            assert vbd.status(0) == 0
            data = b"".join(memory.read(p - 8, 4096) for p in pages)
            assert data == data[:8] * (NBYTES // 8), f"torn for blkif, seed {SEED}"
            looks += 1
            vbd.send(vbd.request(0, 77, 0, [(p, 0, 7) for p in pages]))
    for connection in connections:
        while connection.running:
            iu = connection.channel.receive(20)
            connection.channel.ready.insert(0, iu)
            connection.receive()
    assert vbd.status(0) == 0
    free = lib.vt_range_lock(rig.t, 0, 0, 0, 2**63, 0)
    assert free > 0, "nothing is left behind"
    assert lib.vt_range_unlock(rig.t, 0, free) == 0
    for channel in (*(c.channel for c in connections), vbd):
        channel.stop()
    lib.vt_stop(rig.t)
    for locker in lockers:
        locker.join()
        if locker.error:
            raise locker.error
    assert all(c.reads and c.writes and c.aborted for c in connections) and looks
