# SPDX-License-Identifier: BSD-2-Clause
"""Range locks with every order of commands and lockers: one at a time on a block, no deadlock, nobody forgotten."""

import pytest

from model.checker import assert_holds, explore
from model.ranges import MUTATIONS, Blocks, Ranges

FIRST, SECOND, BOTH, OTHER_LU = Blocks(0, 0, 1), Blocks(0, 1, 1), Blocks(0, 0, 2), Blocks(1, 0, 1)


def test_one_at_a_time_and_all_come_to_their_end():
    assert_holds(Ranges(fast=(FIRST, BOTH), lockers=((FIRST,), (BOTH,))))


@pytest.mark.parametrize("errors", [False, True])
def test_several_ranges_in_order(errors):
    assert_holds(Ranges(fast=(FIRST, BOTH), lockers=((FIRST, SECOND), (BOTH,)), errors=errors))
    assert_holds(Ranges(fast=(BOTH,), lockers=((FIRST, SECOND), (BOTH,), (SECOND,)), errors=errors))


@pytest.mark.parametrize("errors", [False, True])
def test_two_units_in_order(errors):
    assert_holds(Ranges(fast=(FIRST, OTHER_LU), lockers=((FIRST, OTHER_LU), (FIRST, OTHER_LU)), errors=errors))


def test_in_the_wrong_order_there_is_deadlock():
    """Why ranges are taken in order; and the checker would see a deadlock if there were one."""
    assert "stuck" in explore(Ranges(fast=(), lockers=((FIRST, OTHER_LU), (OTHER_LU, FIRST)))).wrong


@pytest.mark.parametrize("errors", [False, True])
def test_who_comes_after_a_loss_waits_for_what_is_under_way(errors):
    assert_holds(Ranges(fast=(FIRST, BOTH, BOTH), lockers=((FIRST,),), losses=True, errors=errors))
    assert_holds(Ranges(fast=(FIRST, BOTH), lockers=((FIRST, SECOND), (BOTH,)), losses=True, errors=errors))


@pytest.mark.parametrize("watched", [("fast", 1), ("locker", 0)])
def test_losses_starve_nobody(watched):
    assert_holds(Ranges(fast=(FIRST, BOTH), lockers=((FIRST,),), losses=True, watched=watched))


@pytest.mark.parametrize("watched", [("fast", 0), ("fast", 1), ("locker", 0), ("locker", 1)])
def test_nobody_starves_though_others_come_again_and_again(watched):
    assert_holds(Ranges(fast=(FIRST, BOTH), lockers=((FIRST,), (BOTH,)), watched=watched))


def test_who_takes_several_ranges_may_overtake_who_wants_one():
    """Known: from its second range on a task waits for holders only, or there would be deadlock. It does not starve."""
    lockers = ((SECOND,), (FIRST, SECOND))
    assert_holds(Ranges(fast=(FIRST,), lockers=lockers, watched=("locker", 1)))
    assert "never ends" in explore(Ranges(fast=(FIRST,), lockers=lockers, watched=("locker", 0))).wrong


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_is_found(mutation):
    bounds = (
        Ranges(fast=(FIRST, BOTH), lockers=((FIRST, SECOND), (BOTH,)), mutation=mutation),
        Ranges(fast=(FIRST, BOTH), lockers=((FIRST,), (BOTH,)), watched=("locker", 0), mutation=mutation),
        Ranges(fast=(FIRST, BOTH), lockers=(), losses=True, mutation=mutation),
    )
    results = [explore(model) for model in bounds]
    assert any(result.wrong and result.trace for result in results)
