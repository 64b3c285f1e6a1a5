# SPDX-License-Identifier: BSD-2-Clause
"""Auto contingent allegiance: who gets in while it lasts, what stands still, and all that ends it."""

import os

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
    SIMPLE,
    code,
    direct,
    read10,
    srp_cmd,
    tsk_mgmt,
    write10,
)
from task_sets import (
    ACA_ACTIVE,
    BAD,
    BAD_NACA,
    BUSY,
    GOOD,
    INVALID_FIELD,
    PREEMPT_AND_ABORT,
    PREEMPT_AND_ABORT_NACA,
    READY,
    READY_NACA,
    SLOW,
    attentions,
    built,
    ended_quietly,
    establish,
    none_queued,
    obey,
    running,
    waiting,
)

from target.native import ffi, lib


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def disk(request, make_rig):
    return built(make_rig(loops=request.param), request.param)


def free(who) -> bool:
    return who.command(READY).status == GOOD


@pytest.mark.parametrize(
    ("who", "attribute", "cdb", "status"),
    [
        ("a", ACA, READY, GOOD),
        ("a", ACA, READY_NACA, GOOD),
        ("a", SIMPLE, READY, ACA_ACTIVE),
        ("a", SIMPLE, READY_NACA, ACA_ACTIVE),
        ("a", ORDERED, READY, ACA_ACTIVE),
        ("a", HEAD_OF_QUEUE, READY, ACA_ACTIVE),
        ("a", SIMPLE, PREEMPT_AND_ABORT, ACA_ACTIVE),
        ("a", SIMPLE, b"\x12" + bytes(5), ACA_ACTIVE),
        ("a", SIMPLE, b"\x03" + bytes(5), ACA_ACTIVE),
        ("a", SIMPLE, b"\xa0" + bytes(11), ACA_ACTIVE),
        ("a", SIMPLE, b"\xff" + bytes(5), ACA_ACTIVE),
        ("a", SIMPLE, b"\x9e\x11" + bytes(14), ACA_ACTIVE),
        ("b", SIMPLE, READY, BUSY),
        ("b", SIMPLE, READY_NACA, ACA_ACTIVE),
        ("b", ORDERED, READY, BUSY),
        ("b", HEAD_OF_QUEUE, READY_NACA, ACA_ACTIVE),
        ("b", ACA, READY, BUSY),
        ("b", ACA, READY_NACA, ACA_ACTIVE),
        ("b", SIMPLE, b"\xff" + bytes(5), BUSY),
    ],
)
def test_new_commands_while_it_is_in_force(disk, who, attribute, cdb, status):
    establish(disk.a)
    assert getattr(disk, who).command(cdb, attribute=attribute).status == status
    assert not free(disk.a), "nothing of this ends it"
    assert disk.a.task_management(CLEAR_ACA) == 0
    assert free(disk.a) and free(disk.b)


def test_only_one_aca_task_at_a_time(disk):
    establish(disk.a)
    request = running(disk, disk.a, 1, attribute=ACA)
    assert request.attribute == ACA
    assert disk.a.command(READY, attribute=ACA).status == ACA_ACTIVE
    disk.complete(request)
    assert disk.a.answer().status == GOOD
    assert disk.a.command(READY, attribute=ACA).status == GOOD


@pytest.mark.parametrize("policy", [{}, {"separate_sets": 1}])
def test_aca_attribute_without_the_condition(disk, policy):
    obey(disk, **policy)
    assert code(disk.a.command(READY, attribute=ACA)) == 0x054900
    assert code(disk.a.command(READY_NACA, attribute=ACA)) == 0x054900, "and that one has NACA"
    assert not free(disk.a)
    assert disk.a.command(READY, attribute=ACA).status == GOOD
    disk.a.task_management(CLEAR_ACA)
    assert code(disk.a.command(READY, attribute=ACA, lun=5)) == 0x052500
    assert code(disk.a.command(READY, attribute=7)) == 0x054900


@pytest.mark.parametrize(
    "cdb", [BAD_NACA, b"\xff" + bytes(14) + b"\4", b"\x1f" + bytes(4) + b"\4", b"\x9e\x11" + bytes(13) + b"\4"]
)
def test_whatever_ends_with_check_condition_establishes_it(disk, cdb):
    rsp = disk.a.command(cdb)
    known = cdb[0] != 0xFF  # a vendor's CDB has no CONTROL byte that anybody knows
    assert code(rsp) in (INVALID_FIELD, 0x052000)
    assert free(disk.a) is not known


