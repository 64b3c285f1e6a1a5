# SPDX-License-Identifier: BSD-2-Clause
"""The XenBus states of one device, both ends, sans-IO: what to do next, given our state and the peer's.

One table per role, the same for SRP and blkif. Knows no store, ring or time. An end writes its state only when it has
done what the step asks for, so a step may take as long as it needs; states the peer passes through may be missed.
Source: Xen public io/xenbus.h for the states, io/blkif.h for start-up, shutdown and reconnection.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

from vscsi.errors import LocalProtocolError, RemoteProtocolError
from vscsi.native import lib


class XenbusState(IntEnum):
    """Values of the `state` node."""

    UNKNOWN = lib.XENBUS_UNKNOWN
    INITIALISING = lib.XENBUS_INITIALISING
    INIT_WAIT = lib.XENBUS_INIT_WAIT
    INITIALISED = lib.XENBUS_INITIALISED
    CONNECTED = lib.XENBUS_CONNECTED
    CLOSING = lib.XENBUS_CLOSING
    CLOSED = lib.XENBUS_CLOSED
    RECONFIGURING = lib.XENBUS_RECONFIGURING
    RECONFIGURED = lib.XENBUS_RECONFIGURED

    @classmethod
    def parse(cls, text: str | None) -> "XenbusState":
        """The state a node holds; UNKNOWN if there is none. RemoteProtocolError."""
        if text is None:
            return cls.UNKNOWN
        if len(text) != 1 or text not in "012345678":
            raise RemoteProtocolError(f"node state is no XenBus state: {text[:32]!a}")
        return cls(int(text))

    @property
    def node(self) -> str:
        """What to write into the `state` node."""
        return str(int(self))


class Role(Enum):
    """Which end of the device we are."""

    INITIATOR = "initiator"
    TARGET = "target"


class Action(Enum):
    """What a step asks the device to do, before it enters the step's state."""

    PREPARE = "target: publish limits"
    PUBLISH = "initiator: make and grant rings, ask for event channels, publish them"
    CONNECT = "target: map the rings and publish properties; initiator: read them and begin"
    RECONNECT = "target: unmap the old rings, for the initiator has published new ones"
    UPDATE = "initiator: read the properties again, something has changed (a resize)"
    CLOSE = "take no new requests; the peer wants to close, or has"
    FINISH = "initiator: finish or fail what is outstanding; may wait until the device is no longer in use"
    DISCONNECT = "target: let outstanding requests end, unmap the rings"
    RELEASE = "initiator: the target has unmapped everything: revoke grants, free the rings"
    LOST = "initiator: the target's end of the device is gone: fail what is outstanding, free the rings"


@dataclass(frozen=True)
class Step:
    """Do `action`, then `enter(next)` and write that; no state to enter if `next` is None."""

    action: Action
    next: XenbusState | None


_S = XenbusState
_PREPARE = Step(Action.PREPARE, _S.INIT_WAIT)
_CONNECT = Step(Action.CONNECT, _S.CONNECTED)
_RECONNECT = Step(Action.RECONNECT, _S.INIT_WAIT)
_CLOSE = Step(Action.CLOSE, _S.CLOSING)
_DISCONNECT = Step(Action.DISCONNECT, _S.CLOSED)
_PUBLISH = Step(Action.PUBLISH, _S.INITIALISED)
_FINISH = Step(Action.FINISH, _S.CLOSED)
_LOST = Step(Action.LOST, _S.CLOSED)
_UPDATE = Step(Action.UPDATE, None)
_RELEASE = Step(Action.RELEASE, None)

# (our state, the peer's) -> step. What is not here is a matter of waiting.
_STEPS: dict[Role, dict[tuple[XenbusState, XenbusState], Step]] = {
    Role.TARGET: {
        (_S.INITIALISING, _S.UNKNOWN): _PREPARE,
        (_S.INITIALISING, _S.INITIALISING): _PREPARE,
        (_S.INITIALISING, _S.INITIALISED): _PREPARE,  # an initiator need not wait for our limits
        (_S.INIT_WAIT, _S.INITIALISED): _CONNECT,
        (_S.INIT_WAIT, _S.CONNECTED): _CONNECT,
        (_S.INIT_WAIT, _S.CLOSING): _CLOSE,
        (_S.INIT_WAIT, _S.CLOSED): _DISCONNECT,
        (_S.CONNECTED, _S.CLOSING): _CLOSE,
        (_S.CONNECTED, _S.CLOSED): _DISCONNECT,
        (_S.CONNECTED, _S.UNKNOWN): _DISCONNECT,
        (_S.CONNECTED, _S.INITIALISING): _DISCONNECT,
        (_S.CLOSING, _S.CLOSED): _DISCONNECT,
        (_S.CLOSING, _S.UNKNOWN): _DISCONNECT,
        (_S.CLOSING, _S.INITIALISING): _DISCONNECT,
        (_S.CLOSED, _S.INITIALISING): _PREPARE,
    },
    Role.INITIATOR: {
        (_S.INITIALISING, _S.INIT_WAIT): _PUBLISH,
        (_S.INITIALISED, _S.CONNECTED): _CONNECT,
        (_S.INITIALISED, _S.CLOSING): _CLOSE,
        (_S.INITIALISED, _S.CLOSED): _CLOSE,
        (_S.INITIALISED, _S.UNKNOWN): _LOST,
        (_S.CONNECTED, _S.CLOSING): _CLOSE,
        (_S.CONNECTED, _S.CLOSED): _CLOSE,
        (_S.CONNECTED, _S.INIT_WAIT): _LOST,
        (_S.CONNECTED, _S.UNKNOWN): _LOST,
        (_S.CLOSING, _S.CLOSING): _FINISH,
        (_S.CLOSING, _S.CLOSED): _FINISH,
        (_S.CLOSING, _S.INIT_WAIT): _FINISH,
        (_S.CLOSING, _S.UNKNOWN): _LOST,
        (_S.CLOSED, _S.CLOSED): _RELEASE,
    },
}

