# SPDX-License-Identifier: BSD-2-Clause
"""Range locks: what becomes of those who wait or are parked when a task is aborted, a unit or a target ends."""

import os

import pytest
from range_locks import (
    ABORTED,
    BLKIF_WRITE,
    CANCELED,
    LONG,
    NO_ENTRY,
    SHUTDOWN,
    SLOW,
    TIMED_OUT,
    elsewhere,
    lock,
    none_queued,
    unlock,
    waits,
)
from raw_wire import (
    ABORT_TASK,
    ABORT_TASK_SET,
    CLEAR_TASK_SET,
    LUN_RESET,
    RSPVALID,
    direct,
    read10,
    srp_cmd,
    tsk_mgmt,
)

from target.native import lib

# ---- aborts, removal, the end ----


@pytest.mark.parametrize("function", [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET])
def test_parked_commands_can_be_aborted(disk, function, pool):
    held = lock(disk, 0, 10)
    disk.a.send(srp_cmd(1, read10(0, 1), in_=disk.buffer))
    disk.a.taken()
    later = pool.submit(lock, disk, 0, 10, LONG)
    assert disk.a.silent(0.05) and none_queued(disk)
    disk.a.send(tsk_mgmt(9, function, task_tag=1))
    rsp = disk.a.answer()
    assert rsp.tag == 1 and (rsp.flags, rsp.response) == ABORTED
    if function == LUN_RESET:
        disk.complete(disk.request())
    assert disk.a.answer().tag == 9
    unlock(disk, held)
    unlock(disk, later.result())


def test_channel_stops_with_parked_commands(disk, pool):
    held = lock(disk, 0, 10)
    vbd = disk.blkif(disk.memory())
    gref = vbd.memory.alloc(1) + 8
    disk.a.send(*(srp_cmd(i, read10(0, 1), in_=disk.buffer) for i in range(50)))
    vbd.send(vbd.request(BLKIF_WRITE, 77, 0, [(gref, 0, 0)]))
    disk.a.taken()
    vbd.taken()
    later = pool.submit(lock, disk, 0, 10, LONG)
    assert waits(later)
    disk.a.stop()
    vbd.stop()
    assert vbd.status() == -1
    assert waits(later)
    unlock(disk, held)
    unlock(disk, later.result())


@pytest.mark.parametrize("function", [ABORT_TASK, LUN_RESET])
def test_waiting_task_that_is_aborted_gets_no_lock(disk, pool, function):
    held = lock(disk, 0, 10)
    disk.a.send(srp_cmd(1, SLOW))
    request = disk.request()
    waiting = pool.submit(lock, disk, 0, 10, -1, request.task)
    assert waits(waiting)
    disk.a.send(tsk_mgmt(9, function, task_tag=1))
    assert waiting.result() == CANCELED
    assert lock(disk, 0, 20, 0, request.task) == CANCELED
    disk.complete(request)
    if function == LUN_RESET:
        disk.complete(disk.request())
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 9}
    unlock(disk, held)
    unlock(disk, elsewhere(pool, disk, 0, 10))


def test_lock_of_an_aborted_task_stays_until_it_is_given_back(disk, pool):
    disk.a.send(srp_cmd(1, SLOW))
    request = disk.request()
    held = lock(disk, 0, 10, 0, request.task)
    disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    disk.b.send(srp_cmd(1, read10(0, 1), in_=direct(disk.b.memory.alloc(1) + 8, 512)))
    disk.b.taken()
    assert elsewhere(pool, disk, 0, 1) == TIMED_OUT and disk.b.silent(0.05)
    unlock(disk, held)
    assert disk.b.answer().status == 0
    disk.complete(request)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 9}


def test_task_of_one_unit_waits_for_blocks_of_another(disk, pool):
    disk.lu(lun=1, flags=4)
    held = lock(disk, 0, 10, lu=1)
    disk.a.send(srp_cmd(1, SLOW))
    request = disk.request()
    waiting = pool.submit(lock, disk, 0, 10, -1, request.task, lu=1)
    assert waits(waiting)
    disk.a.send(tsk_mgmt(9, ABORT_TASK_SET))
    assert waiting.result() == CANCELED
    disk.complete(request)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 9}
    unlock(disk, held, lu=1)


def test_io_that_does_not_end_keeps_nobody_waiting_for_ever(stuck, pool):
    """A READ that the kernel does not give back: the wait is bounded by the time-out, or by an abort."""
    stuck.b.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW))
    first, second = stuck.request(), stuck.request()
    held = lock(stuck, 5, 1, 0, second.task)
    stuck.a.send(srp_cmd(3, read10(0, 1), in_=stuck.buffer))
    stuck.a.taken()
    waiting = pool.submit(lock, stuck, 0, 10, -1, first.task)
    assert waits(waiting)
    assert elsewhere(pool, stuck, 0, 10, 100) == TIMED_OUT
    stuck.b.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    assert waiting.result() == CANCELED
    stuck.complete(first)
    assert {stuck.b.answer().tag, stuck.b.answer().tag} == {1, 9}
    unlock(stuck, held)
    stuck.complete(second)
    assert stuck.b.answer().tag == 2
    os.write(stuck.pipe, b"x" * 512)
    assert stuck.a.answer().status == 0


def test_unit_is_removed_when_its_locks_are_given_back(disk, pool):
    assert disk.lu(lun=1, flags=4) == 1
    held = lock(disk, 0, 10, lu=1)
    waiting = pool.submit(lock, disk, 0, 10, -1, lu=1)
    disk.a.send(srp_cmd(1, read10(0, 1), lun=1, in_=disk.buffer))
    disk.a.taken()
    assert waits(waiting)
    removal = pool.submit(lib.vt_lu_remove, disk.t, 1)
    assert waiting.result() == CANCELED
    assert (disk.a.answer().flags, waits(removal)) == (RSPVALID, True)
    assert lock(disk, 50, 1, lu=1) == CANCELED
    unlock(disk, held, lu=1)
    assert removal.result() == 0
    assert lock(disk, 0, 1, lu=1) == NO_ENTRY
    assert disk.lu(lun=1, flags=4) == 1
    unlock(disk, lock(disk, 0, 10, lu=1), lu=1)


def test_target_ends_with_waiting_and_parked(make_rig, pool):
    rig = make_rig()
    rig.lu(flags=4)
    channel = rig.srp()
    held = lock(rig, 0, 10)
    waiting = pool.submit(lock, rig, 0, 10, -1)
    channel.send(srp_cmd(1, read10(0, 1), in_=direct(channel.memory.alloc(1) + 8, 512)))
    channel.taken()
    assert waits(waiting)
    lib.vt_stop(rig.t)
    assert waiting.result() == SHUTDOWN
    assert lock(rig, 20, 1) == SHUTDOWN
    channel.remove()
    unlock(rig, held)
