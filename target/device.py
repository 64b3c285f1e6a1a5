# SPDX-License-Identifier: BSD-2-Clause
"""The target's end of one XenBus device: does what the states ask for, stops channels before anything is taken away.

Which step follows from which states is vscsi.bus.xenbus's table. Kinds of device add what they publish, how they
connect, and what is said when a channel has stopped.
Knows no SRP and no blkif, and no socket: it is called when the initiator's nodes or the channels change.
"""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

from target.nexus import check
from vscsi.bus.errors import BusError
from vscsi.bus.xenbus import Action, Role, Step, XenbusMachine
from vscsi.bus.xenbus import XenbusState as State
from vscsi.errors import RemoteProtocolError
from vscsi.native import ffi as shared_ffi
from vscsi.native import lib as shared

if TYPE_CHECKING:
    from target.peer import Peer

log = logging.getLogger("vscsi.target")

LAST_WORDS_SECONDS = 0.1
"""How much longer than its event channels the connection of a dead initiator may last."""


class MappedRing:
    """A ring's pages as we see them, in use until closed. Raises RemoteProtocolError if they are not granted."""

    def __init__(self, mapper: Any, grefs: tuple[int, ...]) -> None:
        self._mapper, self._grefs = mapper, shared_ffi.new("uint32_t[]", list(grefs))
        address = shared_ffi.new("uint8_t **")
        rc = shared.vscsi_mapper_map_ring(mapper, self._grefs, len(grefs), address)
        if rc < 0:
            raise RemoteProtocolError(f"ring reference {grefs[0]} cannot be mapped: {os.strerror(-rc)}")
        self.address, self.pages = address[0], len(grefs)

    def close(self) -> None:
        shared.vscsi_mapper_unmap_ring(self._mapper, self._grefs, self.pages, self.address)


