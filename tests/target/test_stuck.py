# SPDX-License-Identifier: BSD-2-Clause
"""An image whose file does not answer, under a real target: nobody else notices, aborts are answered in time, nothing
lands after an abort, and the target can be stopped.

The image lies in a folder of this process (FUSE) whose reads, writes and flushes hang on demand.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import oracle_srp as oracle
import pytest
from bus_initiator import Raw, RawSrp
from programs import BIN, Target, run
from real_server import A, B, absorb_attention, read_10
from served import absorb, good
from stuck import Gate, gated

from initiator import Initiator
from initiator.vbd import Vbd
from vscsi.native import lib
from vscsi.scsi import cdb, sense

NBYTES = 1 << 20
LIMIT_MS = 300
OLD, NEW = b"\0" * 512, b"n" * 512
IN_USE = lib.GTF_READING | lib.GTF_WRITING
WRITE_SAME = cdb.WRITE_SAME_10.build(lba=64, number_of_logical_blocks=8)
VERIFY = cdb.VERIFY_10.build(lba=64, verification_length=8)
INQUIRY = cdb.INQUIRY.build(allocation_length=36)


@dataclass
class Served:
    gate: Gate
    target: Target
    folder: Path

    @property
    def content(self) -> bytearray:
        """Of the image that may hang."""
        return self.gate.files["/image"].data


URING, POOL = "io_uring", "pool"
engines = pytest.mark.parametrize("engine", [URING, POOL])


@pytest.fixture
def served(engine: str, tmp_path: Path) -> Iterator[Served]:
    """LUN 0 may hang, LUN 1 does not."""
    with gated(tmp_path / "folder", image=NBYTES) as gate:
        luns = (f"0={tmp_path}/folder/image,state={tmp_path}/state", f"1={tmp_path}/good.img,size=1M")
        target = Target(tmp_path, *luns, options=["--engine", engine, "--abort-limit", LIMIT_MS])
        try:
            yield Served(gate, target, tmp_path)
        finally:
            gate.let_go()
            target.stop()


@pytest.fixture
def raw(served: Served) -> Iterator[Raw]:
    made = Raw(served.target.socket)
    yield made
    made.close()


def log_in(raw: Raw, port: bytes, devid: int = 0) -> RawSrp:
    """Without persistent grants: a page is in use for as long as a command needs it."""
    channel = raw.srp(devid, connect=False)
    channel.connect(lambda nodes: {**nodes, "feature-persistent": "0"})
    channel.login(port)
    for lun in (0, 1):
        absorb_attention(channel, bytes((0, lun)) + bytes(6))
    return channel


def until(predicate, what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def page(channel: RawSrp, data: bytes = b"") -> tuple[oracle.Direct, int]:
    """A granted page of 512 bytes, and its grant reference."""
    memory = channel.raw.connection.memory
    offset = memory.alloc(lib.VSCSI_PAGE_SIZE)
    memory.view[offset : offset + len(data)] = data
    gref = memory.grant(offset, lib.VSCSI_PAGE_SIZE)[0]
    return oracle.Direct(0, gref, 512), gref


def in_use(channel: RawSrp, gref: int) -> bool:
    return bool(lib.vscsi_granter_flags(channel.raw.connection.memory.granter, gref) & IN_USE)


def manage(channel: RawSrp, function: int, tag: int, task_tag: int = 0) -> None:
    channel.ring.send(oracle.encode(oracle.TskMgmt(0, tag, bytes(8), function, task_tag)))


def answer(channel: RawSrp) -> tuple[int, int | None]:
    """Tag and response code of the next one."""
    data = channel.ring.take()
    assert data is not None, "no answer"
    rsp = oracle.decode_rsp(data)
    return rsp.tag, rsp.response_data[3] if rsp.response_data else None


# ---- others go on ----


@pytest.mark.parametrize(
    ("engine", "what"), [(URING, "read"), (POOL, "read"), (URING, "write"), (URING, "fsync"), (POOL, "fsync")]
)
def test_other_units_and_nexuses_go_on(served: Served, what: str) -> None:
    """Fast path and workers are full of commands that hang: another nexus does all there is on another unit."""
    commands = {
        "read": [(cdb.READ_10.build(lba=n, transfer_length=1), 0, 512) for n in range(24)] + [(VERIFY, 0, 0)] * 6,
        "write": [(cdb.WRITE_10.build(lba=n, transfer_length=1, fua=n & 1), 512, 0) for n in range(24)]
        + [(WRITE_SAME, 512, 0)] * 6,
        "fsync": [(cdb.SYNCHRONIZE_CACHE_10.build(), 0, 0)] * 24
        + [(cdb.WRITE_AND_VERIFY_10.build(transfer_length=1), 512, 0)] * 6,
    }
    with Initiator(served.target.socket) as stuck, Initiator(served.target.socket) as other:
        for initiator in (stuck, other):
            for lun in (0, 1):
                absorb(initiator, lun)
        served.gate.hangs = lambda kind, offset, nbytes: kind == what
        for raw, out, room in commands[what]:
            stuck.submit(0, raw, data_out=bytes(out), data_in=room)
        served.gate.wait_for(1)
        for _ in range(2):
            lun = other.lun(1)
            lun.write(0, NEW * 64)
            assert lun.read(0, 64) == NEW * 64
            good(other, cdb.SYNCHRONIZE_CACHE_10.build(), lun=1)
            good(other, cdb.WRITE_10.build(transfer_length=1, fua=1), NEW, lun=1)
            good(other, WRITE_SAME, NEW, lun=1)
            good(other, VERIFY, lun=1)
            for each in (stuck, other):
                good(each, INQUIRY, data_in=36)
                good(each, INQUIRY, lun=1, data_in=36)
        with Vbd(served.target.socket, lun=1) as vbd:
            vbd.write(8, NEW)
            vbd.flush()
        with Initiator(served.target.socket) as late:
            absorb(late, 1)
            assert late.lun(1).read(8, 1) == NEW
        assert "lun 0: 2048 blocks" in status(served)
        assert served.gate.waiting, "all that while"
        served.gate.let_go()
        done = stuck.reap(30, 30, timeout=30)
        assert [one.status for one in done] == [0] * 30


@pytest.mark.parametrize("engine", [URING])
def test_other_blocks_of_the_same_unit_go_on(served: Served) -> None:
    with Initiator(served.target.socket) as stuck, Initiator(served.target.socket) as other:
        absorb(stuck)
        absorb(other)
        served.gate.hangs = lambda kind, offset, nbytes: kind == "read" and offset == 512 * 512
        stuck.submit(0, cdb.READ_10.build(lba=512, transfer_length=1), data_in=512)
        served.gate.wait_for(1)
        other.lun(0).write(0, NEW)
        assert other.lun(0).read(0, 1) == NEW
        good(other, VERIFY)
        served.gate.let_go()
        assert [one.status for one in stuck.reap(1, 1, timeout=30)] == [0]


@pytest.mark.parametrize("engine", [URING])
def test_an_initiator_that_dies_leaves_only_its_own_behind(served: Served) -> None:
    with Initiator(served.target.socket) as other:
        absorb(other)
        absorb(other, 1)
        dying = Raw(served.target.socket)
        channel = log_in(dying, A)
        served.gate.hangs = lambda kind, offset, nbytes: kind == "read"
        for tag in range(3):
            channel.ring.send(oracle.encode(oracle.Cmd(tag, bytes(8), read_10(tag, 1), data_in=page(channel)[0])))
        served.gate.wait_for(3)
        dying.close()
        other.lun(0).write(0, NEW)
        assert other.lun(1).read(0, 1) == OLD
        served.gate.let_go()
        assert other.lun(0).read(0, 1) == NEW
        until(lambda: len(initiators(served)) == 1, "the dead one is still there")


def status(served: Served) -> str:
    done = run(BIN / "vscsi-admin", "-U", served.target.socket, "status")
    assert done.status == 0, done.err
    return done.text


def initiators(served: Served) -> list[str]:
    return [line for line in status(served).splitlines() if line.startswith("initiator ")]


# ---- task management ----


@pytest.mark.parametrize(("engine", "function"), [(URING, "ABORT_TASK"), (POOL, "ABORT_TASK"), (POOL, "LUN_RESET")])
def test_functions_fail_in_time_and_the_unit_is_not_ready_until_it_is(served: Served, raw: Raw, function: str) -> None:
    channel, other = log_in(raw, A), log_in(raw, B, devid=1)
    served.gate.hangs = lambda kind, offset, nbytes: kind == "read"
    buffer, gref = page(channel)
    channel.ring.send(oracle.encode(oracle.Cmd(5, bytes(8), read_10(7, 1), data_in=buffer)))
    served.gate.wait_for(1)
    manage(channel, getattr(lib, f"SRP_TMF_{function}"), 6, 5)
    assert answer(channel) == (6, lib.SRP_RESP_FAILED)
    assert in_use(channel, gref), "the I/O may still write there"
    attention = function == "LUN_RESET"
    for each in (channel, other):
        if attention:
            absorb_attention(each)
        for raw_cdb in (read_10(0, 1), VERIFY, cdb.SYNCHRONIZE_CACHE_10.build(), cdb.TEST_UNIT_READY.build()):
            found = sense.decode(each.command(raw_cdb).sense_data)
            assert found.matches(sense.NOT_READY_CAUSE_NOT_REPORTABLE), found.describe()
        assert each.command(INQUIRY, data_in=36).status == 0
        assert each.command(read_10(0, 1), lun=b"\0\1" + bytes(6)).status == 0
    with Vbd(served.target.socket, lun=0) as vbd, pytest.raises(Exception, match=r"(?i)error"):
        vbd.read(0, 1)
    assert in_use(channel, gref)
    served.gate.let_go()
    assert answer(channel) == (5, lib.SRP_RESP_COMPLETE)
    assert not in_use(channel, gref)
    for each in (channel, other):
        assert each.command(read_10(0, 1), tag=8).status == 0, "ready again"
    manage(channel, getattr(lib, f"SRP_TMF_{function}"), 9, 5)
    assert answer(channel) == (9, lib.SRP_RESP_COMPLETE)
    assert channel.ring.take(0.1) is None, "one answer each"


@engines
def test_an_aborted_write_lands_before_the_function_is_complete_or_never(served: Served, raw: Raw) -> None:
    """Some have begun when they are aborted, others not: only of the former does the function fail."""
    channel = log_in(raw, A)
    tags = range(10)
    served.gate.hangs = lambda kind, offset, nbytes: kind == "write"
    for tag in tags:
        write = cdb.WRITE_10.build(lba=8 * tag, transfer_length=1)
        channel.ring.send(oracle.encode(oracle.Cmd(tag, bytes(8), write, data_out=page(channel, NEW)[0])))
    served.gate.wait_for(1)
    for tag in tags:
        manage(channel, lib.SRP_TMF_ABORT_TASK, 100 + tag, tag)
    codes: dict[int, int | None] = {}
    while len([tag for tag in codes if tag >= 100]) < len(tags):
        tag, code = answer(channel)
        assert tag not in codes
        codes[tag] = code
    complete = [tag for tag in tags if codes[100 + tag] == lib.SRP_RESP_COMPLETE]
    failed = [tag for tag in tags if codes[100 + tag] == lib.SRP_RESP_FAILED]
    assert complete and failed and len(complete) + len(failed) == len(tags)
    assert [tag for tag in codes if tag < 100] and all(tag in codes for tag in complete), "answered before"
    before = bytes(served.content)
    assert all(before[512 * 8 * tag :][:512] == OLD for tag in tags), "they all hang"
    served.gate.let_go()
    while len(codes) < 2 * len(tags):
        tag, code = answer(channel)
        assert tag not in codes and tag in failed
        codes[tag] = code
    good_sync = channel.command(cdb.SYNCHRONIZE_CACHE_10.build(), tag=500)
    assert good_sync.status == 0
    for tag in complete:
        assert served.content[512 * 8 * tag :][:512] == OLD, "it landed after FUNCTION COMPLETE"
    for tag in failed:
        assert served.content[512 * 8 * tag :][:512] in (OLD, NEW)


# ---- the end ----


@pytest.mark.parametrize("engine", [URING])
def test_the_target_stops_without_what_hangs(served: Served) -> None:
    """In the fast path and in a worker."""
    with Initiator(served.target.socket) as initiator:
        absorb(initiator)
        absorb(initiator, 1)
        initiator.lun(1).write(0, NEW)
        served.gate.hangs = lambda what, offset, nbytes: what == "read"
        initiator.submit(0, cdb.READ_10.build(transfer_length=1), data_in=512)
        initiator.submit(0, VERIFY)
        served.gate.wait_for(2)
        said = stopped(served)
    assert "lun 0: 2 commands do not end" in said and "lun 1" not in said.partition("do not end")[2]


@pytest.mark.parametrize("engine", [POOL])
def test_the_target_stops_without_a_flush_that_hangs(served: Served) -> None:
    with Initiator(served.target.socket) as initiator:
        absorb(initiator, 1)
        initiator.lun(1).write(0, NEW)
    served.gate.hangs = lambda what, offset, nbytes: what == "fsync"
    assert "lun 0: its image does not answer" in stopped(served)


def stopped(served: Served) -> str:
    """Its log. Only once the file answers does the kernel let a process go that has asked."""
    served.target.process.send_signal(signal.SIGTERM)
    until(lambda: not served.target.pidfile.exists(), "it does not stop")
    assert not served.target.socket.exists()
    said = served.target.log.read_text()
    assert "Traceback" not in said
    with (served.folder / "good.img").open("rb") as image:
        assert image.read(512) == NEW
    served.gate.let_go()
    assert served.target.process.wait(30) == 33
    return said