# Steps that hang on the change, not on the states alone: (our state, the peer's before, the peer's now).
_CHANGES: dict[Role, dict[tuple[XenbusState, XenbusState, XenbusState], Step]] = {
    Role.TARGET: {
        # The initiator was suspended and has published new rings without closing the old ones.
        (_S.CONNECTED, _S.CONNECTED, _S.INITIALISED): _RECONNECT,
    },
    Role.INITIATOR: {
        (_S.CONNECTED, _S.CONNECTED, _S.CONNECTED): _UPDATE,
        # Refused. After any other state these only mean that the target has not yet seen us begin again.
        (_S.INITIALISING, _S.UNKNOWN, _S.CLOSING): _LOST,
        (_S.INITIALISING, _S.UNKNOWN, _S.CLOSED): _LOST,
        (_S.INITIALISING, _S.INIT_WAIT, _S.CLOSING): _LOST,
        (_S.INITIALISING, _S.INIT_WAIT, _S.CLOSED): _LOST,
    },
}

_END = {_S.CLOSING, _S.CLOSED}

# Where each role may go from each state.
_MOVES: dict[Role, dict[XenbusState, set[XenbusState]]] = {
    Role.TARGET: {
        _S.INITIALISING: {_S.INIT_WAIT} | _END,
        _S.INIT_WAIT: {_S.CONNECTED} | _END,
        _S.CONNECTED: {_S.CONNECTED, _S.INIT_WAIT} | _END,
        _S.CLOSING: {_S.CLOSED},
        _S.CLOSED: {_S.INIT_WAIT},
    },
    Role.INITIATOR: {
        _S.INITIALISING: {_S.INITIALISED} | _END,
        _S.INITIALISED: {_S.INITIALISED, _S.CONNECTED} | _END,
        _S.CONNECTED: {_S.INITIALISED} | _END,
        _S.CLOSING: {_S.CLOSED},
        _S.CLOSED: {_S.INITIALISING},
    },
}


class XenbusMachine:
    """One device, seen from one end. Both begin in INITIALISING.

    Each method returns the step to take now, or None to wait. A step is asked for once; a later one replaces it. Also
    of our own will a device may enter CLOSING at any time, CLOSED after a failure, CONNECTED again to announce new
    properties (target), INITIALISED with new rings after a resume (initiator), INITIALISING once CLOSED (initiator).
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = XenbusState.INITIALISING
        self.peer = XenbusState.UNKNOWN
        self.online = True
        """Target: False when the device goes away for good: CLOSED, it serves no initiator that begins again.

        Publish it as the node `online`.
        """
        self._asked: Step | None = None
        # Resumed with new rings: what the target said of the old ones, CONNECTED, means nothing any more.
        self._resumed = False

    def begin(self) -> Step | None:
        """The first step, before the peer has said anything."""
        return self._ask(_STEPS[self.role].get((self.state, self.peer)))

    def peer_wrote(self, text: str | None) -> Step | None:
        """The peer's `state` node was written (None: removed). RemoteProtocolError if it holds no state."""
        before, self.peer = self.peer, XenbusState.parse(text)
        self._resumed = self._resumed and self.peer is XenbusState.CONNECTED
        if self._resumed:
            return None
        change = _CHANGES[self.role].get((self.state, before, self.peer))
        return self._ask(change or _STEPS[self.role].get((self.state, self.peer)))

    def enter(self, state: XenbusState) -> Step | None:
        """We are in `state` now; write `state.node`. LocalProtocolError if this role cannot go there from here."""
        if state not in _MOVES[self.role].get(self.state, ()):
            raise LocalProtocolError(f"{self.role.value} cannot go from {self.state.name} to {state.name}")
        self._resumed = self.state is XenbusState.CONNECTED and state is XenbusState.INITIALISED
        self.state = state
        self._asked = None
        if self._resumed:
            return None
        return self._ask(_STEPS[self.role].get((self.state, self.peer)))

    def _ask(self, step: Step | None) -> Step | None:
        if step is _PREPARE and self.state is XenbusState.CLOSED and not self.online:
            return None
        if step is None or (step == self._asked and step is not _UPDATE):
            return None
        self._asked = step
        return step
