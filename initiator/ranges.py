# SPDX-License-Identifier: BSD-2-Clause
"""Ranges of blocks that one thread has for itself: whoever changes a part of a block must be alone with it.

Knows numbers; knows no disk.
"""

import contextlib
import threading
from collections.abc import Iterator


class Ranges:
    """Exclusive, first come first served: who waits is not overtaken by those who overlap it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def held(self, first: int, count: int) -> Iterator[None]:
        """Waits until nobody before us has any of `count` numbers from `first`."""
        mine = (first, first + count)
        with self._changed:
            self._queue.append(mine)
            self._changed.wait_for(lambda: self._is_next(mine))
        try:
            yield
        finally:
            with self._changed:
                self._queue = [other for other in self._queue if other is not mine]
                self._changed.notify_all()

    def _is_next(self, mine: tuple[int, int]) -> bool:
        for other in self._queue:
            if other is mine:
                return True
            if other[0] < mine[1] and mine[0] < other[1]:
                return False
        raise AssertionError("a range that was never queued")
