# SPDX-License-Identifier: BSD-2-Clause
"""What one connection may have of the conversation thread: much at once, then a share, and rests that are bounded.
The floods themselves are in tests/hostile/test_floods.py.
"""

from hypothesis import given
from hypothesis import strategies as st

from target.calm import FREE_SECONDS, REST_SECONDS, SHARE, Budget

SHORT = REST_SECONDS * SHARE
"""A turn of this length the longest rest makes good."""


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, SHORT)), max_size=100))
def test_in_the_long_run_it_is_a_share(turns):
    """Whoever rests as he is told has had no more than what is free, and his share."""
    now = spent = 0.0
    budget = Budget(lambda: now)
    for gap, took in turns:
        now += gap
        spent += took
        rest = budget.spend(took)
        assert 0 <= rest <= REST_SECONDS
        now += rest
        assert spent <= FREE_SECONDS + now * SHARE + 1e-6


def test_an_orderly_beginning_costs_no_rest():
    now = 0.0
    budget = Budget(lambda: now)
    assert [budget.spend(0.002) for _ in range(490)] == [0.0] * 490
    assert budget.spend(0.2) > 0


def test_who_was_quiet_is_free_again():
    now = 0.0
    budget = Budget(lambda: now)
    assert budget.spend(5.0) == REST_SECONDS
    now += REST_SECONDS
    assert budget.spend(0.0) == 0.0
    now += 2 * FREE_SECONDS / SHARE
    assert budget.spend(FREE_SECONDS * 0.9) == 0.0
