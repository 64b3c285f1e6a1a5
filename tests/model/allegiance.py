# SPDX-License-Identifier: BSD-2-Clause
"""The task set when commands fail: auto contingent allegiance, QERR, one task set or one for each nexus, a limit.

`Rules` is how a target may decide (as functions of a state); `judge` says what SAM-5 8.6, 5.9 and 5.3.1 ask of each
step, and knows nothing of the rules. Commands that run when ACA begins run on: what is on its way to the medium is.
PREEMPT AND ABORT and restricted reordering are not modelled. Must not import the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from model.checker import CHANCE, Broken, Step

SIMPLE, ORDERED, HEAD, ACA = "S", "O", "H", "A"
DORMANT, READY, RUNNING = "dormant", "ready", "running"
ABORT_TASK_SET, CLEAR_TASK_SET, CLEAR_ACA, RESET = "abort task set", "clear task set", "clear ACA", "reset"
ACA_ACTIVE, BUSY, FULL = "ACA ACTIVE", "BUSY", "TASK SET FULL"
QERR_NONE, QERR_ALL, QERR_NEXUS = 0, 1, 3

MUTATIONS = (
    "ACA blocks nobody",
    "ACA does not block what is on its way",
    "ACA blocks other task sets",
    "CLEAR ACA of anybody",
    "CLEAR ACA spares the ACA task",
    "nobody is enabled when ACA ends",
    "two ACA tasks",
    "the faulted nexus goes on",
    "others enter as if nothing were",
    "every failure begins ACA",
    "QERR spares other nexuses",
    "QERR reaches other task sets",
    "no limit",
    "ORDERED waits for other task sets",
    "CLEAR TASK SET reaches other task sets",
)


class Task(NamedTuple):
    """A command in a task set."""

    id: int
    nexus: int
    attribute: str
    naca: bool
    state: str = DORMANT
    aborted: bool = False


class State(NamedTuple):
    """Commands, oldest first; nexuses for which ACA is in force; what has just been refused or has failed."""

    tasks: tuple[Task, ...] = ()
    faulted: frozenset[int] = frozenset()
    arrived: int = 0
    asked: int = 0


@dataclass(frozen=True)
class Policy:
    """Of the control mode page: TST 001b, QERR; and the limit of a task set (0: none)."""

    separate: bool = False
    qerr: int = QERR_NONE
    limit: int = 0

    def together(self, one: int, other: int) -> bool:
        """Have these nexuses one task set?"""
        return one == other or not self.separate


# ---- the standard ----


def allowed(policy: Policy, task: Task, state: State) -> bool:
    """SAM-5 8.6: may this command, which is in `state`, become enabled?"""
    if any(policy.together(n, task.nexus) for n in state.faulted):
        return task.attribute == ACA and task.nexus in state.faulted
    others = [t for t in state.tasks if t.id != task.id and policy.together(t.nexus, task.nexus)]
    if task.attribute in (HEAD, ACA):
        return True
    if any(t.attribute == HEAD for t in others):
        return False
    return not any(t.id < task.id and ORDERED in (t.attribute, task.attribute) for t in others)


def expected_status(policy: Policy, state: State, nexus: int, attribute: str, naca: bool) -> str:
    """SAM-5 5.9.2, table of section "ACA": the status that keeps a new command out of the task set; "": it enters."""
    theirs = [t for t in state.tasks if policy.together(t.nexus, nexus)]
    if nexus in state.faulted:
        another = any(t.attribute == ACA and t.nexus == nexus for t in theirs)
        return "" if attribute == ACA and not another else ACA_ACTIVE
    if any(policy.together(n, nexus) for n in state.faulted):
        return ACA_ACTIVE if naca else BUSY
    if policy.limit and len(theirs) >= policy.limit:
        return FULL if any(t.nexus == nexus for t in theirs) else BUSY
    return ""


def failure_aborts(policy: Policy, state: State, failed: Task) -> set[int]:
    """SPC-4 7.5.8, QERR: who is aborted when this one ends with CHECK CONDITION."""
    if policy.qerr == QERR_NONE:
        return set()
    only_nexus = policy.qerr == QERR_NEXUS or policy.separate
    return {t.id for t in state.tasks if t.id != failed.id and (t.nexus == failed.nexus or not only_nexus)}


def faulted_after(policy: Policy, state: State, failed: Task) -> frozenset[int]:
    """SAM-5 5.9.1: the ACA task's failure ends ACA or, with NACA, begins it anew; of others the first counts."""
    if failed.attribute == ACA and failed.nexus in state.faulted:
        return state.faulted if failed.naca else state.faulted - {failed.nexus}
    begins = failed.naca and not any(policy.together(n, failed.nexus) for n in state.faulted)
    return state.faulted | {failed.nexus} if begins else state.faulted


