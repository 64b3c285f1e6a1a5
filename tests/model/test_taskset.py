# SPDX-License-Identifier: BSD-2-Clause
"""The task set in every order of arrivals, ends and task management: SAM-5's rules hold, and nothing starves."""

import pytest

from model.checker import assert_holds, explore
from model.taskset import CLEAR_TASK_SET, HEAD, MUTATIONS, ORDERED, SIMPLE, Starving, TaskSet


def test_order_is_kept_and_aborts_complete():
    assert_holds(TaskSet(commands=4, nexuses=1, functions=1))
    assert_holds(TaskSet(commands=3, nexuses=2, functions=1, stops=True))
    assert_holds(TaskSet(commands=2, nexuses=2, functions=2))


def test_functions_of_two_nexuses_at_once():
    assert_holds(TaskSet(commands=3, nexuses=2, functions=2, kinds=(CLEAR_TASK_SET,)))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_is_found(mutation):
    result = explore(TaskSet(commands=3, nexuses=2, functions=1, mutation=mutation))
    assert result.wrong and result.trace


@pytest.mark.parametrize("watched", [SIMPLE, ORDERED, HEAD])
def test_nothing_starves_while_head_of_queue_commands_are_finitely_many(watched):
    assert_holds(Starving(watched, room=4, heads=2))


@pytest.mark.parametrize("watched", [SIMPLE, ORDERED])
def test_head_of_queue_commands_without_end_starve_the_others(watched):
    """As the standard has it; and the checker would see starvation if it were there."""
    assert "never ends" in explore(Starving(watched, room=3, heads=-1)).wrong


def test_head_of_queue_commands_without_end_do_not_starve_each_other():
    assert_holds(Starving(HEAD, room=3, heads=-1))
