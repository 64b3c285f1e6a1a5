# SPDX-License-Identifier: BSD-2-Clause
"""One initiator of the integrity stress: a process that writes, reads, flushes and aborts at random on its own region,
and checks every byte it reads against a model. Started by test_integrity.py with its orders in JSON.

Every sector holds who wrote it, when and where. The model knows, for every sector, which writes it may show: one after
a write that was answered, more after one that was aborted, and one again once it has been read.
Beside its region each worker keeps a chain: A, then an ORDERED write (blkif: a barrier) of its journal slot, then B,
sent without waiting. Whoever reads the journal first must then find A as new; whoever reads B first, the journal.
"""

import json
import random
import struct
import sys
import time
from pathlib import Path

from initiator import BlkifError, CommandAborted, Initiator
from initiator.native import lib
from initiator.vbd import BARRIER, FLUSH, READ, WRITE, Vbd
from vscsi.scsi import cdb, sense

SECTOR = 512
SIZES = (1, 1, 2, 3, 7, 8, 8, 16, 31, 64, 255, 256, 600, 2048)
DEPTH = 8
LEAST = 50
ABORTED, NOT_EXECUTED, GOOD = "aborted", "not executed", "good"


def stamp(worker, sequence, sector):
    """What a sector holds after write `sequence` of `worker`; zeros before the first."""
    return struct.pack("<4Q", 0x5645524946594D45, worker, sequence, sector) * 16 if sequence else bytes(SECTOR)


