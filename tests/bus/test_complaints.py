# SPDX-License-Identifier: BSD-2-Clause
"""A log does not grow as a peer likes, and one user's noise does not hide what is said of another."""

import logging

import pytest

from vscsi.bus.complaints import BURST, USERS_MAX, Complaints

log = logging.getLogger("vscsi.test")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_of_one_user_are_bounded_and_what_is_left_out_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    complaints = Complaints(clock)
    for n in range(10 * BURST):
        complaints.say(7, log, "line %d", n)
    complaints.say(8, log, "of another")
    assert [record.getMessage() for record in caplog.records] == [*(f"line {n}" for n in range(BURST)), "of another"]
    caplog.clear()
    clock.now = 2.5
    for n in range(5):
        complaints.say(7, log, "later %d", n)
    left_out = f"user 7: {9 * BURST} more lines like those were left out"
    assert [record.getMessage() for record in caplog.records] == [left_out, "later 0", "later 1"]
    assert caplog.records[0].levelno == logging.WARNING


def test_users_that_nobody_complains_about_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(Clock())
    for uid in range(3 * USERS_MAX):
        complaints.say(uid, log, "line")
    assert len(complaints._users) == USERS_MAX