def test_a_unit_attention_establishes_it(disk):
    lib.vt_ua_establish(disk.t, disk.a.nexus, lib.VT_ALL, 0, 0x2903)
    assert code(disk.a.command(READY_NACA)) == 0x062903
    assert disk.a.command(READY).status == ACA_ACTIVE and disk.b.command(READY).status == BUSY


def test_an_error_without_naca_does_not(disk):
    assert code(disk.a.command(BAD)) == INVALID_FIELD
    assert free(disk.a) and free(disk.b)


def test_separate_task_sets_know_nothing_of_each_other(disk):
    obey(disk, separate_sets=1)
    establish(disk.a)
    assert free(disk.b) and disk.b.command(READY_NACA).status == GOOD
    establish(disk.b)
    assert not free(disk.a) and not free(disk.b) and free(disk.c)
    assert disk.b.task_management(CLEAR_ACA) == 0
    assert free(disk.b) and not free(disk.a)


@pytest.mark.parametrize("cdb", [PREEMPT_AND_ABORT, PREEMPT_AND_ABORT_NACA])
def test_preempt_and_abort_of_another_nexus_gets_through(disk, cdb):
    establish(disk.a)
    request = running(disk, disk.b, 1, cdb)
    victims = ffi.new("uint32_t[]", [disk.a.nexus])
    assert lib.vt_nexus_abort_tasks(disk.t, 0, victims, 1, request.task) == 0
    disk.complete(request)
    assert disk.b.answer().status == GOOD
    assert free(disk.a) and free(disk.b), "it preempted the faulted nexus"


def test_preempt_and_abort_of_a_third_nexus_ends_nothing(disk):
    establish(disk.a)
    request = running(disk, disk.b, 1, PREEMPT_AND_ABORT)
    victims = ffi.new("uint32_t[]", [disk.c.nexus])
    assert lib.vt_nexus_abort_tasks(disk.t, 0, victims, 1, request.task) == 0
    disk.complete(request)
    assert disk.b.answer().status == GOOD
    assert not free(disk.a)


# ---- what was there before ----


def test_what_has_not_begun_waits_and_goes_on_afterwards(disk):
    faulty = running(disk, disk.a, 1, b"\x41" + bytes(8) + b"\4")
    waiting(disk.a, 2, attribute=ORDERED)
    waiting(disk.b, 3)
    disk.complete(faulty, status=2)
    assert disk.a.answer().status == 2
    assert none_queued(disk), "the ORDERED one has nothing older to wait for"
    assert disk.a.command(READY, attribute=ACA).status == GOOD, "it overtakes all that is blocked"
    assert disk.a.task_management(CLEAR_ACA) == 0
    second = disk.request()
    assert second.attribute == ORDERED and none_queued(disk)
    disk.complete(second)
    disk.complete(disk.request())
    assert disk.a.answer().tag == 2 and disk.b.answer().tag == 3


def test_what_runs_ends_as_always(disk):
    mine, theirs = running(disk, disk.a, 1), running(disk, disk.b, 2)
    establish(disk.a)
    disk.complete(mine)
    assert disk.a.answer().status == GOOD
    disk.complete(theirs, status=2)
    assert disk.b.answer().status == 2
    assert not free(disk.a)


def test_blocked_commands_can_be_aborted(disk):
    faulty = running(disk, disk.a, 1, b"\x41" + bytes(8) + b"\4", attribute=ORDERED)
    for tag in (2, 3):
        waiting(disk.a, tag)
    disk.complete(faulty, status=2)
    assert disk.a.answer().status == 2
    disk.a.send(tsk_mgmt(9, ABORT_TASK_SET))
    answers = [disk.a.answer() for _ in range(3)]
    assert {r.tag for r in answers[:2]} == {2, 3} and answers[2].tag == 9
    assert not free(disk.a), "the condition stays"


def test_blkif_waits(disk):
    device = disk.blkif()
    establish(disk.a)
    frame = device.memory.alloc(1)
    device.send(device.request(0, 77, 0, [(frame + 8, 0, 7)]))
    device.taken()
    assert device.silent(0.05)
    assert disk.a.task_management(CLEAR_ACA) == 0
    assert device.status() == 0


# ---- how it ends ----


def test_clear_aca_is_the_faulted_nexus_business(disk):
    establish(disk.a)
    assert disk.b.task_management(CLEAR_ACA) == 0
    assert not free(disk.a)
    assert disk.a.task_management(CLEAR_ACA, lun=5) == 2
    assert disk.a.task_management(CLEAR_ACA) == 0
    assert free(disk.a)


