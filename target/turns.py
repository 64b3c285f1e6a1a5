# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is on the conversation thread: each connection that has something to say has one, then the next.

A turn is bounded (`vscsi.bus.local_target`), and so is what all turns of one connection take of the thread's time: who
has had more rests, and the others do not notice him. Knows sockets and time; must not know what is said.
"""

import logging
import selectors
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from target.peer import Peer

log = logging.getLogger("vscsi.target")


class Turns:
    """`later(seconds, function)` is how a rest ends. One thread."""

    def __init__(self, selector: selectors.BaseSelector, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._selector, self._later = selector, later
        self._unfinished: list[Peer] = []

    def take_unfinished(self) -> "list[Peer]":
        """Those who were not finished with their last turn, or have rested: theirs comes after everybody else's."""
        unfinished, self._unfinished = self._unfinished, []
        return unfinished

    def watch(self, peer: "Peer") -> None:
        """Listens to a connection unless it rests, and waits for room for what is to be sent to it."""
        connection = peer.connection
        if connection.closed or peer.vanished:
            return
        wanted = selectors.EVENT_READ * (not peer.resting) | selectors.EVENT_WRITE * connection.want_write
        key = self._selector.get_map().get(connection)
        if key is not None and wanted:
            if key.events != wanted:
                self._selector.modify(connection, wanted, key.data)
        elif key is not None:
            self._selector.unregister(connection)
        elif wanted:
            self._selector.register(connection, wanted, lambda mask: self._ready(peer, mask))

    def _ready(self, peer: "Peer", mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            peer.connection.flush()
        if mask & selectors.EVENT_READ:
            self.serve(peer)

    def serve(self, peer: "Peer") -> None:
        """One turn, unless it rests: hears what the connection has to say; notices that it is gone."""
        if peer.vanished or peer.resting:
            return
        began = time.thread_time()
        try:
            alive = peer.process()
        except Exception:
            # Our bug. The connection it hit is over, the others keep being served.
            log.exception("%s: internal error", peer)
            alive = False
        if not alive:
            peer.vanish()
            return
        pause = peer.budget.spend(time.thread_time() - began)
        peer.resting = pause > 0 or peer.connection.waiting
        if pause:
            self._later(pause, lambda: self._unfinished.append(peer))
        elif peer.resting:
            self._unfinished.append(peer)

    def again(self, peer: "Peer") -> None:
        """Its next turn, after a rest or after everybody else's."""
        peer.resting = False
        self.serve(peer)
