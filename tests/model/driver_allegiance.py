# SPDX-License-Identifier: BSD-2-Clause
"""The C task set beside the model of ACA, QERR and task sets of one nexus: after each step both must say the same.

Knows which status and which unit attention follow from a step of the model; the rest is the plain driver's.
"""

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor

from raw_initiator import Rig
from raw_wire import (
    ABORT_TASK_SET,
    ACA,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    HEAD_OF_QUEUE,
    LUN_RESET,
    ORDERED,
    RSPVALID,
    SIMPLE,
    SNSVALID,
    srp_cmd,
    tsk_mgmt,
)

from model import allegiance
from model.allegiance import PREEMPT, READY, RUNNING, Policy, Rules, State, Task
from model.driver import FUNCTION_TAG, Driver
from target.native import ffi, lib

ATTRIBUTES = {"S": SIMPLE, "O": ORDERED, "H": HEAD_OF_QUEUE, "A": ACA, PREEMPT: SIMPLE}
CANCELED = -125
FUNCTIONS = {
    allegiance.ABORT_TASK_SET: ABORT_TASK_SET,
    allegiance.CLEAR_TASK_SET: CLEAR_TASK_SET,
    allegiance.CLEAR_ACA: CLEAR_ACA,
    allegiance.RESET: LUN_RESET,
}
STATUS = {allegiance.ACA_ACTIVE: 0x30, allegiance.BUSY: 0x08, allegiance.FULL: 0x28}
CHECK_CONDITION, GOOD, ENDED_QUIETLY = (SNSVALID, 0x02), (0, 0x00), (RSPVALID, 0)
SENSE = bytes.fromhex("70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 00 00 00")


