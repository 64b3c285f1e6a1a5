# SPDX-License-Identifier: BSD-2-Clause
"""What is done about a command that is not answered in time: ABORT TASK, then LOGICAL UNIT RESET, then logout.

One command at a time, as drivers' error handlers do: a reset that ends many late commands is sent once. Each step is in
the log, and bounded. Who logs in again is initiator.recovery. Knows task management; knows no command.
"""

import errno
import logging
import threading
from typing import TYPE_CHECKING

from initiator.errors import CommandTimeout, TransportError
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

    def run(self, request: "Request", seconds: float) -> int:
        """Gets a command back that has had no answer for `seconds`: 0 if it ended with one of its own after all.

        CommandTimeout: it has been ended, or the nexus, or at least its channel, is given up.
        """
        call, lun = request.call, request.lun
        tag = int(call.completion.tag)
        if request.channel.tap is not None:
            request.channel.tap.sent_as(request.tapped, tag)
        with self._turn:
            if self._ended(request, 0):
                return self._how(request, f"lun {lun}: no answer within {seconds:g} s; ended with another command")
            for function, name in STEPS:
                if request.channel.ring.error:
                    break
                log.warning("lun %d: no answer within %g s: %s of tag %#x", lun, seconds, name, tag)
                completed = self._manage(request, function, name, seconds)
                if self._ended(request, GRACE_SECONDS if completed else 0):
                    return self._how(request, f"lun {lun}: no answer within {seconds:g} s; {name} ended the command")
            self._give_up(request)
        if self._ended(request, 0):
            self._initiator.finish(request, call.completion)
        raise CommandTimeout(f"lun {lun}: no answer within {seconds:g} s, nor to task management; channel closed")

    def _manage(self, request: "Request", function: int, name: str, seconds: float) -> bool:
        timeout = min(TMF_SECONDS, max(seconds, LEAST_SECONDS))
        tag = int(request.call.completion.tag)
        try:
            code = self._initiator.manage(request.channel, function, request.lun, tag, timeout)
        except TransportError as error:
            log.warning("lun %d: %s: %s", request.lun, name, error)
            return False
        if code != lib.SRP_RESP_COMPLETE:
            log.warning("lun %d: %s: response code %d", request.lun, name, code)
        return code == int(lib.SRP_RESP_COMPLETE)

    @staticmethod
    def _ended(request: "Request", seconds: float) -> bool:
        return request.channel.ring.wait(request.call, seconds) == 0

    def _how(self, request: "Request", text: str) -> int:
        if request.call.completion.error == 0:
            return 0
        self._initiator.finish(request, request.call.completion)
        raise CommandTimeout(text)

    def _give_up(self, request: "Request") -> None:
        """I_T nexus loss: all channels, if they will be logged in again; else only the one that does not answer."""
        again = self._initiator.recovery.hopeful
        what = "logging out, to log in again" if again else "logging out and giving up the channel"
        log.warning("lun %d: the target does not end the command: %s", request.lun, what)
        (request.link if again else request.channel).abandon(-errno.ETIMEDOUT)
