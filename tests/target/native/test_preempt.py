# SPDX-License-Identifier: BSD-2-Clause
"""PREEMPT AND ABORT in the native core: what ends, what is waited for, who is told, and what is left alone."""

import errno
import threading

import pytest
from raw_wire import ABORT_TASK, ORDERED, RSPVALID, code, read10, srp_cmd, tsk_mgmt

from target.native import ffi, lib

SLOW = b"\x41" + bytes(9)
ABORTED = (RSPVALID, b"\0\0\0\0")


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def disk(request, make_rig):
    """Three nexuses on one LU."""
    return built(make_rig(loops=request.param), request.param)


def built(rig, loops: int = 1):
    rig.lu(fd=rig.file())
    rig.a, rig.b, rig.c = (rig.srp(loop=n % loops) for n in range(3))
    return rig


def preempt(rig, *victims, task: int = 0) -> int:
    indexes = ffi.new("uint32_t[]", [one if isinstance(one, int) else one.nexus for one in victims])
    return lib.vt_nexus_abort_tasks(rig.t, 0, indexes, len(victims), task)


class Preempting(threading.Thread):
    """A worker that waits for what it has aborted."""

    def __init__(self, rig, *victims, task: int = 0) -> None:
        super().__init__()
        self.work, self.result = lambda: preempt(rig, *victims, task=task), None
        self.start()

    def run(self) -> None:
        self.result = self.work()

    def ended(self, seconds: float = 10) -> int | None:
        self.join(seconds)
        return self.result


def attentions(rig, who) -> list[int]:
    found = []
    while ua := lib.vt_ua_take(rig.t, who.nexus, 0):
        found.append(ua)
    return found


def running(rig, who, tag: int = 1):
    who.send(srp_cmd(tag, SLOW))
    return rig.request()


def test_waits_for_what_runs_and_leaves_others_alone(disk):
    mine = running(disk, disk.a)
    theirs = running(disk, disk.b)
    other = running(disk, disk.c)
    waiting = Preempting(disk, disk.b, task=mine.task)
    assert waiting.ended(0.1) is None, "a byte of it may still move"
    assert lib.vt_request_aborted(disk.t, theirs.task) == 1
    assert lib.vt_request_fetch(disk.t, theirs.task, 0, ffi.new("uint8_t[8]"), 8) == -errno.ECANCELED
    assert lib.vt_request_aborted(disk.t, mine.task) == lib.vt_request_aborted(disk.t, other.task) == 0
    disk.complete(theirs)
    assert waiting.ended() == 0
    rsp = disk.b.answer()
    assert (rsp.tag, rsp.flags, rsp.response) == (1, *ABORTED)
    assert (attentions(disk, disk.a), attentions(disk, disk.b), attentions(disk, disk.c)) == ([], [0x2F00], [])
    disk.complete(mine)
    disk.complete(other)
    assert disk.a.answer().status == disk.c.answer().status == 0


def test_what_has_not_begun_ends_at_once(disk):
    mine = running(disk, disk.a)
    disk.b.send(srp_cmd(1, SLOW))
    disk.c.send(srp_cmd(2, SLOW, attribute=ORDERED))
    disk.b.taken()
    disk.c.taken()
    assert preempt(disk, disk.b, disk.c, task=mine.task) == 0
    assert (disk.b.answer().tag, disk.c.answer().tag) == (1, 2)
    assert attentions(disk, disk.b) == attentions(disk, disk.c) == [0x2F00]
    disk.complete(mine)
    assert disk.a.answer().status == 0
    assert disk.a.command(read10(0, 0)).status == 0


def test_who_had_no_command_is_not_told(disk):
    mine = running(disk, disk.a)
    assert preempt(disk, disk.b, task=mine.task) == 0
    assert attentions(disk, disk.b) == []
    disk.complete(mine)


def test_ones_own_other_commands(disk):
    mine, also = running(disk, disk.a, 1), running(disk, disk.a, 2)
    waiting = Preempting(disk, disk.a, task=mine.task)
    assert waiting.ended(0.1) is None
    assert lib.vt_request_aborted(disk.t, mine.task) == 0
    disk.complete(also)
    assert waiting.ended() == 0
    assert disk.a.answer().tag == 2
    disk.complete(mine)
    assert disk.a.answer().status == 0
    assert attentions(disk, disk.a) == []


def test_what_comes_later_is_not_waited_for(disk):
    mine, theirs = running(disk, disk.a), running(disk, disk.b)
    waiting = Preempting(disk, disk.b, task=mine.task)
    assert waiting.ended(0.1) is None
    disk.b.send(srp_cmd(7, read10(0, 0)))
    assert code(disk.b.answer()) == 0x062F00
    later = running(disk, disk.b, 8)
    assert lib.vt_request_aborted(disk.t, later.task) == 0
    disk.complete(theirs)
    assert waiting.ended() == 0
    disk.complete(later)
    disk.complete(mine)


def test_two_that_abort_each_other_do_not_wait_for_ever(disk):
    """Reservations do not let it come to this; if they did, both would end."""
    one, two = running(disk, disk.a), running(disk, disk.b)
    first = Preempting(disk, disk.b, task=one.task)
    assert first.ended(0.1) is None
    second = Preempting(disk, disk.a, task=two.task)
    assert first.ended() == -errno.ECANCELED
    disk.complete(one)
    assert second.ended() == -errno.ECANCELED
    disk.complete(two)


def test_the_preempting_command_may_be_aborted(disk):
    mine, theirs = running(disk, disk.a), running(disk, disk.b)
    waiting = Preempting(disk, disk.b, task=mine.task)
    assert waiting.ended(0.1) is None
    disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    assert waiting.ended() == -errno.ECANCELED
    disk.complete(mine)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 9}
    disk.complete(theirs)
    assert preempt(disk, disk.b, task=mine.task) == -errno.ECANCELED, "it is over"


def test_a_stuck_command_fences_the_unit(make_rig):
    disk = built(make_rig(abort_limit_ms=100))
    mine, theirs = running(disk, disk.a), running(disk, disk.b)
    assert preempt(disk, disk.b, task=mine.task) == -errno.ETIMEDOUT
    assert code(disk.c.command(read10(0, 0))) == 0x020400
    disk.complete(theirs)
    disk.b.answer()
    assert disk.c.command(read10(0, 0)).status == 0
    disk.complete(mine)


def test_arguments(disk):
    assert preempt(disk, lib.VT_MAX_NEXUSES) == -errno.EINVAL
    assert lib.vt_nexus_abort_tasks(disk.t, 9, ffi.NULL, 0, 0) == -errno.ENOENT
    assert preempt(disk) == 0


def test_the_target_stops_while_one_waits(disk):
    mine, theirs = running(disk, disk.a), running(disk, disk.b)
    waiting = Preempting(disk, disk.b, task=mine.task)
    assert waiting.ended(0.1) is None
    lib.vt_stop(disk.t)
    assert waiting.ended() == -errno.ECANCELED
    for request in (mine, theirs):
        disk.complete(request)
    for channel in (disk.a, disk.b, disk.c):
        channel.remove()
