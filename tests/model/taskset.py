# SPDX-License-Identifier: BSD-2-Clause
"""The decision rules of target/native/taskset.c and tmf.c as functions of a state, and what SAM-5 says of each step.

`Core` transcribes the C code (with its mistakes, if it is told to make one); `judge` holds every step of it against
clause 8 of the standard, which it knows by itself. One LU, several nexuses; the tags are the arrival numbers.
Must not import the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from model.checker import CHANCE, Broken, Step

SIMPLE, ORDERED, HEAD = "S", "O", "H"
ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, RESET = "abort task", "abort task set", "clear task set", "reset"
DORMANT, READY, RUNNING = "dormant", "ready", "running"

MUTATIONS = (
    "SIMPLE passes ORDERED on arrival",
    "SIMPLE passes HEAD OF QUEUE on arrival",
    "SIMPLE passes ORDERED when another ends",
    "HEAD OF QUEUE forgotten when another ends",
    "ORDERED passes SIMPLE when another ends",
    "ORDERED passes all on arrival",
    "HEAD OF QUEUE waits",
    "nobody is enabled when another ends",
    "an aborted dormant task is forgotten",
    "a function is answered at once",
    "a function waits for the oldest only",
    "abort task set reaches other nexuses",
    "clear task set spares other nexuses",
    "a function is never answered",
)


class Task(NamedTuple):
    """A command in the task set."""

    id: int
    nexus: int
    attribute: str
    state: str
    aborted: bool = False


class Function(NamedTuple):
    """A task management function that waits. `meant`: what it aborted, by the standard's words."""

    number: int
    kind: str
    nexus: int
    target: int
    before: int
    meant: frozenset[int]


class State(NamedTuple):
    """The task set, oldest first; functions not answered; how many commands and functions there have been."""

    tasks: tuple[Task, ...] = ()
    functions: tuple[Function, ...] = ()
    arrived: int = 0
    asked: int = 0
    stopped: frozenset[int] = frozenset()


# ---- the standard ----


def may_run(task: Task, tasks: tuple[Task, ...]) -> bool:
    """SAM-5 8.6: may this dormant command become enabled? `tasks` in order of their arrival."""
    if task.attribute == HEAD:
        return True
    if any(t.attribute == HEAD for t in tasks if t.id != task.id):
        return False
    older = [t for t in tasks if t.id < task.id]
    return not (older if task.attribute == ORDERED else [t for t in older if t.attribute == ORDERED])


def meant(kind: str, nexus: int, target: int, tasks: tuple[Task, ...]) -> frozenset[int]:
    """SAM-5 clause 7: the commands that a function aborts."""
    match kind:
        case "abort task":
            return frozenset(t.id for t in tasks if t.id == target and t.nexus == nexus)
        case "abort task set":
            return frozenset(t.id for t in tasks if t.nexus == nexus)
        case _:
            return frozenset(t.id for t in tasks)


def judge(before: State, after: State) -> None:
    """Raises Broken if this step is not one that the standard allows."""
    was = {t.id: t for t in before.tasks}
    for task in after.tasks:
        old = was.get(task.id)
        waits = task.state == DORMANT
        # Who leaves in this step makes room for others; who enters in it comes after all.
        if not waits and not task.aborted and (old is None or old.state == DORMANT) and not may_run(task, after.tasks):
            raise Broken(f"{task.attribute} {task.id} is enabled too early")
        if waits and task.aborted:
            raise Broken(f"{task.id} is aborted and stays dormant")
        if waits and may_run(task, after.tasks):
            raise Broken(f"{task.attribute} {task.id} waits for nothing")
        if old and old.aborted and not task.aborted:
            raise Broken(f"{task.id} is no longer aborted")


def judge_answer(function: Function, tasks: tuple[Task, ...]) -> None:
    """FUNCTION COMPLETE: none of the commands it aborted may move a byte from now on."""
    if left := [t.id for t in tasks if t.id in function.meant]:
        raise Broken(f"{function.kind} is answered while {left} may still move data")


# ---- the code ----


