# SPDX-License-Identifier: BSD-2-Clause
"""Faults over real rings: SCSI and blkif meet them, aborts get their one answer, and the admin command rules them."""

import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import oracle_srp as oracle
import pytest
from programs import BIN, run
from real_server import A, B, Target, absorb_attention, read_10
from served import absorb, bad, good

from initiator import CommandTimeout, Initiator
from initiator.vbd import Vbd
from target import admin_cli
from vscsi.native import lib
from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status

READ = cdb.READ_10.build(lba=100, transfer_length=8)
NBYTES = 8 * 512


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = Target(tmp_path / "s", "0=mem:1M", "1=mem:1M", abort_limit_ms=300)
    yield made
    made.stop()


@pytest.fixture
def initiator(target: Target) -> Iterator[Initiator]:
    with Initiator(target.path) as made:
        for lun in target.server.units:
            absorb(made, lun)
        yield made


def admin(target: Target, *words: str, status: int = 0) -> str:
    """What `vscsi-admin fault` says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert admin_cli.main(["-U", str(target.path), "fault", *words]) == status, err.getvalue()
    return out.getvalue() if status == 0 else err.getvalue()


def listed(target: Target, *words: str) -> list[dict]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert admin_cli.main(["-U", str(target.path), "--json", "fault", "list", *words]) == 0
    return json.loads(out.getvalue())["faults"]


def until(predicate, what: str) -> None:
    end = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def test_rules_come_and_go_while_the_target_runs(target: Target, initiator: Initiator) -> None:
    good(initiator, READ, data_in=NBYTES)
    said = admin(target, "add", "0", "read,lba=100-107", "count=2", "sense=3/11/00")
    assert said == "lun 0 fault 1: read,lba=100-107,count=2,sense=3/11/00 (0 of 0 hit)\n"
    admin(target, "add", "1", "inquiry,status=busy")
    for _ in range(2):
        assert sense.decode(bad(initiator, READ, sense.UNRECOVERED_READ_ERROR).sense).information == 100
    good(initiator, READ, data_in=NBYTES)
    inquiry = cdb.INQUIRY.build(allocation_length=36)
    assert initiator.execute(1, inquiry, data_in=36).status == Status.BUSY
    assert [(rule["lun"], rule["hits"], rule["spent"]) for rule in listed(target)] == [(0, 2, True), (1, 1, False)]
    assert admin(target, "list", "1") == "lun 1 fault 1: inquiry,status=busy (1 of 1 hit)\n"
    admin(target, "remove", "1", "1")
    good(initiator, inquiry, lun=1, data_in=36)
    admin(target, "clear")
    assert listed(target) == [] and admin(target, "list") == "no faults\n"


def test_mistakes_are_one_line(target: Target) -> None:
    for words, said in (
        (("add", "0", "raed,drop"), "'raed' is neither a command nor a word of a rule (did you mean 'read'?)"),
        (("add", "0", "drop,lba=4096"), "lba: LUN 0 has only 2048 blocks"),
        (("add", "7", "drop"), "there is no LUN 7"),
        (("remove", "0", "1"), "LUN 0 has no fault 1"),
    ):
        assert admin(target, *words, status=5) == f"vscsi-admin: {said}\n"


def test_on_the_command_line(tmp_path: Path) -> None:
    for rule, said in (
        ("0:raed,drop", "vscsi-target: lun 0: 'raed' is neither"),
        ("1:drop", "vscsi-target: '1:drop': there is no LUN '1'"),
        ("drop", "vscsi-target: 'drop': expected LUN:RULE, for example"),
    ):
        done = run(BIN / "vscsi-target", "--lun", "0=mem:1M", "--fault", rule, "--check")
        assert done.status == 1 and done.err.startswith(said) and done.err.count("\n") == 1
    command = '"$0" -u "$uri" read --lba 5 --blocks 1 /dev/null'
    options = ["--lun", "0=mem:1M", "--fault", "0:read,lba=5,sense=3/11/00", "-U", "-", "-v"]
    done = run(BIN / "vscsi-target", *options, "--run", command.replace("$0", str(BIN / "vscsi-initiator")))
    assert done.status == 18
    assert "lun 0: fault 1 (read,lba=5,sense=3/11/00) hits READ(10) at block 5" in done.err


def test_blkif_meets_them_too(target: Target) -> None:
    with Vbd(target.path, lun=0) as vbd:
        vbd.write(100, b"x" * NBYTES)
        for rule, count in (("read,sense=3/11/00", 1), ("read,short=512", 1), ("read,status=busy", 1), ("delay=20", 3)):
            admin(target, "add", "0", f"{rule},count={count}")
            if "delay" not in rule:
                with pytest.raises(Exception, match=r"(?i)error"):
                    vbd.read(100, 8)
        assert vbd.read(100, 8) == b"x" * NBYTES
        vbd.flush()
        vbd.write(100, b"y" * 512)
        assert [rule["hits"] for rule in listed(target)] == [1, 1, 1, 3]
        admin(target, "add", "0", "write,ignore,count=1")
        vbd.write(100, b"z" * 512)
        assert vbd.read(100, 1) == b"y" * 512
        admin(target, "add", "0", "unmap,lba=100,sense=3/0c/00,count=1")
        admin(target, "add", "0", "unmap,ignore,skip=1,count=1")
        for sector, refused in ((200, False), (96, True)):
            if refused:
                with pytest.raises(Exception, match=r"(?i)error"):
                    vbd.discard(sector, 16)
            else:
                vbd.discard(sector, 16)
        assert vbd.read(100, 1) == b"y" * 512
        vbd.discard(100, 1)
        assert vbd.read(100, 1) == b"y" * 512, "ignored"
        admin(target, "add", "0", "delay=1,count=1000")
        vbd.discard(96, 16)
        assert vbd.read(100, 1) == bytes(512)


def test_blkif_request_that_is_never_answered_ends_with_its_connection(target: Target) -> None:
    admin(target, "add", "0", "read,drop")
    with Vbd(target.path, lun=0, timeout=0.2) as vbd:
        with pytest.raises(Exception, match=r"0\.2"):
            vbd.read(0, 1)
        assert listed(target)[0]["held"] == 1
    until(lambda: listed(target)[0]["held"] == 0, "it is still held")


def test_a_lost_answer_is_given_up_by_an_abort(target: Target, initiator: Initiator) -> None:
    admin(target, "add", "0", "read,drop,count=1")
    with pytest.raises(CommandTimeout, match="ABORT TASK ended the command"):
        initiator.execute(0, READ, data_in=NBYTES, timeout=0.1)
    good(initiator, READ, data_in=NBYTES)


@pytest.mark.parametrize("function", ["ABORT_TASK", "ABORT_TASK_SET", "CLEAR_TASK_SET", "LUN_RESET"])
@pytest.mark.parametrize("rule", ["drop", "delay=86400000"])
def test_a_command_that_is_held_gets_one_answer_from_an_abort(target: Target, rule: str, function: str) -> None:
    channel = target.raw().srp()
    channel.login(A)
    absorb_attention(channel)
    admin(target, "add", "0", f"read,{rule}")
    channel.ring.send(oracle.encode(oracle.Cmd(5, bytes(8), read_10(0, 1))))
    until(lambda: listed(target)[0]["held"] == 1, "it is not held")
    assert channel.ring.take(0.1) is None
    code = getattr(lib, f"SRP_TMF_{function}")
    channel.ring.send(oracle.encode(oracle.TskMgmt(0, 6, bytes(8), code, 5)))
    answers = [oracle.decode_rsp(channel.ring.take()) for _ in range(2)]
    assert [answer.tag for answer in answers] == [5, 6]
    assert [answer.response_data[3] for answer in answers] == [lib.SRP_RESP_COMPLETE] * 2
    assert [answer.req_lim_delta for answer in answers] == [1, 1]
    admin(target, "clear")
    assert channel.ring.take(0.1) is None, "one answer each"


def test_what_hangs_is_a_stuck_disk(target: Target) -> None:
    """An abort fails in time, nobody finds the unit ready, and when the disk comes back all goes on."""
    channel, other = target.raw().srp(), target.raw().srp()
    for each, port in ((channel, A), (other, B)):
        each.login(port)
        absorb_attention(each)
        absorb_attention(each, b"\0\1" + bytes(6))
    admin(target, "add", "0", "read,hang,count=1")
    channel.ring.send(oracle.encode(oracle.Cmd(5, bytes(8), read_10(0, 1))))
    until(lambda: listed(target)[0]["held"] == 1, "it is not held")
    assert other.command(read_10(0, 1)).status == 0, "the other's commands go on"
    channel.ring.send(oracle.encode(oracle.TskMgmt(0, 6, bytes(8), lib.SRP_TMF_ABORT_TASK, 5)))
    answer = oracle.decode_rsp(channel.ring.take())
    assert (answer.tag, answer.response_data[3]) == (6, lib.SRP_RESP_FAILED)
    for each in (channel, other):
        found = sense.decode(each.command(read_10(0, 1)).sense_data)
        assert found.matches(sense.NOT_READY_CAUSE_NOT_REPORTABLE)
        assert each.command(read_10(0, 1), lun=b"\0\1" + bytes(6)).status == 0, "another unit is ready"
    admin(target, "remove", "0", "1")
    answer = oracle.decode_rsp(channel.ring.take())
    assert (answer.tag, answer.response_data[3]) == (5, lib.SRP_RESP_COMPLETE)
    for each in (channel, other):
        assert each.command(read_10(0, 1)).status == 0


def test_held_commands_occupy_no_worker(target: Target, initiator: Initiator) -> None:
    """More than there are workers, and more than may run in the background: others go on, none is refused."""
    admin(target, "add", "0", "read,drop")
    for _ in range(100):
        initiator.submit(0, READ, data_in=NBYTES)
    until(lambda: listed(target)[0]["held"] == 100, "not all are held")
    good(initiator, cdb.INQUIRY.build(allocation_length=36), data_in=36)
    good(initiator, cdb.INQUIRY.build(allocation_length=36), lun=1, data_in=36)
    assert initiator.task_management(lib.SRP_TMF_ABORT_TASK_SET, 0) == lib.SRP_RESP_COMPLETE
    done = initiator.reap(100, 100, timeout=10)
    assert len(done) == 100 and all(one.error is not None for one in done)


def test_the_target_stops_while_commands_are_held(tmp_path: Path) -> None:
    target = Target(tmp_path / "s", "0=mem:1M", stop_seconds=0.2)
    with Initiator(tmp_path / "s") as initiator:
        absorb(initiator)
        for rule in ("read,drop", "write_10,hang", "verify,delay=86400000"):
            admin(target, "add", "0", rule)
        initiator.submit(0, READ, data_in=NBYTES)
        initiator.submit(0, cdb.WRITE_10.build(transfer_length=1), data_out=bytes(512))
        initiator.submit(0, cdb.VERIFY_10.build(verification_length=1))
        until(lambda: [rule["held"] for rule in listed(target)] == [1, 1, 1], "not all are held")
        target.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vscsi-faults")]


def test_under_load_every_command_ends_and_counts_agree(target: Target, initiator: Initiator) -> None:
    """Delays, errors and short transfers at random: as many of each as the rules say that they hit."""
    admin(target, "add", "0", "read,p=0.2,seed=1,delay=0-3")
    admin(target, "add", "0", "read,p=0.1,seed=2,sense=b/4b/00")
    admin(target, "add", "0", "read,p=0.1,seed=3,short=512")
    admin(target, "add", "0", "read,p=0.1,seed=4,status=task_set_full")
    for _ in range(300):
        initiator.submit(0, READ, data_in=NBYTES)
    done = initiator.reap(300, 300, timeout=30)
    assert len(done) == 300 and not any(one.error for one in done)
    statuses = [one.status for one in done]
    short = sum(one.status == 0 and one.in_residual == NBYTES - 512 for one in done)
    found = [statuses.count(Status.CHECK_CONDITION), short, statuses.count(Status.TASK_SET_FULL)]
    assert found == [rule["hits"] for rule in listed(target)][1:] and all(found)
