# SPDX-License-Identifier: BSD-2-Clause
"""Notices that images have another size: looks each second while commands run, and otherwise only when the kernel says
that a file has changed or a loop that it has woken. With nobody connected it does not look at all.

A file may not answer, so threads look, and nobody waits for one for long.
Knows when to look; what follows from a size is `target.resize`'s business. Must not know commands or connections.
"""

import logging
import os
import queue
import selectors
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from target.resize import follow

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger("vscsi.target")

LOOK_SECONDS = 1.0
"""How often at most it is looked."""


PATIENCE_SECONDS = 0.1
"""How long the conversation thread waits for a look to end."""


class Host(Protocol):
    """What the server lends."""

    selector: selectors.DefaultSelector

    def later(self, seconds: float, function: Callable[[], None]) -> None: ...


class Looks:
    """Looks at units in a thread of its own; when one does not answer, in another, and not at that one."""

    def __init__(self, units: Iterable["LogicalUnit"]) -> None:
        self._units = list(units)
        self._looked_at: set[LogicalUnit] = set()
        self._lock = threading.Lock()
        self._thread: _Looker | None = None

    def each(self, look: Callable[["LogicalUnit"], None]) -> None:
        """Calls `look` with every unit that answers, and waits for it, but not long. OSError is logged."""
        if self._thread is None:
            self._thread = _Looker()
        if not self._thread.does(lambda: self._run(look), PATIENCE_SECONDS):
            self._thread.close()
            self._thread = None

    def close(self) -> None:
        """No more looks."""
        if self._thread is not None:
            self._thread.close()

    def _run(self, look: Callable[["LogicalUnit"], None]) -> None:
        for unit in self._units:
            with self._lock:
                if unit in self._looked_at:
                    continue
                self._looked_at.add(unit)
            try:
                look(unit)
            except OSError as error:
                log.warning("lun %d: cannot be measured: %s", unit.lun, error)
            finally:
                with self._lock:
                    self._looked_at.discard(unit)


class _Looker(threading.Thread):
    """A thread that does one thing at a time."""

    def __init__(self) -> None:
        super().__init__(name="vscsi-sizes", daemon=True)
        self._wanted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self.start()

    def does(self, what: Callable[[], None], seconds: float) -> bool:
        """Whether it has been done in that time."""
        self._done.clear()
        self._wanted.put(what)
        return self._done.wait(seconds)

    def close(self) -> None:
        """It ends when it has nothing to do."""
        self._wanted.put(None)

    def run(self) -> None:
        while (what := self._wanted.get()) is not None:
            try:
                what()
            except Exception:
                log.exception("internal error in a look at sizes")
            self._done.set()


def _look(unit: "LogicalUnit") -> None:
    follow(unit)
    unit.tick()


class Sizes:
    """Of the units of one running target. Everything here is for the conversation thread."""

    def __init__(self, host: Host, native: Any, target: Any, units: Iterable["LogicalUnit"]) -> None:
        self._host, self._native, self._target = host, native, target
        self._looks = Looks(units)
        self._looking = False
        self._wanted = False
        self._watch = native.vt_watch_open()
        if self._watch >= 0:
            host.selector.register(self._watch, selectors.EVENT_READ, self._changed)

    def close(self) -> None:
        """Looks no more."""
        if self._watch >= 0:
            self._host.selector.unregister(self._watch)
            os.close(self._watch)
        self._watch = -1
        self._wanted = False
        self._looks.close()

    def somebody(self, connected: bool) -> None:
        """Whether anybody is connected who could want to know."""
        self._wanted = connected
        if connected:
            self.wake()

    def wake(self) -> None:
        """Something happens: now, and for a while from now on, it is worth a look."""
        if self._looking or not self._wanted:
            return
        self._looking = True
        self._look()
        self._host.later(LOOK_SECONDS, self._again)

    def _again(self) -> None:
        if self._wanted and self._native.vt_tell_activity(self._target):
            self._look()
            self._host.later(LOOK_SECONDS, self._again)
            return
        self._looking = False
        if self._wanted:
            self._rest()

    def _rest(self) -> None:
        """Nothing runs: whatever changes a file now is not us."""

        def watch(unit: "LogicalUnit") -> None:
            fd = unit.store.fd
            if self._watch >= 0 and fd is not None and fd >= 0 and not unit.store.is_volatile:
                self._native.vt_watch_once(self._watch, os.fsencode(f"/proc/self/fd/{fd}"))
            _look(unit)  # once more: it may have changed before the kernel watched it

        self._looks.each(watch)

    def _changed(self, _mask: int) -> None:
        self._native.vt_watch_drain(self._watch)
        self.wake()

    def _look(self) -> None:
        self._looks.each(_look)
