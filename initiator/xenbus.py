# SPDX-License-Identifier: BSD-2-Clause
"""Our end of one XenBus device in the store: publishes, waits for the step that is due, hears of later ones.

The states are vscsi.bus.xenbus's. Knows the store and the connection; knows neither SRP nor blkif.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from initiator.errors import ConnectError
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.xenbus import Action, Role, Step, XenbusMachine, XenbusState
from vscsi.errors import RemoteProtocolError
from vscsi.nodes import text

log = logging.getLogger("vscsi.initiator")

_CLOSING_OR_CLOSED = frozenset({XenbusState.CLOSING, XenbusState.CLOSED})
_ENDS = frozenset({Action.CLOSE, Action.FINISH, Action.LOST})


class Device:
    """`device/<kind>/<devid>`. After `follow`, later steps go to a callback in the bus's thread."""

    def __init__(self, connection: InitiatorConnection, kind: str, devid: int) -> None:
        self.connection = connection
        self.name = f"{kind}/{devid}"
        self.path, self.peer_path = f"device/{self.name}", f"backend/{self.name}"
        self.machine = XenbusMachine(Role.INITIATOR)
        self._lock = threading.RLock()
        self._step: Step | None = None
        self._broken: str | None = None
        self._on_step: Callable[[Step], None] | None = None
        connection.watch(self.peer_path, self._changed)

    @property
    def state(self) -> XenbusState:
        return self.machine.state

    def nodes(self) -> dict[str, str]:
        """What the target has published, by path below its directory."""
        return self.connection.store.below(self.peer_path)

    def begin(self, nodes: Mapping[str, str]) -> None:
        """Creates the device in the store: Initialising."""
        with self._lock:
            # The watch may have told of what the target published already, or may be about to: a step stays.
            self._step = self.machine.begin() or self._step
            self._write({**nodes, "state": self.machine.state.node})
        if "state" in self.nodes():
            self._changed(f"{self.peer_path}/state")

    def enter(self, state: XenbusState, nodes: Mapping[str, str | None] | None = None) -> None:
        """Publishes nodes and a state in one transaction."""
        with self._lock:
            step = self.machine.enter(state)
            self._step = step
            self._write({**(nodes or {}), "state": state.node})
        if step is not None:
            self._tell(step)

    def end(self, state: XenbusState) -> None:
        """Enters CLOSING or CLOSED, unless the device is there already or past it.

        Our own wish to close and the target's may come at once, in two threads.
        """
        past = {XenbusState.CLOSING: _CLOSING_OR_CLOSED, XenbusState.CLOSED: {XenbusState.CLOSED}}[state]
        with self._lock:
            if self.state not in past:
                self.enter(state)

    def expect(self, action: Action, timeout: float) -> None:
        """Returns when that step is due. ConnectError: the target closes the device, breaks the rules, or is silent."""

        def due() -> bool:
            return self._broken is not None or (
                self._step is not None and (self._step.action is action or self._step.action in _ENDS)
            )

        try:
            self.connection.wait_for(due, timeout, f"{self.name} ({action.name.lower()})")
        except BusError as error:
            raise ConnectError(str(error)) from error
        if self._broken is not None:
            raise ConnectError(f"{self.name}: {self._broken}")
        if self._step is None or self._step.action is not action:
            why = text(self.nodes(), "error", "no reason given")
            raise ConnectError(f"the target closes {self.name}: {why}")

    def follow(self, on_step: Callable[[Step], None] | None) -> None:
        """From now on, steps go there."""
        self._on_step = on_step

    def remove(self) -> None:
        """Takes the device out of the store."""
        self._on_step = None
        self.connection.unwatch(self.peer_path, self._changed)
        self.connection.write({self.path: None})

    def _write(self, nodes: Mapping[str, str | None]) -> None:
        self.connection.write({f"{self.path}/{name}": value for name, value in nodes.items()})

    def _changed(self, path: str) -> None:
        if path not in (f"{self.peer_path}/state", self.peer_path):
            return
        with self._lock:
            try:
                step = self.machine.peer_wrote(self.connection.store.get(f"{self.peer_path}/state"))
            except RemoteProtocolError as error:
                self._broken = str(error)
                return
            if step is not None:
                self._step = step
        if step is not None:
            self._tell(step)

    def _tell(self, step: Step) -> None:
        if self._on_step is not None:
            self._on_step(step)
