# SPDX-License-Identifier: BSD-2-Clause
"""How commands fare under fault rules, without rings: status, sense, residuals, and what is on the medium then."""

import queue
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from memory_store import BLOCKS, SIZE, Memory, block

from target.commands import Background, Result, execute
from target.faults import Faults
from target.faults_rule import parse
from vscsi.scsi import cdb, sense
from vscsi.scsi import lun as lun_
from vscsi.scsi.status import Status

READ = cdb.READ_10.build(lba=8, transfer_length=4)
WRITE = cdb.WRITE_10.build(lba=8, transfer_length=4)
SECONDS = 10
NEW = b"n" * (4 * SIZE)
OLD = b"".join(block(8 + n) for n in range(4))


@dataclass
class Port(FakePort):
    """`gone`: the task has been aborted."""

    gone: bool = False

    def aborted(self) -> bool:
        return self.gone


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def device(memory: Memory) -> Iterator[FakeDevice]:
    made = FakeDevice("0=x", store=memory)
    made.connect(7)
    yield made
    made.close()


def fault(device: FakeDevice, *rules: str) -> Faults:
    faults = device.units[0].part(Faults)
    for rule in rules:
        faults.add(parse(rule))
    return faults


def on_medium(memory: Memory) -> bytes:
    return bytes(memory.data[8 * SIZE : 12 * SIZE])


def begun(device: FakeDevice, raw: bytes, port: FakePort, nexus: int = 7) -> Background:
    result = execute(port, device, raw, lu=device.units[0], lun=lun_.encode(0), nexus=nexus)
    assert isinstance(result, Background)
    return result


def started(background: Background) -> "queue.SimpleQueue[Result]":
    """Lets it go on; where its result will be."""
    results: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def finish() -> None:
        result = background.finish()
        assert isinstance(result, Result)
        results.put(result)

    assert background.start is not None
    background.start(finish)
    return results


def test_without_rules_there_is_a_fast_path_and_with_rules_none(device: FakeDevice) -> None:
    unit = device.units[0]
    assert not unit.faulty and device.refreshed == []
    faults = fault(device, "read,count=1,status=busy")
    assert unit.faulty and device.refreshed == [0]
    assert device.run(READ).status is Status.BUSY
    assert not unit.faulty and device.refreshed == [0, 0], "the rule is spent"
    do_command(device, READ)
    fault(device, "drop,test_unit_ready")
    faults.remove()
    assert not unit.faulty and device.refreshed == [0] * 4


def test_sense(device: FakeDevice, memory: Memory) -> None:
    fault(device, "lba=10,sense=4/44/00")
    do_command_fail(device, WRITE, sense.INTERNAL_TARGET_FAILURE, data_out=NEW)
    assert on_medium(memory) == OLD
    do_command_fail(device, READ, sense.INTERNAL_TARGET_FAILURE)
    do_command(device, cdb.READ_10.build(lba=0, transfer_length=8))
    do_command(device, cdb.INQUIRY.build(allocation_length=36))


def test_sense_of_a_medium_error_names_the_block(device: FakeDevice) -> None:
    fault(device, "read,lba=10-11,sense=unrecovered_read_error")
    assert do_command_fail(device, READ, sense.UNRECOVERED_READ_ERROR).information == 10


def test_sense_afterwards(device: FakeDevice, memory: Memory) -> None:
    fault(device, "write,after,sense=write_error", "read,sense=1/17/01")
    do_command_fail(device, WRITE, sense.WRITE_ERROR, data_out=NEW)
    assert on_medium(memory) == NEW, "it was done, only the answer says otherwise"
    port = FakePort()
    result = device.run(READ, port)
    got = sense.decode(result.sense)
    assert (result.status, got.key, got.asc, got.ascq) == (Status.CHECK_CONDITION, 1, 0x17, 1)
    assert bytes(port.data_in) == NEW and result.in_nbytes == len(NEW), "recovered: the data is there"


@pytest.mark.parametrize(
    "status", [Status.BUSY, Status.TASK_SET_FULL, Status.RESERVATION_CONFLICT, Status.TASK_ABORTED]
)
def test_statuses(device: FakeDevice, memory: Memory, status: Status) -> None:
    fault(device, f"write,status={status.name.lower()}")
    result = device.run(WRITE, FakePort(NEW))
    assert (result.status, result.sense) == (status, b"") and on_medium(memory) == OLD
    do_command(device, READ)