class Model:
    """What each sector may show."""

    def __init__(self, worker, first, sectors, known=None):
        self.worker, self.first, self.sectors = worker, first, sectors
        self.may = known or [[0]] * sectors

    def write(self, sector, count, sequence, outcome):
        for i in range(sector - self.first, sector - self.first + count):
            if outcome == GOOD:
                self.may[i] = [sequence]
            elif outcome == ABORTED:
                self.may[i] = [*self.may[i], sequence]

    def check(self, sector, data):
        for i in range(len(data) // SECTOR):
            found = data[i * SECTOR : (i + 1) * SECTOR]
            at = sector + i
            sequence = struct.unpack_from("<4Q", found)[2]
            assert found == stamp(self.worker, sequence, at), f"sector {at}: torn or foreign: {bytes(found[:32]).hex()}"
            allowed = self.may[at - self.first]
            assert sequence in allowed, f"sector {at} shows write {sequence}, may show {allowed}"
            self.may[at - self.first] = [sequence]


class Srp:
    """The region's disk over SRP: commands of one channel, in order."""

    def __init__(self, socket, resets):
        self.initiator = Initiator(socket, timeout=60.0)
        self.resets = resets
        self.tags = {}
        self.max_sectors = self.size()

    def size(self):
        """Another worker may be resetting the unit already."""
        while True:
            try:
                return self.initiator.lun(0).max_blocks
            except CommandAborted:
                assert self.resets

    def start(self, handle, kind, sector, count, data=b"", *, fua=False, ordered=False):
        nbytes = 0
        if kind == "sync":
            command = cdb.SYNCHRONIZE_CACHE_10.build()
        elif kind == "read":
            command, nbytes = cdb.READ_16.build(lba=sector, transfer_length=count, fua=int(fua)), count * SECTOR
        else:
            command = cdb.WRITE_16.build(lba=sector, transfer_length=count, fua=int(fua))
        attribute = lib.SRP_TSK_ORDERED if ordered else lib.SRP_TSK_SIMPLE
        self.tags[handle] = self.initiator.submit(
            0, command, data_out=data, data_in=nbytes, attribute=attribute, cookie=handle
        )

    def done(self):
        for done in self.initiator.reap(max=DEPTH, min=1):
            del self.tags[done.cookie]
            yield done.cookie, *self.outcome(done)

    def outcome(self, done):
        if isinstance(done.error, CommandAborted):
            return ABORTED, b""
        assert done.error is None, done.error
        if done.status == 2:
            found = sense.decode(done.sense)
            assert self.resets and (found.key, found.asc, found.ascq) == (6, 0x29, 3), found.describe()
            return NOT_EXECUTED, b""
        assert done.status == 0 and not done.out_residual and not done.in_residual, done
        return GOOD, done.data_in

    def abort(self, handle):
        assert self.initiator.task_management(lib.SRP_TMF_ABORT_TASK, 0, self.tags[handle], timeout=60) == 0

    def reset(self):
        assert self.initiator.task_management(lib.SRP_TMF_LUN_RESET, 0, timeout=60) == 0

    def read_now(self, sector, count):
        while True:
            command = cdb.READ_16.build(lba=sector, transfer_length=count)
            try:
                done = self.initiator.execute(0, command, data_in=count * SECTOR)
            except CommandAborted:
                assert self.resets
                continue
            if self.outcome(done)[0] == GOOD:
                return done.data_in

    def close(self):
        self.initiator.close()


class Blkif:
    """The same over blkif, which has no abort: only another's reset ends a request."""

    def __init__(self, socket, resets):
        self.vbd = Vbd(socket, lun=0, timeout=60.0)
        self.resets = resets
        self.max_sectors = self.vbd.max_blocks

    def start(self, handle, kind, sector, count, data=b"", *, fua=False, ordered=False):
        del fua
        operation = BARRIER if ordered else {"sync": FLUSH, "read": READ, "write": WRITE}[kind]
        nbytes = count * SECTOR if kind == "read" else 0
        self.vbd.submit(operation, sector, data_out=data, data_in=nbytes, cookie=handle)

    def done(self):
        for done in self.vbd.reap(max=DEPTH, min=1):
            assert done.error is None or (self.resets and isinstance(done.error, BlkifError)), done.error
            yield done.cookie, GOOD if done.error is None else ABORTED, done.data_in

    def read_now(self, sector, count):
        while True:
            try:
                return self.vbd.read(sector, count)
            except BlkifError:
                assert self.resets

    def close(self):
        self.vbd.close()


class Worker:
    def __init__(self, orders):
        self.number, self.workers, self.journal = orders["worker"], orders["workers"], orders["journal"]
        self.first, self.sectors = orders["first"], orders["sectors"]
        self.aborts, self.resets = orders["aborts"], orders["resets"]
        self.seconds = orders["seconds"]
        self.random = random.Random(orders["seed"])
        self.disk = (Srp if orders["protocol"] == "srp" else Blkif)(orders["socket"], orders["resets"])
        self.model = Model(self.number, self.first, self.sectors, orders.get("known"))
        self.flying, self.sequence, self.handle, self.link, self.links = {}, orders["sequence"], 0, orders["link"], 0
        self.counts = dict.fromkeys((GOOD, ABORTED, NOT_EXECUTED, "looks"), 0)

    def send(self, kind, sector, count, *, sequence=0, chain=False, **how):
        self.handle += 1
        owner = self.number
        data = b"".join(stamp(owner, sequence, sector + i) for i in range(count)) if kind == "write" else b""
        self.flying[self.handle] = kind, sector, count, sequence, chain
        self.disk.start(self.handle, kind, sector, count, data, **how)

    def take(self):
        for handle, outcome, data in self.disk.done():
            kind, sector, count, sequence, chain = self.flying.pop(handle)
            self.counts[outcome] += 1
            self.links -= chain
            if chain:
                assert outcome == GOOD or self.resets
            elif kind == "write":
                self.model.write(sector, count, sequence, outcome)
            elif kind == "read" and outcome == GOOD:
                self.model.check(sector, data)

    def extent(self):
        """Sectors of the region that nothing in flight touches, or None."""
        count = min(self.random.choice(SIZES), self.disk.max_sectors, self.sectors)
        sector = self.first + self.random.randrange(self.sectors - count + 1)
        for _, other, length, _, chain in self.flying.values():
            if not chain and sector < other + length and other < sector + count:
                return None
        return sector, count

    def slots(self, worker):
        """Journal slot, A and B of a worker: neighbours of other workers', in the same pages."""
        return self.journal + worker, self.journal + self.workers + worker, self.journal + 2 * self.workers + worker

    def chain(self):
        self.link += 1
        journal, a, b = self.slots(self.number)
        for sector, ordered in ((a, False), (journal, True), (b, False)):
            self.links += 1
            self.send("write", sector, 1, sequence=self.link, chain=True, ordered=ordered)

    def read_settled(self, worker, sector):
        """Which write a sector of another's chain shows. A READ beside a WRITE may see half of it, but not for ever."""
        for _ in range(100):
            data = self.disk.read_now(sector, 1)
            sequence = struct.unpack_from("<4Q", data)[2]
            if data == stamp(worker, sequence, sector):
                return sequence
        raise AssertionError(f"sector {sector}: torn or foreign: {bytes(data[:32]).hex()}")

    def look(self):
        """Reads another's chain against its direction."""
        worker = self.random.randrange(self.workers)
        journal, a, b = self.slots(worker)
        for newer, older in ((journal, a), (b, journal)):
            values = []
            for sector in (newer, older):
                values.append(self.read_settled(worker, sector))
            assert self.resets or values[0] <= values[1], f"worker {worker}: {newer}, {older} show {values}"
        self.counts["looks"] += 1

    def step(self):
        what = self.random.random()
        if what < 0.06:
            self.send("sync", 0, 0)
        elif what < 0.14 and self.links == 0:
            self.chain()
        elif what < 0.18:
            self.look()
        elif (extent := self.extent()) is not None:
            fua = self.random.random() < 0.2
            if what < 0.65:
                self.sequence += 1
                self.send("write", *extent, sequence=self.sequence, fua=fua)
            else:
                self.send("read", *extent, fua=fua)

    def disturb(self):
        mine = [handle for handle, (*_, chain) in self.flying.items() if not chain]
        if self.aborts and mine and self.random.random() < 0.05:
            self.disk.abort(self.random.choice(mine))
        if self.resets and self.aborts and self.random.random() < 0.01:
            self.disk.reset()

    def run(self):
        until = time.monotonic() + self.seconds
        # However slow the machine is: less would prove nothing.
        while time.monotonic() < until or self.counts[GOOD] < LEAST or not self.counts["looks"]:
            while len(self.flying) < DEPTH and self.random.random() < 0.9:
                self.step()
            self.disturb()
            if self.flying:
                self.take()
        while self.flying:
            self.take()
        self.verify()
        self.disk.close()

    def verify(self):
        """Every byte of the region."""
        step = min(2048, self.disk.max_sectors)
        for at in range(0, self.sectors, step):
            count = min(step, self.sectors - at)
            self.model.check(self.first + at, self.disk.read_now(self.first + at, count))


def main():
    orders = json.loads(Path(sys.argv[1]).read_text())
    worker = Worker(orders)
    worker.verify()
    worker.run()
    left = {"known": worker.model.may, "sequence": worker.sequence, "link": worker.link, "counts": worker.counts}
    Path(sys.argv[1]).write_text(json.dumps(orders | left))


if __name__ == "__main__":
    main()
