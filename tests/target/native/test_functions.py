# SPDX-License-Identifier: BSD-2-Clause
"""Task management functions against commands in every state: one answer each, the function's last, nothing kept.

A nexus has two channels here, on one loop or on two. Must not know how the core waits.
"""

import os
import struct
import time

import pytest
import schedulers
from range_locks import lock, unlock
from raw_initiator import Srp
from raw_wire import (
    ABORT_TASK,
    ABORT_TASK_SET,
    ACA,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    LUN_RESET,
    ORDERED,
    SIMPLE,
    Rsp,
    direct,
    indirect,
    parse_rsp,
    read10,
    srp_cmd,
    tsk_mgmt,
)
from task_sets import BAD_NACA, GOOD, SLOW, SLOW_NACA, attentions, ended_quietly

from target.native import ffi, lib
from vscsi.native import lib as vlib

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


@pytest.mark.parametrize("function", [ABORT_TASK, ABORT_TASK_SET, LUN_RESET])
def test_a_function_waits_for_commands_of_a_channel_that_stops_meanwhile(disk, function):
    disk.a.send(srp_cmd(1, SLOW))
    request = disk.request()
    disk.also_a.send(tsk_mgmt(9, function, task_tag=1))
    disk.also_a.taken()
    lib.vt_channel_stop(disk.t, disk.a.id)
    assert disk.also_a.silent(0.05)
    disk.complete(request)
    if function == LUN_RESET:
        disk.complete(disk.request())
    assert disk.also_a.answer().tag == 9
    disk.event(3, disk.a.id)
    disk.a.stopped = True


# ---- against commands in every state ----


class Met:
    """What stands in the way of the command with tag 1 on `a` when the function comes, and how it is taken away."""

    attribute, cdb = SIMPLE, SLOW

    def __init__(self, rig) -> None:
        self.rig = rig
        self.frame = rig.mem.alloc(1)
        self.prepare()
        rig.a.send(srp_cmd(1, self.cdb, attribute=self.attribute, in_=self.buffer()))
        rig.a.taken()
        self.arrive()

    def buffer(self) -> bytes:
        return direct(self.frame + 8, 512)

    def prepare(self) -> None:
        """Before the command is sent."""

    def arrive(self) -> None:
        """Brings the command into the state, once it has been taken."""

    def release(self) -> None:
        """It may end now."""


class QueuedForPython(Met):
    pass


class RunningInPython(Met):
    def arrive(self) -> None:
        self.request = self.rig.request()

    def release(self) -> None:
        self.rig.complete(self.request)


class InBackground(RunningInPython):
    def arrive(self) -> None:
        super().arrive()
        assert lib.vt_request_detach(self.rig.t, self.request.task) == 0


class Dormant(Met):
    attribute = ORDERED

    def prepare(self) -> None:
        self.rig.b.send(srp_cmd(1, SLOW))
        self.older = self.rig.request()

    def release(self) -> None:
        self.rig.complete(self.older)


class BlockedByAca(Met):
    attribute = ORDERED

    def prepare(self) -> None:
        self.rig.a.send(srp_cmd(2, SLOW_NACA))
        self.faulty = self.rig.request()

    def arrive(self) -> None:
        self.rig.complete(self.faulty, status=2)
        assert self.rig.a.answer().status == 2

    def release(self) -> None:
        self.rig.a.send(tsk_mgmt(7, CLEAR_ACA))


class AcaTask(RunningInPython):
    attribute = ACA

    def prepare(self) -> None:
        assert self.rig.a.command(BAD_NACA).status == 2

    def release(self) -> None:
        super().release()
        self.rig.a.send(tsk_mgmt(7, CLEAR_ACA))


class WaitingForBlocks(Met):
    cdb = read10(0, 1)

    def prepare(self) -> None:
        self.held = lock(self.rig, 0, 10)

    def release(self) -> None:
        unlock(self.rig, self.held)