def function_aborts(policy: Policy, state: State, kind: str, nexus: int) -> set[int]:
    """SAM-5 clause 7: who is aborted by a task management function."""
    match kind:
        case "clear ACA":
            cleared = nexus in state.faulted
            return {t.id for t in state.tasks if cleared and t.nexus == nexus and t.attribute == ACA}
        case "abort task set":
            return {t.id for t in state.tasks if t.nexus == nexus}
        case "clear task set":
            return {t.id for t in state.tasks if policy.together(t.nexus, nexus)}
        case _:
            return {t.id for t in state.tasks}


def judge(policy: Policy, before: State, after: State) -> None:
    """Raises Broken if a command is enabled that may not be, or waits for nothing, or ACA is where it cannot be."""
    was = {t.id: t.state for t in before.tasks}
    for task in after.tasks:
        begins = task.state != DORMANT and was.get(task.id, DORMANT) == DORMANT
        goes_on = task.state == RUNNING and was.get(task.id) == READY
        if task.aborted:
            if task.state == DORMANT:
                raise Broken(f"{task.id} is aborted and stays dormant")
            continue
        if begins and not allowed(policy, task, after):
            raise Broken(f"{task.attribute} {task.id} is enabled too early")
        if goes_on and any(policy.together(n, task.nexus) for n in after.faulted) and task.attribute != ACA:
            raise Broken(f"{task.attribute} {task.id} begins although ACA blocks it")
        if task.state == DORMANT and allowed(policy, task, after):
            raise Broken(f"{task.attribute} {task.id} waits for nothing")
    for nexus in after.faulted:
        if sum(policy.together(n, nexus) for n in after.faulted) > 1:
            raise Broken("two ACA conditions in one task set")
        if sum(t.attribute == ACA and t.nexus == nexus for t in after.tasks) > 1:
            raise Broken("two ACA tasks")
    for task in after.tasks:
        together = [t for t in after.tasks if policy.together(t.nexus, task.nexus) and t.attribute != ACA]
        if policy.limit and len(together) > policy.limit:
            raise Broken("a task set is over its limit")


# ---- how the target decides ----


