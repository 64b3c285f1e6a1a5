# SPDX-License-Identifier: BSD-2-Clause
"""Commands that are held: for a time, until they are aborted, until somebody lets them go; and none is forgotten."""

import queue
import threading
from collections.abc import Iterator

import pytest

from target.faults_hold import Holder

SECONDS = 10
FOREVER = float("inf")


@pytest.fixture
def holder() -> Iterator[Holder]:
    made = Holder("test")
    yield made
    made.close()


@pytest.fixture
def gone() -> "queue.SimpleQueue[str]":
    return queue.SimpleQueue()


def test_in_the_order_of_their_times(holder, gone):
    for name, seconds in (("late", 0.06), ("soon", 0.01), ("at once", 0.0), ("later", 0.09)):
        holder.hold(seconds, lambda name=name: gone.put(name))
    assert [gone.get(timeout=SECONDS) for _ in range(4)] == ["at once", "soon", "late", "later"]
    assert holder.count() == 0


def test_an_abort_ends_it_but_not_one_that_is_deaf_to_it(holder, gone):
    aborted = threading.Event()
    holder.hold(FOREVER, lambda: gone.put("deaf"), owner=1)
    holder.hold(FOREVER, lambda: gone.put("aborted"), owner=2, aborted=aborted.is_set)
    holder.hold(0.05, lambda: gone.put("in time"), owner=2, aborted=lambda: False)
    assert gone.get(timeout=SECONDS) == "in time"
    aborted.set()
    assert gone.get(timeout=SECONDS) == "aborted"
    assert (holder.count(1), holder.count(2), holder.count()) == (1, 0, 1)


def test_its_owner_lets_it_go(holder, gone):
    for owner in (1, 2, 1):
        holder.hold(FOREVER, lambda owner=owner: gone.put(owner), owner=owner)
    holder.release(1)
    assert [gone.get(timeout=SECONDS) for _ in range(2)] == [1, 1] and holder.count() == 1


def test_the_end_lets_all_go_and_those_that_still_come(holder, gone, caplog):
    holder.hold(FOREVER, lambda: 1 // 0)
    holder.hold(FOREVER, lambda: gone.put("held"))
    holder.close()
    assert gone.get_nowait() == "held" and "internal error" in caplog.text
    holder.hold(FOREVER, lambda: gone.put("too late"))
    assert gone.get(timeout=SECONDS) == "too late"