class AllegianceDriver(Driver):
    """One LU under `policy`, TAS 0."""

    def __init__(self, rig: Rig, nexuses: int, policy: Policy, mutation: str = "") -> None:
        super().__init__(rig, nexuses, mutation, separate_sets=policy.separate, qerr=policy.qerr, limit=policy.limit)
        self.policy, self.rules = policy, Rules(policy, mutation)
        self.state = State()
        self.functions: dict[int, set[int]] = {}  # tag: the commands it waits for
        self.preempting: dict[int, Future[int]] = {}  # PREEMPT AND ABORT commands that wait in their worker
        self.workers = ThreadPoolExecutor(16)

    def settled(self, state: State) -> State:
        while ready := [t for t in state.tasks if t.state == READY]:
            state = self.rules.started(state, ready[0].id)
        return state

    def step(self, what: str, after: State, told: dict[int, tuple[int, int]], hit: dict[int, list[int]]) -> None:
        """`told`: answers of this step beside those of aborted commands; `hit`: the unit attentions of nexuses."""
        self.log.append(what)
        before, self.state = self.state, self.settled(after)
        there = {t.id for t in self.state.tasks}
        self.expected.update({t.id: ENDED_QUIETLY for t in before.tasks if t.id not in there})
        self.expected.update(told)
        for tag in [tag for tag, aims in self.functions.items() if not aims & there]:
            self.expected[tag] = (RSPVALID, 0)
            del self.functions[tag]
        self.agree()
        for nexus, (channel, _) in enumerate(self.channels):
            taken = list(iter(lambda n=channel.nexus: lib.vt_ua_take(self.rig.t, n, 0), 0))
            assert taken == hit.get(nexus, []), f"nexus {nexus} has {taken}; {self.explain()}"

    def hit(self, ids: set[int], by: int) -> dict[int, list[int]]:
        return {t.nexus: [0x2F00] for t in self.state.tasks if t.id in ids and not t.aborted and t.nexus != by}

    def arrive(self, nexus: int, attribute: str, via: int, naca: bool = False, victim: int = -1) -> None:
        number, channel = self.state.arrived, self.channels[nexus][via]
        cdb = (
            (b"\x5f\5" if attribute == PREEMPT else b"\x41\0")
            + number.to_bytes(4, "big")
            + bytes(3)
            + bytes([4 * naca])
        )
        channel.send(srp_cmd(number, cdb, attribute=ATTRIBUTES[attribute]))
        channel.taken()
        status, after = self.rules.enter(self.state, nexus, attribute, naca, victim)
        told = {number: (0, STATUS[status])} if status else {}
        self.step(f"{attribute}{'+NACA' * naca} {number} from {nexus} via {via} {status}", after, told, {})

    def preempt(self, task: Task) -> None:
        """Its worker begins to wait for what it aborts; that is done at once."""
        aims = allegiance.preemption_aborts(self.state, task)
        hit = self.hit(aims, task.nexus)
        victims = ffi.new("uint32_t[]", [self.channels[task.victim][0].nexus])
        call = lambda: int(lib.vt_nexus_abort_tasks(self.rig.t, 0, victims, 1, self.running[task.id]))  # noqa: E731
        waits = self.preempting[task.id] = self.workers.submit(call)
        run = [self.running[t.id] for t in self.state.tasks if t.id in aims and t.id in self.running]
        until = time.monotonic() + self.patience
        while not waits.done() and not (run and all(lib.vt_request_aborted(self.rig.t, each) == 1 for each in run)):
            assert time.monotonic() < until, f"{task.id} aborts nobody; {self.explain()}"
            time.sleep(0)
        self.step(f"{task.id} preempts {task.victim}", self.rules.preempt(self.state, task.id), {}, hit)

    def goes_on(self, task: Task) -> bool:
        """Does it what it is for, or end, if the test wants it?"""
        preempts = task.attribute == PREEMPT and not task.aborted and task.before < 0
        return task.state == RUNNING and (preempts or self.rules.may_end(self.state, task))

    def end(self, number: int, failed: bool = False) -> None:
        task = next(t for t in self.state.tasks if t.id == number)
        if task.attribute == PREEMPT:
            if not task.aborted and task.before < 0:
                self.preempt(task)
                return
            if task.id in self.preempting:
                result = self.preempting.pop(task.id).result(self.patience)
                assert result in ((0, CANCELED) if task.aborted else (0,)), f"{result}; {self.explain()}"
            failed = False
        fields = {"status": 2, "sense_nbytes": len(SENSE), "sense": SENSE} if failed else {}
        result = ffi.new("struct vt_result *", fields)
        assert lib.vt_request_complete(self.rig.t, self.running.pop(number), result) == 0
        counts = failed and not task.aborted
        hit = self.hit(allegiance.failure_aborts(self.policy, self.state, task) if counts else set(), task.nexus)
        told = ENDED_QUIETLY if task.aborted else CHECK_CONDITION if failed else GOOD
        after = self.rules.end(self.state, number, failed)
        self.step(f"{'fails' if failed else 'ends'} {number}", after, {number: told}, hit)

    def ask(self, kind: str, nexus: int, via: int) -> None:
        tag, channel = FUNCTION_TAG + self.state.asked, self.channels[nexus][via]
        aims = allegiance.function_aborts(self.policy, self.state, kind, nexus)
        if kind == allegiance.CLEAR_ACA:
            aims = {t.id for t in self.state.tasks if t.nexus == nexus and t.attribute == allegiance.ACA}
        reset = kind == allegiance.RESET
        hit = {n: [0x2903] for n in range(len(self.channels))} if reset else self.hit(aims, nexus)
        channel.send(tsk_mgmt(tag, FUNCTIONS[kind]))
        channel.taken()
        self.resets_expected += reset
        self.functions[tag] = aims
        self.step(f"{kind} from {nexus} via {via}", self.rules.function(self.state, kind, nexus), {}, hit)

    def finish(self) -> None:
        while self.state.tasks or self.state.faulted:
            for nexus in sorted(self.state.faulted):
                self.ask(allegiance.CLEAR_ACA, nexus, 0)
            for number in [t.id for t in self.state.tasks if self.goes_on(t)][:1]:
                self.end(number)
        assert not self.functions and not self.running and self.resets == self.resets_expected
        assert self.answers == self.expected
        self.log.clear()
        self.answers.clear()
        self.expected.clear()


def random_schedule(driver: AllegianceDriver, seed: int, steps: int) -> None:
    """`steps` steps of a schedule that the seed decides; then everything ends."""
    choose = random.Random(seed)
    driver.log.append(f"seed {seed}, {driver.policy}")
    many = choose.choice((3, 6, 12))
    for _ in range(steps):
        running = [t.id for t in driver.state.tasks if driver.goes_on(t)]
        nexus, via = choose.randrange(len(driver.channels)), choose.randrange(2)
        dice = choose.random()
        if dice < 0.06:
            driver.ask(choose.choice(sorted(FUNCTIONS)), nexus, via)
        elif driver.state.faulted and dice < 0.2:
            driver.ask(allegiance.CLEAR_ACA, min(driver.state.faulted), via)
        elif running and (dice < 0.5 or len(driver.state.tasks) >= many):
            driver.end(choose.choice(running), failed=choose.random() < 0.3)
        else:
            attribute = choose.choice("AAASOH" if nexus in driver.state.faulted else "SSSOHP")
            victim = choose.randrange(len(driver.channels)) if attribute == PREEMPT else -1
            driver.arrive(nexus, attribute, via, naca=choose.random() < 0.4, victim=victim)
    driver.finish()
