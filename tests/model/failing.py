# SPDX-License-Identifier: BSD-2-Clause
"""All that can happen to a task set whose commands fail: every order of arrivals, ends, failures and functions.

Holds each step of the rules (`allegiance`) against the standard. Must not know how they decide, nor the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from model.allegiance import (
    ABORT_TASK_SET,
    ACA,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    HEAD,
    ORDERED,
    PREEMPT,
    READY,
    RESET,
    RUNNING,
    SIMPLE,
    Policy,
    Rules,
    State,
    Task,
    at_rest,
    expected_status,
    failure_aborts,
    faulted_after,
    function_aborts,
    judge,
    preemption_aborts,
)
from model.checker import CHANCE, Broken, Step

PLAIN = Policy()


@dataclass(frozen=True)
class Failing:
    """Every order of arrivals, good and bad ends, and functions. Whoever is faulted sends CLEAR ACA in the end.

    With `preempts` there is PREEMPT AND ABORT, too.
    """

    preempts: bool = False
    commands: int = 3
    nexuses: int = 2
    functions: int = 1
    policy: Policy = PLAIN
    mutation: str = ""

    def initial(self) -> State:
        return State()

    def steps(self, state: State) -> Iterator[Step]:
        for who, what, after in self.moves(state):
            judge(self.policy, state, after)
            yield who, what, after

    def moves(self, state: State) -> Iterator[tuple[str, str, State]]:
        rules = Rules(self.policy, self.mutation)
        for task in state.tasks:
            if task.state == READY:
                yield f"loop {task.nexus}", f"starts {task.id}", rules.started(state, task.id)
            elif task.attribute == PREEMPT and not task.aborted and task.before < 0 and task.state == RUNNING:
                yield f"io {task.id}", f"{task.id} preempts {task.victim}", self.preempt(rules, state, task)
            elif task.state == RUNNING and rules.may_end(state, task):
                if task.attribute == PREEMPT and not task.aborted and not at_rest(state, task):
                    raise Broken(f"{task.id} ends before those that it has aborted")
                yield f"io {task.id}", f"ends {task.id}", rules.end(state, task.id, failed=False)
                if not task.aborted and task.attribute != PREEMPT:
                    yield f"io {task.id}", f"fails {task.id}", self.fail(rules, state, task)
        for nexus in range(self.nexuses):
            if nexus in state.faulted:
                yield "recovery", f"clear ACA from {nexus}", self.ask(rules, state, CLEAR_ACA, nexus, counts=False)
            if state.arrived < self.commands:
                yield from self.arrivals(rules, state, nexus)
            if state.asked < self.functions:
                for kind in (ABORT_TASK_SET, CLEAR_TASK_SET, CLEAR_ACA, RESET):
                    yield CHANCE, f"{kind} from {nexus}", self.ask(rules, state, kind, nexus)

    def arrivals(self, rules: Rules, state: State, nexus: int) -> Iterator[tuple[str, str, State]]:
        kinds = [(attribute, -1) for attribute in (SIMPLE, ORDERED, HEAD, ACA)]
        kinds += [(PREEMPT, victim) for victim in range(self.nexuses if self.preempts else 0)]
        for attribute, victim in kinds:
            for naca in (False, True):
                status, after = rules.enter(state, nexus, attribute, naca, victim)
                right = expected_status(self.policy, state, nexus, attribute, naca)
                if status != right:
                    raise Broken(f"{attribute} from {nexus}: {status or 'enters'}, not {right or 'enters'}")
                yield CHANCE, f"{attribute}{'+NACA' * naca} from {nexus} {status}", after

    def preempt(self, rules: Rules, state: State, task: Task) -> State:
        after = rules.preempt(state, task.id)
        self.compare(state, after, preemption_aborts(state, task))
        if after.faulted != state.faulted - ({task.victim} - {task.nexus}):
            raise Broken(f"{task.id} preempts {task.victim}: ACA for {sorted(after.faulted)}")
        return after

    def fail(self, rules: Rules, state: State, task: Task) -> State:
        after = rules.end(state, task.id, failed=True)
        self.compare(state, after, failure_aborts(self.policy, state, task))
        if after.faulted != faulted_after(self.policy, state, task):
            raise Broken(f"{task.id} fails: ACA for {sorted(after.faulted)}")
        return after

    def ask(self, rules: Rules, state: State, kind: str, nexus: int, counts: bool = True) -> State:
        after = rules.function(state, kind, nexus)
        self.compare(state, after, function_aborts(self.policy, state, kind, nexus))
        left = {CLEAR_ACA: state.faulted - {nexus}, RESET: frozenset()}.get(kind, state.faulted)
        if after.faulted != left:
            raise Broken(f"{kind} from {nexus}: ACA for {sorted(after.faulted)}")
        return after if counts else after._replace(asked=state.asked)

    def compare(self, before: State, after: State, aims: set[int]) -> None:
        """Exactly these are aborted now, beside those that had been."""
        now = {t.id for t in after.tasks if t.aborted}
        there = {t.id for t in after.tasks}
        if now != (aims | {t.id for t in before.tasks if t.aborted}) & there:
            raise Broken(f"{sorted(now)} are aborted, not {sorted(aims)}")

    def check(self, state: State) -> None:
        """Everything is asked of steps."""

    def ended(self, state: State) -> bool:
        return not state.tasks and not state.faulted

    def show(self, state: State) -> str:
        tasks = " ".join(f"{t.attribute}{t.id}@{t.nexus} {t.state}{' ABORTED' * t.aborted}," for t in state.tasks)
        return f"[{tasks}] ACA {sorted(state.faulted)}"
