# SPDX-License-Identifier: BSD-2-Clause
"""An I_T nexus through its whole life: logged in, lost, connected anew, suspended, resumed, closed.

Holds the one link there is, which others may replace while threads use it. Knows when to wait for a link and when to
say that there is none; knows no command, and never repeats one.
"""

import collections
import errno
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from initiator.buffers import Buffers
from initiator.errors import InitiatorError, transport_error
from initiator.escalation import Escalation
from initiator.hba import SrpChannel
from initiator.link import Link
from initiator.native import lib
from initiator.queue import Queue
from initiator.recovery import Backoff, Recovery, policy_of
from vscsi.bus.local import InitiatorConnection, Memory

if TYPE_CHECKING:
    from initiator.pcap import Tap

MEMORY_NBYTES = 64 << 20


class Nexus:
    """See initiator.initiator.Initiator, which is one that has commands."""

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        port_id: bytes | None = None,
        memory_nbytes: int = MEMORY_NBYTES,
        ring_pages: int = 16,
        channels: int = 1,
        persistent: bool = True,
        spin_us: int = 0,
        timeout: float = 30.0,
        tap: "Tap | None" = None,
        reconnect: bool | Backoff = False,
    ) -> None:
        if port_id is not None and len(port_id) != 16:
            raise ValueError("an initiator port identifier has 16 bytes")
        if not 1 <= channels <= 64 or not 1 <= ring_pages <= lib.VSCSI_MAX_RING_PAGES:
            raise ValueError("1 to 64 channels of 1 to 16 pages")
        self.path = Path(path) if path is not None else None
        self.port_id = port_id or os.urandom(16)
        self.timeout = timeout
        self._options = {
            "ring_pages": ring_pages,
            "persistent": persistent,
            "spin_us": spin_us,
            "memory_nbytes": memory_nbytes,
            "count": channels,
            "timeout": min(timeout, 30.0),
            "tap": tap,
        }
        self._pid = os.getpid()
        self._closed = False
        self._turn = itertools.count()
        self.power_losses: collections.Counter[int] = collections.Counter()
        """Unit attentions so far, by LUN, that mean a volatile write cache may have been lost."""
        self.queue = Queue(self)  # type: ignore[arg-type]
        self.escalation = Escalation(self)  # type: ignore[arg-type]
        self.recovery = Recovery(self._again, policy_of(reconnect), "nexus")
        self._connect()

    def _connect(self) -> None:
        options: dict[str, Any] = dict(self._options)
        self._link = Link(self.path, self.port_id, on_lost=self._lost, **options)
        self._link.look()

    def _lost(self, link: Link, why: str) -> None:
        if link is self._link:
            self.recovery.lost(why)

    def _again(self) -> None:
        self._link.end(orderly=False, abandon=self.queue.abandon)
        self._connect()

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
    def channels(self) -> list[SrpChannel]:
        """All channels of the nexus."""
        return self._link.channels

    @property
    def _buffers(self) -> Buffers:
        return self._link.buffers

    @property
    def alive(self) -> bool:
        """At least one channel is logged in."""
        return any(channel.alive for channel in self.channels)

    # ---- users ----

    def hold(self, seconds: float) -> Link:
        """The link there is, to be left again; while it is being made anew, or suspended, waits at most `seconds`.

        TransportError then: nothing was sent.
        """
        if os.getpid() != self._pid:
            raise InitiatorError(f"this initiator belongs to process {self._pid}; a child must log in for itself")
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
            time.sleep(0.001)  # it is being replaced at this moment

    def pick(self, link: Link) -> SrpChannel:
        """The next channel that is alive. TransportError if none is."""
        channels = link.channels
        for _ in channels:
            channel = channels[next(self._turn) % len(channels)]
            if not channel.ring.error:
                return channel
        if self._closed or not channels:
            raise transport_error(-errno.ESHUTDOWN)
        raise transport_error(channels[0].ring.error, channels[0].ring.why)

    # ---- the end, and what comes after it ----

    def logout(self) -> None:
        """Logs out of all channels; what is outstanding fails. `reconnect` may follow; nothing else makes it."""
        self._link.logout()

    def reconnect(self) -> None:
        """Logs in anew, as the same initiator port: new connection, new memory, new rings. ConnectError.

        Each logical unit then has a unit attention for us. Commands of the old channels have failed.
        """
        self._end_link(orderly=True)
        self.resume()

    def suspend(self) -> None:
        """All rings are torn down; commands outstanding fail, what comes waits for `resume` until it times out."""
        self.recovery.now_suspended()
        self._end_link(orderly=False)

    def resume(self) -> None:
        """Everything is made anew, and logged in as the same initiator port. ConnectError: still suspended."""
        with self.recovery.turn:
            self._link.end(orderly=False, abandon=self.queue.abandon)
            self._connect()
            self.recovery.now_live()

    def _end_link(self, *, orderly: bool) -> None:
        with self.recovery.turn:
            self._link.end(orderly=orderly, abandon=self.queue.abandon)

    def close(self) -> None:
        """Logs out and lets everything go. Idempotent. In a forked child it only forgets."""
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

    @property
    def natives(self) -> Sequence[Any]:
        """The native channels, for load generators."""
        return [channel.c for channel in self.channels]
