# SPDX-License-Identifier: BSD-2-Clause
"""A command that is not answered: ABORT TASK, LOGICAL UNIT RESET, logout, login again; as far as it takes, and no
further, each step in the log. Against a target played in Python that is silent at each stage.
"""

import logging
import threading

import pytest

from initiator import Backoff, CommandAborted, CommandTimeout, TransportError
from initiator.native import lib

TUR = bytes(6)
ABORT, RESET = lib.SRP_TMF_ABORT_TASK, lib.SRP_TMF_LUN_RESET
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.05, seconds=5)
STEPS = ["ABORT TASK of tag", "LOGICAL UNIT RESET of tag", "logging out", "connected again"]


def steps(caplog):
    """Which steps are in the log, in order."""
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [step for text in texts for step in STEPS if step in text]


def asked(server):
    return [iu.tsk_mgmt_func for iu in server.functions]


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
@pytest.mark.parametrize("channels", [1, 2])
def test_as_far_as_it_takes(silent, connect, caplog, management, functions, log, channels):
    caplog.set_level(logging.WARNING, "vscsi.initiator")
    silent.management = management
    initiator = connect(reconnect=QUICK, channels=channels)
    with pytest.raises(CommandTimeout):
        initiator.execute(0, TUR, timeout=0.1)
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
