# SPDX-License-Identifier: BSD-2-Clause
"""What was submitted and not reaped yet, for both protocols: every request ends exactly once, in `reap`. Any thread.

No thread ticks: whoever waits, for completions or for room, knows the earliest deadline, and does what is due. Knows
who is outstanding and since when; must not know what a request asks, or what is done about one that is late.
"""

import collections
import itertools
import math
import threading
import time
from typing import Any, Generic, Protocol, TypeVar

from initiator.connected import AnyLink
from initiator.done import Done
from initiator.native import ffi, lib

BATCH = 64
TURN_MS = 2
"""With several channels: how long one of them is waited on before the next has its turn."""
SLICE_SECONDS = 0.5
GOING_SECONDS = 0.002


class Native(Protocol):
    """A channel: `c` is the native one."""

    c: Any

    def __hash__(self) -> int: ...


class Sent(Protocol):
    """A request that is outstanding. Late at `deadline` (time.monotonic)."""

    @property
    def link(self) -> AnyLink: ...
    @property
    def channel(self) -> Native: ...

    deadline: float


SentT = TypeVar("SentT", bound=Sent)


class Outstanding(Generic[SentT]):
    """Inherit, and say what an end means: `ended`, `unanswered`, `overdue`."""

    def __init__(self) -> None:
        self._pending: dict[int, SentT] = {}
        self._ready: collections.deque[Done] = collections.deque()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._due = math.inf
        """Nothing that is pending is late before."""

    # ---- for who inherits ----

    def ended(self, number: int, request: SentT, completion: Any) -> None:
        """It has this completion; the link is held."""
        raise NotImplementedError

    def unanswered(self, number: int, request: SentT) -> None:
        """Its link is over, and there is no completion."""
        raise NotImplementedError

    def overdue(self, number: int, request: SentT) -> None:
        """It has not ended in time. Called once; the link is held."""
        raise NotImplementedError

    def is_busy(self) -> bool:
        """Something will come if one waits for it."""
        return bool(self._pending)

    def begin(self, number: int, request: SentT) -> None:
        """From now on it is outstanding. Before it is sent, for its completion may be quick."""
        with self._lock:
            self._pending[number] = request
            if request.deadline < self._due:
                self._due = request.deadline

    def forget(self, number: int) -> None:
        """It was not sent."""
        del self._pending[number]

    # ---- reaping ----

    def reap(self, maximum: int, minimum: int, timeout: float) -> list[Done]:
        deadline = time.monotonic() + timeout
        minimum = min(minimum, maximum)
        if minimum <= 0:
            self.wait(0, 0.0)
        while (missing := minimum - len(self._ready)) > 0 and self.is_busy():
            left = max(0.0, deadline - time.monotonic())
            self.wait(missing, left)
            if left == 0:
                break
        found: list[Done] = []
        while self._ready and len(found) < maximum:
            try:
                found.append(self._ready.popleft())
            except IndexError:  # another thread was faster
                break
        return found

    def wait(self, missing: int, seconds: float) -> None:
        """Takes completions of all channels; waits for `missing` of them, at most `seconds` or until one is late."""
        ms = math.ceil(min(seconds, SLICE_SECONDS, self.look()) * 1000)
        pending = list(self._pending.values())
        channels = {request.channel: request.link for request in pending}
        need = min(BATCH, missing, len(pending))
        if len(channels) > 1:
            ms, need = min(ms, TURN_MS), min(1, missing)
        for channel, link in channels.items():
            self.collect(link, channel, need, ms)

    def collect(self, link: AnyLink, channel: Native, minimum: int, ms: int) -> None:
        """Takes what has ended on one channel; waits for `minimum` completions, at most `ms`."""
        if not link.users.enter():
            time.sleep(GOING_SECONDS)  # `abandon` is about to do it
            return
        try:
            self._take(channel, minimum, ms)
        finally:
            link.users.leave()

    def _take(self, channel: Native, minimum: int, ms: int) -> int:
        completions = ffi.new("struct vi_completion[]", BATCH)
        n = int(lib.vi_reap(channel.c, completions, BATCH, minimum, ms))
        if n > 0:
            with self._lock:  # pending or ended, for whoever looks under the lock
                for i in range(n):
                    number = int(completions[i].cookie)
                    self.ended(number, self._pending.pop(number), completions[i])
        return n

    def take_all(self, channel: Native) -> None:
        """Takes what has ended on one channel, however much it is; the link is held, or nobody's any more."""
        while self._take(channel, 0, 0) > 0:
            pass

    def abandon(self, link: AnyLink) -> None:
        """The link is over and nobody uses it: what was outstanding on it ends, one way or the other."""
        mine = [item for item in list(self._pending.items()) if item[1].link is link]
        for channel in {request.channel for _, request in mine}:
            self.take_all(channel)
        for number, request in mine:
            with self._lock:
                if self._pending.pop(number, None) is not None:
                    self.unanswered(number, request)

    # ---- lateness ----

    def look(self) -> float:
        """Sees to what is late; in how many seconds the next one may be."""
        now = time.monotonic()
        if now < self._due:
            return self._due - now
        late: list[tuple[int, SentT]] = []
        with self._lock:
            self._due = math.inf
            for number, request in list(self._pending.items()):
                if request.deadline <= now:
                    request.deadline = math.inf  # one thread sees to it, once
                    late.append((number, request))
                else:
                    self._due = min(self._due, request.deadline)
        for number, request in late:
            if not request.link.users.enter():  # its link is ending, and ends it
                with self._lock:
                    request.deadline = self._due = now
                continue
            try:
                self.take_all(request.channel)
                if number in self._pending:
                    self.overdue(number, request)
            finally:
                request.link.users.leave()
        return max(0.0, self._due - time.monotonic())