class WaitingForScratch(Met):
    """Lists of what a buffer is made of come out of a pool, which is empty."""

    cdb = read10(0, 128)

    def buffer(self) -> bytes:
        return self.scattered

    def prepare(self) -> None:
        frames = [self.rig.mem.alloc(1) for _ in range(64)]
        entries = [direct(f + 8, 2048) for f in frames[::2]]
        table = self.rig.mem.alloc(1)
        self.rig.mem.write(table, b"".join(entries))
        self.scattered = indirect(entries, inline=0, table=struct.pack(">QII", 0, table + 8, 16 * len(entries)))
        self.rig.third.send(*(srp_cmd(100 + i, SLOW, in_=self.scattered) for i in range(64)))
        self.requests = [self.rig.request() for _ in range(64)]

    def release(self) -> None:
        for request in self.requests:
            self.rig.complete(request)


class InMedia(Met):
    """A READ from a pipe."""

    cdb = read10(0, 1)

    def release(self) -> None:
        os.write(self.rig.pipe, bytes(512))


class WaitingForItsTurn(InMedia):
    """The device takes one request at a time, and has one."""

    def prepare(self) -> None:
        schedulers.add(self.rig)
        self.rig.third.send(srp_cmd(2, read10(0, 1), in_=direct(self.rig.mem.alloc(1) + 8, 512)))
        self.rig.third.taken()

    def release(self) -> None:
        os.write(self.rig.pipe, bytes(1024))


STATES = (
    *(QueuedForPython, RunningInPython, InBackground, Dormant, BlockedByAca, AcaTask),
    *(WaitingForBlocks, WaitingForScratch, WaitingForItsTurn, InMedia),
)


def image(rig, state: type[Met]) -> int:
    if not issubclass(state, InMedia):
        return rig.file()
    if lib.vt_engine_used(rig.t) != lib.VT_ENGINE_URING:
        pytest.skip("only io_uring reads a pipe as if it were a file")
    reader, rig.pipe = os.pipe()
    rig.fds += [reader, rig.pipe]
    return reader


def collect(rig, hit: bool) -> dict[Srp, list[Rsp]]:
    """Runs what Python is asked to run, and takes all answers: one for each request."""
    channels = (rig.also_a, rig.a, rig.third, rig.b)
    answers: dict[Srp, list[Rsp]] = {channel: [] for channel in channels}
    until, request = time.monotonic() + 10, ffi.new("struct vt_request *")
    while any(channel.received < channel.sent for channel in channels):
        assert time.monotonic() < until, answers
        while lib.vt_request_next(rig.t, request, 0) == 1:
            rig.complete(request)
        for channel in channels:
            answers[channel] += map(parse_rsp, channel.receive_all())
        # The function's was looked for first.
        if hit and any(rsp.tag == 9 for rsp in answers[rig.also_a]):
            assert any(rsp.tag == 1 for rsp in answers[rig.a]), "the function's answer came first"
    return answers


@pytest.mark.parametrize("loops", [1, 2])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_function_against_every_state(make_rig, state, function, loops):
    rig = make_rig(loops=loops, nowait=0)
    rig.lu(fd=image(rig, state))
    rig.mem = rig.memory()
    rig.also_a = rig.srp(rig.mem, loop=loops - 1)
    rig.a = rig.srp(rig.mem, loop=0, nexus=rig.also_a.nexus)
    rig.third, rig.b = rig.srp(rig.mem, loop=0), rig.srp(loop=0)
    in_use = vlib.vscsi_mapper_in_use(rig.mem.mapper)
    met = state(rig)
    rig.also_a.send(tsk_mgmt(9, function, task_tag=1))
    rig.also_a.taken()
    met.release()
    hit = function != CLEAR_ACA or state is AcaTask
    answers = collect(rig, hit)
    [command] = [rsp for rsp in answers[rig.a] if rsp.tag == 1]
    assert ended_quietly(command, 1) if hit else command.status == GOOD
    [function_rsp] = [rsp for rsp in answers[rig.also_a] if rsp.tag == 9]
    assert function_rsp.response == bytes(4)
    assert all(rsp.delta == 1 for each in answers.values() for rsp in each)
    assert vlib.vscsi_mapper_in_use(rig.mem.mapper) == in_use
    assert not rig.mem.flags(met.frame) & 24, "its page is not given back"
    for who in (rig.a, rig.also_a, rig.third, rig.b):
        attentions(rig, who)
        assert who.command(read10(0, 0)).status == GOOD
        assert who.received == who.sent and who.silent(0)