class Device:
    """One device of one connection. `channels` are C's ids of the rings that are being served."""

    kind: ClassVar[str]

    def __init__(self, peer: "Peer", devid: int) -> None:
        self.peer, self.server, self.devid = peer, peer.server, devid
        self.path = f"backend/{self.kind}/{devid}"
        self.their_path = f"device/{self.kind}/{devid}"
        self.xenbus = XenbusMachine(Role.TARGET)
        self.channels: set[int] = set()
        self.stopping = False
        self.error: str | None = None
        self.resources = ExitStack()
        self._ending = False
        self._after_stop: State | None = None
        self._seen: str | None = None
        self._running: set[int] = set()
        self._connections = 0

    def __str__(self) -> str:
        return f"{self.peer} {self.kind}/{self.devid}"

    # ---- what a kind of device adds ----

    def offer(self) -> dict[str, str]:
        """Nodes published with InitWait."""
        raise NotImplementedError

    def connect(self) -> dict[str, str]:
        """Reads the initiator's nodes, maps, adds channels; nodes published with Connected.

        Raises RemoteProtocolError, BusError or OSError; what was added by then is stopped and taken back.
        """
        raise NotImplementedError

    def on_iu(self, channel: int, data: bytes) -> None:
        """An IU that C does not handle."""
        raise NotImplementedError

    def on_error(self, channel: int, error: int) -> None:
        """The peer broke the protocol on that channel."""
        raise NotImplementedError

    def on_stopped(self) -> None:
        """No channel takes or answers requests any more; rings are still mapped."""

    def on_removed(self) -> None:
        """C has forgotten the channels: no task of theirs is left."""

    def on_absent(self) -> None:
        """The initiator has taken its device out of the store, and nothing is connected."""
        self.remove()

    # ---- the conversation ----

    @property
    def state(self) -> State:
        return self.xenbus.state

    def begin(self) -> None:
        """Publishes the device for the first time."""
        self._take(self.xenbus.begin())

    def look(self) -> None:
        """Something in the initiator's half has changed."""
        if self.peer.vanished:
            return
        text = self.peer.connection.store.get(f"{self.their_path}/state")
        if text != self._seen:
            self._seen = text
            try:
                self._take(self.xenbus.peer_wrote(text))
            except RemoteProtocolError as error:
                self.fail(str(error))
        if text is None and not self.channels and not self.peer.connection.store.children(self.their_path):
            self.on_absent()

    def write(self, nodes: Mapping[str, str | None]) -> None:
        """Publishes nodes below this device in one transaction, unless nobody is there to read them."""
        if not self.peer.vanished:
            self.peer.connection.write({f"{self.path}/{name}": value for name, value in nodes.items()})

    def enter(self, state: State, nodes: Mapping[str, str | None] | None = None) -> None:
        """We are in `state` now: says so, with `nodes`, and takes the step that follows."""
        step = self.xenbus.enter(state)
        self.write({**(nodes or {}), "state": state.node})
        if state is State.CLOSED and not self.xenbus.online:
            self.remove()
            return
        self._take(step)

    def their_nodes(self) -> dict[str, str]:
        """The initiator's nodes, by path below its device."""
        prefix = f"{self.their_path}/"
        tree = self.peer.connection.store.subtree(self.their_path)
        return {path.removeprefix(prefix): value for path, value in tree.items() if path.startswith(prefix)}

    def _take(self, step: Step | None) -> None:
        if step is not None:
            _STEPS[step.action](self, step)

    def _prepare(self, step: Step) -> None:
        self.error = None
        nodes = {"frontend": self.their_path, "frontend-id": str(self.peer.connection.domid), "online": "1"}
        self.enter(State.INIT_WAIT, {**nodes, **self.offer(), "error": None})

    def _connect(self, step: Step) -> None:
        self._connections += 1
        try:
            nodes = self.connect()
        except KeyError as error:
            self.fail(f"event channel {error} does not exist")
        except (RemoteProtocolError, BusError, OSError) as error:
            self.fail(str(error))
        else:
            self.enter(State.CONNECTED, nodes)

    def _disconnect(self, step: Step) -> None:
        assert step.next is not None
        if self.channels:
            self._after_stop = step.next
            self.stop_channels()
        else:
            self.enter(step.next)

    def _close(self, step: Step) -> None:
        # Requests are still served: the initiator may be in use and refuse to close yet.
        self._after_stop = None
        self.enter(State.CLOSING)

    def fail(self, text: str) -> None:
        """The peer's fault ends this device, and nothing else: one log line, an `error` node, Closing."""
        if self.error is not None or self.peer.vanished:
            return
        self.error = text[:200]
        connection = self.peer.connection
        connection.complaints.say(connection.peer.uid, log, "%s: %s", self, text)
        self.end()

    def peer_may_be_gone(self, otherwise: Callable[[], None]) -> None:
        """A closed event channel mostly means that the initiator has died: then that alone is told.

        The kernel closes a dead process's descriptors one by one; the connection may be the last.
        """
        self.server.turns.serve(self.peer)
        connected = self._connections

        def judge() -> None:
            if not self.peer.vanished and not self.stopping and self._connections == connected:
                otherwise()

        self.server.later(LAST_WORDS_SECONDS, judge)

    def end(self) -> None:
        """Ends the device from our side: stops its channels, then Closing."""
        self._ending = True
        if self.channels:
            self.stop_channels()
        else:
            self._ended()

    def request_close(self) -> None:
        """Asks the initiator to close (Xen's unplug); a device in use stays in service until it does."""
        self.xenbus.online = False
        if not self.channels:
            self.remove()
        elif self.state is State.CONNECTED:
            self.enter(State.CLOSING, {"online": "0"})
        else:
            self.write({"online": "0"})

    def _ended(self) -> None:
        """No channel is left: takes the rings back and says what is due."""
        self.resources.close()
        ending, self._ending = self._ending, False
        after, self._after_stop = self._after_stop, None
        nodes = {"error": self.error} if self.error else {}
        if ending and self.state not in (State.CLOSING, State.CLOSED):
            self.enter(State.CLOSING, nodes)
            return
        if nodes:
            self.write(nodes)
        if after is not None:
            self.enter(after)

    def remove(self) -> None:
        """Takes the device out of the store. It has no channels any more."""
        self.peer.forget(self)

    # ---- channels ----

    def event_channel(self, port: int) -> int:
        """Our end of a channel of the peer, for us alone while the device is connected. KeyError, BusError."""
        fd = self.peer.connection.event_channel(port)
        self.resources.callback(self.peer.connection.close_event_channel, port)
        return int(fd)

    def add_channel(self, config: Any, what: str) -> int:
        """Hands a ring to C. OSError, LimitError."""
        connection = self.peer.connection
        self.server.channel_shares.take(connection, connection.peer.uid)
        channel = self.server.native.vt_channel_add(self.server.target, config)
        if channel < 0:
            self.server.channel_shares.give(connection)
            raise OSError(-channel, f"{what}: {os.strerror(-channel)}")
        self.channels.add(channel)
        self.server.channels[channel] = self
        return int(channel)

    def stop_channels(self) -> None:
        """C takes no more requests and ends what runs; VT_EVENT_STOPPED of each channel comes to `stopped`."""
        if self.stopping:
            return
        self.stopping = True
        self._running = set(self.channels)
        for channel in self.channels:
            self.server.native.vt_channel_stop(self.server.target, channel)

    def stopped(self, channel: int) -> None:
        """VT_EVENT_STOPPED. After the last, everything is taken back, in order: channels, rings, and the word."""
        self._running.discard(channel)
        if self._running:
            return
        self.on_stopped()
        for other in sorted(self.channels):
            check(self.server.native.vt_channel_remove(self.server.target, other), "removing a channel")
            self.server.channels.pop(other, None)
            self.server.channel_shares.give(self.peer.connection)
        self.channels.clear()
        self.stopping = False
        self.on_removed()
        if self.peer.vanished:
            self.resources.close()
            self.peer.released()
            return
        self._ended()
        self.look()

    def vanish(self) -> None:
        """The connection is lost."""
        if self.channels:
            self.stop_channels()
        else:
            self.resources.close()


_STEPS: dict[Action, Callable[[Device, Step], None]] = {
    Action.PREPARE: Device._prepare,
    Action.CONNECT: Device._connect,
    Action.RECONNECT: Device._disconnect,
    Action.DISCONNECT: Device._disconnect,
    Action.CLOSE: Device._close,
}
