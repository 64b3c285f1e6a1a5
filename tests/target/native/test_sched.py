# SPDX-License-Identifier: BSD-2-Clause
"""Turns at a device through real rings: the device is a store of Python's, so the test says when it is done."""

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
    code,
    direct,
    read10,
    srp_cmd,
    tsk_mgmt,
)
from schedulers import add, config, finish, read, share, stats, until

from target.native import ffi, lib

SLOW_STORE, NULL = 8, 4
ABORTED = (RSPVALID, b"\0\0\0\0")
BLKIF_READ = 0


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def device(request, make_rig):
    """One place at the device. Whatever waits there is served upwards."""
    rig = make_rig(loops=request.param, abort_limit_ms=300)
    rig.lu(flags=SLOW_STORE)
    rig.sched = add(rig)
    rig.a = rig.srp(loop=0)
    rig.b = rig.srp(loop=request.param - 1)
    return rig


def nothing(rig) -> bool:
    request = ffi.new("struct vt_request *")
    if lib.vt_request_next(rig.t, request, 30) == 0:
        return True
    rig.held.append(request)
    return False


def held(rig, channel=None, tag=1, lba=10):
    """The device is busy with this one."""
    read(channel or rig.a, tag, lba)
    return rig.request()


def serve(rig, count) -> list[int]:
    """LBAs in the order in which the device gets them."""
    order = []
    for _ in range(count):
        request = rig.request()
        order.append(request.lba)
        finish(rig, request)
    return order


def test_requests_of_all_nexuses_are_sorted_upwards_from_the_head(device):
    first = held(device, lba=100)
    for tag, (channel, lba) in enumerate([(device.a, 50), (device.b, 300), (device.a, 200), (device.b, 20)], 2):
        read(channel, tag, lba)
    assert nothing(device)
    finish(device, first)
    # b was idle when its first came, so that goes first; then upwards, and over again from the bottom.
    assert serve(device, 4) == [300, 20, 50, 200]
    assert {device.a.answer().tag for _ in range(3)} == {1, 2, 4}
    assert {device.b.answer().tag for _ in range(2)} == {3, 5}


def test_what_continues_the_last_request_goes_with_it(device):
    first = held(device, lba=100)
    read(device.b, 2, 50)
    finish(device, first)
    second = device.request()
    assert second.lba == 50
    read(device.b, 3, 90)
    read(device.a, 4, 80)
    read(device.a, 5, 51)
    read(device.a, 6, 52)
    finish(device, second)
    third = device.request()
    assert third.lba == 80  # a had been idle
    finish(device, third)
    assert serve(device, 3) == [90, 51, 52]


def test_a_run_goes_to_the_device_at_once_until_somebody_idle_comes(device):
    first = held(device, lba=100)
    read(device.a, 2, 101)
    second = device.request()
    assert second.lba == 101
    read(device.b, 3, 300)
    read(device.a, 4, 102)
    assert nothing(device)
    finish(device, second)
    assert nothing(device)  # it had no place of its own
    finish(device, first)
    assert serve(device, 2) == [300, 102]


def test_head_of_queue_passes_what_waits(device):
    first = held(device)
    read(device.a, 2, 12)
    read(device.b, 3, 500, attribute=HEAD_OF_QUEUE)
    finish(device, first)
    assert serve(device, 2) == [500, 12]


def test_ordered_is_not_enabled_before_its_turn_and_nothing_passes_it(device):
    first = held(device)
    read(device.a, 2, 5)
    read(device.b, 3, 900, attribute=ORDERED)
    read(device.b, 4, 1)
    finish(device, first)
    assert serve(device, 3) == [5, 900, 1]


@pytest.mark.parametrize("function", [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET])
def test_what_waits_is_aborted_at_once(device, function):
    first = held(device, device.b)
    read(device.a, 2, 20)
    until(lambda: stats(device, device.sched, device.a.nexus).waiting == 1)
    if function in (CLEAR_TASK_SET, LUN_RESET):
        device.b.send(tsk_mgmt(8, ABORT_TASK, task_tag=77))  # no such task: what b has at the device stays
        assert device.b.answer().tag == 8
    device.a.send(tsk_mgmt(9, function, task_tag=2))
    rsp = device.a.answer()
    assert rsp.tag == 2 and (rsp.flags, rsp.response) == ABORTED
    assert stats(device, device.sched, device.a.nexus).waiting == 0
    if function in (ABORT_TASK, ABORT_TASK_SET):
        assert device.a.answer().tag == 9
    finish(device, first)
    if function == LUN_RESET:
        device.complete(device.request())
    assert device.b.answer().tag == 1
    if function in (CLEAR_TASK_SET, LUN_RESET):
        assert device.a.answer().tag == 9
    assert nothing(device)
    if function != LUN_RESET:  # which a reports first
        held(device, device.a, 3, 7)


