# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is at the workers, and commands that leave their worker for a thread of their own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from raw_wire import ABORT_TASK, LUN_RESET, srp_cmd, tsk_mgmt

from target.native import ffi, lib

SLOW = b"\x41" + bytes(9)
FAILED, GONE = 5, -2
"""FUNCTION FAILED; -ENOENT."""


@pytest.fixture
def disk(rig):
    rig.lu(flags=4)
    rig.a, rig.b = rig.srp(), rig.srp()
    return rig


def queue(disk) -> None:
    """Two more of A, then one of B."""
    disk.a.send(srp_cmd(2, SLOW), srp_cmd(3, SLOW))
    disk.a.taken()
    disk.b.send(srp_cmd(4, SLOW))
    disk.b.taken()


def test_connection_that_occupies_a_worker_comes_second(disk):
    disk.a.send(srp_cmd(1, SLOW))
    running = disk.request()
    queue(disk)
    assert [disk.request().nexus for _ in range(3)] == [disk.b.nexus, disk.a.nexus, disk.a.nexus]
    disk.complete(running)


def test_detached_command_occupies_nobody(disk):
    disk.a.send(srp_cmd(1, SLOW))
    background = disk.request()
    assert lib.vt_request_detach(disk.t, background.task) == 0
    assert lib.vt_request_detach(disk.t, background.task) == 0, "once is enough"
    queue(disk)
    first = disk.request()
    assert first.nexus == disk.a.nexus
    assert disk.complete(background) == 0 and disk.a.answer().tag == 1
    # Its end takes nothing off the count of what runs: B has its turn before A's second.
    assert [disk.request().nexus for _ in range(2)] == [disk.b.nexus, disk.a.nexus]
    assert lib.vt_request_detach(disk.t, background.task) == -2


def test_detached_command_can_be_aborted(disk):
    disk.a.send(srp_cmd(1, SLOW))
    background = disk.request()
    lib.vt_request_detach(disk.t, background.task)
    disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    assert disk.a.silent(0.05) and lib.vt_request_aborted(disk.t, background.task) == 1
    disk.complete(background)
    assert [disk.a.answer().tag, disk.a.answer().tag] == [1, 9]


# ---- no unit takes all workers ----

INQUIRY = b"\x12" + bytes(5)


def numbers(disk, count: int) -> list[tuple[int, int]]:
    """(LU, opcode) of the next requests; there are no more than these."""
    requests = [disk.request() for _ in range(count)]
    assert lib.vt_request_next(disk.t, ffi.new("struct vt_request *"), 0) == 0
    return [(request.lu, request.cdb[0]) for request in requests]


@pytest.fixture
def shared(make_rig):
    rig = make_rig(workers_per_lu=2, abort_limit_ms=100)
    rig.lu(flags=4)
    rig.lu(lun=1, flags=4)
    rig.a, rig.b = rig.srp(), rig.srp()
    return rig


def test_unit_has_its_share_of_workers(shared):
    shared.a.send(*(srp_cmd(tag, SLOW) for tag in range(5)))
    shared.b.send(*(srp_cmd(tag, SLOW) for tag in range(5)), srp_cmd(9, SLOW, lun=1))
    for channel in (shared.a, shared.b):
        channel.taken()
    assert sorted(numbers(shared, 3)) == [(0, 0x41), (0, 0x41), (1, 0x41)]
    shared.complete(shared.held[0])
    assert len(numbers(shared, 1)) == 1, "what has ended makes room"


def test_commands_that_touch_no_blocks_have_a_share_of_their_own(shared):
    shared.a.send(*(srp_cmd(tag, SLOW) for tag in range(3)), *(srp_cmd(tag, INQUIRY) for tag in range(5, 8)))
    shared.a.taken()
    assert sorted(numbers(shared, 4)) == [(0, 0x12), (0, 0x12), (0, 0x41), (0, 0x41)]


def test_reset_gets_through_to_a_unit_that_is_stuck(shared):
    shared.a.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW), *(srp_cmd(tag, INQUIRY) for tag in (5, 6)))
    shared.a.taken()
    stuck = [shared.request() for _ in range(4)]
    shared.b.send(tsk_mgmt(9, LUN_RESET))
    assert shared.b.answer().response[3] == 5, "FUNCTION FAILED: the commands do not end"
    for request in stuck:
        shared.complete(request)
    shared.b.send(tsk_mgmt(10, LUN_RESET))
    assert shared.request().op == lib.VT_OP_LU_RESET


def resets(shared, tag: int) -> int:
    """The answer to a reset: its code."""
    shared.b.send(tsk_mgmt(tag, LUN_RESET))
    rsp = shared.b.answer()
    assert rsp.tag == tag
    return int(rsp.response[3])


def test_reset_that_python_does_not_end_fails_in_time(shared):
    """Its worker stays counted until it comes back: no more of them than the unit's share are ever lost to it."""
    stuck = []
    for tag in (1, 2):
        shared.b.send(tsk_mgmt(tag, LUN_RESET))
        stuck.append(shared.request())
        assert shared.b.answer().response[3] == FAILED
    assert resets(shared, 3) == FAILED, "there is no worker for it"
    assert lib.vt_request_next(shared.t, ffi.new("struct vt_request *"), 0) == 0
    assert shared.complete(stuck[0]) == GONE, "nobody waits for that any more"
    shared.b.send(tsk_mgmt(4, LUN_RESET))
    last = shared.request()
    assert last.op == lib.VT_OP_LU_RESET and shared.complete(last) == 0
    assert shared.b.answer().response[3] == 0
    assert shared.complete(stuck[1]) == shared.complete(stuck[1]) == GONE


def test_reset_that_has_failed_outlives_its_connection(shared):
    lost = shared.srp()
    lost.send(tsk_mgmt(1, LUN_RESET))
    stuck = shared.request()
    assert lost.answer().response[3] == FAILED
    lost.stop()
    lost.remove()
    assert shared.complete(stuck) == GONE
    assert shared.a.task_management(ABORT_TASK, task_tag=5) == 0


def test_detached_command_leaves_its_units_share(shared):
    shared.a.send(*(srp_cmd(tag, SLOW) for tag in range(3)))
    shared.a.taken()
    first, _ = shared.request(), shared.request()
    assert lib.vt_request_detach(shared.t, first.task) == 0
    assert len(numbers(shared, 1)) == 1


def test_waiting_worker_is_woken_when_there_is_room(shared):
    shared.a.send(*(srp_cmd(tag, SLOW) for tag in range(3)))
    shared.a.taken()
    first, _ = shared.request(), shared.request()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared.request, 10.0)
        shared.complete(first)
        assert waiting.result().cdb[0] == 0x41
