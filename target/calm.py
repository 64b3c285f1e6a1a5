# SPDX-License-Identifier: BSD-2-Clause
"""Patience with a peer: with one that wakes us for nothing, and with one that never stops talking. Free at first.

Knows numbers only; must not know what is looked at, nor how a pause is made. The loops have the former in C.
"""

import time
from collections.abc import Callable

FREE = 16
"""Looks for nothing that cost nothing: a kick may well come after what it is about."""
FIRST_SECONDS = 0.001
LAST_SECONDS = 0.25

FREE_SECONDS = 1.0
"""Processor time that one may have at once: for thousands of messages, more than any orderly beginning takes."""
SHARE = 0.1
"""What he may have of the time from then on."""
REST_SECONDS = 0.5
"""The longest rest, and so the most that is ever held against him."""


class Calm:
    """Of one thing that is looked at when the peer says so."""

    def __init__(self) -> None:
        self._empty = 0

    def found(self) -> None:
        """There was something: all is forgiven."""
        self._empty = 0

    def empty(self) -> float:
        """There was nothing. Seconds not to look; 0: none."""
        self._empty += 1
        over = self._empty - FREE
        return min(LAST_SECONDS, FIRST_SECONDS * 2.0 ** min(over, 30)) if over > 0 else 0.0


class Budget:
    """Of one who is served in turns: what he may have of the thread, and of Python's lock, which others want too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left, self._at = FREE_SECONDS, clock()

    def spend(self, seconds: float) -> float:
        """His turn has taken so much processor time. Seconds for which he shall have no other; 0: none."""
        now = self._clock()
        saved = min(FREE_SECONDS, self._left + (now - self._at) * SHARE)
        self._left, self._at = max(saved - seconds, -REST_SECONDS * SHARE), now
        return max(0.0, -self._left / SHARE)