def test_clear_aca_ends_the_aca_task(disk):
    establish(disk.a)
    request = running(disk, disk.a, 1, attribute=ACA)
    other = disk.b.nexus
    disk.a.send(tsk_mgmt(9, CLEAR_ACA))
    assert disk.a.silent(0.05)
    assert lib.vt_request_aborted(disk.t, request.task) == 1
    disk.complete(request)
    assert ended_quietly(disk.a.answer(), 1) and disk.a.answer().tag == 9
    assert free(disk.a) and attentions(disk, disk.b) == [] and other != disk.a.nexus


@pytest.mark.parametrize("function", [ABORT_TASK_SET, CLEAR_TASK_SET])
def test_other_functions_leave_it(disk, function):
    establish(disk.a)
    assert disk.a.task_management(function) == 0
    assert disk.b.task_management(function) == 0
    assert not free(disk.a)


@pytest.mark.parametrize("who", ["a", "b"])
def test_logical_unit_reset_ends_it(disk, who):
    establish(disk.a)
    issuer = getattr(disk, who)
    issuer.send(tsk_mgmt(9, LUN_RESET))
    disk.complete(disk.request())
    assert issuer.answer().tag == 9
    assert [attentions(disk, x) for x in (disk.a, disk.b)] == [[0x2903]] * 2
    assert free(disk.a) and free(disk.b)


def test_loss_of_the_nexus_ends_it(disk):
    establish(disk.a)
    waiting_for = disk.blkif()
    frame = waiting_for.memory.alloc(1)
    waiting_for.send(waiting_for.request(0, 77, 0, [(frame + 8, 0, 7)]))
    assert disk.b.command(READY).status == BUSY
    disk.a.stop()
    disk.a.remove()
    assert free(disk.b)
    assert waiting_for.status() == 0


def test_loss_of_the_nexus_ends_it_though_a_command_is_stuck(stuck):
    stuck.a.send(srp_cmd(1, read10(0, 1), in_=stuck.buffer))
    stuck.a.taken()
    stuck.also_a = stuck.srp(stuck.a.memory, nexus=stuck.a.nexus)
    establish(stuck.a)
    lib.vt_channel_stop(stuck.t, stuck.a.id)
    assert stuck.b.command(READY).status == BUSY, "the nexus has another channel"
    lib.vt_channel_stop(stuck.t, stuck.also_a.id)
    stuck.event(3, stuck.also_a.id)
    stuck.also_a.stopped = True
    assert stuck.b.command(READY).status == GOOD
    os.write(stuck.pipe, bytes(512))
    stuck.event(3, stuck.a.id)
    stuck.a.stopped = True


@pytest.mark.parametrize("tag", [1, 2])
def test_a_function_of_a_new_login_does_not_mean_the_commands_of_the_old_one(stuck, tag):
    stuck.a.send(srp_cmd(1, read10(0, 1), in_=stuck.buffer))
    stuck.a.taken()
    lib.vt_channel_stop(stuck.t, stuck.a.id)
    again = stuck.srp(stuck.a.memory, nexus=stuck.a.nexus)
    again.send(srp_cmd(1, SLOW))
    request = stuck.request()
    again.send(tsk_mgmt(9, ABORT_TASK, task_tag=tag))
    again.taken()
    stuck.complete(request)
    rsps = sorted((again.answer() for _ in range(2)), key=lambda rsp: rsp.tag)
    assert (rsps[0].tag, ended_quietly(rsps[0], 1)) == (1, tag == 1)
    assert rsps[1].response == bytes(4), "and it has not waited for the READ that is stuck"
    os.write(stuck.pipe, bytes(512))
    stuck.event(3, stuck.a.id)
    stuck.a.stopped = True


@pytest.mark.parametrize(("cdb", "stays"), [(BAD, False), (BAD_NACA, True)])
def test_error_of_the_aca_task(disk, cdb, stays):
    establish(disk.a)
    assert code(disk.a.command(cdb, attribute=ACA)) == INVALID_FIELD
    assert free(disk.a) is not stays
    assert disk.b.command(READY).status == (BUSY if stays else GOOD)


def test_aca_task_reads_and_writes(disk):
    memory = disk.a.memory
    frame = memory.alloc(1)
    establish(disk.a)
    disk.a.send(srp_cmd(1, write10(0, 1), out=direct(frame + 8, 512), attribute=ACA))
    assert disk.a.answer().status == GOOD
    assert disk.a.command(read10(0, 0), attribute=ACA).status == GOOD
    assert disk.b.command(read10(0, 0)).status == BUSY
    assert disk.a.command(SLOW).status == ACA_ACTIVE
