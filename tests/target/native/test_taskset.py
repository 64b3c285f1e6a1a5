# SPDX-License-Identifier: BSD-2-Clause
"""Order of commands, overlapped tags, task management, unit attentions: slow commands hold the task set open."""

import threading

import pytest
from raw_wire import (
    ABORT_TASK,
    ABORT_TASK_SET,
    ACA,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    HEAD_OF_QUEUE,
    LUN_RESET,
    ORDERED,
    RSPVALID,
    SIMPLE,
    code,
    direct,
    read10,
    srp_cmd,
    tsk_mgmt,
    write10,
)

from target.native import ffi, lib

SLOW = b"\x41" + bytes(9)
TEST_UNIT_READY = bytes(6)
INQUIRY = b"\x12" + bytes(5)
ABORTED = (RSPVALID, b"\0\0\0\0")


@pytest.fixture
def disk(two_nexuses):
    return two_nexuses


def none_queued(rig) -> bool:
    return lib.vt_request_next(rig.t, ffi.new("struct vt_request *"), 60) == 0


def test_simple_commands_run_together(disk):
    disk.a.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW))
    disk.b.send(srp_cmd(1, SLOW))
    requests = [disk.request() for _ in range(3)]
    assert {r.nexus for r in requests} == {disk.a.nexus, disk.b.nexus}
    for r in requests:
        disk.complete(r)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 2}
    assert disk.b.answer().tag == 1


def test_ordered_waits_for_older_and_simple_for_ordered(disk):
    disk.a.send(srp_cmd(1, SLOW))
    first = disk.request()
    disk.b.send(srp_cmd(2, SLOW, attribute=ORDERED))
    disk.b.taken()
    disk.a.send(srp_cmd(3, TEST_UNIT_READY[:1] + bytes(5)))
    assert none_queued(disk)
    disk.complete(first)
    assert disk.a.answer().tag == 1
    second = disk.request()
    assert second.attribute == ORDERED
    assert none_queued(disk) and disk.a.silent(0)
    disk.complete(second)
    assert disk.b.answer().tag == 2
    third = disk.request()
    disk.complete(third)
    assert disk.a.answer().tag == 3


def test_head_of_queue_overtakes_and_holds_the_others_back(disk):
    disk.a.send(srp_cmd(1, SLOW))
    first = disk.request()
    disk.a.send(srp_cmd(2, SLOW, attribute=ORDERED), srp_cmd(3, SLOW, attribute=HEAD_OF_QUEUE))
    hoq = disk.request()
    assert hoq.attribute == HEAD_OF_QUEUE
    disk.a.send(srp_cmd(4, SLOW, attribute=HEAD_OF_QUEUE))
    newer = disk.request()
    disk.complete(first)
    assert disk.a.answer().tag == 1
    assert none_queued(disk), "ORDERED waits for every HEAD OF QUEUE, newer ones too"
    disk.complete(newer)
    disk.complete(hoq)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {3, 4}
    last = disk.request()
    assert last.attribute == ORDERED
    disk.complete(last)
    assert disk.a.answer().tag == 2


def test_ordered_commands_of_one_batch_keep_their_order(disk):
    disk.a.send(*(srp_cmd(i, SLOW, attribute=ORDERED) for i in range(20)))
    for i in range(20):
        request = disk.request()
        if i % 7 == 0:
            assert none_queued(disk)
        disk.complete(request)
        assert disk.a.answer().tag == i


def test_write_behind_ordered_waits(disk):
    memory = disk.a.memory
    frame = memory.alloc(1)
    disk.a.send(srp_cmd(1, SLOW, attribute=ORDERED), srp_cmd(2, write10(0, 1), out=direct(frame + 8, 512)))
    request = disk.request()
    assert disk.a.silent(0.05)
    disk.complete(request)
    assert [disk.a.answer().tag, disk.a.answer().tag] == [1, 2]


def test_overlapped_tag(disk):
    disk.a.send(srp_cmd(5, SLOW))
    request = disk.request()
    disk.b.send(srp_cmd(5, SLOW))
    disk.complete(disk.request())
    assert disk.b.answer().status == 0, "the tag of another nexus is another tag"
    disk.a.send(srp_cmd(5, SLOW))
    rsp = disk.a.answer()
    assert code(rsp) == 0x0B4E00 and rsp.tag == 5
    assert lib.vt_request_aborted(disk.t, request.task) == 1
    disk.complete(request)
    rsp = disk.a.answer()
    assert (rsp.flags, rsp.response) == ABORTED and rsp.delta == 1
    assert disk.a.command(read10(0, 0)).status == 0


