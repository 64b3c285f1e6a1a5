# SPDX-License-Identifier: BSD-2-Clause
"""Reservations as initiators meet them: a target's process, three initiator ports on SRP rings, and blkif beside."""

import signal
import threading

import pytest
from programs import Target

from initiator import CommandAborted, Initiator
from initiator.errors import BlkifError
from initiator.vbd import Vbd
from vscsi.scsi import cdb, sense
from vscsi.scsi import reservations as layout
from vscsi.scsi.reservations import Type, encode_move, encode_out, encode_srp_transportid
from vscsi.scsi.status import Status

MIB = 1 << 20
GOOD, CONFLICT, CHECK = Status.GOOD, Status.RESERVATION_CONFLICT, Status.CHECK_CONDITION
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE = range(8)
READ_10, WRITE_10 = cdb.READ_10.build(lba=3, transfer_length=1), cdb.WRITE_10.build(lba=3, transfer_length=1)
TEST_UNIT_READY, READ_CAPACITY = bytes(6), cdb.READ_CAPACITY_10.build()
SYNCHRONIZE = cdb.SYNCHRONIZE_CACHE_10.build()


class Host:
    """An initiator port with a name that lasts; LUN 0 unless told otherwise."""

    def __init__(self, target: Target, n: int) -> None:
        self.n, self.key = n, 0xA0 + n
        self.port_id = bytes([0x40 + n]) * 16
        self.initiator = Initiator(target.socket, port_id=self.port_id, memory_nbytes=4 * MIB, timeout=20)
        self.greeting = self.attention()

    def send(self, raw: bytes, data: bytes = b"", data_in: int = 0, lun: int = 0):
        return self.initiator.execute(lun, raw, data_out=data, data_in=data_in)

    def status(self, raw: bytes, data: bytes = b"") -> int:
        row = cdb.lookup(raw)
        return self.send(raw, data, 512 if row.data is cdb.Data.IN else 0).status

    def attention(self) -> int:
        """ASC << 8 | ASCQ of the unit attention that the next command meets; 0: none."""
        done = self.send(TEST_UNIT_READY)
        if done.status != CHECK:
            return 0
        found = sense.decode(done.sense)
        assert found.key == sense.Key.UNIT_ATTENTION
        return found.asc << 8 | found.ascq

    def out(self, sa: int, data: bytes, kind: int = 0) -> int:
        return self.send(cdb.ROWS[0x5F, sa].build(type=kind, parameter_list_length=len(data)), data).status

    def register(self, **flags: int) -> None:
        assert self.out(REGISTER, encode_out(0, self.key, **flags)) == GOOD

    def keys(self) -> tuple[int, list[int]]:
        return layout.decode_keys(self.read_in(0))

    def read_in(self, sa: int) -> bytes:
        done = self.send(cdb.ROWS[0x5E, sa].build(allocation_length=512), data_in=512)
        assert done.status == GOOD
        return bytes(done.data_in)[: 512 - done.in_residual]

    def may(self) -> str:
        """Which of reading and writing it may."""
        reads, writes = self.status(READ_10), self.status(WRITE_10, b"w" * 512)
        assert {reads, writes} <= {GOOD, CONFLICT}
        assert self.status(SYNCHRONIZE) == writes
        assert self.status(TEST_UNIT_READY) == self.status(READ_CAPACITY) == GOOD
        return "R" * (reads == GOOD) + "W" * (writes == GOOD)

    def close(self) -> None:
        self.initiator.close()


