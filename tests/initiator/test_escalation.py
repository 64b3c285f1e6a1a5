# SPDX-License-Identifier: BSD-2-Clause
"""A command that is not answered: ABORT TASK, LOGICAL UNIT RESET, logout, login again; as far as it takes, and no
further, each step in the log. Against a target played in Python that is silent at each stage.
"""

import logging
import os
import threading
import time

import pytest
from programs import Target

from initiator import Backoff, CommandAborted, CommandTimeout, Initiator, TransportError
from initiator.native import lib
from vscsi.scsi import cdb

TUR = bytes(6)
ABORT, RESET = lib.SRP_TMF_ABORT_TASK, lib.SRP_TMF_LUN_RESET
LONG = pytest.mark.skipif("VSCSI_STRESS_SECONDS" not in os.environ, reason="its ends take four seconds")
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.05, seconds=5)
STEPS = ["ABORT TASK of tag", "LOGICAL UNIT RESET of tag", "logging out", "connected again"]


def steps(caplog):
    """Which steps are in the log, in order."""
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [step for text in texts for step in STEPS if step in text]


def asked(server):
    return [iu.tsk_mgmt_func for iu in server.functions]


def executed(initiator, lun, timeout):
    with pytest.raises(CommandTimeout) as info:
        initiator.execute(lun, TUR, timeout=timeout)
    return str(info.value)


def submitted(initiator, lun, timeout):
    initiator.submit(lun, TUR, timeout=timeout, cookie="late")
    (done,) = initiator.reap(timeout=20)
    assert done.cookie == "late" and isinstance(done.error, CommandTimeout)
    return str(done.error)


@pytest.fixture
def silent(server):
    """Answers no command on LUN 0."""
    server.command = lambda cmd, out: None if cmd.lun == bytes(8) else {}
    return server


@pytest.mark.parametrize(
    ("management", "functions", "log"),
    [
        (lambda iu: 0, [ABORT], STEPS[:1]),
        (lambda iu: 5 if iu.tsk_mgmt_func == ABORT else 0, [ABORT, RESET], STEPS[:2]),
        (lambda iu: None if iu.tsk_mgmt_func == ABORT else 0, [ABORT, RESET], STEPS[:2]),
        (lambda iu: 5, [ABORT, RESET], STEPS),
        (lambda iu: None, [ABORT, RESET], STEPS),
    ],
    ids=["abort", "abort refused", "abort silent", "all refused", "all silent"],
)
@pytest.mark.parametrize(("send", "channels"), [(executed, 1), (executed, 2), (submitted, 1), (submitted, 2)])
def test_as_far_as_it_takes(silent, connect, caplog, management, functions, log, send, channels):
    caplog.set_level(logging.WARNING, "vscsi.initiator")
    silent.management = management
    initiator = connect(reconnect=QUICK, channels=channels)
    told = send(initiator, 0, 0.1)
    last = {ABORT: "ABORT TASK ended the command", RESET: "LOGICAL UNIT RESET ended the command"}[functions[-1]]
    assert told == "lun 0: no answer within 0.1 s" + (
        ", nor to task management; channel closed" if STEPS[3] in log else f"; {last}"
    )
    silent.until(lambda: initiator.recovery.live)
    assert initiator.execute(7, TUR).status == 0
    assert asked(silent) == functions
    assert steps(caplog) == log
    relogin = STEPS[3] in log
    silent.until(lambda: silent.logouts == channels * relogin)
    assert len(silent.logins) == channels * (1 + relogin)
    assert initiator.recovery.recovered == relogin
    unanswered = [iu for iu in silent.functions if management(iu) is None]
    assert initiator.stats()["outstanding"] == (0 if relogin else len(unanswered))


def test_a_target_that_does_not_let_us_in_again_is_given_up(silent, connect, caplog):
    caplog.set_level(logging.WARNING, "vscsi.initiator")
    silent.management = lambda iu: None
    initiator = connect(reconnect=Backoff(first_seconds=0.01, longest_seconds=0.01, attempts=3))
    silent.refuse = "no more of you"
    with pytest.raises(CommandTimeout):
        initiator.execute(0, TUR, timeout=0.1)
    with pytest.raises(TransportError, match=r"given up after 3 attempts.*no more of you"):
        initiator.execute(7, TUR)
    assert steps(caplog) == STEPS[:3]


