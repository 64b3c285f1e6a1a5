# SPDX-License-Identifier: BSD-2-Clause
"""An I_T nexus through its whole life: logged in, lost, connected anew, suspended, resumed, closed.

How the link is held and replaced is initiator.connected's. Knows the channels of a nexus, and which is next; knows no
command, and never repeats one.
"""

import collections
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initiator.connected import MEMORY_NBYTES, Connected
from initiator.errors import transport_error
from initiator.escalation import Escalation
from initiator.hba import SrpChannel
from initiator.link import Link
from initiator.native import lib
from initiator.queue import Queue
from initiator.recovery import Backoff

if TYPE_CHECKING:
    from initiator.pcap import Tap


class Nexus(Connected[Link]):
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
        self.port_id = port_id or os.urandom(16)
        self.timeout = timeout
        options: dict[str, Any] = {
            "ring_pages": ring_pages,
            "persistent": persistent,
            "spin_us": spin_us,
            "memory_nbytes": memory_nbytes,
            "count": channels,
            "timeout": min(timeout, 30.0),
            "tap": tap,
        }
        self.power_losses: collections.Counter[int] = collections.Counter()
        """Unit attentions so far, by LUN, that mean a volatile write cache may have been lost."""
        self.queue = Queue(self)  # type: ignore[arg-type]
        self.escalation = Escalation(self)  # type: ignore[arg-type]

        def connect() -> Link:
            return Link(self.path, self.port_id, on_lost=self._lost, **options)

        super().__init__("nexus", connect, self.queue.abandon, reconnect, path)

    @property
    def channels(self) -> list[SrpChannel]:
        """All channels of the nexus."""
        return self._link.channels

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
            self._again()
            self.recovery.now_live()

    @property
    def natives(self) -> Sequence[Any]:
        """The native channels, for load generators."""
        return [channel.c for channel in self.channels]
