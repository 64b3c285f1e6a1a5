# SPDX-License-Identifier: BSD-2-Clause
"""The checker itself: it finds what is stuck, what never ends and what is wrong, and tells the shortest way there."""

import pytest

from model.checker import CHANCE, Broken, explore


class Toy:
    """States are numbers; `edges` says who leads where. 9 is wrong, 5 is an end."""

    def __init__(self, edges):
        self.edges = edges

    def initial(self):
        return 0

    def steps(self, state):
        return [(who, f"to {to}", to) for who, to in self.edges.get(state, [])]

    def check(self, state):
        if state == 9:
            raise Broken("nine")

    def ended(self, state):
        return state == 5

    def show(self, state):
        return str(state)


@pytest.mark.parametrize(
    "edges,wrong",
    [
        ({0: [("a", 1)], 1: [("a", 5)]}, ""),
        ({0: [("a", 1), ("a", 2)], 1: [("a", 5)]}, "stuck"),
        ({0: [("a", 1)], 1: [("b", 9), ("a", 5)]}, "nine"),
        ({0: [("a", 1)], 1: [("a", 0)]}, "never ends"),
        ({0: [("a", 1), ("b", 5)], 1: [("a", 0), ("b", 5)]}, ""),  # b is always able to act, so one day it does
        ({0: [("a", 1), ("b", 5)], 1: [("a", 0)]}, "never ends"),  # b is able to act only now and then
        ({0: [("a", 1), (CHANCE, 5)], 1: [("a", 0), (CHANCE, 5)]}, "never ends"),
        ({0: [("a", 0), ("a", 5)]}, "never ends"),
    ],
)
def test_what_is_found(edges, wrong):
    result = explore(Toy(edges))
    assert wrong in result.wrong if wrong else not result.wrong, result


def test_the_shortest_way_is_told():
    result = explore(Toy({0: [("a", 1), ("b", 2)], 1: [("a", 3)], 2: [("a", 9)], 3: [("a", 9)]}))
    assert [what for _, what, _ in result.trace] == ["start", "to 2", "to 9"]
    assert (result.states, result.transitions) == (5, 5)
    assert "to 9" in str(result)


def test_too_many_states_are_no_answer():
    with pytest.raises(RuntimeError):
        explore(Toy({n: [("a", n + 10)] for n in range(0, 1000, 10)}), limit=20)