@dataclass(frozen=True)
class Core:
    """taskset.c and tmf.c; each method is a function of C and runs under the LU's lock."""

    mutation: str = ""

    def enabled_on_arrival(self, tasks: tuple[Task, ...], attribute: str) -> bool:
        ordered = any(t.attribute == ORDERED for t in tasks)
        head = any(t.attribute == HEAD for t in tasks)
        if attribute == HEAD:
            return self.mutation != "HEAD OF QUEUE waits" or not tasks
        if attribute == ORDERED:
            return not tasks or self.mutation == "ORDERED passes all on arrival"
        if self.mutation == "SIMPLE passes ORDERED on arrival":
            ordered = False
        if self.mutation == "SIMPLE passes HEAD OF QUEUE on arrival":
            head = False
        return not ordered and not head

    def enter(self, state: State, nexus: int, attribute: str) -> State:
        """vt_set_enter_as; who is enabled on arrival runs in the same breath."""
        how = RUNNING if self.enabled_on_arrival(state.tasks, attribute) else DORMANT
        task = Task(state.arrived, nexus, attribute, how)
        return state._replace(tasks=(*state.tasks, task), arrived=state.arrived + 1)

    def enable_what_may(self, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        forgets = self.mutation == "HEAD OF QUEUE forgotten when another ends"
        if self.mutation == "nobody is enabled when another ends":
            return tasks
        if any(t.attribute == HEAD for t in tasks) and not forgets:
            return tasks
        result = list(tasks)
        for i, task in enumerate(tasks):
            dormant = task.state == DORMANT
            if task.attribute == ORDERED:
                if dormant and (i == 0 or self.mutation == "ORDERED passes SIMPLE when another ends"):
                    result[i] = task._replace(state=READY)
                if self.mutation != "SIMPLE passes ORDERED when another ends":
                    break
            elif dormant:
                result[i] = task._replace(state=READY)
        return tuple(result)

    def leave(self, state: State, id_: int) -> State:
        """vt_set_leave_as, and vt_tmf_check in it."""
        tasks = self.enable_what_may(tuple(t for t in state.tasks if t.id != id_))
        return self.answer(state._replace(tasks=tasks))

    def abort(self, task: Task) -> Task:
        """vt_set_abort: a dormant task goes to its loop, and ends there."""
        if task.state == DORMANT and self.mutation != "an aborted dormant task is forgotten":
            return task._replace(state=READY, aborted=True)
        return task._replace(aborted=True)

    def in_scope(self, kind: str, nexus: int, target: int, task: Task) -> bool:
        """The column `in_scope` of the table in tmf.c."""
        if kind == ABORT_TASK:
            return task.nexus == nexus and task.id == target
        if kind == ABORT_TASK_SET:
            return task.nexus == nexus or self.mutation == "abort task set reaches other nexuses"
        return kind != CLEAR_TASK_SET or task.nexus == nexus or self.mutation != "clear task set spares other nexuses"

    def must_wait(self, function: Function, tasks: tuple[Task, ...]) -> bool:
        waits = [
            t
            for t in tasks
            if t.id < function.before and t.aborted and self.in_scope(function.kind, function.nexus, function.target, t)
        ]
        if self.mutation == "a function is answered at once":
            return False
        if self.mutation == "a function waits for the oldest only":
            return bool(waits) and waits[0] == tasks[0]
        return bool(waits) or self.mutation == "a function is never answered"

    def function(self, state: State, kind: str, nexus: int, target: int = -1) -> State:
        """vt_tmf_take."""
        aims = meant(kind, nexus, target, state.tasks)
        function = Function(state.asked, kind, nexus, target, state.arrived, aims)
        tasks = tuple(self.abort(t) if self.in_scope(kind, nexus, target, t) else t for t in state.tasks)
        if {t.id for t in tasks if t.aborted} != {t.id for t in state.tasks if t.aborted} | function.meant:
            raise Broken(f"{kind} does not abort what it should: {sorted(function.meant)}")
        state = state._replace(tasks=tasks, functions=(*state.functions, function), asked=state.asked + 1)
        return self.answer(state)

    def answer(self, state: State) -> State:
        """vt_tmf_check: every function that need not wait is answered."""
        left = []
        for function in state.functions:
            if self.must_wait(function, state.tasks):
                left.append(function)
            else:
                judge_answer(function, state.tasks)
        return state._replace(functions=tuple(left))

    def stop(self, state: State, nexus: int) -> State:
        """The letter `stop` of channel.c: what has not begun is aborted; what runs ends by itself."""
        tasks = tuple(self.abort(t) if t.nexus == nexus and t.state != RUNNING else t for t in state.tasks)
        return self.answer(state._replace(tasks=tasks, stopped=state.stopped | {nexus}))

    def started(self, state: State, id_: int) -> State:
        """vt_task_start in its loop: it runs, or ends at once if it has been aborted."""
        if next(t for t in state.tasks if t.id == id_).aborted:
            return self.leave(state, id_)
        return state._replace(tasks=tuple(t._replace(state=RUNNING) if t.id == id_ else t for t in state.tasks))


@dataclass(frozen=True)
class TaskSet:
    """Every order of `commands` arrivals with every attribute from `nexuses`, of `functions`, ends and stops."""

    commands: int = 4
    nexuses: int = 2
    functions: int = 1
    stops: bool = False
    mutation: str = ""
    kinds: tuple[str, ...] = (ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, RESET)

    def initial(self) -> State:
        return State()

    def moves(self, state: State) -> Iterator[Step]:
        core = Core(self.mutation)
        for task in state.tasks:
            if task.state == READY:
                yield f"loop {task.nexus}", f"starts {task.id}", core.started(state, task.id)
            elif task.state == RUNNING:
                yield f"io {task.id}", f"ends {task.id}", core.leave(state, task.id)
        for nexus in range(self.nexuses):
            if nexus in state.stopped:
                continue
            if state.arrived < self.commands:
                for attribute in (SIMPLE, ORDERED, HEAD):
                    yield CHANCE, f"{attribute} {state.arrived} from {nexus}", core.enter(state, nexus, attribute)
            if self.stops:
                yield CHANCE, f"stops {nexus}", core.stop(state, nexus)
            if state.asked == self.functions:
                continue
            for kind in self.kinds:
                for target in [t.id for t in state.tasks] if kind == ABORT_TASK else [-1]:
                    after = core.function(state, kind, nexus, target)
                    yield CHANCE, f"{kind} {target} from {nexus}", after

    def steps(self, state: State) -> Iterator[Step]:
        for step in self.moves(state):
            judge(state, step[2])  # type: ignore[arg-type]
            yield step

    def check(self, state: State) -> None:
        if not state.tasks and state.functions:
            raise Broken("a function waits for nothing")

    def ended(self, state: State) -> bool:
        return not state.tasks and not state.functions

    def show(self, state: State) -> str:
        tasks = " ".join(f"{t.attribute}{t.id}@{t.nexus} {t.state}{' ABORTED' * t.aborted}," for t in state.tasks)
        return f"[{tasks}] {' '.join(f.kind for f in state.functions)}"


@dataclass(frozen=True)
class Starving:
    """Commands without end, at most `room` of them at a time, and one that is `watched`: does it end?

    HEAD OF QUEUE commands are `heads` in all, or without end (-1). States keep only what matters: tasks are numbered
    by their place when they arrived (a slot that is free again is used again), the watched one is slot 0.
    """

    watched: str = ORDERED
    room: int = 3
    heads: int = 2
    mutation: str = ""

    def initial(self) -> tuple[int, tuple[tuple[int, str, str], ...]]:
        return self.heads, ()

    def steps(self, state: tuple[int, tuple[tuple[int, str, str], ...]]) -> Iterator[Step]:
        heads, line = state
        core = Core(self.mutation)
        if any(slot == 0 and how == "ended" for slot, _, how in line):
            return
        tasks = tuple(Task(i, 0, attribute, how) for i, (_, attribute, how) in enumerate(line))
        full = State(tasks=tasks, arrived=len(tasks))
        slots = [slot for slot, _, _ in line]

        def as_line(after: State, slots: list[int]) -> tuple[tuple[int, str, str], ...]:
            return tuple((slots[t.id], t.attribute, t.state) for t in after.tasks)

        for task in tasks:
            slot = slots[task.id]
            if task.state == READY:
                yield f"slot {slot}", "starts", (heads, as_line(core.started(full, task.id), slots))
            elif task.state == RUNNING and slot == 0:
                yield "slot 0", "the watched one ends", (heads, ((0, self.watched, "ended"),))
            elif task.state == RUNNING:
                yield f"slot {slot}", "ends", (heads, as_line(core.leave(full, task.id), slots))
        if 0 not in slots:
            yield "user", "the watched one comes", (heads, as_line(core.enter(full, 0, self.watched), [*slots, 0]))
        free = [s for s in range(1, self.room) if s not in slots]
        for attribute in (SIMPLE, ORDERED, HEAD) if free else ():
            if attribute == HEAD and heads == 0:
                continue
            left = heads - 1 if attribute == HEAD and heads > 0 else heads
            after = as_line(core.enter(full, 0, attribute), [*slots, free[0]])
            yield CHANCE, f"{attribute} in slot {free[0]}", (left, after)

    def check(self, state: object) -> None:
        """Only that the watched one ends is asked here."""

    def ended(self, state: tuple[int, tuple[tuple[int, str, str], ...]]) -> bool:
        return state[1] == ((0, self.watched, "ended"),)

    def show(self, state: tuple[int, tuple[tuple[int, str, str], ...]]) -> str:
        return " ".join(f"{slot}:{attribute} {how}," for slot, attribute, how in state[1])