def test_what_the_device_has_is_waited_for_and_its_place_comes_back(device):
    first = held(device)
    read(device.b, 2, 20)
    device.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    assert device.a.silent(0.05) and nothing(device)
    finish(device, first)
    assert [device.a.answer().tag, device.a.answer().tag] == [1, 9]
    assert serve(device, 1) == [20]


def test_a_channel_stops_while_its_commands_wait(device):
    first = held(device, device.b)
    for tag in range(2, 30):
        read(device.a, tag, tag * 7)
    device.a.stop()
    assert stats(device, device.sched, device.a.nexus).waiting == 0
    finish(device, first)
    assert device.b.answer().tag == 1 and nothing(device)


def test_a_unit_goes_and_another_on_the_same_device_stays(device):
    device.lu(lun=1, flags=SLOW_STORE)
    assert lib.vt_lu_schedule(device.t, 1, device.sched, 1 << 40) == 0
    assert lib.vt_lu_schedule(device.t, 1, device.sched, 0) == -17
    first = held(device)
    read(device.b, 2, 5, lun=1)
    read(device.a, 3, 6)
    assert lib.vt_lu_remove(device.t, 1) == 0
    rsp = device.b.answer()
    assert rsp.tag == 2 and (rsp.flags, rsp.response) == ABORTED
    finish(device, first)
    assert serve(device, 1) == [6]


def test_units_that_share_a_device_take_turns(device):
    device.lu(lun=1, flags=SLOW_STORE)
    assert lib.vt_lu_schedule(device.t, 1, device.sched, 1 << 40) == 0
    first = held(device)
    read(device.b, 2, 5, lun=1)
    assert nothing(device)
    finish(device, first)
    assert device.request().lu == 1


def test_the_target_ends_while_commands_wait(make_rig):
    rig = make_rig(loops=2)
    rig.lu(flags=NULL)
    rig.sched = add(rig)
    rig.a, rig.b = rig.srp(loop=0), rig.srp(loop=1)
    assert lib.vt_sched_share(rig.t, rig.sched, lib.VT_ALL, share(iops=1)) == 0
    for tag in range(1, 9):
        read(rig.a, tag, tag)
        read(rig.b, tag, tag)
    assert rig.a.answer().tag == rig.b.answer().tag == 1
    lib.vt_stop(rig.t)
    for channel in (rig.a, rig.b):
        channel.remove()
    assert lib.vt_sched_share(rig.t, rig.sched, lib.VT_ALL, share(7)) == 0


def test_blkif_takes_its_turn(device):
    vbd = device.blkif(device.memory())
    gref = vbd.memory.alloc(1) + 8
    first = held(device)
    vbd.send(vbd.request(BLKIF_READ, 77, 40, [(gref, 0, 0)]))
    vbd.taken()
    until(lambda: stats(device, device.sched, vbd.nexus).waiting == 1)
    assert nothing(device)
    finish(device, first)
    assert serve(device, 1) == [40]
    assert vbd.status() == 0


def test_limits_hold_and_can_be_lifted(device):
    assert lib.vt_sched_share(device.t, device.sched, device.a.nexus, share(iops=1)) == 0
    assert lib.vt_sched_share(device.t, device.sched, device.b.nexus, share(bytes_per_s=512)) == 0
    for tag in range(1, 4):
        read(device.a, tag, tag)
        read(device.b, tag, tag)
    assert len(serve(device, 2)) == 2
    assert nothing(device)
    assert lib.vt_sched_share(device.t, device.sched, device.a.nexus, share()) == 0
    assert serve(device, 2) == [2, 3]
    assert nothing(device)
    assert lib.vt_sched_share(device.t, device.sched, lib.VT_ALL, share()) == 0
    assert serve(device, 2) == [2, 3]


def test_a_limit_ends_by_itself(device):
    assert lib.vt_sched_share(device.t, device.sched, lib.VT_ALL, share(iops=10)) == 0
    for tag in range(1, 5):
        read(device.a, tag, tag)
    assert serve(device, 4) == [1, 2, 3, 4]


