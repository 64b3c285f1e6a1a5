# SPDX-License-Identifier: BSD-2-Clause
"""What an error, a function or a full task set does to other tasks: QERR, TAS, TST, the limit, 2C/xx."""

import pytest
from raw_wire import ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET, ORDERED, code, read10, srp_cmd, tsk_mgmt
from task_sets import (
    BUSY,
    GOOD,
    READY,
    RESERVATION_CONFLICT,
    SLOW,
    TASK_ABORTED,
    TASK_SET_FULL,
    attentions,
    built,
    ended_quietly,
    none_queued,
    obey,
    running,
    waiting,
)

from target.native import lib


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def disk(request, make_rig):
    return built(make_rig(loops=request.param), request.param)


def check_fate(disk, who, request, tag, fate, ua=()) -> None:
    """`fate`: GOOD, TASK_ABORTED, or None for an end without status."""
    assert lib.vt_request_aborted(disk.t, request.task) == (fate != GOOD)
    disk.complete(request)
    rsp = who.answer()
    if fate is None:
        assert ended_quietly(rsp, tag)
    else:
        assert (rsp.tag, rsp.flags, rsp.status, rsp.delta) == (tag, 0, fate, 1)
    assert attentions(disk, who) == list(ua)


@pytest.mark.parametrize("tas", [0, 1])
@pytest.mark.parametrize("tst", [0, 1])
@pytest.mark.parametrize("qerr", [0, 1, 3])
def test_an_error_and_other_tasks(disk, qerr, tst, tas):
    obey(disk, qerr=qerr, separate_sets=tst, tas=tas)
    mine, theirs, faulty = running(disk, disk.a, 1), running(disk, disk.b, 2), running(disk, disk.a, 3)
    disk.complete(faulty, status=2)
    assert disk.a.answer().status == 2
    check_fate(disk, disk.a, mine, 1, GOOD if qerr == 0 else None)
    hit = qerr == 1 and tst == 0
    told = TASK_ABORTED if tas else None
    check_fate(disk, disk.b, theirs, 2, told if hit else GOOD, [0x2F00] if hit and not tas else [])


@pytest.mark.parametrize("tas", [0, 1])
@pytest.mark.parametrize("tst", [0, 1])
@pytest.mark.parametrize("function", [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET])
def test_functions_and_other_tasks(disk, function, tst, tas):
    obey(disk, separate_sets=tst, tas=tas)
    mine, theirs = running(disk, disk.a, 1), running(disk, disk.b, 2)
    disk.a.send(tsk_mgmt(9, function, task_tag=1))
    assert disk.a.silent(0.03)
    hit = function == LUN_RESET or (function == CLEAR_TASK_SET and tst == 0)
    every = [0x2903] if function == LUN_RESET else []
    check_fate(disk, disk.a, mine, 1, None, every)
    fate = (TASK_ABORTED if tas else None) if hit else GOOD
    check_fate(disk, disk.b, theirs, 2, fate, every or ([0x2F00] if hit and not tas else []))
    if function == LUN_RESET:
        disk.complete(disk.request())
    assert disk.a.answer().tag == 9
    assert attentions(disk, disk.c) == every, "it had no task"


@pytest.mark.parametrize("tst", [0, 1])
def test_limit(disk, tst):
    obey(disk, limit=2, separate_sets=tst)
    requests = [running(disk, disk.a, 1), running(disk, disk.a, 2)]
    assert disk.a.command(SLOW).status == TASK_SET_FULL
    assert disk.b.command(READY).status == (GOOD if tst else BUSY)
    disk.complete(requests[0])
    assert disk.a.answer().tag == 1
    assert disk.b.command(READY).status == disk.a.command(READY).status == GOOD
    disk.complete(requests[1])
    assert disk.a.answer().tag == 2


@pytest.mark.parametrize("interlock", [0, 2, 3])
def test_attentions_of_a_refusal(disk, interlock):
    obey(disk, limit=1, ua_intlck=interlock)
    request = running(disk, disk.a, 1)
    assert disk.a.command(READY).status == TASK_SET_FULL
    assert disk.b.command(READY).status == BUSY
    disk.complete(request)
    assert disk.a.answer().status == GOOD
    lib.vt_lu_deny(disk.t, 0, disk.c.nexus, 1)
    assert disk.c.command(READY).status == RESERVATION_CONFLICT
    told = [attentions(disk, who) for who in (disk.a, disk.b, disk.c)]
    assert told == ([[0x2C08], [0x2C07], [0x2C09]] if interlock == 3 else [[], [], []])


@pytest.mark.parametrize("interlock", [0, 2, 3])
def test_an_attention_stays_until_it_is_taken(disk, interlock):
    obey(disk, ua_intlck=interlock)
    lib.vt_ua_establish(disk.t, disk.a.nexus, lib.VT_ALL, 0, 0x2A09)
    assert code(disk.a.command(READY)) == 0x062A09
    again = disk.a.command(READY)
    assert code(again) == 0x062A09 if interlock else again.status == GOOD
    assert attentions(disk, disk.a) == ([0x2A09] if interlock else [])
    assert disk.a.command(READY).status == GOOD


def test_ordered_waits_only_in_its_own_task_set(disk):
    obey(disk, separate_sets=1)
    mine = running(disk, disk.a, 1)
    theirs = running(disk, disk.b, 2, attribute=ORDERED)
    waiting(disk.a, 3, attribute=ORDERED)
    assert none_queued(disk)
    disk.complete(mine)
    third = disk.request()
    disk.complete(theirs)
    disk.complete(third)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 3} and disk.b.answer().tag == 2


def test_restricted_order_and_its_end(disk):
    obey(disk, restricted=1)
    first = running(disk, disk.a, 1)
    waiting(disk.a, 2)
    other = running(disk, disk.b, 3)
    assert none_queued(disk)
    disk.a.send(srp_cmd(4, read10(0, 0)))
    assert disk.a.silent(0.03)
    obey(disk, restricted=0)
    second = disk.request()
    assert disk.a.answer().tag == 4
    for request in (first, second, other):
        disk.complete(request)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 2} and disk.b.answer().tag == 3