def test_a_short_read_leaves_a_residual(device: FakeDevice) -> None:
    fault(device, "short=700")
    port = FakePort()
    result = device.run(READ, port)
    assert (result.status, result.in_nbytes) == (Status.GOOD, 700)
    assert bytes(port.data_in) == OLD[:700]
    assert len(do_command_in(device, cdb.INQUIRY.build(allocation_length=36))) == 36, "shorter than that anyway"


@pytest.mark.parametrize(("nbytes", "blocks"), [(0, 0), (700, 1), (1024, 2), (4096, 4)])
def test_a_short_write_writes_whole_blocks(device: FakeDevice, memory: Memory, nbytes: int, blocks: int) -> None:
    fault(device, f"write,short={nbytes}")
    result = device.run(WRITE, FakePort(NEW))
    assert (result.status, result.out_nbytes) == (Status.GOOD, min(nbytes, len(NEW)))
    assert on_medium(memory) == NEW[: blocks * SIZE] + OLD[blocks * SIZE :]


def test_short_for_blkif_is_an_error(device: FakeDevice) -> None:
    """Which has no residual. A nexus that the device does not know is a blkif connection's."""
    fault(device, "short=700")
    for raw, data in ((READ, b""), (WRITE, NEW)):
        assert device.run(raw, FakePort(data), nexus=99).status is Status.CHECK_CONDITION
    assert device.run(cdb.READ_10.build(transfer_length=1), nexus=99).status is Status.GOOD, (
        "512 bytes are not too many"
    )


def test_corrupt_data_differs_in_so_many_bits(device: FakeDevice, memory: Memory) -> None:
    fault(device, "read,corrupt=5", "write,corrupt=3,count=1")

    def flipped(one: bytes, other: bytes) -> int:
        return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()

    reads = {do_command_in(device, READ) for _ in range(4)}
    assert len(reads) > 1 and all(flipped(data, OLD) == 5 for data in reads) and on_medium(memory) == OLD
    do_command(device, WRITE, NEW)
    assert flipped(on_medium(memory), NEW) == 3


def test_what_is_ignored_ends_well_and_does_nothing(device: FakeDevice, memory: Memory) -> None:
    fault(device, "write+sync,ignore")
    result = device.run(WRITE, FakePort(NEW))
    assert (result.status, result.out_nbytes) == (Status.GOOD, len(NEW))
    do_command(device, cdb.SYNCHRONIZE_CACHE_10.build())
    assert on_medium(memory) == OLD and memory.calls == []


def test_bad_blocks_until_they_are_written(device: FakeDevice, memory: Memory) -> None:
    faults = fault(device, "bad,lba=9-10")
    assert do_command_fail(device, READ, sense.UNRECOVERED_READ_ERROR).information == 9
    verify = cdb.VERIFY_10.build(lba=10, verification_length=8)
    assert do_command_fail(device, verify, sense.UNRECOVERED_READ_ERROR).information == 10
    do_command(device, cdb.READ_10.build(lba=11, transfer_length=4))
    do_command(device, cdb.WRITE_10.build(lba=9, transfer_length=1), bytes(SIZE))
    assert do_command_fail(device, READ, sense.UNRECOVERED_READ_ERROR).information == 10
    told = faults.list()[0]
    assert (told["bad"], told["hits"], told["spent"]) == ([[10, 10]], 3, False)
    do_command(device, cdb.WRITE_SAME_10.build(lba=10, number_of_logical_blocks=2), bytes(SIZE))
    do_command(device, READ)
    assert faults.list()[0]["spent"] and not device.units[0].faulty


def test_sanitize_makes_bad_blocks_good(device: FakeDevice) -> None:
    faults = fault(device, "bad,lba=9-", "bad,lba=0,sense=3/31/00")
    do_command_fail(device, cdb.READ_10.build(transfer_length=1), sense.MEDIUM_FORMAT_CORRUPTED)
    assert faults.list()[0]["bad"] == [[9, BLOCKS - 1]]
    faults.sanitized()
    do_command(device, READ)