@pytest.fixture
def target(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    made = Target(tmp_path, f"0={tmp_path / 'disk.img'}")
    yield made
    if made.process.poll() is None:
        assert made.stop() == 0


@pytest.fixture
def hosts(target):
    made = [Host(target, n) for n in range(3)]
    yield made
    for host in made:
        host.close()


def vbd_may(vbd: Vbd) -> str:
    may = ""
    for letter, action in (("R", lambda: vbd.read(3, 1)), ("W", lambda: vbd.write(3, b"v" * 512))):
        try:
            action()
            may += letter
        except BlkifError:
            pass
    return may


EXPECTED = {
    Type.WRITE_EXCLUSIVE: ("RW", "R", "R"),
    Type.EXCLUSIVE_ACCESS: ("RW", "", ""),
    Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY: ("RW", "RW", "R"),
    Type.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: ("RW", "RW", ""),
    Type.WRITE_EXCLUSIVE_ALL_REGISTRANTS: ("RW", "RW", "R"),
    Type.EXCLUSIVE_ACCESS_ALL_REGISTRANTS: ("RW", "RW", ""),
}


def test_every_type_for_holder_registrant_stranger_and_blkif(target, hosts):
    a, b, c = hosts
    assert [host.greeting for host in hosts] == [0x2900] * 3
    a.register()
    b.register()
    with Vbd(target.socket, memory_nbytes=4 * MIB) as vbd:
        for kind, expected in EXPECTED.items():
            assert a.out(RESERVE, encode_out(a.key), kind) == GOOD
            assert (a.may(), b.may(), c.may()) == expected, kind.name
            assert vbd_may(vbd) == expected[2], kind.name
            late = Host(target, 9 + kind)
            assert late.greeting == 0x2900
            assert late.may() == expected[2], "who logs in later"
            late.close()
            assert a.out(RELEASE, encode_out(a.key), kind) == GOOD
            assert (b.attention(), c.attention()) == (0x2A04 if kind >= 5 else 0, 0)
            assert vbd_may(vbd) == c.may() == "RW"
        with pytest.raises(BlkifError):
            assert a.out(RESERVE, encode_out(a.key), 1) == GOOD
            vbd.discard(0, 8)


def test_logging_in_again_loses_what_goes_with_the_nexus(target, hosts):
    a, b, _ = hosts
    assert a.send(cdb.RESERVE_6.build()).status == GOOD
    assert b.status(TEST_UNIT_READY) == CONFLICT
    again = Host(target, a.n)
    assert again.greeting == 0x2907
    assert b.may() == again.may() == "RW"
    again.close()


def test_preemption_and_its_unit_attentions(hosts):
    a, b, c = hosts
    for host in hosts:
        host.register()
    assert a.out(RESERVE, encode_out(a.key), 3) == GOOD
    assert b.out(PREEMPT, encode_out(b.key, a.key), 5) == GOOD
    assert (a.attention(), a.attention()) == (0x2A05, 0)
    assert (b.attention(), c.attention()) == (0, 0x2A04), "another type than before"
    assert (a.may(), b.may(), c.may()) == ("R", "RW", "RW")
    assert c.out(CLEAR, encode_out(c.key)) == GOOD
    assert (a.attention(), b.attention(), c.attention()) == (0, 0x2A03, 0)
    assert c.keys() == (5, [])


def test_a_conflict_ranks_before_the_unit_attention_of_a_preemption(hosts):
    a, b, _ = hosts
    a.register()
    b.register()
    assert a.out(RESERVE, encode_out(a.key), 3) == GOOD
    assert a.out(PREEMPT, encode_out(a.key, b.key), 3) == GOOD
    assert b.status(READ_10) == CONFLICT
    assert b.out(RELEASE, encode_out(b.key), 3) == b.out(RESERVE, encode_out(b.key), 3) == CONFLICT, "not registered"
    assert b.status(cdb.START_STOP_UNIT.build(start=0)) == CONFLICT
    assert b.attention() == 0x2A05, "the conflict left it pending"
    b.register()
    assert a.out(PREEMPT, encode_out(a.key, a.key), 1) == GOOD
    assert b.attention() == 0x2A04
    assert b.out(RESERVE, encode_out(b.key), 1) == CONFLICT


def test_move_to_a_port_that_is_away(target, hosts):
    a, b, _ = hosts
    a.register()
    assert a.out(RESERVE, encode_out(a.key), 3) == GOOD
    to = bytes([0x47]) * 16
    assert a.out(MOVE, encode_move(a.key, 0x77, 1, encode_srp_transportid(to), unreg=True)) == GOOD
    assert (a.may(), b.may()) == ("", "")
    late = Host(target, 7)
    assert late.port_id == to
    assert late.may() == "RW"
    assert late.keys() == (2, [0x77])
    late.close()


def test_registrations_outlive_the_session(target, hosts):
    a, b, _ = hosts
    a.register()
    assert a.out(RESERVE, encode_out(a.key), 1) == GOOD
    a.close()
    assert b.may() == "R"
    again = Host(target, 0)
    assert again.greeting == 0x2907
    assert again.may() == "RW"
    again.close()


def test_reserve_6_ends_with_its_nexus(target, hosts):
    a, b, c = hosts
    assert a.status(bytes.fromhex("16 00 00 00 00 00")) == GOOD
    with Vbd(target.socket, memory_nbytes=4 * MIB) as vbd:
        assert vbd_may(vbd) == ""
    for raw in (TEST_UNIT_READY, READ_CAPACITY, READ_10, bytes.fromhex("16 00 00 00 00 00")):
        assert b.status(raw) == CONFLICT
    assert b.status(cdb.INQUIRY.build(allocation_length=36)) == GOOD
    assert b.status(bytes.fromhex("17 00 00 00 00 00")) == GOOD, "a release by somebody else does nothing"
    assert b.status(TEST_UNIT_READY) == CONFLICT
    for host in (a, b):
        assert host.out(REGISTER, encode_out(0, 1)) == CONFLICT
        assert host.status(cdb.PERSISTENT_RESERVE_IN_READ_KEYS.build(allocation_length=8)) == CONFLICT
    a.close()
    while c.status(TEST_UNIT_READY) == CONFLICT:
        pass
    assert b.may() == "RW"
    b.register()
    assert c.status(bytes.fromhex("56 00 00 00 00 00 00 00 00 00")) == CONFLICT


def test_a_reset_ends_reserve_6_and_keeps_registrations(hosts):
    a, b, _ = hosts
    assert a.status(bytes.fromhex("16 00 00 00 00 00")) == GOOD
    assert b.initiator.task_management(0x08, 0) == 0  # LOGICAL UNIT RESET
    assert (a.attention(), b.attention()) == (0x2903, 0x2903)
    assert b.may() == "RW"
    b.register()
    assert b.out(RESERVE, encode_out(b.key), 1) == GOOD
    assert a.initiator.task_management(0x08, 0) == 0
    assert (a.attention(), b.attention()) == (0x2903, 0x2903)
    assert (a.may(), b.may()) == ("R", "RW")


# ---- fencing: nothing of the preempted lands once PREEMPT AND ABORT has ended ----


class Writer(threading.Thread):
    """Writes without end, until a conflict tells it to stop."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host, self.rounds, self.codes, self.wrong = host, 0, [], []
        self.begun = threading.Event()

    def run(self) -> None:
        raw = cdb.WRITE_10.build(lba=0, transfer_length=256)
        while True:
            try:
                done = self.host.send(raw, b"X" * (256 * 512))
            except CommandAborted:
                continue
            if done.status == CONFLICT:
                return
            if done.status == CHECK:
                found = sense.decode(done.sense)
                self.codes.append(found.asc << 8 | found.ascq)
            elif done.status != GOOD:
                self.wrong.append(done.status)
            self.rounds += 1
            self.begun.set()


def test_nothing_lands_after_preempt_and_abort(hosts):
    a, b, c = hosts
    a.register()
    for host in (b, c):
        assert host.out(REGISTER, encode_out(0, 0xBC)) == GOOD
    assert b.out(RESERVE, encode_out(0xBC), Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY) == GOOD
    writers = [Writer(host) for host in (b, b, c, c)]
    for writer in writers:
        writer.start()
    assert all(writer.begun.wait(20) for writer in writers)
    assert a.out(PREEMPT_AND_ABORT, encode_out(a.key, 0xBC), Type.WRITE_EXCLUSIVE) == GOOD
    mine = b"A" * (256 * 512)
    assert a.status(cdb.WRITE_10.build(lba=0, transfer_length=256), mine) == GOOD
    for writer in writers:
        writer.join(20)
        assert not writer.is_alive()
        assert writer.wrong == []
        assert set(writer.codes) <= {0x2A05, 0x2F00}
    read = a.send(cdb.READ_10.build(lba=0, transfer_length=256), data_in=256 * 512)
    assert (read.status, bytes(read.data_in)) == (GOOD, mine)
    assert a.keys()[1] == [a.key]
    for host in (b, c):
        told = [code for writer in writers if writer.host is host for code in writer.codes]
        while code := host.attention():
            told.append(code)
        assert told.count(0x2A05) == 1
        assert told.count(0x2F00) <= 1


def test_two_that_preempt_each_other_at_once(hosts):
    a, b, c = hosts
    for _ in range(10):
        for host in (a, b):
            assert host.out(IGNORE, encode_out(0, host.key)) == GOOD
        assert a.out(RESERVE, encode_out(a.key), Type.EXCLUSIVE_ACCESS_ALL_REGISTRANTS) == GOOD
        start, ended = threading.Barrier(2), {}
        threads = [threading.Thread(target=_preempt, args=(start, ended, x, y)) for x, y in ((a, b), (b, a))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        winners = [host for host in (a, b) if ended[host] == GOOD]
        assert len(winners) == 1
        winner, loser = winners[0], b if winners[0] is a else a
        assert ended[loser] in (CONFLICT, "aborted", 0x2A05), "too late, too slow, or told before it came"
        assert c.keys()[1] == [winner.key]
        told = {ended[loser]} - {CONFLICT, "aborted"}
        while code := loser.attention():
            told.add(code)
        assert 0x2A05 in told <= {0x2A05, 0x2F00}
        assert winner.attention() == 0
        assert winner.out(CLEAR, encode_out(winner.key)) == GOOD


def _preempt(start: threading.Barrier, ended: dict, me: Host, other: Host) -> None:
    data = encode_out(me.key, other.key)
    raw = cdb.PERSISTENT_RESERVE_OUT_PREEMPT_AND_ABORT.build(type=8, parameter_list_length=len(data))
    start.wait()
    try:
        done = me.send(raw, data)
        ended[me] = done.status
        if done.status == CHECK:
            found = sense.decode(done.sense)
            ended[me] = found.asc << 8 | found.ascq
    except CommandAborted:
        ended[me] = "aborted"


# ---- restarts ----


@pytest.mark.parametrize("aptpl", [1, 0])
def test_a_killed_target_keeps_what_it_promised(tmp_path, aptpl):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(MIB))
    first = Target(tmp_path, f"0={image}")
    a, b = Host(first, 0), Host(first, 1)
    a.register(aptpl=aptpl)
    b.register(aptpl=aptpl)
    assert a.out(RESERVE, encode_out(a.key), Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY) == GOOD
    first.process.send_signal(signal.SIGKILL)  # the reservation has been answered, so it is kept
    first.process.wait(20)
    a.close()
    b.close()
    (tmp_path / "t.pid").unlink()
    second = Target(tmp_path, f"0={image}")
    late = Host(second, 2)
    assert late.may() == ("R" if aptpl else "RW"), "also before anybody of old has come back"
    a, b = Host(second, 0), Host(second, 1)
    capabilities = layout.CAPABILITIES.numbers(a.read_in(2))
    assert (capabilities["ptpl_c"], capabilities["ptpl_a"]) == (1, aptpl)
    assert a.keys() == (0, [a.key, b.key] if aptpl else [])
    assert b.may() == "RW"
    if aptpl:
        rows = layout.decode_full_status(a.read_in(3))[1]
        assert [(row.transportid[8:], row.holder) for row in rows] == [(a.port_id, True), (b.port_id, False)]
        assert a.out(RELEASE, encode_out(a.key), 5) == GOOD
        assert (b.attention(), late.may()) == (0x2A04, "RW")
    for host in (a, b, late):
        host.close()
    assert second.stop() == 0
