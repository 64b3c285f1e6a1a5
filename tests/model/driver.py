# SPDX-License-Identifier: BSD-2-Clause
"""The C task set driven step by step beside the model of it: after each step both must say the same.

Each nexus has a channel on each of two loops. Commands are of the kind that Python runs, so which are running is what
has been handed to Python, and a command ends when the test says so. Knows the raw rig; must not import the product.
"""

import random
import time

from raw_initiator import Rig
from raw_wire import (
    ABORT_TASK,
    ABORT_TASK_SET,
    CLEAR_TASK_SET,
    HEAD_OF_QUEUE,
    LUN_RESET,
    ORDERED,
    RSPVALID,
    SIMPLE,
    parse_rsp,
    srp_cmd,
    tsk_mgmt,
)

from model import taskset
from model.taskset import READY, RUNNING, Core, State
from target.native import ffi, lib

ATTRIBUTES = {taskset.SIMPLE: SIMPLE, taskset.ORDERED: ORDERED, taskset.HEAD: HEAD_OF_QUEUE}
FUNCTIONS = {
    taskset.ABORT_TASK: ABORT_TASK,
    taskset.ABORT_TASK_SET: ABORT_TASK_SET,
    taskset.CLEAR_TASK_SET: CLEAR_TASK_SET,
    taskset.RESET: LUN_RESET,
}
RESET_REQUEST = 4
FUNCTION_TAG, BARRIER_TAG = 1 << 40, 1 << 41
PATIENCE, IMPATIENCE = 10.0, 0.5  # seconds; a model that is wrong need not be waited for