@pytest.mark.parametrize("attribute,sense", [(ACA, 0x054900), (3, 0x054900), (7, 0x054900)])
def test_attributes_that_do_not_exist(disk, attribute, sense):
    assert code(disk.a.command(TEST_UNIT_READY, attribute=attribute)) == sense


def test_naca_is_of_no_effect_where_nothing_goes_wrong(disk):
    assert disk.a.command(read10(0, 0)[:9] + b"\4").status == 0
    assert disk.a.command(read10(0, 0)).status == 0


# ---- task management ----


def test_abort_task_waits_for_the_running_command(disk):
    disk.a.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW))
    first, second = disk.request(), disk.request()
    disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    assert disk.a.silent()
    assert lib.vt_request_aborted(disk.t, first.task) == 1
    assert lib.vt_request_aborted(disk.t, second.task) == 0
    into = ffi.new("uint8_t[8]")
    assert lib.vt_request_fetch(disk.t, first.task, 0, into, 8) == -125
    disk.complete(first)
    rsps = [disk.a.answer(), disk.a.answer()]
    assert [r.tag for r in rsps] == [1, 9], "the aborted command answers before the function"
    assert all((r.flags, r.response) == ABORTED and r.delta == 1 for r in rsps)
    disk.complete(second)
    assert disk.a.answer().status == 0


def test_abort_of_dormant_and_queued_commands_is_answered_at_once(disk):
    disk.a.send(srp_cmd(1, SLOW))
    first = disk.request()
    disk.a.send(srp_cmd(2, SLOW), srp_cmd(3, SLOW, attribute=ORDERED))
    disk.a.send(tsk_mgmt(8, ABORT_TASK, task_tag=3), tsk_mgmt(9, ABORT_TASK, task_tag=2))
    assert {disk.a.answer().tag for _ in range(4)} == {2, 3, 8, 9}
    assert none_queued(disk)
    disk.complete(first)
    assert disk.a.answer().tag == 1


def test_abort_task_of_an_unknown_tag_or_another_nexus(disk):
    assert disk.a.task_management(ABORT_TASK, task_tag=4711) == 0
    disk.a.send(srp_cmd(1, SLOW))
    request = disk.request()
    assert disk.b.task_management(ABORT_TASK, task_tag=1) == 0
    assert lib.vt_request_aborted(disk.t, request.task) == 0
    disk.complete(request)
    assert disk.a.answer().status == 0


def test_functions_and_luns_that_do_not_exist(disk):
    assert disk.a.task_management(CLEAR_ACA) == 0
    assert disk.a.task_management(0x20) == 4
    assert disk.a.task_management(0) == 4
    assert disk.a.task_management(3) == 4
    assert disk.a.task_management(ABORT_TASK_SET, lun=7) == 2


def test_abort_task_set_is_of_one_nexus(disk):
    disk.a.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW, attribute=ORDERED))
    mine = disk.request()
    disk.b.send(srp_cmd(3, SLOW, attribute=HEAD_OF_QUEUE))
    other = disk.request()
    disk.a.send(tsk_mgmt(9, ABORT_TASK_SET))
    rsp = disk.a.answer()
    assert rsp.tag == 2 and (rsp.flags, rsp.response) == ABORTED
    assert disk.a.silent(0.05)
    disk.complete(mine)
    assert [disk.a.answer().tag, disk.a.answer().tag] == [1, 9]
    disk.complete(other)
    assert disk.b.answer().status == 0
    assert disk.b.command(read10(0, 0)).status == 0


def test_clear_task_set_tells_those_it_hit(disk):
    c = disk.srp()
    disk.a.send(srp_cmd(1, SLOW))
    disk.b.send(srp_cmd(2, SLOW))
    requests = [disk.request(), disk.request()]
    disk.a.send(tsk_mgmt(9, CLEAR_TASK_SET))
    for r in requests:
        assert disk.a.silent(0.02) or r is requests[1]
        disk.complete(r)
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 9}
    rsp = disk.b.answer()
    assert (rsp.flags, rsp.response) == ABORTED
    assert code(disk.b.command(TEST_UNIT_READY)) == 0x062F00
    assert disk.a.command(read10(0, 0)).status == 0
    assert c.command(read10(0, 0)).status == 0


def test_logical_unit_reset(disk):
    disk.a.send(srp_cmd(1, SLOW))
    requests = [disk.request()]
    disk.b.send(srp_cmd(2, SLOW), srp_cmd(3, SLOW, attribute=ORDERED))
    requests.append(disk.request())
    disk.b.taken()
    disk.a.send(tsk_mgmt(9, LUN_RESET))
    assert disk.b.answer().tag == 3
    for r in requests:
        disk.complete(r)
    reset = disk.request()
    assert (reset.op, reset.lu, reset.cdb_nbytes, reset.nexus) == (4, 0, 0, disk.a.nexus)
    assert disk.a.answer().tag == 1 and disk.a.silent(0.05)
    disk.complete(reset)
    rsp = disk.a.answer()
    assert rsp.tag == 9 and (rsp.flags, rsp.response) == ABORTED
    assert disk.b.answer().tag == 2
    for channel in (disk.a, disk.b):
        assert code(channel.command(read10(0, 0))) == 0x062903
        assert channel.command(read10(0, 0)).status == 0


