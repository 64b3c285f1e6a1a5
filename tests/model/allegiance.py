# SPDX-License-Identifier: BSD-2-Clause
"""The task set when commands fail: auto contingent allegiance, QERR, one task set or one for each nexus, a limit.

`Rules` is how a target may decide (as functions of a state); `judge` says what SAM-5 8.6, 5.9 and 5.3.1 ask of each
step, and knows nothing of the rules. Commands that run when ACA begins run on: what is on its way to the medium is.
Restricted reordering is not modelled. Must not import the product.
"""

from dataclasses import dataclass
from typing import NamedTuple

from model.checker import Broken

SIMPLE, ORDERED, HEAD, ACA = "S", "O", "H", "A"
PREEMPT = "P"
"""SIMPLE, and PERSISTENT RESERVE OUT with PREEMPT AND ABORT."""
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
MUTATIONS_OF_PREEMPTION = (
    "ACA blocks PREEMPT AND ABORT",
    "PREEMPT AND ABORT is refused as all others are",
    "PREEMPT AND ABORT of the faulted nexus gets in",
    "PREEMPT AND ABORT leaves ACA",
    "PREEMPT AND ABORT ends every ACA",
    "PREEMPT AND ABORT does not wait",
    "PREEMPT AND ABORT waits for itself",
)


class Task(NamedTuple):
    """A command in a task set."""

    id: int
    nexus: int
    attribute: str
    naca: bool
    state: str = DORMANT
    aborted: bool = False
    victim: int = -1
    """PREEMPT AND ABORT: the nexus that it preempts."""
    before: int = -1
    """The same, once it has: it waits for what was older then."""


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
        return task.attribute == (ACA if task.nexus in state.faulted else PREEMPT)
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
        return "" if attribute == PREEMPT else ACA_ACTIVE if naca else BUSY
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


def preemption_aborts(state: State, task: Task) -> set[int]:
    """SPC-4 5.13.11.5: who is aborted by PREEMPT AND ABORT; never the command itself."""
    return {t.id for t in state.tasks if t.nexus == task.victim and t.id != task.id}


def at_rest(state: State, task: Task) -> bool:
    """Nothing that a PREEMPT AND ABORT has aborted can move a byte: it may end with GOOD."""
    return not any(t.id in preemption_aborts(state, task) and t.aborted and t.id < task.before for t in state.tasks)


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
        blocked = any(policy.together(n, task.nexus) for n in after.faulted) and not allowed(policy, task, after)
        if goes_on and blocked:
            raise Broken(f"{task.attribute} {task.id} begins although ACA blocks it")
        if task.state == DORMANT and allowed(policy, task, after):
            raise Broken(f"{task.attribute} {task.id} waits for nothing")
    for nexus in after.faulted:
        if sum(policy.together(n, nexus) for n in after.faulted) > 1:
            raise Broken("two ACA conditions in one task set")
        if sum(t.attribute == ACA and t.nexus == nexus for t in after.tasks) > 1:
            raise Broken("two ACA tasks")
    for task in after.tasks:
        exempt = (ACA, PREEMPT)
        together = [t for t in after.tasks if policy.together(t.nexus, task.nexus) and t.attribute not in exempt]
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

    def passes(self, state: State, task: Task) -> bool:
        """Whether it runs whatever the others do."""
        if task.attribute == PREEMPT and self.mutation != "ACA blocks PREEMPT AND ABORT":
            return self.in_force(state, task.nexus) and task.nexus not in state.faulted
        return task.attribute == ACA

    def blocked(self, state: State, task: Task) -> bool:
        if task.attribute == PREEMPT and self.passes(state, task):
            return False
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
                if task.attribute == HEAD or self.passes(state, task) or not held:
                    task = task._replace(state=READY)
            before.append(task.attribute)
            result.append(task)
        return state._replace(tasks=tuple(result))

    def refusal(self, state: State, nexus: int, attribute: str, naca: bool) -> str:
        if attribute == PREEMPT and self.mutation == "PREEMPT AND ABORT of the faulted nexus gets in":
            return ""
        if nexus in state.faulted and self.mutation != "the faulted nexus goes on":
            another = any(t.nexus == nexus and t.attribute == ACA for t in state.tasks)
            return "" if attribute == ACA and (not another or self.mutation == "two ACA tasks") else ACA_ACTIVE
        if self.in_force(state, nexus) and nexus not in state.faulted:
            refused = self.mutation == "PREEMPT AND ABORT is refused as all others are"
            if self.mutation == "others enter as if nothing were" or (attribute == PREEMPT and not refused):
                return ""
            return ACA_ACTIVE if naca else BUSY
        mine = sum(t.nexus == nexus for t in state.tasks)
        count = mine if self.policy.separate else len(state.tasks)
        if not self.policy.limit or count < self.policy.limit or self.mutation == "no limit":
            return ""
        return FULL if mine else BUSY

    def enter(self, state: State, nexus: int, attribute: str, naca: bool, victim: int = -1) -> tuple[str, State]:
        """The status that refuses it, and what comes of it. Without ACA an ACA task enters as SIMPLE, to fail."""
        after = state._replace(arrived=state.arrived + 1)
        if status := self.refusal(state, nexus, attribute, naca):
            return status, after
        if attribute == ACA and nexus not in state.faulted:
            attribute = SIMPLE
        task = Task(state.arrived, nexus, attribute, naca, victim=victim)
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

    def preempt(self, state: State, id_: int) -> State:
        """A running PREEMPT AND ABORT does what it is for; then it waits for what it has aborted."""
        task = next(t for t in state.tasks if t.id == id_)
        tasks = tuple(t._replace(before=state.arrived) if t.id == id_ else t for t in state.tasks)
        ids = {t.id for t in tasks if t.nexus == task.victim and t.id != id_}
        state = self.abort(state._replace(tasks=tasks), ids)
        cleared = {task.victim} - {task.nexus}
        if self.mutation == "PREEMPT AND ABORT leaves ACA":
            cleared = set()
        if self.mutation == "PREEMPT AND ABORT ends every ACA":
            cleared = set(state.faulted)
        return self.clear(state, cleared) if cleared & state.faulted else state

    def may_end(self, state: State, task: Task) -> bool:
        """Whether a running command can end, as far as others are concerned."""
        if task.attribute != PREEMPT or task.aborted or self.mutation == "PREEMPT AND ABORT does not wait":
            return True
        own = task.id if self.mutation == "PREEMPT AND ABORT waits for itself" else -1
        waits = any(t.nexus == task.victim and (t.aborted or t.id == own) and t.id < task.before for t in state.tasks)
        return task.before >= 0 and not waits

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