@dataclass(frozen=True)
class Rules:
    """Order, refusal, failure, functions; one pass over all tasks, oldest first, says who is enabled."""

    policy: Policy
    mutation: str = ""

    def in_force(self, state: State, nexus: int) -> bool:
        """Is there an ACA condition in this nexus' task set?"""
        if self.policy.separate and self.mutation != "ACA blocks other task sets":
            return nexus in state.faulted
        return bool(state.faulted)

    def blocked(self, state: State, task: Task) -> bool:
        return self.in_force(state, task.nexus) and task.attribute != ACA and self.mutation != "ACA blocks nobody"

    def enable(self, state: State) -> State:
        """A pass: counts what is older in each task set, and enables the dormant that nothing holds back."""
        result, older = [], dict[int, list[str]]()
        separate = self.policy.separate and self.mutation != "ORDERED waits for other task sets"
        for task in state.tasks:
            key = task.nexus if separate else 0
            heads = any(t.attribute == HEAD and (not separate or t.nexus == task.nexus) for t in state.tasks)
            before = older.setdefault(key, [])
            if task.state == DORMANT and not self.blocked(state, task):
                held = (before or heads) if task.attribute == ORDERED else (ORDERED in before or heads)
                if task.attribute in (HEAD, ACA) or not held:
                    task = task._replace(state=READY)
            before.append(task.attribute)
            result.append(task)
        return state._replace(tasks=tuple(result))

    def refusal(self, state: State, nexus: int, attribute: str, naca: bool) -> str:
        if nexus in state.faulted and self.mutation != "the faulted nexus goes on":
            another = any(t.nexus == nexus and t.attribute == ACA for t in state.tasks)
            return "" if attribute == ACA and (not another or self.mutation == "two ACA tasks") else ACA_ACTIVE
        if self.in_force(state, nexus) and nexus not in state.faulted:
            if self.mutation == "others enter as if nothing were":
                return ""
            return ACA_ACTIVE if naca else BUSY
        mine = sum(t.nexus == nexus for t in state.tasks)
        count = mine if self.policy.separate else len(state.tasks)
        if not self.policy.limit or count < self.policy.limit or self.mutation == "no limit":
            return ""
        return FULL if mine else BUSY

    def enter(self, state: State, nexus: int, attribute: str, naca: bool) -> tuple[str, State]:
        """The status that refuses it, and what comes of it. Without ACA an ACA task enters as SIMPLE, to fail."""
        after = state._replace(arrived=state.arrived + 1)
        if status := self.refusal(state, nexus, attribute, naca):
            return status, after
        if attribute == ACA and nexus not in state.faulted:
            attribute = SIMPLE
        task = Task(state.arrived, nexus, attribute, naca)
        after = self.enable(after._replace(tasks=(*state.tasks, task)))
        return "", self.started(after, task.id) if after.tasks[-1].state == READY else after

    def abort(self, state: State, ids: set[int]) -> State:
        tasks = tuple(
            t._replace(aborted=True, state=READY if t.state == DORMANT else t.state) if t.id in ids else t
            for t in state.tasks
        )
        return state._replace(tasks=tasks)

    def started(self, state: State, id_: int) -> State:
        """In its loop: an aborted one ends, a blocked one waits again, all others run."""
        task = next(t for t in state.tasks if t.id == id_)
        if task.aborted:
            return self.end(state, id_, failed=False)
        blocked = self.blocked(state, task) and self.mutation != "ACA does not block what is on its way"
        new = task._replace(state=DORMANT if blocked else RUNNING)
        return state._replace(tasks=tuple(new if t.id == id_ else t for t in state.tasks))

    def end(self, state: State, id_: int, failed: bool) -> State:
        """It ends, with CHECK CONDITION if it has failed and nobody has aborted it, and leaves the task set."""
        task = next(t for t in state.tasks if t.id == id_)
        if failed and not task.aborted:
            state = self.failed(state, task)
        return self.enable(state._replace(tasks=tuple(t for t in state.tasks if t.id != id_)))

    def failed(self, state: State, task: Task) -> State:
        if self.policy.qerr != QERR_NONE:
            all_ = self.policy.qerr == QERR_ALL and not self.policy.separate
            all_ = (all_ and self.mutation != "QERR spares other nexuses") or (
                self.mutation == "QERR reaches other task sets"
            )
            state = self.abort(state, {t.id for t in state.tasks if t != task and (all_ or t.nexus == task.nexus)})
        if task.attribute == ACA and task.nexus in state.faulted:
            return state if task.naca else self.clear(state, {task.nexus})
        if task.naca and (not self.in_force(state, task.nexus) or self.mutation == "every failure begins ACA"):
            return state._replace(faulted=state.faulted | {task.nexus})
        return state

    def clear(self, state: State, nexuses: set[int] | frozenset[int]) -> State:
        state = state._replace(faulted=state.faulted - nexuses)
        return state if self.mutation == "nobody is enabled when ACA ends" else self.enable(state)

    def function(self, state: State, kind: str, nexus: int) -> State:
        state = state._replace(asked=state.asked + 1)
        if kind == RESET:
            return self.clear(self.abort(state, {t.id for t in state.tasks}), state.faulted)
        if kind == CLEAR_ACA:
            if self.mutation == "CLEAR ACA of anybody":
                return self.clear(state, state.faulted)
            ids = {t.id for t in state.tasks if t.nexus == nexus and t.attribute == ACA}
            ids = set() if self.mutation == "CLEAR ACA spares the ACA task" else ids
            return self.clear(self.abort(state, ids), {nexus})
        one = kind == ABORT_TASK_SET or self.policy.separate
        if self.mutation == "CLEAR TASK SET reaches other task sets" and kind == CLEAR_TASK_SET:
            one = False
        return self.abort(state, {t.id for t in state.tasks if t.nexus == nexus or not one})


@dataclass(frozen=True)
class Failing:
    """Every order of arrivals, good and bad ends, and functions. Whoever is faulted sends CLEAR ACA in the end."""

    commands: int = 3
    nexuses: int = 2
    functions: int = 1
    policy: Policy = Policy()
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
            elif task.state == RUNNING:
                yield f"io {task.id}", f"ends {task.id}", rules.end(state, task.id, failed=False)
                if not task.aborted:
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
        for attribute in (SIMPLE, ORDERED, HEAD, ACA):
            for naca in (False, True):
                status, after = rules.enter(state, nexus, attribute, naca)
                right = expected_status(self.policy, state, nexus, attribute, naca)
                if status != right:
                    raise Broken(f"{attribute} from {nexus}: {status or 'enters'}, not {right or 'enters'}")
                yield CHANCE, f"{attribute}{'+NACA' * naca} from {nexus} {status}", after

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
