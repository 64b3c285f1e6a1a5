# SPDX-License-Identifier: BSD-2-Clause
"""The ring protocol, in every interleaving: no wake-up lost, no slot overrun, one response to each request."""

import pytest

from model.checker import assert_holds, explore
from model.ring import MUTATIONS, Ring


@pytest.mark.parametrize("spins", ["", "front", "back"])
def test_every_request_is_answered_once_and_nobody_sleeps_on(spins):
    assert_holds(Ring(slots=2, requests=2, spins=spins))
    assert_holds(Ring(slots=1, requests=3, spins=spins))


@pytest.mark.parametrize("who", ["front", "back", "both"])
def test_whoever_dies_the_other_comes_to_an_end(who):
    assert_holds(Ring(slots=1, requests=2, may_die=who))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_is_found(mutation):
    results = (explore(Ring(slots=slots, requests=2, mutation=mutation)) for slots in (1, 2))
    assert any(result.wrong and result.trace for result in results)
