# SPDX-License-Identifier: BSD-2-Clause
"""I_T nexuses: who has logged in, through which channels, and the unit attentions that follow from that.

A nexus is a pair of port identifiers. One with registrations is remembered for ever, others in a bounded list once
their last channel has gone. Unit attention queues themselves are C's; here is decided what goes into them.
Knows no ring, store or IU.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

UA_POWER_ON = 0x2900
UA_NEXUS_LOSS = 0x2907
UA_CAPACITY_CHANGED = 0x2A09
UA_REPORTED_LUNS_CHANGED = 0x3F0E

MAX_IDLE = 256
"""Nexuses without a channel that are remembered; the one idle for longest is forgotten first."""


def check(rc: int, what: str) -> int:
    """A native return value, or OSError with its errno."""
    if rc < 0:
        raise OSError(-rc, f"{what}: {os.strerror(-rc)}")
    return rc


class NexusChannel(Protocol):
    """What a nexus must know of a channel that belongs to it."""

    @property
    def live(self) -> bool:
        """Login has been answered, and the channel is not being stopped."""

    @property
    def stopping(self) -> bool:
        """It takes no more requests, and tasks may still be running."""


@dataclass(eq=False)
class Nexus:
    """`index` is C's. `channels` holds those that asked to log in and have not gone yet."""

    index: int
    initiator_port_id: bytes
    target_port_id: bytes
    channels: list[Any] = field(default_factory=list)
    established: bool = False

    @property
    def key(self) -> tuple[bytes, bytes]:
        return self.initiator_port_id, self.target_port_id

    def __str__(self) -> str:
        return self.initiator_port_id.hex()


class NexusRegistry:
    """Every nexus the target knows. Used by the conversation thread; `lookup` by any."""

    def __init__(self, lib: Any, target: Any, max_idle: int = MAX_IDLE) -> None:
        self._lib, self._target, self._max_idle = lib, target, max_idle
        self._known: dict[tuple[bytes, bytes], Nexus] = {}
        self._by_index: dict[int, Nexus] = {}
        self.is_registrant: Callable[[Nexus], bool] = lambda nexus: False
        self.on_known: list[Callable[[Nexus], None]] = []
        self.on_loss: list[Callable[[Nexus], None]] = []
        self.on_forgotten: list[Callable[[Nexus], None]] = []

    def __len__(self) -> int:
        return len(self._known)

    def lookup(self, index: int) -> Nexus | None:
        """The nexus with C's index; None for a blkif connection's synthetic one."""
        return self._by_index.get(index)

    def known(self) -> list[Nexus]:
        """Every nexus known now. Any thread may ask."""
        return list(self._by_index.values())

    def find(self, initiator_port_id: bytes, target_port_id: bytes) -> Nexus | None:
        return self._known.get((initiator_port_id, target_port_id))

    def enter(self, initiator_port_id: bytes, target_port_id: bytes, channel: NexusChannel) -> Nexus:
        """The channel asks to belong to this nexus. OSError (ENOSPC) if there is no room for a new one."""
        nexus = self._known.get((initiator_port_id, target_port_id))
        if nexus is None:
            index = self.new_index()
            nexus = Nexus(index, initiator_port_id, target_port_id)
            self._known[nexus.key] = nexus
            self._by_index[index] = nexus
            for hook in self.on_known:
                hook(nexus)
        nexus.channels.append(channel)
        return nexus

    def new_index(self) -> int:
        """A nexus of C's, for whoever has no port identifier. OSError (ENOSPC) if there is no room.

        One that is only remembered makes room for one that somebody wants to use.
        """
        index = self._lib.vt_nexus_add(self._target)
        if index == -errno.ENOSPC and (idle := self._idle()):
            self._forget(idle[0])
            index = self._lib.vt_nexus_add(self._target)
        return check(index, "a new nexus")

    def establish(self, nexus: Nexus) -> None:
        """A login on it is about to be answered: the unit attention that is due, if any (SAM-5 5.14, 6.3.4)."""
        if not nexus.established:
            self._attention(nexus.index, UA_POWER_ON)
        elif not any(channel.live for channel in nexus.channels):
            self._attention(nexus.index, UA_NEXUS_LOSS)
        nexus.established = True

    def lose(self, nexus: Nexus) -> None:
        """I_T nexus loss, though commands of its old channels have not ended: they do not count any more."""
        for hook in self.on_loss if nexus.established else ():
            hook(nexus)

    def leave(self, nexus: Nexus, channel: NexusChannel) -> None:
        """The channel has stopped, or its login failed. The last one to go is an I_T nexus loss, even if another waits
        to log in."""
        nexus.channels.remove(channel)
        if not any(other.live or other.stopping for other in nexus.channels):
            self.lose(nexus)
        if nexus.channels:
            return
        # Last in the list: idle for the shortest time.
        self._known[nexus.key] = self._known.pop(nexus.key)
        idle = self._idle()
        never = [n for n in idle if not n.established]
        for other in never + idle[: max(0, len(idle) - self._max_idle)]:
            self._forget(other)

    def _idle(self) -> list[Nexus]:
        """Those that may be forgotten, the one idle for longest first."""
        return [n for n in self._known.values() if not n.channels and not self.is_registrant(n)]

    def _forget(self, nexus: Nexus) -> None:
        if self._known.pop(nexus.key, None) is None:
            return
        del self._by_index[nexus.index]
        for hook in self.on_forgotten:
            hook(nexus)
        check(self._lib.vt_nexus_remove(self._target, nexus.index), "forgetting a nexus")

    def _attention(self, nexus: int, code: int, *, lu: int | None = None, besides: int | None = None) -> None:
        everyone = self._lib.VT_ALL
        rc = self._lib.vt_ua_establish(
            self._target,
            nexus,
            everyone if besides is None else besides,
            everyone if lu is None else lu,
            code,
        )
        check(rc, f"unit attention {code:04x}")

    def luns_changed(self, new_lu: int | None = None) -> None:
        """REPORTED LUNS DATA HAS CHANGED to every nexus on every LU; a new LU itself reports power on instead."""
        self._attention(self._lib.VT_ALL, UA_REPORTED_LUNS_CHANGED)
        if new_lu is not None:
            self._attention(self._lib.VT_ALL, UA_POWER_ON, lu=new_lu)

    def capacity_changed(self, lu: int, besides: int | None = None) -> None:
        """CAPACITY DATA HAS CHANGED to every nexus on that LU, but not to the one (by index) whose command did it."""
        self._attention(self._lib.VT_ALL, UA_CAPACITY_CHANGED, lu=lu, besides=besides)