def test_more_places_are_used_at_once(device):
    first = held(device)
    read(device.a, 2, 50)
    read(device.b, 3, 90)
    assert nothing(device)
    assert lib.vt_sched_update(device.t, device.sched, config(depth=3)) == 0
    assert {device.request().lba, device.request().lba} == {50, 90}
    finish(device, first)
    assert lib.vt_sched_update(device.t, device.sched, config(depth=0)) == -22


def test_what_waits_is_not_waited_for_by_who_wants_its_blocks(device):
    first = held(device, lba=100)
    read(device.b, 2, 5)
    lock = lib.vt_range_lock(device.t, 0, 0, 0, 50, 1000)
    assert lock > 0
    finish(device, first)
    finish(device, device.request())  # a slow store's commands take their locks in Python
    assert lib.vt_range_unlock(device.t, 0, lock) == 0


def test_what_has_its_turn_but_not_its_blocks_leaves_its_place(make_rig):
    rig = make_rig()
    rig.lu(flags=NULL)
    rig.lu(lun=1, flags=SLOW_STORE)
    rig.a, rig.b = rig.srp(), rig.srp()
    rig.sched = add(rig, 0, 1)
    lock = lib.vt_range_lock(rig.t, 0, 0, 0, 50, 1000)
    assert lock > 0
    read(rig.a, 1, 5)
    until(lambda: stats(rig, rig.sched, rig.a.nexus).requests == 1)
    read(rig.b, 2, 100)
    assert rig.b.answer().tag == 2 and rig.a.silent(0.02)
    assert lib.vt_range_unlock(rig.t, 0, lock) == 0
    assert rig.a.answer().tag == 1


def test_aca_blocks_what_waits(make_rig):
    rig = make_rig()
    rig.lu(flags=SLOW_STORE)
    rig.a, rig.b = rig.srp(), rig.srp()
    rig.sched = add(rig)
    first = held(rig, rig.b)
    read(rig.a, 2, 20)
    until(lambda: stats(rig, rig.sched, rig.a.nexus).waiting == 1)
    rig.a.send(srp_cmd(3, read10(1 << 30, 1)[:9] + b"\4", in_=direct(rig.a.page, 512)))
    assert rig.a.answer().status == 2
    finish(rig, first)
    assert nothing(rig)
    read(rig.a, 4, 30, attribute=ACA)
    assert serve(rig, 1) == [30]
    rig.a.send(tsk_mgmt(9, CLEAR_ACA))
    assert {rig.a.answer().tag, rig.a.answer().tag} == {4, 9}
    assert serve(rig, 1) == [20]


def test_what_has_come_since_it_was_enabled_does_not_end_it(device):
    """Neither a unit attention nor a reservation: they are for what is enabled later."""
    first = held(device, device.b)
    read(device.a, 2, 20)
    until(lambda: stats(device, device.sched, device.a.nexus).waiting == 1)
    assert lib.vt_ua_establish(device.t, device.a.nexus, lib.VT_ALL, 0, 0x2A09) == 0
    assert lib.vt_lu_deny(device.t, 0, device.a.nexus, 15) == 0
    finish(device, first)
    assert serve(device, 1) == [20]
    assert device.a.answer().status == 0
    device.a.send(srp_cmd(3, read10(1, 1), in_=direct(device.a.page, 512)))
    assert device.a.answer().status == 0x18


def test_but_a_medium_that_has_gone_does(device):
    first = held(device, device.b)
    read(device.a, 2, 20)
    until(lambda: stats(device, device.sched, device.a.nexus).waiting == 1)
    assert lib.vt_lu_state(device.t, 0, 0x023A00) == 0
    finish(device, first)
    assert code(device.a.answer()) == 0x023A00
    assert nothing(device)
    assert lib.vt_lu_state(device.t, 0, 0) == 0
    held(device, device.a, 3, 7)


def test_wrong_numbers(device):
    assert lib.vt_sched_add(device.t, config(depth=0)) == -22
    assert lib.vt_sched_add(device.t, config(quantum_us=0)) == -22
    assert lib.vt_sched_share(device.t, device.sched, 0, share(0)) == -22
    assert lib.vt_sched_share(device.t, device.sched, 0, share(10001)) == -22
    assert lib.vt_sched_share(device.t, 7, 0, share()) == -2
    assert lib.vt_sched_stats(device.t, device.sched, 9999, ffi.new("struct vt_sched_stats *")) == -22
    assert lib.vt_lu_schedule(device.t, 9, device.sched, 0) == -2
