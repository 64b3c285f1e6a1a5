# SPDX-License-Identifier: BSD-2-Clause
"""The load: one initiator each, SRP or blkif, that sends commands at random, several at a time, and writes into the log
what it sends and what is answered. Knows commands and what each of them writes.
"""

import itertools
import random
import struct
import threading

from stress.worker import GOOD, Blkif, Srp

from crash.log import SECTOR, Log
from crash.promises import Command
from initiator.native import lib
from vscsi.scsi import cdb
from vscsi.scsi.parameters import encode_unmap

DEPTH = 6
SIZES = (1, 1, 2, 3, 8, 8, 13, 16, 40)
_numbers = itertools.count(1)
CLAIMED = 16
"""Sectors of each initiator that only its COMPARE AND WRITE and WRITE ATOMIC touch, one at a time."""


def stamp(number: int, sector: int) -> bytes:
    return struct.pack("<4Q", 0x4853415243, number, sector, number ^ 0x5555) * 16


class Load:
    """One initiator. `first` and `sectors`: where it works; others may work there, too, but for the claimed sectors.

    `grain`: sectors that O_DIRECT wants a write to be a multiple of.
    """

    def __init__(
        self,
        log: Log,
        socket,
        kind,
        first,
        sectors,
        claimed,
        seed,
        *,
        write_cache=True,
        whole=False,
        only_claimed=0.0,
        grain=1,
    ) -> None:
        self.log, self.first, self.sectors = log, first, sectors
        self.random = random.Random(seed)
        self.srp = kind == "srp"
        self.only_claimed, self.grain = only_claimed, grain
        self.disk = (Srp if self.srp else Blkif)(socket, False)
        self.write_cache, self.whole = write_cache, whole
        self.claimed = claimed
        self.claimed_data = bytes(CLAIMED * SECTOR)
        self.flying: dict[int, Command] = {}
        self.handles = itertools.count(1)

    # ---- commands ----

    def extent(self):
        count = min(-(-self.random.choice(SIZES) // self.grain) * self.grain, self.sectors)
        sector = self.first + self.random.randrange(self.sectors - count + 1)
        return sector // self.grain * self.grain, count

    def go(self, command: Command, start) -> None:
        handle = next(self.handles)
        self.flying[handle] = command
        with self.log.lock:
            command.sent = self.log.add("sent", command)
        start(handle)

    def data(self, sector: int, count: int) -> dict[int, bytes]:
        number = next(_numbers)
        return {at: stamp(number, at) for at in range(sector, sector + count)}

    def write(self) -> None:
        sector, count = self.extent()
        writes = self.data(sector, count)
        fua = self.random.random() < 0.25
        ordered = self.random.random() < 0.15
        barrier = ordered and not self.srp
        durable = (fua and self.srp) or barrier or not self.write_cache
        name = f"{'barrier' if barrier else 'write'}{' fua' * fua} {sector}+{count}"
        command = Command(self, writes, durable, flushes=barrier, ordered=ordered, name=name)
        data = b"".join(writes.values())
        self.go(command, lambda h: self.disk.start(h, "write", sector, count, data, fua=fua, ordered=ordered))

    def sync(self) -> None:
        ordered = self.srp and self.random.random() < 0.4
        command = Command(self, flushes=True, ordered=ordered, name="sync")
        self.go(command, lambda h: self.disk.start(h, "sync", 0, 0, ordered=False) if not ordered else self.raw(
            h, cdb.SYNCHRONIZE_CACHE_10.build(), ordered=True))  # fmt: skip

    def raw(self, handle, command, data=b"", *, ordered=False) -> None:
        attribute = lib.SRP_TSK_ORDERED if ordered else lib.SRP_TSK_SIMPLE
        tag = self.disk.initiator.submit(0, command, data_out=data, attribute=attribute, cookie=handle)
        self.disk.tags[handle] = tag

    def unmap(self) -> None:
        sector, count = self.extent()
        sector, count = -(-sector // 8) * 8, max(8, count // 8 * 8)
        if sector + count > self.first + self.sectors:
            return
        writes = dict.fromkeys(range(sector, sector + count), bytes(SECTOR))
        data = encode_unmap([(sector, count)])
        command = Command(self, writes, not self.write_cache, name=f"unmap {sector}+{count}")
        self.go(command, lambda h: self.raw(h, cdb.UNMAP.build(parameter_list_length=len(data)), data))

    def write_same(self) -> None:
        sector, count = self.extent()
        block = stamp(next(_numbers), sector)
        command = Command(self, dict.fromkeys(range(sector, sector + count), block), not self.write_cache, name="same")
        self.go(
            command, lambda h: self.raw(h, cdb.WRITE_SAME_16.build(lba=sector, number_of_logical_blocks=count), block)
        )

    def compare_and_write(self) -> None:
        count = max(self.grain, self.random.choice((1, 4, 8)))
        writes = self.data(self.claimed, count)
        new, fua = b"".join(writes.values()), self.random.random() < 0.6
        row = cdb.COMPARE_AND_WRITE.build(lba=self.claimed, number_of_logical_blocks=count, fua=int(fua))
        command = Command(self, writes, fua or not self.write_cache, name="compare and write", whole=False)
        old, self.claimed_data = self.claimed_data[: len(new)], new + self.claimed_data[len(new) :]
        self.go(command, lambda h: self.raw(h, row, old + new))

    def write_atomic(self) -> None:
        writes = self.data(self.claimed, CLAIMED)
        self.claimed_data = b"".join(writes.values())
        row = cdb.WRITE_ATOMIC_16.build(lba=self.claimed, transfer_length=CLAIMED)
        command = Command(self, writes, True, name="write atomic", whole=True)
        self.go(command, lambda h: self.raw(h, row, self.claimed_data))

    # ---- the loop ----

    def step(self) -> None:
        what = self.random.random()
        claimed = any(self.claimed in command.writes for command in self.flying.values())
        if self.random.random() < self.only_claimed:
            what = 0.88 + 0.12 * what
        if what < 0.12:
            self.sync()
        elif not self.srp or what < 0.75 or (claimed and what > 0.88):
            self.write()
        elif what < 0.82:
            self.unmap()
        elif what < 0.88:
            self.write_same()
        elif what < 0.95 or not self.whole:
            self.compare_and_write()
        else:
            self.write_atomic()

    def take(self) -> None:
        for handle, outcome, _ in self.disk.done():
            command = self.flying.pop(handle)
            assert outcome == GOOD, (command.name, outcome)
            self.log.add("acked", command)

    def run(self, count: int) -> None:
        try:
            for _ in range(count):
                self.step()
                while len(self.flying) >= DEPTH or (self.flying and self.random.random() < 0.3):
                    self.take()
            while self.flying:
                self.take()
        finally:
            self.disk.close()


def together(loads, count: int) -> None:
    """Runs them all at once; the first error of any."""
    failed: list[BaseException] = []

    def one(load):
        try:
            load.run(count)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(load,)) for load in loads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
