# SPDX-License-Identifier: BSD-2-Clause
"""Log lines that a peer causes, so many of each user and no more: a log that grows as a peer likes is an attack, too.

Knows users and time. Must not know what is complained about.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

BURST = 100
"""Lines that one user may cause at once."""
PER_SECOND = 1.0
"""Lines that he may cause from then on."""
USERS_MAX = 256


@dataclass
class _User:
    lines: float
    at: float
    unsaid: int = 0


class Complaints:
    """Lines of one target. What is left out is counted, and said with the next line of that user."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._users: dict[int, _User] = {}

    def say(self, uid: int, log: logging.Logger, message: str, *args: object, level: int = logging.WARNING) -> None:
        """Logs the line, unless user `uid` has caused too many of late."""
        now = self._clock()
        user = self._users.pop(uid, None) or _User(BURST, now)
        self._users[uid] = user  # the last one to complain about: the first to be forgotten is the quietest
        if len(self._users) > USERS_MAX:
            del self._users[next(iter(self._users))]
        user.lines = min(BURST, user.lines + (now - user.at) * PER_SECOND)
        user.at = now
        if user.lines < 1:
            user.unsaid += 1
            return
        user.lines -= 1
        if user.unsaid:
            log.log(level, "user %d: %d more lines like those were left out", uid, user.unsaid)
            user.unsaid = 0
        log.log(level, message, *args)
