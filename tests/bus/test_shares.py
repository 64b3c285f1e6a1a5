# SPDX-License-Identifier: BSD-2-Clause
"""Who gets how much of what there is: whatever others take, each connection gets the part that is kept for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.bus.shares import SHARE_PERCENT, LimitError, Shares

OWNER, MALLORY, ALICE = 0, 4242, 4243


def taken(shares: Shares, holder: object, uid: int) -> int:
    """Takes as long as it gets something."""
    count = 0
    while True:
        try:
            shares.take(holder, uid)
        except LimitError:
            return count
        count += 1


def test_one_connection_gets_no_more_than_one_may_have() -> None:
    shares = Shares("rings", 100, each=30, holders=4)
    assert taken(shares, "a", OWNER) == 30
    with pytest.raises(LimitError, match=r"^no more than 30 rings for one connection$"):
        shares.take("a", OWNER)
    shares.give("a", 30)
    assert (shares.held(), taken(shares, "a", OWNER)) == (0, 30)


def test_whatever_others_take_each_gets_its_part() -> None:
    shares = Shares("rings", 100, each=100, holders=5, trusted={OWNER})
    assert taken(shares, "greedy", OWNER) == 10 + 50, "its own part, and what is there for all"
    with pytest.raises(LimitError, match="no more rings than those that it keeps for others"):
        shares.take("greedy", OWNER)
    assert [taken(shares, name, OWNER) for name in "abcd"] == [10] * 4
    assert shares.held() == shares.total


def test_one_user_gets_no_more_than_his_part() -> None:
    shares = Shares("rings", 1000, each=1000, holders=10, trusted={OWNER})
    got = taken(shares, "m1", MALLORY) + taken(shares, "m2", MALLORY)
    assert got == 50 + 50 + 500 * SHARE_PERCENT // 100
    with pytest.raises(LimitError, match=r"^user 4242 has as many rings as one user may have$"):
        shares.take("m1", MALLORY)
    assert taken(shares, "a", ALICE) == 50 + 125


def test_what_is_not_granted_is_not_booked() -> None:
    shares = Shares("bytes", 100, each=60, holders=1)
    with pytest.raises(LimitError):
        shares.take("a", OWNER, 61)
    shares.take("a", OWNER, 60)
    assert shares.held("a") == 60
    shares.give("a", 60)
    assert shares.held("a") == shares.held() == 0


STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(-20, 20)), max_size=60)


@given(st.integers(0, 200), st.integers(1, 100), STEPS)
def test_the_books_are_right_and_nobody_lacks_his_part(total: int, each: int, steps: list[tuple[int, int]]) -> None:
    shares = Shares("rings", total, each=min(each, total), holders=6, trusted={OWNER})
    held = [0] * 6
    for holder, count in steps:
        uid = (OWNER, MALLORY, ALICE)[holder % 3]
        if count < 0:
            back = min(held[holder], -count)
            if back:
                shares.give(holder, back)
            held[holder] -= back
            continue
        if not count:
            continue
        try:
            shares.take(holder, uid, count)
            held[holder] += count
        except LimitError:
            assert held[holder] + count > shares.kept, "within its part nobody is refused"
    assert [shares.held(holder) for holder in range(6)] == held
    assert shares.held() == sum(held) <= total
    assert max(held) <= each
    theirs = sum(max(0, held[holder] - shares.kept) for holder in (1, 4))
    assert theirs <= (total - 6 * shares.kept) * SHARE_PERCENT // 100
