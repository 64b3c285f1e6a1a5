# SPDX-License-Identifier: BSD-2-Clause
"""Writes that were answered and that no flush has followed yet: may they have been lost meanwhile?

Whoever uses it counts the losses (unit attentions of a target that started anew, other processes behind a blkif disk)
and says how many there had been. Knows no protocol and no disk.
"""

import threading
from typing import Any

from vscsi.scsi import sense

RESET = 0x29
"""ASC of the unit attentions that power on, resets and nexus loss leave behind."""
POWER_LOST = (0x00, 0x01, 0x02, 0x04)
"""Their ASCQs that may mean a volatile write cache was lost; 29h/03h and 29h/07h do not."""


def is_power_loss(data: bytes) -> bool:
    """Whether this sense data may mean that a volatile write cache was lost."""
    found = sense.decode(data)
    return found.key == sense.Key.UNIT_ATTENTION and found.asc == RESET and found.ascq in POWER_LOST


class Dirty:
    """Of one disk. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: int | None = None

    def written(self, losses: int) -> None:
        """A write was answered; there had been `losses` when it was sent."""
        with self._lock:
            self._since = losses if self._since is None else self._since

    def flushing(self) -> "Flush":
        """A flush begins: what is written from now on is the next one's."""
        with self._lock:
            since, self._since = self._since, None
        return Flush(self, since)


class Flush:
    """What one flush is to keep. A context: what raises in it has kept nothing."""

    def __init__(self, dirty: Dirty, since: int | None) -> None:
        self._dirty, self._since = dirty, since

    def failed(self) -> None:
        """It is still due."""
        if self._since is not None:
            self._dirty.written(self._since)

    def is_late(self, losses: int) -> bool:
        """It was answered, but there have been losses since a write that it was to keep."""
        return self._since is not None and losses != self._since

    def __enter__(self) -> "Flush":
        return self

    def __exit__(self, kind: Any, *rest: object) -> None:
        if kind is not None:
            self.failed()
