# SPDX-License-Identifier: BSD-2-Clause
"""Patience with a peer that wakes us for nothing: free at first, then a pause that grows with every time.

Knows numbers only; must not know what is looked at, nor how a pause is made. The loops have the same in C.
"""

FREE = 16
"""Looks for nothing that cost nothing: a kick may well come after what it is about."""
FIRST_SECONDS = 0.001
LAST_SECONDS = 0.25


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
