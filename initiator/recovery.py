# SPDX-License-Identifier: BSD-2-Clause
"""After a loss: tries again, less and less often, for a bounded time, in a thread that exists only meanwhile.

Whoever has something to send waits here until there is a connection again, or it is certain that there will be none.
Every step is logged. Knows how to wait and when to give up; must not know what is connected, and never sends anything
twice: what a loss has ended has ended.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from initiator.errors import InitiatorError, NotSent
from vscsi.bus.local import BusError

log = logging.getLogger("vscsi.initiator")


@dataclass(frozen=True)
class Backoff:
    """How to come back: the first attempt after about `first_seconds`, then twice as long each time.

    At most `longest_seconds` lie between two, of which a random part of up to `jitter` is left out, so that many
    initiators do not come at once. Given up after `attempts` (None: any number), or once `seconds` have passed.
    """

    first_seconds: float = 0.02
    longest_seconds: float = 2.0
    jitter: float = 0.5
    attempts: int | None = None
    seconds: float = 120.0

    def __post_init__(self) -> None:
        if not 0 < self.first_seconds <= self.longest_seconds or not 0 <= self.jitter <= 1 or self.seconds <= 0:
            raise ValueError("0 < first <= longest seconds, 0 <= jitter <= 1, and some seconds in all")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError("at least one attempt")

    def delays(self, chance: Callable[[], float] | None = None) -> Iterator[float]:
        """Seconds to wait before each attempt, as many as there may be attempts."""
        if chance is None:
            from random import random

            chance = random
        delay, n = self.first_seconds, 0
        while self.attempts is None or n < self.attempts:
            yield delay * (1 - self.jitter * chance())
            delay, n = min(2 * delay, self.longest_seconds), n + 1


def policy_of(reconnect: "bool | Backoff") -> Backoff | None:
    """What `reconnect=` means."""
    if isinstance(reconnect, Backoff):
        return reconnect
    return Backoff() if reconnect else None


class Recovery:
    """`again` connects anew, or raises; it is never called by two threads at once. No policy: only on demand."""

    def __init__(self, again: Callable[[], None], policy: Backoff | None, name: str) -> None:
        self._again, self.policy, self._name = again, policy, name
        self._changed = threading.Condition()
        self.turn = threading.RLock()
        """Held by whoever connects or disconnects."""
        self.live = True
        self.suspended = False
        self.closed = False
        self.failed: str | None = None
        """Why there will be no further attempt, unless somebody asks for one."""
        self.recovered = 0
        """How often a lost connection has been replaced."""
        self._thread: threading.Thread | None = None

    @property
    def hopeful(self) -> bool:
        """What has failed may be tried again: it will wait for the next connection if there is none."""
        return (self.policy is not None or self.suspended) and not self.closed and self.failed is None

    def lost(self, why: str) -> None:
        """The connection is over. From any thread, any number of times."""
        with self._changed:
            if self.policy is None or not self.live or self.closed:
                return
            self.live = False
            if self.suspended:
                return
            log.warning("%s: %s: will connect again", self._name, why)
            self._thread = threading.Thread(target=self._run, name="vscsi-reconnect", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        policy = self.policy
        assert policy is not None
        began, attempt, error = time.monotonic(), 0, "no attempt"
        for delay in policy.delays():
            with self._changed:
                if self._changed.wait_for(lambda: self._over(), delay):
                    return
            attempt += 1
            try:
                with self.turn:
                    if self._over():
                        return
                    self._again()
                    self._came_back(attempt, time.monotonic() - began)
                return
            except (InitiatorError, BusError, OSError) as failure:
                error = str(failure)
                log.info("%s: attempt %d: %s", self._name, attempt, error)
            if time.monotonic() - began >= policy.seconds:
                break
        with self._changed:
            if not self._over():
                seconds = time.monotonic() - began
                self.failed = f"given up after {attempt} attempts in {seconds:.1f} s: {error}"
                log.error("%s: %s", self._name, self.failed)
            self._changed.notify_all()

    def _over(self) -> bool:
        return self.closed or self.suspended or self.live

    def _came_back(self, attempts: int, seconds: float) -> None:
        log.warning("%s: connected again after %d attempts, %.2f s", self._name, attempts, seconds)
        self.recovered += 1
        self.now_live()

    def now_live(self) -> None:
        """There is a connection."""
        with self._changed:
            self.live, self.suspended, self.failed = True, False, None
            self._changed.notify_all()

    def now_suspended(self) -> None:
        """There is none, and nobody tries, until `now_live`."""
        with self._changed:
            self.live, self.suspended = False, True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Returns once there is a connection. NotSent: not within `seconds`, or there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self.live or self.closed or self.failed is not None, seconds)
            if self.live and not self.closed:
                return
            if self.closed:
                raise NotSent("this initiator is closed")
            if self.failed is not None:
                raise NotSent(self.failed)
            state = "suspended" if self.suspended else "not connected"
            raise NotSent(f"{state} for {seconds:g} s; the command was not sent")

    def close(self) -> None:
        """No more attempts; who waits is told."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
