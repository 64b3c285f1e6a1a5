# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is at Python's workers, by itself: held against a simple model, and the price of a choice in steps.

Knows the native queue through `vt_slow_model`; must not know tasks.
"""

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target.native import ffi, lib

AGAIN, LEVELS = -11, 64


class Queue:
    """The native queue, and beside it what is known of each command: owner and room."""

    def __init__(self, owners: int, rooms: int = 0, limit: int = 0) -> None:
        self.m = ffi.gc(lib.vt_slow_model_new(owners, rooms, limit), lib.vt_slow_model_free)
        self.rooms, self.limit = rooms, limit
        self.lanes: dict[tuple[int, int], deque[int]] = {}
        self.running: dict[int, tuple[int, int]] = {}

    def put(self, owner: int, room: int | None = None) -> int:
        """`room` None: one without bounds."""
        where = owner, self.rooms if room is None else room
        number = int(lib.vt_slow_model_put(self.m, *where))
        assert number >= 0
        self.lanes.setdefault(where, deque()).append(number)
        return number

    def has_room(self, room: int) -> bool:
        taken = sum(r == room for _, r in self.running.values())
        return not self.limit or room == self.rooms or taken < self.limit

    def could(self) -> dict[tuple[int, int], int]:
        """The workers that each owner occupies of whom something may run, by lane."""
        busy = Counter(owner for owner, _ in self.running.values())
        return {
            lane: min(busy[lane[0]], LEVELS)
            for lane, waiting in self.lanes.items()
            if waiting and self.has_room(lane[1])
        }

    def next(self) -> int | None:
        """Takes one, and holds the choice to the rules."""
        could = self.could()
        number = int(lib.vt_slow_model_next(self.m))
        if number == AGAIN:
            assert not could, "something may run, and nothing does"
            return None
        where = next(lane for lane, waiting in self.lanes.items() if number in waiting)
        assert could.get(where) == min(could.values()), "another owner occupies fewer, or there is no room"
        assert self.lanes[where].popleft() == number, "an older one of the same lane is passed"
        self.running[number] = where
        return number

    def drop(self, number: int) -> None:
        assert lib.vt_slow_model_drop(self.m, number) == 0
        next(waiting for waiting in self.lanes.values() if number in waiting).remove(number)

    def done(self, number: int) -> None:
        assert lib.vt_slow_model_done(self.m, number) == 0
        del self.running[number]

    def steps(self, function) -> int:
        """What it costs."""
        before = lib.vt_slow_model_steps(self.m)
        function()
        return int(lib.vt_slow_model_steps(self.m) - before)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("put", "put", "next", "next", "done", "drop")), st.integers(0, 1 << 16), st.integers(0, 3)
    ),
    max_size=120,
)


@settings(deadline=None)
@given(limit=st.integers(0, 3), schedule=STEPS)
def test_every_schedule_keeps_the_rules(limit, schedule):
    q = Queue(owners=4, rooms=3, limit=limit)
    for what, where, room in schedule:
        waiting = [number for lane in q.lanes.values() for number in lane]
        if what == "put":
            q.put(where % 4, room)
        elif what == "next":
            q.next()
        elif what == "drop" and waiting:
            q.drop(waiting[where % len(waiting)])
        elif what == "done" and q.running:
            q.done(list(q.running)[where % len(q.running)])
    for number in list(q.running):
        q.done(number)
    while (number := q.next()) is not None:
        q.done(number)
    assert not any(q.lanes.values())


def test_a_model_that_is_wrong_is_noticed():
    q = Queue(owners=2)
    q.put(0), q.put(0)
    q.lanes[0, 0].reverse()
    with pytest.raises(AssertionError, match="is passed"):
        q.next()


def test_one_after_the_other():
    q = Queue(owners=3)
    for owner in (0, 0, 0, 1, 2, 1, 2):
        q.put(owner)
    order = []
    while (number := q.next()) is not None:
        order.append(q.running[number][0])
        q.done(number)
    assert order == [0, 1, 2, 0, 1, 2, 0]


def test_units_of_one_owner_have_turns_too():
    q = Queue(owners=1, rooms=2)
    for room in (0, 0, 0, 1, 1):
        q.put(0, room)
    order = []
    while (number := q.next()) is not None:
        order.append(q.running[number][1])
    assert order == [0, 1, 0, 1, 0]


def test_whoever_waited_longest_gets_the_room():
    """One place, three who want it all the time: nobody is passed twice by the same one."""
    q = Queue(owners=3, rooms=1, limit=1)
    for _ in range(10):
        for owner in range(3):
            q.put(owner, 0)
    order = []
    number = q.next()
    while number is not None:
        assert q.next() is None
        order.append(q.running[number][0])
        q.done(number)
        number = q.next()
    assert all(sorted(order[i : i + 3]) == [0, 1, 2] for i in range(len(order) - 2)), order


@pytest.mark.parametrize("limit", [0, 2])
def test_what_another_has_queued_costs_nothing(limit):
    """A polite owner's command beside one who has ten, or thousands, on two units, whether there is room or not."""

    def price(greedy: int) -> list[int]:
        q = Queue(owners=2, rooms=3, limit=limit)
        for n in range(greedy):
            q.put(0, n % 2)
        for _ in range(4):
            lib.vt_slow_model_next(q.m)  # as many as there is room for, with a limit
        prices = []
        for room in (2, 0):
            lib.vt_slow_model_put(q.m, 1, room)
            prices.append(q.steps(lambda: lib.vt_slow_model_next(q.m)))
        return prices

    assert price(10) == price(5000)


def test_an_end_costs_a_step_for_each_owner_that_waits():
    def price(owners: int, each: int) -> int:
        q = Queue(owners=owners, rooms=1, limit=1)
        for n in range(owners * each):
            lib.vt_slow_model_put(q.m, n % owners, 0)
        number = int(lib.vt_slow_model_next(q.m))
        lib.vt_slow_model_next(q.m)
        return q.steps(lambda: (lib.vt_slow_model_done(q.m, number), lib.vt_slow_model_next(q.m)))

    assert price(8, 2) == price(8, 500)
    assert price(800, 2) <= 2 * 800
