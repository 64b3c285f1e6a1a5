# SPDX-License-Identifier: BSD-2-Clause
"""Whoever holds a link to a target: used by any thread, lost, connected anew, closed. The same for both protocols.

Holds the one link there is, which may be replaced under its users. Knows when to wait for a link and when to say that
there is none; must not know what a link carries, and never repeats anything.
"""

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from initiator.buffers import Buffers
from initiator.errors import InitiatorError, transport_error
from initiator.recovery import Backoff, Recovery, policy_of
from initiator.users import Users
from vscsi.bus.local import InitiatorConnection, Memory

MEMORY_NBYTES = 64 << 20
REPLACING_SECONDS = 0.001


class AnyLink(Protocol):
    """One connection and what begins and ends with it: see initiator.link and initiator.vbd_link."""

    users: Users
    connection: InitiatorConnection
    memory: Memory
    buffers: Buffers

    @property
    def alive(self) -> bool:
        """Requests may be sent."""

    def look(self) -> None:
        """Tells of a loss, whether or not it has been told."""

    def end(self, *, orderly: bool, abandon: Callable[[Any], None] | None = None) -> None:
        """Lets everything go once its users have. `abandon` takes completions that nobody waits for. Idempotent."""


LinkT = TypeVar("LinkT", bound=AnyLink)


class Connected(Generic[LinkT]):
    """`connect` makes a link; it is called here for the first time. ConnectError. Not usable in a forked child."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], LinkT],
        abandon: Callable[[LinkT], None],
        reconnect: bool | Backoff,
        path: Path | str | None,
    ) -> None:
        self.path = Path(path) if path is not None else None
        self._name, self._make, self._abandon = name, connect, abandon
        self._pid = os.getpid()
        self._closed = False
        self._turn = itertools.count()
        self._link: LinkT
        self.recovery = Recovery(self._again, policy_of(reconnect), name)
        self._connect()

    def _connect(self) -> None:
        self._link = self._make()
        self._link.look()

    def _lost(self, link: LinkT, why: str) -> None:
        if link is getattr(self, "_link", None):  # not one that is still being made
            self.recovery.lost(why)

    def _again(self) -> None:
        self._end_link(orderly=False)
        self._connect()

    def _end_link(self, *, orderly: bool) -> None:
        with self.recovery.turn:
            self._link.end(orderly=orderly, abandon=self._abandon)

    # What belongs to the connection there is now.

    @property
    def connection(self) -> InitiatorConnection:
        """The bus."""
        return self._link.connection

    @property
    def memory(self) -> Memory:
        """What is shared with the target."""
        return self._link.memory

    @property
    def _buffers(self) -> Buffers:
        return self._link.buffers

    @property
    def alive(self) -> bool:
        """Requests may be sent."""
        return self._link.alive

    # ---- users ----

    def hold(self, seconds: float) -> LinkT:
        """The link there is, to be left again; while it is being made anew, or suspended, waits at most `seconds`.

        TransportError then: nothing was sent.
        """
        if os.getpid() != self._pid:
            raise InitiatorError(
                f"{self._name}: belongs to process {self._pid}; a forked child must connect for itself"
            )
        deadline = time.monotonic() + seconds
        while True:
            if not self.recovery.live or self._closed:
                self.recovery.wait(max(0.0, deadline - time.monotonic()))
            link = self._link
            if not link.alive:
                link.look()
                if not self.recovery.live and self.recovery.hopeful:
                    continue
            if link.users.enter():
                return link
            if self._closed or time.monotonic() > deadline:
                raise transport_error(-errno.ESHUTDOWN)
            time.sleep(REPLACING_SECONDS)

    # ---- the end ----

    def close(self) -> None:
        """Ends it in order and lets everything go. Idempotent. In a forked child it only forgets."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._pid:
            self.recovery.close()
            self._end_link(orderly=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
