# SPDX-License-Identifier: BSD-2-Clause
"""Who may use what: patterns of initiator port identifiers, and what one logical unit is to each nexus.

A unit with a mask does not exist for the ports that it does not name; to others it may be read-only. The native core
enforces both; here is decided who is who. A blkif connection has no port identifier, so no pattern ever fits it.
Must not know rings, commands or how the user says it.
"""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from target.part import Nexus, Part, part

if TYPE_CHECKING:
    from target.lu import LogicalUnit
    from target.peer import Peer

PORT_DIGITS = 32
_PATTERN = re.compile(r"[0-9a-f*?]+")


def port_pattern(text: str) -> str:
    """An initiator port identifier in hex, the beginning of one, or one with * and ?. ValueError."""
    pattern = text.lower().removeprefix("0x")
    if not _PATTERN.fullmatch(pattern) or len(pattern.replace("*", "")) > PORT_DIGITS:
        raise ValueError(f"'{text}' is not an initiator port identifier: up to {PORT_DIGITS} hex digits, * and ?")
    exact = len(pattern) == PORT_DIGITS or "*" in pattern
    return pattern if exact else pattern + "*"


def port_patterns(text: str) -> tuple[str, ...]:
    """Several, with + between them. ValueError."""
    return tuple(port_pattern(word) for word in text.split("+"))


def fits(port_id: bytes, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns is about this port."""
    return any(fnmatchcase(bytes(port_id).hex(), pattern) for pattern in patterns)


@part
class Access(Part):
    """What the unit is to whom. Nexuses by index; one that is not known has no port, as a blkif connection's."""

    start_rank = -1

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._ports: dict[int, bytes] = {}

    @property
    def masked(self) -> bool:
        """Whether the unit exists for some only: it is offered to no blkif connection."""
        return self.unit.spec.initiators is not None

    @property
    def restricted(self) -> bool:
        """Whether some may only read it: to a blkif connection, which cannot say who it is, it is read-only."""
        return self.unit.spec.ro_initiators is not None

    def allows(self, port_id: bytes) -> bool:
        """Whether the unit exists for an initiator port."""
        mask = self.unit.spec.initiators
        return mask is None or fits(port_id, mask)

    def hidden(self, nexus: int) -> bool:
        """Whether it does not exist for this nexus."""
        port_id = self._ports.get(nexus)
        return self.masked and (port_id is None or not self.allows(port_id))

    def readonly(self, nexus: int) -> bool:
        """Whether this nexus may not write, whatever others may."""
        port_id = self._ports.get(nexus)
        return self.restricted and (port_id is None or fits(port_id, self.unit.spec.ro_initiators or ()))

    def start(self) -> None:
        device = self.unit.device
        if device is not None and (self.masked or self.restricted):
            device.access(self.unit, None, hidden=self.masked, readonly=self.restricted)

    def nexus_known(self, nexus: Nexus) -> None:
        self._ports[nexus.index] = bytes(nexus.initiator_port_id)
        device = self.unit.device
        if device is not None and (self.masked or self.restricted):
            hidden, readonly = self.hidden(nexus.index), self.readonly(nexus.index)
            device.access(self.unit, nexus.index, hidden=hidden, readonly=readonly)

    def nexus_forgotten(self, nexus: Nexus) -> None:
        self._ports.pop(nexus.index, None)


def redacted(peer: "Peer", answer: dict[str, Any]) -> dict[str, Any]:
    """What a connection may know of an answer of `target.report`: other users' initiators, and units masked from its
    own, are left out. The target's owner and root see everything."""
    from target.srp_device import SrpDevice

    uid = peer.connection.peer.uid
    if uid in (0, os.geteuid()):
        return answer
    ports = [
        device.nexus.initiator_port_id
        for device in peer.devices.values()
        if isinstance(device, SrpDevice) and device.nexus is not None
    ]
    units = {lun: unit.part(Access) for lun, unit in peer.server.units.items()}
    seen = {lun for lun, access in units.items() if not access.masked or any(map(access.allows, ports))}
    domids = {other.connection.domid for other in peer.server.peers if other.connection.peer.uid == uid}
    shown = {"luns": lambda row: row["lun"] in seen}
    shown |= dict.fromkeys(("initiators", "channels"), lambda row: row["domid"] in domids)
    return {key: [row for row in value if shown[key](row)] if key in shown else value for key, value in answer.items()}
