# SPDX-License-Identifier: BSD-2-Clause
"""Commands that are one step for everybody else, on a real target: beside READ and WRITE of other nexuses, in C, and
beside blkif. Every look at the blocks shows all of one state; no update is lost.
"""

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_server import Target

from initiator import Initiator, ScsiError
from initiator.vbd import Vbd
from vscsi.scsi import cdb, sense

SIZE = 512
LBA, BLOCKS = 5, 12
"""Across borders of pages."""
CAW = cdb.COMPARE_AND_WRITE.build(lba=LBA, number_of_logical_blocks=BLOCKS)
READ = cdb.READ_16.build(lba=LBA, transfer_length=BLOCKS)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = Target(tmp_path / "socket", "0=mem:1M", f"1={tmp_path / 'disk.img'},size=1M", loops=2)
    yield made
    made.stop()


def stamp(number: int, who: int = 0) -> bytes:
    return struct.pack("<QQ", number, who) * (SIZE // 16) * BLOCKS


def uniform(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """What all of the blocks hold."""
    found = bytes(data)
    assert found == found[:16] * (len(found) // 16), "blocks of two different states"
    number, who = struct.unpack_from("<QQ", found)
    return number, who


class Crew:
    """Threads whose first failure is the test's. `stop` is set when the workers have done their share."""

    def __init__(self, target: Target) -> None:
        self.target, self.stop = target, threading.Event()
        self.failures: list[BaseException] = []
        self.workers: list[threading.Thread] = []
        self.watchers: list[threading.Thread] = []
        self.looks = 0
        self.lock = threading.Lock()

    def _start(self, crew: list[threading.Thread], function: Callable[[], None]) -> None:
        def run() -> None:
            try:
                function()
            except BaseException as error:
                self.failures.append(error)
                self.stop.set()

        crew.append(threading.Thread(target=run))

    def work(self, function: Callable[[Initiator], None]) -> None:
        def run() -> None:
            with Initiator(str(self.target.path)) as initiator:
                function(initiator)

        self._start(self.workers, run)

    def watch(self, lun: int, check: Callable[[bytes], object], *, blkif: bool) -> None:
        """Looks at the blocks until all work is done, and a few times at least."""

        def srp() -> None:
            with Initiator(str(self.target.path)) as initiator:
                disk = initiator.lun(lun)
                look(lambda: disk.execute(READ, data_in=BLOCKS * SIZE).data_in)

        def vbd() -> None:
            with Vbd(str(self.target.path), lun=lun) as disk:
                look(lambda: disk.read(LBA, BLOCKS))

        def look(read: Callable[[], bytes]) -> None:
            count = 0
            while not self.stop.is_set() or count < 20:
                check(bytes(read()))
                count += 1
            with self.lock:
                self.looks += count

        self._start(self.watchers, vbd if blkif else srp)

    def run(self) -> None:
        for thread in self.workers + self.watchers:
            thread.start()
        for thread in self.workers:
            thread.join(60)
        self.stop.set()
        for thread in self.watchers:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.workers + self.watchers)
        if self.failures:
            raise self.failures[0]
        assert self.looks >= 20 * len(self.watchers)


def swap(initiator: Initiator, old: bytes, new: bytes) -> bool:
    """COMPARE AND WRITE; whether it wrote. INFORMATION of a miscompare lies within the first half."""
    try:
        initiator.lun(0).execute(CAW, data_out=old + new)
    except ScsiError as error:
        assert error.sense.matches(sense.MISCOMPARE_DURING_VERIFY_OPERATION), error
        assert error.sense.information is not None and error.sense.information < len(old)
        return False
    return True


def test_compare_and_write_counts(target: Target) -> None:
    """Three nexuses add to one number by COMPARE AND WRITE: each success is one more, and nobody sees a half."""
    crew, successes = Crew(target), [0, 0, 0]

    def add(who: int) -> Callable[[Initiator], None]:
        def work(initiator: Initiator) -> None:
            disk = initiator.lun(0)
            while successes[who] < 40:
                seen = bytes(disk.execute(READ, data_in=BLOCKS * SIZE).data_in)
                number, _ = uniform(seen)
                successes[who] += swap(initiator, seen, stamp(number + 1, who))

        return work

    for who in range(3):
        crew.work(add(who))
    crew.watch(0, uniform, blkif=False)
    crew.watch(0, uniform, blkif=True)
    crew.run()
    with Initiator(str(target.path)) as initiator:
        number, _ = uniform(initiator.lun(0).execute(READ, data_in=BLOCKS * SIZE).data_in)
    assert number == sum(successes)


@pytest.mark.parametrize("blkif", [False, True])
def test_a_write_is_never_overwritten_by_an_older_comparison(target: Target, blkif: bool) -> None:
    """Between the comparison and the write of COMPARE AND WRITE no WRITE may come: its data would be gone."""
    crew, done, swapped = Crew(target), threading.Event(), []

    def check(found: bytes, number: int) -> None:
        assert uniform(found)[0] == number, "the write that was answered last is gone"

    def write(initiator: Initiator) -> None:
        try:
            disk = initiator.lun(0)
            for number in range(1, 150):
                disk.execute(cdb.WRITE_16.build(lba=LBA, transfer_length=BLOCKS), data_out=stamp(number))
                check(bytes(disk.execute(READ, data_in=BLOCKS * SIZE).data_in), number)
        finally:
            done.set()

    def write_vbd(_: Initiator) -> None:
        try:
            with Vbd(str(target.path), lun=0) as disk:
                for number in range(1, 150):
                    disk.write(LBA, stamp(number))
                    check(disk.read(LBA, BLOCKS), number)
        finally:
            done.set()

    def compare(who: int) -> Callable[[Initiator], None]:
        def work(initiator: Initiator) -> None:
            disk, count = initiator.lun(0), 0
            while not done.is_set():
                found = bytes(disk.execute(READ, data_in=BLOCKS * SIZE).data_in)
                number = struct.unpack_from("<Q", found)[0]
                count += swap(initiator, found, stamp(number, who))
            swapped.append(count)

        return work

    crew.work(write_vbd if blkif else write)
    crew.work(compare(1))
    crew.work(compare(2))
    crew.run()
    assert sum(swapped) > 0


def test_orwrite_loses_no_bit(target: Target) -> None:
    crew = Crew(target)

    def set_bits(who: int) -> Callable[[Initiator], None]:
        def work(initiator: Initiator) -> None:
            disk = initiator.lun(0)
            for number in range(64):
                bits = (1 << (number * 2 + who)).to_bytes(16, "little") * (BLOCKS * SIZE // 16)
                disk.execute(cdb.ORWRITE_16.build(lba=LBA, transfer_length=BLOCKS), data_out=bits)

        return work

    crew.work(set_bits(0))
    crew.work(set_bits(1))
    crew.watch(0, uniform, blkif=False)
    crew.watch(0, uniform, blkif=True)
    crew.run()
    with Initiator(str(target.path)) as initiator:
        found = bytes(initiator.lun(0).execute(READ, data_in=BLOCKS * SIZE).data_in)
    assert found == b"\xff" * (BLOCKS * SIZE)


@pytest.mark.parametrize("lun", [0, 1])
def test_write_atomic_is_seen_as_a_whole(target: Target, lun: int) -> None:
    crew = Crew(target)

    def work(initiator: Initiator) -> None:
        disk = initiator.lun(lun)
        for number in range(40):
            row = cdb.WRITE_ATOMIC_16.build(lba=LBA, transfer_length=BLOCKS)
            disk.execute(row, data_out=stamp(number, 1))

    crew.work(work)
    crew.work(work)
    crew.watch(lun, uniform, blkif=False)
    crew.watch(lun, uniform, blkif=True)
    crew.run()


def test_esxi_takes_and_loses_a_lock(target: Target) -> None:
    """ATS as ESXi uses it: one block of 512 bytes, and exactly MISCOMPARE 1Dh/00h for the loser."""
    row = cdb.COMPARE_AND_WRITE.build(lba=8, number_of_logical_blocks=1)
    free, mine, other = bytes(SIZE), b"host A".ljust(SIZE, b"\0"), b"host B".ljust(SIZE, b"\0")
    with Initiator(str(target.path)) as one, Initiator(str(target.path)) as two:
        one.lun(1).execute(row, data_out=free + mine)
        two.lun(1).execute(cdb.TEST_UNIT_READY.build())
        done = two.execute(1, row, data_out=free + other)
        assert (done.status, done.sense[0] & 0x7F, done.sense[2] & 0xF, done.sense[12:14]) == (2, 0x70, 0xE, b"\x1d\0")
        assert done.sense[0] & 0x80 and int.from_bytes(done.sense[3:7]) == 0
        assert bytes(two.lun(1).execute(cdb.READ_16.build(lba=8, transfer_length=1), data_in=SIZE).data_in) == mine
        one.lun(1).execute(row, data_out=mine + free)
        two.lun(1).execute(row, data_out=free + other)
        zero = cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=1024)
        one.lun(1).execute(zero, data_out=bytes(SIZE))
        assert bytes(two.lun(1).execute(cdb.READ_16.build(lba=8, transfer_length=1), data_in=SIZE).data_in) == free


def test_a_wrong_amount_of_data_over_the_ring(target: Target) -> None:
    """Shorter or longer than the CDB says: ILLEGAL REQUEST with a pointer at the count, and nothing is written."""
    same = cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=8)
    swap_one = cdb.COMPARE_AND_WRITE.build(lba=0, number_of_logical_blocks=1)
    with Initiator(str(target.path)) as initiator:
        disk = initiator.lun(0)
        disk.execute(cdb.TEST_UNIT_READY.build())
        for raw, right, byte in ((same, SIZE, 10), (swap_one, 2 * SIZE, 13)):
            for nbytes in (right // 2, right - 1, right + 1, 2 * right):
                done = initiator.execute(0, raw, data_out=b"x" * nbytes)
                got = sense.decode(done.sense)
                assert got.matches(sense.INVALID_FIELD_IN_CDB), got.describe()
                assert got.field_pointer is not None and got.field_pointer.byte == byte
        unused = cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=8, ndob=1)
        done = initiator.execute(0, unused, data_out=b"x" * SIZE)
        assert (done.status, done.out_residual) == (0, SIZE)
        assert not any(disk.execute(cdb.READ_16.build(lba=0, transfer_length=8), data_in=8 * SIZE).data_in)
