# SPDX-License-Identifier: BSD-2-Clause
"""Who uses something that must not go under them: entered and left by any thread, ended once. Knows no more of it."""

import logging
import threading

log = logging.getLogger("vscsi.initiator")

QUIET_SECONDS = 30.0
"""How long users have to see that their channel has failed."""


class Users:
    """Nobody at first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self.over = False

    def enter(self) -> bool:
        """Whoever is told True may use it until `leave`. False: it is going."""
        with self._changed:
            if self.over:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        with self._changed:
            self._count -= 1
            if self.over and not self._count:
                self._changed.notify_all()

    def begin_end(self) -> bool:
        """Nobody enters any more. False: somebody else has begun already."""
        with self._changed:
            first, self.over = not self.over, True
            return first

    def gone(self, what: str) -> bool:
        """Waits for those there are. False, in the log: some stay, and what they use must stay too."""
        with self._changed:
            if self._changed.wait_for(lambda: not self._count, QUIET_SECONDS):
                return True
            log.error("%s is not let go: %d threads still use it", what, self._count)
            return False
