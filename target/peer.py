# SPDX-License-Identifier: BSD-2-Clause
"""One connection: finds its devices in the store, tells them what changed, outlives its initiator until they are done.

Kinds of device come from a registry. Knows no IU and no XenBus state.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from target.access import redacted
from target.calm import Budget
from target.device import Device

if TYPE_CHECKING:
    from target.server import Server
    from vscsi.bus.local import TargetConnection

log = logging.getLogger("vscsi.target")


class Peer:
    """`vanished` once the connection is lost; memory is released when every channel has stopped."""

    def __init__(self, server: "Server", connection: "TargetConnection") -> None:
        self.server, self.connection = server, connection
        self.devices: dict[tuple[str, int], Device] = {}
        self.vanished = False
        self.budget = Budget()
        self.resting = False
        """It has had its turn and is not listened to before the next."""
        self._dirty: dict[tuple[str, str], None] = {}
        connection.on_hello = self._hello
        connection.watch("device", self._changed)

    def __str__(self) -> str:
        return f"initiator {self.connection.domid} (pid {self.connection.peer.pid})"

    def _hello(self) -> None:
        for op, handler in self.server.requests.items():
            self.connection.on_request(op, partial(self._answer, handler))
        uid = self.connection.peer.uid
        self.connection.on_request("admin", lambda fields: self.server.admin.ask(uid, fields))
        self.connection.on_request("admin-result", lambda fields: self.server.admin.result(uid, fields))
        for kind in self.server.kinds.values():
            for device in kind.at_hello(self):
                self.devices[kind.name, device.devid] = device
                device.begin()

    def _answer(self, ask: Callable[[dict[str, Any]], dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
        return redacted(self, ask(fields))

    def _changed(self, path: str) -> None:
        parts = path.split("/")
        if len(parts) > 2:
            self._dirty[parts[1], parts[2]] = None

    def process(self) -> bool:
        """Reads what the initiator sent and lets the devices concerned look at it. False: it is gone."""
        alive = self.connection.process()
        dirty, self._dirty = self._dirty, {}
        for kind, name in dirty:
            device = self._find(kind, name)
            if device is not None:
                device.look()
        return alive

    def _find(self, kind: str, name: str) -> Device | None:
        maker = self.server.kinds.get(kind)
        if maker is None or not name.isascii() or not name.isdigit() or str(int(name[:12])) != name:
            return None
        devid = int(name)
        device = self.devices.get((kind, devid))
        if device is None and self.connection.store.children(f"device/{kind}/{name}"):
            device = maker.on_demand(self, devid)
            if device is not None:
                self.devices[kind, devid] = device
                device.begin()
        return device

    def forget(self, device: Device) -> None:
        """The device is over: its nodes go."""
        if self.devices.pop((device.kind, device.devid), None) is not None and not self.vanished:
            self.connection.write({device.path: None})

    def vanish(self) -> None:
        """The connection is lost: everything stops."""
        if self.vanished:
            return
        self.vanished = True
        self.server.unwatch(self)
        if self.devices:
            log.info("%s: gone", self)
        for device in list(self.devices.values()):
            device.vanish()
        self.released()

    def released(self) -> None:
        """A device has let go of everything; after the last, so do we."""
        if self.vanished and not any(device.channels for device in self.devices.values()):
            self.connection.close()
            self.connection.release()
            self.server.peers.discard(self)
            self.server.somebody()