def test_a_dropped_command_ends_when_it_is_aborted(device: FakeDevice, memory: Memory) -> None:
    faults = fault(device, "write,drop")
    port = Port(NEW)
    results = started(begun(device, WRITE, port))
    assert results.empty() and faults.list()[0]["held"] == 1
    port.gone = True
    assert results.get(timeout=SECONDS) == Result(Status.TASK_ABORTED) and on_medium(memory) == OLD
    port = FakePort(NEW)
    fault(device, "read,drop")
    started(begun(device, READ, port))
    faults.remove()
    assert faults.list() == [], "no answer comes from that either"


def test_an_answer_that_is_lost(device: FakeDevice, memory: Memory) -> None:
    fault(device, "write,drop,after")
    results = started(begun(device, WRITE, FakePort(NEW)))
    assert results.empty() and on_medium(memory) == NEW


def test_what_hangs_ends_when_the_rule_goes(device: FakeDevice, memory: Memory) -> None:
    faults = fault(device, "write,hang,count=2")
    aborted, other = Port(NEW), Port(NEW)
    dead, alive = started(begun(device, WRITE, aborted)), started(begun(device, WRITE, other))
    aborted.gone = True
    assert (dead.empty(), alive.empty(), faults.list()[0]["held"]) == (True, True, 2)
    faults.remove(1)
    assert dead.get(timeout=SECONDS) == Result(Status.TASK_ABORTED)
    assert alive.get(timeout=SECONDS) == Result(Status.GOOD, b"", len(NEW)) and on_medium(memory) == NEW


@pytest.mark.parametrize("after", [False, True])
def test_delay(device: FakeDevice, memory: Memory, after: bool) -> None:
    fault(device, "write,delay=30" + ",after" * after, "write,skip=1,status=busy")
    background = begun(device, WRITE, FakePort(NEW))
    assert on_medium(memory) == (NEW if after else OLD)
    results = started(background)
    assert results.get(timeout=SECONDS) == Result(Status.GOOD, b"", len(NEW)) and on_medium(memory) == NEW
    results = started(begun(device, WRITE, FakePort(NEW)))
    assert results.get(timeout=SECONDS) == Result(Status.BUSY), "both rules have their say"


def test_a_delayed_command_that_is_aborted_does_nothing_more(device: FakeDevice, memory: Memory) -> None:
    fault(device, "write,delay=86400000")
    port = Port(NEW)
    results = started(begun(device, WRITE, port))
    port.gone = True
    assert results.get(timeout=SECONDS) == Result(Status.TASK_ABORTED) and on_medium(memory) == OLD


def test_only_the_initiator_port_that_is_meant(device: FakeDevice) -> None:
    fault(device, "port=09,status=busy")
    device.connect(9)
    assert device.run(READ, nexus=9).status is Status.BUSY
    assert device.run(READ, nexus=7).status is device.run(READ, nexus=99).status is Status.GOOD


@pytest.mark.parametrize(
    ("raw", "hit"),
    [
        (cdb.READ_6.build(lba=100, transfer_length=0), True),  # 256 blocks
        (cdb.READ_10.build(lba=100, transfer_length=0), False),
        (cdb.READ_10.build(lba=301, transfer_length=1), False),
        (cdb.SYNCHRONIZE_CACHE_10.build(), True),  # all that follow
        (cdb.TEST_UNIT_READY.build(), False),
    ],
)
def test_blocks_that_a_command_touches(device: FakeDevice, raw: bytes, hit: bool) -> None:
    fault(device, "lba=300,status=busy")
    assert (device.run(raw).status is Status.BUSY) == hit


def test_what_fails_by_itself_fails_by_itself(device: FakeDevice) -> None:
    faults = fault(device, "status=busy")
    do_command_fail(device, bytes([0xC0, *bytes(5)]), sense.INVALID_COMMAND_OPERATION_CODE)
    bad = cdb.READ_10.build(lba=1 << 31, transfer_length=1)
    assert device.run(bad).status is Status.BUSY
    faults.remove()
    do_command_fail(device, bad, sense.LBA_OUT_OF_RANGE)


def test_blocks_beyond_the_end_are_worth_a_warning(device: FakeDevice, caplog: pytest.LogCaptureFixture) -> None:
    fault(device, f"drop,lba={BLOCKS}")
    assert f"the unit has only {BLOCKS} blocks" in caplog.text
