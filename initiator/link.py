# SPDX-License-Identifier: BSD-2-Clause
"""One connection of an initiator: its memory, buffers and SRP channels, which begin and end together.

Counts who uses the memory, so that it goes after them: a link may be lost, and replaced, under any number of threads.
Knows login and logout; knows no command.
"""

import contextlib
import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initiator.buffers import Buffers
from initiator.channel import Poller
from initiator.errors import ConnectError, InitiatorError
from initiator.hba import SrpChannel
from initiator.users import Users
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.memory import PAGE

if TYPE_CHECKING:
    from initiator.pcap import Tap

log = logging.getLogger("vscsi.initiator")


class Link:
    """Logs in with `count` channels. `on_lost` hears that no channel is left, in any thread. ConnectError."""

    def __init__(
        self,
        path: Path | None,
        port_id: bytes,
        *,
        memory_nbytes: int,
        count: int,
        timeout: float,
        tap: "Tap | None",
        on_lost: "Callable[[Link, str], None]",
        **options: Any,
    ) -> None:
        self.users = Users()
        self._on_lost: Callable[[Link, str], None] | None = None
        self.channels: list[SrpChannel] = []
        try:
            self.connection = InitiatorConnection(path, memory_nbytes=memory_nbytes, timeout=timeout)
        except BusError as error:
            raise ConnectError(str(error)) from error
        self.memory = self.connection.memory
        self.poller = Poller("vscsi-reverse")
        self.buffers = Buffers(self.memory)
        try:
            if options["persistent"]:
                first = self.memory.first_frame * PAGE
                self.memory.grant(first, self.memory.nbytes - first)
            self.connection.on_close = self._on_close
            self.connection.start()
            for k in range(count):
                self.channels.append(
                    SrpChannel(
                        self.connection, self.poller, k, port_id, multi=k > 0, timeout=timeout, tap=tap, **options
                    )
                )
        except BaseException as error:
            self.end(orderly=False)
            if isinstance(error, BusError):
                raise ConnectError(str(error)) from error
            raise
        self._on_lost = on_lost
        for channel in self.channels:
            channel.ring.on_dead = self._on_dead

    def _on_close(self, why: str) -> None:
        for channel in list(self.channels):
            channel.lost(-errno.EPIPE, why)

    def _on_dead(self, why: str | None) -> None:
        if self.alive and self.users.over:
            return  # logged out one after the other
        if self.alive:
            log.warning("a channel is lost: %s; the others go on", why)
        else:
            self.look()

    def look(self) -> None:
        """Tells of a loss, whether or not it has been told; not of an end that was wanted."""
        tell = self._on_lost
        if tell is not None and not self.users.over and not self.alive:
            tell(self, self.channels[0].ring.why or "no channel is left")

    @property
    def alive(self) -> bool:
        """At least one channel is logged in."""
        return any(channel.alive for channel in self.channels)

    # ---- the end ----

    def logout(self) -> None:
        """Logs out of all channels; what is outstanding fails. That is no loss."""
        self._on_lost = None
        for channel in self.channels:
            channel.leave()

    def abandon(self, rc: int) -> None:
        """I_T nexus loss by our own wish: out of all channels, without waiting; what is outstanding fails with `rc`."""
        for channel in self.channels:
            channel.ring.on_dead = None  # it is one loss
            channel.abandon(rc)
        self.look()

    def end(self, *, orderly: bool, abandon: Callable[["Link"], None] | None = None) -> None:
        """Lets everything go once its users have. `abandon`: takes completions that nobody waits for. Idempotent."""
        if not self.users.begin_end():
            return
        if orderly:
            with contextlib.suppress(InitiatorError, BusError):
                self.logout()
        for channel in self.channels:
            channel.leave(orderly=False)
        self.buffers.close()
        self.poller.close()
        if not self.users.gone("a connection"):
            return  # its memory must stay: better a leak than a page that is not there
        if abandon is not None:
            abandon(self)
        self.connection.close()
