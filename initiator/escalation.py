# SPDX-License-Identifier: BSD-2-Clause
"""What is done about a command that is not answered in time: ABORT TASK, then LOGICAL UNIT RESET, then logout.

One command at a time, as drivers' error handlers do: a reset that ends many late commands is sent once. Each step is
in the log, and bounded. Who logs in again is initiator.recovery. Knows task management; knows no command.
"""

import errno
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from initiator.errors import TransportError
from initiator.native import lib

if TYPE_CHECKING:
    from initiator.initiator import Initiator
    from initiator.request import Request

log = logging.getLogger("vscsi.initiator")

TMF_SECONDS = 5.0
"""How long a task management function may take at most; a command's own timeout if that is less."""
LEAST_SECONDS = 0.1
GRACE_SECONDS = 0.2
"""From the function's answer to that of the command it ended, which came first."""
STEPS = ((lib.SRP_TMF_ABORT_TASK, "ABORT TASK"), (lib.SRP_TMF_LUN_RESET, "LOGICAL UNIT RESET"))


class Escalation:
    """The error handler of one initiator."""

    def __init__(self, initiator: "Initiator") -> None:
        self._initiator = initiator
        self._turn = threading.Lock()

    def run(self, request: "Request", ended: Callable[[float], bool]) -> bool:
        """Gets back a command that has had no answer in its time: whether it has ended, and its link is held by us.

        `ended` waits so many seconds for its end, and may take part in bringing it about. What the command is to be
        told, unless it had an answer of its own after all, is request.late.
        """
        lun, late = request.lun, f"no answer within {request.seconds:g} s"
        request.late = f"lun {lun}: {late}; ended with another command"
        with self._turn:
            if ended(0):
                return True
            for function, name in STEPS:
                if request.channel.ring.error:
                    break
                log.warning("lun %d: %s: %s of tag %#x", lun, late, name, request.tag)
                request.late = f"lun {lun}: {late}; {name} ended the command"
                completed = self._manage(request, function, name)
                if ended(GRACE_SECONDS if completed else 0):
                    return True
            request.late = f"lun {lun}: {late}, nor to task management; channel closed"
            self._give_up(request)
        return ended(0)

    def _manage(self, request: "Request", function: int, name: str) -> bool:
        timeout = min(TMF_SECONDS, max(request.seconds, LEAST_SECONDS))
        try:
            code = self._initiator.manage(request.channel, function, request.lun, request.tag, timeout)
        except TransportError as error:
            log.warning("lun %d: %s: %s", request.lun, name, error)
            return False
        if code != lib.SRP_RESP_COMPLETE:
            log.warning("lun %d: %s: response code %d", request.lun, name, code)
        return code == int(lib.SRP_RESP_COMPLETE)

    def _give_up(self, request: "Request") -> None:
        """I_T nexus loss: all channels, if they will be logged in again; else only the one that does not answer."""
        again = self._initiator.recovery.hopeful
        what = "logging out, to log in again" if again else "logging out and giving up the channel"
        log.warning("lun %d: the target does not end the command: %s", request.lun, what)
        (request.link if again else request.channel).abandon(-errno.ETIMEDOUT)