def test_function_fails_in_the_end_and_the_unit_is_fenced(make_rig):
    """What does not end in time is not said to have ended; until it has, nobody touches the medium."""
    rig = make_rig(abort_limit_ms=200)
    rig.lu(fd=rig.file())
    channel, other = rig.srp(), rig.srp()
    channel.send(srp_cmd(1, SLOW))
    stuck = rig.request()
    channel.send(tsk_mgmt(2, ABORT_TASK, task_tag=1))
    rsp = channel.answer()
    assert (rsp.tag, rsp.flags, rsp.response) == (2, RSPVALID, b"\0\0\0\5")
    for c in (channel, other):
        assert code(c.command(read10(0, 0))) == 0x020400
    rig.complete(stuck)
    rsp = channel.answer()
    assert (rsp.tag, rsp.flags, rsp.response) == (1, *ABORTED)
    assert other.command(read10(0, 0)).status == 0


def test_checks_apply_when_the_command_is_enabled(disk):
    """A WRITE behind an ORDERED reservation by another nexus meets the conflict."""
    disk.a.send(srp_cmd(1, SLOW, attribute=ORDERED))
    request = disk.request()
    disk.b.send(srp_cmd(2, write10(0, 0), attribute=SIMPLE))
    disk.b.taken()
    assert disk.b.silent(0)
    lib.vt_lu_deny(disk.t, 0, disk.b.nexus, 2)
    disk.complete(request)
    assert disk.b.answer().status == 0x18


# ---- tables ----


def test_opcodes_service_actions_and_usage(disk):
    assert code(disk.a.command(b"\x01" + bytes(5))) == 0x052000
    rsp = disk.a.command(b"\x9e\x11" + bytes(14))
    assert code(rsp) == 0x052400 and rsp.sense[15:18] == b"\xcc\0\1"
    disk.a.send(srp_cmd(1, b"\x9e\x10" + bytes(14)))
    disk.complete(disk.request())
    assert disk.a.answer().status == 0
    rsp = disk.a.command(b"\x28\0\0\0\0\0\0\0\0\x80")
    assert code(rsp) == 0x052400 and rsp.sense[15:18] == b"\xcf\0\x09"
    rsp = disk.a.command(b"\0\0\0\x12\0\0")
    assert code(rsp) == 0x052400 and rsp.sense[15:18] == b"\xcc\0\3"


def test_variable_length_cdb(disk):
    cdb = b"\x7f\0\0\0\0\0\0\x18\0\x09" + bytes(range(22))
    disk.a.send(srp_cmd(1, cdb))
    request = disk.request()
    assert request.cdb_nbytes == 32 and bytes(ffi.buffer(request.cdb, 32)) == cdb
    disk.complete(request)
    assert disk.a.answer().status == 0
    rsp = disk.a.command(cdb[:16])
    assert code(rsp) == 0x052400 and rsp.sense[16:18] == b"\0\7"


def test_logical_units_that_do_not_exist(disk):
    assert code(disk.a.command(TEST_UNIT_READY, lun=5)) == 0x052500
    assert code(disk.a.command(b"\xff" + bytes(5), lun=300)) == 0x052500
    disk.a.send(srp_cmd(1, INQUIRY, lun=5))
    request = disk.request()
    assert (request.lu, bytes(request.lun)) == (-1, b"\0\5\0\0\0\0\0\0")
    disk.complete(request, in_=96)
    assert disk.a.answer().in_residual == 96


def test_lu_comes_and_goes_under_load(disk):
    assert disk.lu(lun=300, flags=4) == 1
    assert disk.lu(lun=300, flags=4) == -17
    assert disk.a.command(read10(0, 1), lun=300).status == 0
    disk.a.send(srp_cmd(1, SLOW, lun=300, attribute=ORDERED), srp_cmd(2, SLOW, lun=300))
    # The running one has to end first: a worker does that while the caller waits.
    request = disk.request()
    timer = threading.Timer(0.1, disk.complete, [request])
    timer.start()
    assert lib.vt_lu_remove(disk.t, 1) == 0
    timer.join()
    assert {disk.a.answer().tag, disk.a.answer().tag} == {1, 2}
    assert code(disk.a.command(TEST_UNIT_READY, lun=300)) == 0x052500
    assert lib.vt_lu_remove(disk.t, 1) == -2