class Driver:
    """One LU of `rig`, `nexuses` nexuses; `log` is the schedule so far. `mutation`: the model is wrong on purpose."""

    def __init__(self, rig: Rig, nexuses: int, mutation: str = "", **policy: int) -> None:
        self.rig, self.core, self.state = rig, Core(mutation), State()
        rig.lu(fd=rig.file(), **policy)
        memories = [rig.memory() for _ in range(nexuses)]
        first = [rig.srp(m, loop=0) for m in memories]
        self.channels = [(c, rig.srp(c.memory, nexus=c.nexus, loop=1)) for c in first]
        self.patience = IMPATIENCE if mutation else PATIENCE
        self.running: dict[int, int] = {}  # number of a command: what vt_request_complete knows it by
        self.answers: dict[int, tuple[int, int]] = {}  # tag: flags and status or response
        self.expected: dict[int, tuple[int, int]] = {}
        self.resets = self.resets_expected = 0
        self.log: list[str] = []
        self.steps = 0

    # ---- what the target did ----

    def collect(self) -> None:
        """Takes everything that the target has handed out or answered by now."""
        request = ffi.new("struct vt_request *")
        while lib.vt_request_next(self.rig.t, request, 0) == 1:
            if request.op == RESET_REQUEST:
                self.resets += 1
                assert lib.vt_request_complete(self.rig.t, request.task, ffi.new("struct vt_result *")) == 0
                continue
            number = int.from_bytes(bytes(request.cdb[2:6]), "big")
            assert number not in self.running, f"{number} is begun twice"
            self.running[number] = request.task
        for pair in self.channels:
            for channel in pair:
                channel.poll()
                for iu in channel.ready:
                    rsp = parse_rsp(iu)
                    assert rsp.tag not in self.answers, f"{rsp.tag} has two responses"
                    value = rsp.response[3] if rsp.flags & RSPVALID else rsp.status
                    self.answers[rsp.tag] = (rsp.flags, value)
                channel.ready.clear()

    def barrier(self) -> None:
        """Every loop has been through its mail: a function without an aim is answered by each."""
        for _ in range(2):  # what one loop did may have sent mail to the other
            tags = []
            for n, channel in enumerate(self.channels[0]):
                self.steps += 1
                tags.append(BARRIER_TAG + 2 * self.steps + n)
                channel.send(tsk_mgmt(tags[-1], ABORT_TASK, task_tag=BARRIER_TAG))
            self.wait_for(lambda tags=tags: all(tag in self.answers for tag in tags), "the loops do not answer")
            for tag in tags:
                assert self.answers.pop(tag) == (RSPVALID, 0)

    def wait_for(self, condition, what: str) -> None:
        until = time.monotonic() + self.patience
        while self.collect() or not condition():
            assert time.monotonic() < until, f"{what}; {self.explain()}"
            time.sleep(0)

    def explain(self) -> str:
        schedule = "\n  ".join(self.log)
        model = sorted(t.id for t in self.state.tasks if t.state == RUNNING)
        return (
            f"model: {model} run, answers {sorted(self.expected.items())}; "
            f"target: {sorted(self.running)} run, answers {sorted(self.answers.items())}; schedule:\n  {schedule}"
        )

    # ---- steps ----

    def settled(self, state: State) -> State:
        """Every loop has taken its mail."""
        while ready := [t for t in state.tasks if t.state == READY]:
            state = self.core.started(state, ready[0].id)
        return state

    def advance(self, what: str, after: State) -> None:
        """Both have done the step: what the model says must become true, and nothing else."""
        self.log.append(what)
        before, self.state = self.state, self.settled(after)
        if not self.core.mutation:
            taskset.judge(before, after)
            taskset.judge(after, self.state)
        waiting = {f.number for f in self.state.functions}
        known = {f.number for f in before.functions} | set(range(before.asked, after.asked))
        self.expected.update({FUNCTION_TAG + n: (RSPVALID, 0) for n in known - waiting})
        there = {t.id: t for t in self.state.tasks}
        for task in before.tasks:
            if task.id not in there:
                aborted = next((t.aborted for t in after.tasks if t.id == task.id), task.aborted)
                self.expected[task.id] = (RSPVALID, 0) if aborted else (0, 0)
        self.agree()

    def agree(self) -> None:
        """Waits for what the model says, and for all else that may be on its way."""
        runs = {t.id for t in self.state.tasks if t.state == RUNNING}
        self.wait_for(
            lambda: runs <= self.running.keys() and self.expected.keys() <= self.answers.keys(), "too little happens"
        )
        self.barrier()
        self.collect()
        assert self.running.keys() == runs, self.explain()
        assert self.answers == self.expected, self.explain()
        for task in self.state.tasks:
            if task.state == RUNNING:
                aborted = lib.vt_request_aborted(self.rig.t, self.running[task.id])
                assert aborted == task.aborted, f"{task.id} aborted: {aborted}; {self.explain()}"

    def arrive(self, nexus: int, attribute: str, via: int) -> None:
        number, channel = self.state.arrived, self.channels[nexus][via]
        cdb = b"\x41\0" + number.to_bytes(4, "big") + bytes(4)
        channel.send(srp_cmd(number, cdb, attribute=ATTRIBUTES[attribute]))
        channel.taken()
        self.advance(f"{attribute} {number} from {nexus} via {via}", self.core.enter(self.state, nexus, attribute))

    def end(self, number: int) -> None:
        handle = self.running.pop(number)
        assert lib.vt_request_complete(self.rig.t, handle, ffi.new("struct vt_result *")) == 0
        self.advance(f"ends {number}", self.core.leave(self.state, number))

    def function(self, kind: str, nexus: int, via: int, target: int) -> None:
        number, channel = self.state.asked, self.channels[nexus][via]
        meant = taskset.meant(kind, nexus, target, self.state.tasks)
        hit = {t.nexus for t in self.state.tasks if t.id in meant and not t.aborted} - {nexus}
        channel.send(tsk_mgmt(FUNCTION_TAG + number, FUNCTIONS[kind], task_tag=max(target, 0)))
        channel.taken()
        self.resets_expected += kind == taskset.RESET
        self.advance(f"{kind} {target} from {nexus} via {via}", self.core.function(self.state, kind, nexus, target))
        self.attentions(kind, hit)

    def attentions(self, kind: str, hit: set[int]) -> None:
        """Exactly the nexuses that the standard names have a unit attention; it is taken from them."""
        for nexus, (channel, _) in enumerate(self.channels):
            expected = []
            if kind == taskset.RESET:
                expected = [0x2903]
            elif kind == taskset.CLEAR_TASK_SET and nexus in hit:
                expected = [0x2F00]
            taken = iter(lambda n=channel.nexus: lib.vt_ua_take(self.rig.t, n, 0), 0)
            assert list(taken) == expected, f"nexus {nexus}; {self.explain()}"

    def release(self) -> None:
        """The target gets back what it has handed out, whatever the model says."""
        for handle in self.running.values():
            lib.vt_request_complete(self.rig.t, handle, ffi.new("struct vt_result *"))

    def finish(self) -> None:
        """Ends everything; nothing is left on either side."""
        while self.state.tasks:
            self.end(min(t.id for t in self.state.tasks if t.state == RUNNING))
        assert not self.state.functions and not self.running and self.resets == self.resets_expected
        assert self.answers == self.expected
        self.log.clear()
        self.answers.clear()
        self.expected.clear()


def random_schedule(driver: Driver, seed: int, steps: int) -> None:
    """`steps` steps of a schedule that the seed decides; then everything ends."""
    choose = random.Random(seed)
    driver.log.append(f"seed {seed}")
    many = choose.choice((3, 6, 12))
    for _ in range(steps):
        running = sorted(t.id for t in driver.state.tasks if t.state == RUNNING)
        nexus, via = choose.randrange(len(driver.channels)), choose.randrange(2)
        dice = choose.random()
        if dice < 0.12:
            kind = choose.choice(sorted(FUNCTIONS))
            known = [t.id for t in driver.state.tasks]
            aimed = kind == taskset.ABORT_TASK
            driver.function(kind, nexus, via, choose.choice([*known, 999999]) if aimed else -1)
        elif running and (dice < 0.5 or len(driver.state.tasks) >= many):
            driver.end(choose.choice(running))
        else:
            driver.arrive(nexus, choose.choice("SSSOH"), via)
    driver.finish()