def test_many_late_commands_are_one_reset(silent, connect, caplog):
    """The reset of the first ends the others, and those are not escalated by themselves."""
    caplog.set_level(logging.WARNING, "vscsi.initiator")
    silent.management = lambda iu: 5 if iu.tsk_mgmt_func == ABORT else 0
    initiator = connect()
    failures = []

    def late():
        with pytest.raises((CommandTimeout, CommandAborted)) as info:
            initiator.execute(0, TUR, timeout=1)
        failures.append(str(info.value))

    threads = [threading.Thread(target=late) for _ in range(6)]
    for thread in threads:
        thread.start()
    silent.until(lambda: len(silent.ius) == 7)
    for thread in threads:
        thread.join(20)
    assert len(failures) == 6
    assert asked(silent) == [ABORT, RESET]
    assert initiator.execute(7, TUR).status == 0


def test_what_others_had_outstanding_ends_with_the_nexus(silent, connect):
    silent.management = lambda iu: None
    initiator = connect(reconnect=QUICK)
    initiator.submit(0, TUR, cookie="mine")
    with pytest.raises(CommandTimeout):
        initiator.execute(0, TUR, timeout=0.1)
    (done,) = initiator.reap(timeout=5)
    assert done.cookie == "mine" and isinstance(done.error, TransportError)
    silent.until(lambda: initiator.recovery.live)
    assert not initiator.reap(timeout=0)


def test_many_late_ones_that_were_submitted_are_one_reset(silent, connect, caplog):
    caplog.set_level(logging.WARNING, "vscsi.initiator")
    silent.management = lambda iu: 5 if iu.tsk_mgmt_func == ABORT else 0
    initiator = connect()
    for k in range(6):
        initiator.submit(0, TUR, timeout=0.1, cookie=k)
    initiator.submit(0, TUR, cookie=6)  # not late, but on the same logical unit
    done = initiator.reap(max=7, min=7, timeout=20)
    assert sorted(one.cookie for one in done) == list(range(7))
    assert [type(one.error) for one in sorted(done, key=lambda one: one.cookie)] == [CommandTimeout] + 5 * [
        CommandAborted
    ] + [CommandAborted]
    assert asked(silent) == [ABORT, RESET]
    assert not initiator.reap(timeout=0)


def test_who_waits_for_a_credit_ends_what_is_late(silent, connect):
    initiator = connect()
    initiator.submit(0, TUR, timeout=0.1, cookie="late")
    for k in range(initiator.request_limit - 2):
        initiator.submit(0, TUR, cookie=k)
    initiator.submit(7, TUR, cookie="waits")
    assert asked(silent) == [ABORT]
    found = initiator.reap(max=2, min=2)
    assert {one.cookie: one.error is None for one in found} == {"late": False, "waits": True}


def test_an_answer_that_was_not_looked_at_in_time_is_not_late(server, connect):
    initiator = connect()
    initiator.submit(0, TUR, timeout=0.01, cookie="answered")
    server.until(lambda: len(server.ius) == 2)
    server.do(lambda device: None)
    time.sleep(0.02)
    (done,) = initiator.reap()
    assert done.error is None and not server.functions


@pytest.mark.parametrize(
    ("rule", "log"), [("read,delay=60000,count=1", STEPS[:1]), pytest.param("read,hang,count=1", STEPS, marks=LONG)]
)
def test_a_stuck_unit(tmp_path, caplog, rule, log):
    """A real target. The other unit is served meanwhile and afterwards, and this one if it lets itself be aborted."""
    caplog.set_level(logging.WARNING, "vscsi.initiator")
    target = Target(tmp_path, "0=mem:1M", "1=mem:1M", options=("--fault", f"0:{rule}"))
    row = cdb.READ_10.build(transfer_length=1)
    try:
        with Initiator(target.socket, reconnect=QUICK) as initiator:
            for lun in (0, 1):
                initiator.lun(lun).write(0, bytes([lun]) * 512)
            initiator.submit(0, row, data_in=512, timeout=0.2, cookie="stuck")
            initiator.submit(1, row, data_in=512, cookie="beside")
            found = {one.cookie: one for one in initiator.reap(max=2, min=2)}
            assert found["beside"].data_in == b"\1" * 512
            assert isinstance(found["stuck"].error, CommandTimeout)
            assert initiator.lun(1).read(0, 1) == b"\1" * 512
            assert steps(caplog) == log
            if log == STEPS[:1]:  # the other is deaf even to aborts, and not ready for anybody
                assert initiator.lun(0).read(0, 1) == bytes(512)
    finally:
        target.process.kill()  # a stop would wait for what is stuck
        target.process.wait()
