# SPDX-License-Identifier: BSD-2-Clause
"""Who may have how much of what there is: a bound for each connection, one for each user, and a part that nobody can
take from the others.

Half of everything is kept for the connections in equal parts, so that each gets its part however greedy the others are;
the other half goes to who asks first, but no user except the trusted ones gets more than three quarters of it.
Knows counts and names only; must not know what it is that is counted.
"""

import threading
from collections import defaultdict
from collections.abc import Collection, Hashable

from .errors import BusError

SHARE_PERCENT = 75
"""Of what is shared, for one user who is neither the target's own nor root."""


class LimitError(BusError):
    """Refused because a limit is reached: one line that says which."""


class Shares:
    """`total` of `what`, at most `each` for one of at most `holders` connections. Any thread may call."""

    def __init__(self, what: str, total: int, *, each: int, holders: int, trusted: Collection[int] = ()) -> None:
        self.what, self.total, self.each, self.trusted = what, total, each, frozenset(trusted)
        self.kept = min(each, total // 2 // max(1, holders))
        """What every holder can have in any case."""
        self._free_to_all = total - self.kept * max(1, holders)
        self._held: dict[Hashable, int] = defaultdict(int)
        self._users: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def take(self, holder: Hashable, uid: int, count: int = 1) -> None:
        """Books `count` for `holder`, a connection of user `uid`. LimitError, with nothing booked."""
        with self._lock:
            held = self._held.get(holder, 0)
            if held + count > self.each:
                raise LimitError(f"no more than {self.each} {self.what} for one connection")
            more = max(0, held + count - self.kept) - max(0, held - self.kept)
            if more:
                self._check_shared(uid, more)
            self._held[holder] = held + count
            self._users[holder] = uid

    def _check_shared(self, uid: int, more: int) -> None:
        shared = {holder: max(0, held - self.kept) for holder, held in self._held.items()}
        most = self._free_to_all * SHARE_PERCENT // 100
        theirs = sum(held for holder, held in shared.items() if self._users[holder] == uid)
        if sum(shared.values()) + more > self._free_to_all:
            raise LimitError(f"the target has no more {self.what} than those that it keeps for others")
        if uid not in self.trusted and theirs + more > most:
            raise LimitError(f"user {uid} has as many {self.what} as one user may have")

    def give(self, holder: Hashable, count: int = 1) -> None:
        """Takes back what was booked."""
        with self._lock:
            self._held[holder] -= count
            assert self._held[holder] >= 0, self.what
            if not self._held[holder]:
                del self._held[holder], self._users[holder]

    def held(self, holder: Hashable | None = None) -> int:
        """What one holder has, or all together."""
        with self._lock:
            return sum(self._held.values()) if holder is None else self._held.get(holder, 0)
