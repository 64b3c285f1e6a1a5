# SPDX-License-Identifier: BSD-2-Clause
"""A small explicit-state model checker: every state that a model can reach, each looked at once, breadth first.

Knows states, steps and graphs; knows no model. A counterexample is the shortest way to the wrong state.
Must not import the product.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

State = Hashable
Step = tuple[str, str, State]  # who acts, what it does, what comes of it
CHANCE = "chance"  # this actor need never act: deaths, errors, what a user may do


class Broken(Exception):
    """Raised by a model's step that breaks a property: what is wrong."""


class Model(Protocol):
    """What the checker asks of a model. A step may raise Broken, and so may `check`."""

    def initial(self) -> State: ...

    def steps(self, state: State) -> Iterable[Step]: ...

    def check(self, state: State) -> None: ...

    def ended(self, state: State) -> bool:
        """May nothing more happen here?"""

    def show(self, state: State) -> str: ...


@dataclass
class Result:
    """What was looked at, and the way to what is wrong, if anything is."""

    states: int = 0
    transitions: int = 0
    wrong: str = ""
    trace: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        seen = f"{self.states} states, {self.transitions} transitions"
        if not self.wrong:
            return f"{seen}: all properties hold"
        lines = [f"{n:3} {who:8} {what:28} {state}" for n, (who, what, state) in enumerate(self.trace)]
        return "\n".join([f"{seen}: {self.wrong}", *lines])


class _Graph:
    def __init__(self) -> None:
        self.number: dict[State, int] = {}
        self.states: list[State] = []
        self.parent: list[tuple[int, str, str]] = []
        self.edges: list[list[tuple[int, str]]] = []

    def add(self, state: State, parent: int, who: str, what: str) -> int:
        number = self.number.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self.parent.append((parent, who, what))
        return number

    def way(self, number: int) -> Iterator[tuple[str, str, int]]:
        way = []
        while number >= 0:
            parent, who, what = self.parent[number]
            way.append((who, what, number))
            number = parent
        return reversed(way)


def explore(model: Model, *, limit: int = 5_000_000, live: bool = True) -> Result:
    """Look at every reachable state of `model`; stop at the first property that does not hold.

    With `live`, also show that every run in which nobody who can act is passed over for ever comes to its end
    (weak fairness by actor): there is no state without a step that is not an end, and no fair cycle.
    Raises RuntimeError when there are more than `limit` states: an answer about a part would be none.
    """
    graph, result = _Graph(), Result()
    graph.add(model.initial(), -1, "", "start")

    def wrong(number: int, why: str, *last: tuple[str, str, str]) -> Result:
        result.wrong, result.states = why, len(graph.states)
        result.trace = [(who, what, model.show(graph.states[n])) for who, what, n in graph.way(number)]
        result.trace += last
        return result

    at = 0
    while at < len(graph.states):
        state = graph.states[at]
        out: list[tuple[int, str]] = []
        try:
            model.check(state)
            for who, what, after in model.steps(state):
                out.append((graph.add(after, at, who, what), who))
        except Broken as broken:
            return wrong(at, str(broken))
        if not out and not model.ended(state):
            return wrong(at, "stuck: nobody can act, and it is not the end")
        result.transitions += len(out)
        graph.edges.append(out)
        if len(graph.states) > limit:
            raise RuntimeError(f"more than {limit} states")
        at += 1
    result.states = len(graph.states)
    if live:
        for cycle in _cycles(graph.edges):
            if _fair(graph.edges, cycle):
                return wrong(min(cycle), f"a run of {len(cycle)} states that never ends begins here, and is fair")
    return result


def _fair(edges: list[list[tuple[int, str]]], cycle: set[int]) -> bool:
    """Can one stay in here for ever although whoever can act all the time does act?"""
    acts = {who for n in cycle for to, who in edges[n] if to in cycle}
    return _always(edges, cycle) <= acts


def _always(edges: list[list[tuple[int, str]]], cycle: set[int]) -> set[str]:
    return set.intersection(*({who for _, who in edges[n]} for n in cycle)) - {CHANCE}


def _cycles(edges: list[list[tuple[int, str]]]) -> Iterator[set[int]]:
    """Strongly connected components with at least one edge inside: Tarjan's algorithm without recursion."""
    index, low, on, stack = [-1] * len(edges), [0] * len(edges), [False] * len(edges), []
    count = 0
    for root in range(len(edges)):
        if index[root] >= 0:
            continue
        todo = [(root, 0)]
        while todo:
            node, edge = todo.pop()
            if edge == 0:
                index[node] = low[node] = count
                count += 1
                stack.append(node)
                on[node] = True
            else:
                low[node] = min(low[node], low[edges[node][edge - 1][0]])
            for k in range(edge, len(edges[node])):
                to = edges[node][k][0]
                if index[to] < 0:
                    todo += [(node, k + 1), (to, 0)]
                    break
                if on[to]:
                    low[node] = min(low[node], index[to])
            else:
                if low[node] == index[node]:
                    part: set[int] = set()
                    while node not in part:
                        part.add(stack.pop())
                    for n in part:
                        on[n] = False
                    if len(part) > 1 or any(to == node for to, _ in edges[node]):
                        yield part


def assert_holds(model: Model, **kw: int | bool) -> Result:
    """Explore and fail with the trace if anything is wrong."""
    result = explore(model, **kw)  # type: ignore[arg-type]
    assert not result.wrong, f"\n{result}"
    return result
