# SPDX-License-Identifier: BSD-2-Clause
"""Task management functions against commands in every state: one answer each, the function's last, nothing kept.

A nexus has two channels here, on one loop or on two. Must not know how the core waits.
"""

import os

import pytest
from raw_wire import (
    ABORT_TASK,
    ABORT_TASK_SET,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    LUN_RESET,
    ORDERED,
    parse_rsp,
    read10,
    srp_cmd,
    tsk_mgmt,
)
from task_sets import SLOW

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0"))
FUNCTIONS = {
    "ABORT TASK": ABORT_TASK,
    "ABORT TASK SET": ABORT_TASK_SET,
    "CLEAR TASK SET": CLEAR_TASK_SET,
    "CLEAR ACA": CLEAR_ACA,
    "LUN RESET": LUN_RESET,
}


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def disk(request, make_rig):
    """`a` and `also_a` are channels of one nexus; `also_a` is where functions are sent."""
    rig = make_rig(loops=request.param)
    rig.lu(flags=4)
    rig.mem = rig.memory()
    rig.also_a = rig.srp(rig.mem, loop=request.param - 1)
    rig.a = rig.srp(rig.mem, loop=0, nexus=rig.also_a.nexus)
    rig.b = rig.srp(loop=0)
    return rig


# ---- the function's answer is the last ----


@pytest.mark.parametrize("sent_first", ["a", "also_a"], ids=["from the first channel", "from the second"])
def test_no_answer_of_the_nexus_comes_after_the_functions(disk, sent_first):
    """On whatever channel: once the function's is there the others are."""
    commands, functions = (disk.a, disk.also_a) if sent_first == "a" else (disk.also_a, disk.a)
    for _ in range(40 + int(SECONDS * 100)):
        commands.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW, attribute=ORDERED), srp_cmd(3, SLOW))
        request = disk.request()
        commands.taken()
        functions.send(tsk_mgmt(9, ABORT_TASK_SET))
        functions.taken()
        disk.complete(request)
        assert functions.answer().tag == 9
        commands.poll()
        assert sorted(parse_rsp(iu).tag for iu in commands.ready) == [1, 2, 3]
        commands.ready.clear()


def test_what_has_just_ended_is_answered_before_the_function_that_finds_nothing(disk):
    """A command leaves its task set before its answer is published."""
    for round_ in range(200 + int(SECONDS * 1000)):
        tags = range(round_ % 8 + 1)
        disk.a.send(*(srp_cmd(tag, read10(0, 0)) for tag in tags))
        disk.a.taken()
        disk.also_a.send(tsk_mgmt(100, ABORT_TASK_SET))
        assert disk.also_a.answer().tag == 100
        disk.a.poll()
        assert sorted(parse_rsp(iu).tag for iu in disk.a.ready) == list(tags)
        disk.a.ready.clear()
