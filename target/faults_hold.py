# SPDX-License-Identifier: BSD-2-Clause
"""Commands that are held back: for a time, until they are aborted, or until somebody lets them go.

One thread for each unit that has any, so that no worker is occupied and no other unit waits; what a command still has
to do when its time has come is done there. Knows times and threads; must not know why a command is held.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

LOOK_SECONDS = 0.02
"""How often it is looked whether a command has been aborted meanwhile."""
log = logging.getLogger(__name__)


@dataclass(order=True, slots=True)
class Held:
    """One command. `due` in seconds of the monotonic clock, infinite: no time ends it. `aborted` None: an abort does
    not either. `owner` names who may let it go."""

    due: float
    order: int
    owner: int = field(compare=False)
    aborted: Callable[[], bool] | None = field(compare=False)
    rest: Callable[[], None] = field(compare=False)


class Holder:
    """The commands of one unit that are held. Any thread may call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._held: list[Held] = []
        self._ready: list[Held] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def hold(
        self, seconds: float, rest: Callable[[], None], *, owner: int = 0, aborted: Callable[[], bool] | None = None
    ) -> None:
        """Calls `rest` in another thread: once the time is over, or `aborted` says so, or it is let go."""
        due = time.monotonic() + seconds
        with self._changed:
            entry = Held(due, next(self._order), owner, aborted, rest)
            if self._closed:
                self._ready.append(entry)
            else:
                heapq.heappush(self._held, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def release(self, owner: int | None = None) -> None:
        """Lets those of an owner go, or all."""
        with self._changed:
            self._take(lambda entry: owner in (None, entry.owner))
            self._changed.notify()

    def count(self, owner: int | None = None) -> int:
        """How many are held."""
        with self._changed:
            return sum(owner in (None, entry.owner) for entry in self._held)

    def close(self) -> None:
        """Lets all go, those to come too, and waits until they have been, for a few seconds at most."""
        with self._changed:
            self._closed = True
            self._take(lambda entry: True)
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(5)

    # ---- its thread ----

    def _take(self, which: Callable[[Held], bool]) -> None:
        """Under the lock: these are ready."""
        ready = [entry for entry in self._held if which(entry)]
        if ready:
            self._ready += sorted(ready)
            self._held = [entry for entry in self._held if entry not in ready]
            heapq.heapify(self._held)

    def _run(self) -> None:
        while True:
            entry = self._next()
            if entry is None:
                return
            try:
                entry.rest()
            except Exception:
                log.exception("%s: internal error", self._name)

    def _next(self) -> Held | None:
        """Waits for one that is ready; None once it is closed and nothing is left."""
        with self._changed:
            while True:
                now = time.monotonic()
                while self._held and self._held[0].due <= now:
                    self._ready.append(heapq.heappop(self._held))
                self._take(lambda entry: entry.aborted is not None and entry.aborted())
                if self._ready:
                    return self._ready.pop(0)
                if self._closed:
                    self._thread = None
                    return None
                self._changed.wait(self._patience(now))

    def _patience(self, now: float) -> float | None:
        if not self._held:
            return None
        looks = any(entry.aborted is not None for entry in self._held)
        due = self._held[0].due - now
        return min(due, LOOK_SECONDS) if looks else None if due == float("inf") else due
