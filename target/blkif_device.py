# SPDX-License-Identifier: BSD-2-Clause
"""One vbd: a logical unit offered to a blkif initiator, with as many queues as it asks for.

Publishes Xen's nodes, hands the rings to C, and is told when a channel broke or stopped. Each connected vbd is a nexus
of its own with no port identifier. Knows no request: those are C's.
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from target.access import Access
from target.device import Device, MappedRing
from target.nexus import check
from vscsi import blkif
from vscsi.bus.xenbus import Role, XenbusMachine
from vscsi.bus.xenbus import XenbusState as State
from vscsi.errors import RemoteProtocolError
from vscsi.native import lib as shared
from vscsi.nodes import own_info

if TYPE_CHECKING:
    from target.lu import LogicalUnit
    from target.peer import Peer

log = logging.getLogger("vscsi.target")


def properties(unit: "LogicalUnit", readonly: bool) -> blkif.Properties:
    """What a blkif initiator is told of a logical unit. Sizes are bytes, `sectors` are 512 bytes."""
    info = shared.VDISK_READONLY if readonly else 0
    discard = unit.discard and not readonly
    return blkif.Properties(
        sectors=unit.blocks * unit.block_nbytes // shared.VSCSI_SECTOR_SIZE,
        sector_size=unit.block_nbytes,
        physical_sector_size=max(unit.physical_block_nbytes, unit.block_nbytes),
        info=info,
        barrier=True,
        flush=True,
        persistent=True,
        discard=discard,
        discard_granularity=unit.physical_block_nbytes if discard else 0,
    )


class BlkifDevice(Device):
    """One LU for one connection."""

    kind = "vbd"

    def __init__(self, peer: "Peer", unit: "LogicalUnit") -> None:
        super().__init__(peer, blkif.devid_of_lun(unit.lun))
        self.unit = unit
        self.limits = blkif.Limits(max_queues=self.server.options.blkif_queues)
        self.nexus: int | None = None

    @property
    def readonly(self) -> bool:
        return bool(self.unit.readonly) or self.unit.part(Access).restricted

    def offer(self) -> dict[str, str]:
        nodes = {"lun": str(self.unit.lun), **own_info("vscsi-target").nodes()}
        return {**nodes, **self.limits.nodes(), **self._properties()}

    def _properties(self) -> dict[str, str]:
        return properties(self.unit, self.readonly).nodes()

    def connect(self) -> dict[str, str]:
        request = blkif.Request.parse(self.their_nodes(), self.limits)
        connection = self.peer.connection
        rings: list[tuple[int, MappedRing]] = []
        for queue in request.queues:
            event_fd = self.event_channel(queue.port)
            ring = MappedRing(connection.mapper, queue.grefs)
            self.resources.callback(ring.close)
            rings.append((event_fd, ring))
        self.server.nexus_shares.take(connection, connection.peer.uid)
        self.resources.callback(self.server.nexus_shares.give, connection)
        self.nexus = self.server.nexuses.new_index()
        self.resources.callback(self._forget_nexus)
        for event_fd, ring in rings:
            self.add_channel(self._config(event_fd, ring, request.persistent), "channel")
        log.info("%s: connected: LUN %d, %d queue(s) of %d page(s)", self, self.unit.lun, len(rings), rings[0][1].pages)
        return self._properties()

    def _config(self, event_fd: int, ring: MappedRing, persistent: bool) -> Any:
        shown = properties(self.unit, self.readonly)
        config = self.server.ffi.new("struct vt_channel_config *")
        config.protocol = self.server.native.VT_PROTOCOL_BLKIF
        config.event_fd, config.mapper = event_fd, self.peer.connection.mapper
        config.ring, config.ring_pages = ring.address, ring.pages
        config.persistent, config.loop = int(persistent), -1
        config.nexus, config.lu, config.readonly = self.nexus, self.unit.index, int(self.readonly)
        config.max_indirect_segments = self.limits.max_indirect_segments
        config.barrier, config.flush, config.discard = int(shown.barrier), int(shown.flush), int(shown.discard)
        return config

    def _forget_nexus(self) -> None:
        nexus, self.nexus = self.nexus, None
        if nexus is not None:
            check(self.server.native.vt_nexus_remove(self.server.target, nexus), "forgetting a nexus")

    def on_iu(self, channel: int, data: bytes) -> None:
        raise RemoteProtocolError("an IU on a blkif ring")

    def on_error(self, channel: int, error: int) -> None:
        if self.stopping:
            return
        _, text = self.server.errors.get(error, (0, f"error {error}"))
        if error == self.server.native.VT_ERROR_EVENT_CHANNEL:
            self.peer_may_be_gone(lambda: self.fail(text))
        else:
            self.fail(text)

    def on_absent(self) -> None:
        """The vbd is on offer again, as it was before anybody asked for it."""
        if not self.xenbus.online:
            self.remove()
        elif self.state is not State.INIT_WAIT:
            self.xenbus = XenbusMachine(Role.TARGET)
            self.begin()

    def resized(self) -> None:
        """The LU has another size: `sectors`, and Connected once more, makes the initiator read it again."""
        self.write({**self._properties(), **({"state": self.state.node} if self.state is State.CONNECTED else {})})


class BlkifKind:
    """vbds are the target's to make: one for each LU, as soon as an initiator has connected."""

    name = BlkifDevice.kind

    def at_hello(self, peer: "Peer") -> Iterable[Device]:
        if peer.server.options.allow_initiators:
            return []  # who says no port identifier cannot have a permitted one
        return [BlkifDevice(peer, unit) for unit in peer.server.units.values() if not unit.part(Access).masked]

    def on_demand(self, peer: "Peer", devid: int) -> Device | None:
        return None
