# SPDX-License-Identifier: BSD-2-Clause
"""One connection of a blkif disk: memory, buffers and the device's session, which begin and end together.

The counterpart of initiator.link: knows how they are made and let go, and which process serves; knows no request.
"""

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from initiator.buffers import Buffers
from initiator.errors import ConnectError, InitiatorError
from initiator.users import Users
from initiator.vbd_session import VbdSession
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.memory import PAGE


def _started(pid: int) -> str:
    """When a process began, in ticks: another one may get its number. Empty where that cannot be known."""
    with contextlib.suppress(OSError, IndexError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    return ""


class VbdLink:
    """Connects device `devid`. `on_lost` hears, in any thread, that it is over. ConnectError."""

    def __init__(
        self,
        path: Path | None,
        devid: int,
        *,
        memory_nbytes: int,
        persistent: bool,
        timeout: float,
        on_lost: "Callable[[VbdLink, str], None]",
        **options: Any,
    ) -> None:
        self.users = Users()
        self._on_lost = on_lost
        try:
            self.connection = InitiatorConnection(path, memory_nbytes=memory_nbytes, timeout=timeout)
        except BusError as error:
            raise ConnectError(str(error)) from error
        self.memory = self.connection.memory
        self.buffers = Buffers(self.memory)
        pid = self.connection.peer.pid
        self.server = (pid, _started(pid))
        """Which process serves the disk: another one may have lost what the one before had in its cache."""
        try:
            if persistent:
                first = self.memory.first_frame * PAGE
                self.memory.grant(first, self.memory.nbytes - first)
            self.connection.start()
            self._find(devid)
            self.session = VbdSession(
                self.connection, devid, persistent=persistent, timeout=timeout, on_lost=self._lost, **options
            )
        except BusError as error:
            self.connection.close()
            raise ConnectError(str(error)) from error
        except BaseException:
            self.connection.close()
            raise
        self.connection.on_close = self._on_close

    def _find(self, devid: int) -> None:
        """The target publishes its disks right after the connection; a moment is theirs to appear."""
        node = f"backend/vbd/{devid}/state"
        try:
            self.connection.wait_for(lambda: node in self.connection.store, 1.0, f"vbd/{devid}")
        except BusError as error:
            if self.connection.closed:
                raise
            raise ConnectError(f"the target serves no virtual disk {devid}") from error

    def _on_close(self, why: str) -> None:
        self.session.lost(-errno.EPIPE, why)

    def _lost(self, why: str) -> None:
        self._on_lost(self, why)

    @property
    def alive(self) -> bool:
        """Not lost, not closed. Suspended or not."""
        return self.session.alive

    def look(self) -> None:
        """Tells of a loss, whether or not it has been told; not of an end that was wanted."""
        self.session.look()

    def end(self, *, orderly: bool, abandon: "Callable[[VbdLink], None] | None" = None) -> None:
        """Closes the device, then, once nobody uses them, connection and memory; `orderly` or not. Idempotent.

        `abandon`: takes completions that nobody waits for.
        """
        if not self.users.begin_end():
            return
        with contextlib.suppress(InitiatorError, BusError):
            self.session.leave()
        self.buffers.close()
        if not self.users.gone("a disk's connection"):
            return
        if abandon is not None:
            abandon(self)
        self.connection.close()
