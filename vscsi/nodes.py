# SPDX-License-Identifier: BSD-2-Clause
"""Store nodes that both devices share: bounded numbers, ring references, who is at the other end; and SRP's own.

A device's nodes are a plain mapping from path below its directory to text. What the peer wrote is checked here and
comes out as numbers within bounds, or RemoteProtocolError says which node is wrong.
Knows no store, socket or ring; knows nothing of states.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from vscsi import __version__
from vscsi.errors import RemoteProtocolError
from vscsi.native import lib

Nodes = Mapping[str, str]

MAX_GREF = (1 << 32) - 1
MAX_PORT = (1 << 32) - 1
MAX_TEXT = 64


def number(nodes: Nodes, name: str, low: int, high: int, default: int | None = None) -> int:
    """A decimal node within low..high. Raises RemoteProtocolError; without a default also when it is missing."""
    text = nodes.get(name)
    if text is None:
        if default is None:
            raise RemoteProtocolError(f"node {name} is missing")
        return default
    # Xen's numbers are decimal text. int() would also take signs, spaces, underscores and other scripts' digits.
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise RemoteProtocolError(f"node {name} is no decimal number: {text[:MAX_TEXT]!r}")
    value = int(text)
    if not low <= value <= high:
        raise RemoteProtocolError(f"node {name} is {value}, not within {low} to {high}")
    return value


def flag(nodes: Nodes, name: str) -> bool:
    """A 0/1 node; missing is 0."""
    return number(nodes, name, 0, 1, 0) == 1


def text(nodes: Nodes, name: str, default: str = "") -> str:
    """Words of the peer, safe to log: printable ASCII, at most 64 characters."""
    raw = nodes.get(name, default)[:MAX_TEXT]
    return "".join(c if " " <= c <= "~" else "?" for c in raw)


def hex_bytes(nodes: Nodes, name: str, nbytes: int) -> bytes:
    """A node of exactly `nbytes` bytes in hex."""
    raw = nodes.get(name, "")
    try:
        value = bytes.fromhex(raw)
    except ValueError:
        value = b""
    if len(value) != nbytes or len(raw) != 2 * nbytes:
        raise RemoteProtocolError(f"node {name} is not {nbytes} bytes in hex")
    return value


# ---- rings ----


@dataclass(frozen=True)
class RingNodes:
    """One ring as its owner publishes it: grant references in page order, and the port of its event channel."""

    grefs: tuple[int, ...]
    port: int

    def nodes(self, prefix: str = "") -> dict[str, str]:
        """Xen's spelling: `ring-ref` for one page, `ring-ref0..N-1` for more. Without ring-page-order."""
        if len(self.grefs) == 1:
            out = {f"{prefix}ring-ref": str(self.grefs[0])}
        else:
            out = {f"{prefix}ring-ref{k}": str(gref) for k, gref in enumerate(self.grefs)}
        out[f"{prefix}event-channel"] = str(self.port)
        return out

    @classmethod
    def parse(cls, nodes: Nodes, pages: int, prefix: str = "") -> "RingNodes":
        """Raises RemoteProtocolError: a reference is missing, out of range, or stands twice."""
        if pages == 1 and f"{prefix}ring-ref" in nodes:
            names = [f"{prefix}ring-ref"]
        else:
            names = [f"{prefix}ring-ref{k}" for k in range(pages)]
        grefs = tuple(number(nodes, name, lib.VSCSI_GREF_RESERVED, MAX_GREF) for name in names)
        if len(set(grefs)) != len(grefs):
            raise RemoteProtocolError(f"node {names[0]}: a page stands twice in the ring")
        return cls(grefs, number(nodes, f"{prefix}event-channel", 1, MAX_PORT))


def order_nodes(pages: int) -> dict[str, str]:
    """`ring-page-order`, which is written only when it is not 0."""
    order = pages.bit_length() - 1
    return {"ring-page-order": str(order)} if order else {}


def ring_pages(nodes: Nodes, max_order: int) -> int:
    """Pages of a ring: from `ring-page-order`, or the older `num-ring-pages`, which must be a power of two here."""
    if "ring-page-order" in nodes or "num-ring-pages" not in nodes:
        return 1 << number(nodes, "ring-page-order", 0, max_order, 0)
    pages = number(nodes, "num-ring-pages", 1, 1 << max_order)
    if pages & (pages - 1):
        raise RemoteProtocolError(f"node num-ring-pages is {pages}, not a power of two")
    return pages


# ---- who is at the other end, as IBM's adapter-info message tells ----


@dataclass(frozen=True)
class PeerInfo:
    """`max_transfer_nbytes`: the largest transfer of one command that this end allows; 0 if it does not say."""

    name: str
    version: str
    os: str
    max_transfer_nbytes: int

    def nodes(self) -> dict[str, str]:
        return {
            "name": self.name,
            "version": self.version,
            "os": self.os,
            "max-transfer": str(self.max_transfer_nbytes),
        }

    @classmethod
    def parse(cls, nodes: Nodes) -> "PeerInfo":
        """Never refuses words; raises RemoteProtocolError if max-transfer is no number."""
        return cls(
            text(nodes, "name", "unknown"),
            text(nodes, "version", "unknown"),
            text(nodes, "os", "unknown"),
            number(nodes, "max-transfer", 0, (1 << 63) - 1, 0),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.version} on {self.os}, {self.max_transfer_nbytes} bytes at most"


def own_info(name: str) -> PeerInfo:
    """What this end says of itself."""
    system = os.uname()
    return PeerInfo(name, __version__, f"{system.sysname} {system.release}"[:MAX_TEXT], lib.VSCSI_MAX_TRANSFER)


# ---- SRP over the ring ----

SRP_PROTOCOL = "srp-r16a-248"
MAX_SRP_DEVICES = 64


@dataclass(frozen=True)
class SrpTargetNodes:
    """What the target publishes in `backend/vscsi-srp/<k>` before InitWait."""

    target_port_id: bytes
    info: PeerInfo
    max_ring_page_order: int = lib.VSCSI_MAX_RING_ORDER
    persistent: bool = True

    def nodes(self) -> dict[str, str]:
        return {
            "max-ring-page-order": str(self.max_ring_page_order),
            "feature-persistent": str(int(self.persistent)),
            "target-port-id": self.target_port_id.hex(),
            **self.info.nodes(),
        }

    @classmethod
    def parse(cls, nodes: Nodes) -> "SrpTargetNodes":
        return cls(
            hex_bytes(nodes, "target-port-id", 16),
            PeerInfo.parse(nodes),
            number(nodes, "max-ring-page-order", 0, lib.VSCSI_MAX_RING_ORDER, 0),
            flag(nodes, "feature-persistent"),
        )


@dataclass(frozen=True)
class SrpInitiatorNodes:
    """What the initiator publishes in `device/vscsi-srp/<k>` before Initialised. The reverse ring has one page."""

    ring: RingNodes
    reverse: RingNodes
    info: PeerInfo
    persistent: bool = True

    def nodes(self) -> dict[str, str]:
        return {
            **order_nodes(len(self.ring.grefs)),
            **self.ring.nodes(),
            "reverse-ring-ref": str(self.reverse.grefs[0]),
            "reverse-event-channel": str(self.reverse.port),
            "protocol": SRP_PROTOCOL,
            "feature-persistent": str(int(self.persistent)),
            **self.info.nodes(),
        }

    @classmethod
    def parse(cls, nodes: Nodes, max_order: int = lib.VSCSI_MAX_RING_ORDER) -> "SrpInitiatorNodes":
        """Raises RemoteProtocolError."""
        protocol = nodes.get("protocol", SRP_PROTOCOL)
        if protocol != SRP_PROTOCOL:
            raise RemoteProtocolError(f"protocol {protocol[:MAX_TEXT]!r} is not {SRP_PROTOCOL}")
        ring = RingNodes.parse(nodes, ring_pages(nodes, max_order))
        reverse = RingNodes.parse(nodes, 1, "reverse-")
        if reverse.grefs[0] in ring.grefs or reverse.port == ring.port:
            raise RemoteProtocolError("the reverse ring shares a page or the event channel with the ring")
        return cls(ring, reverse, PeerInfo.parse(nodes), flag(nodes, "feature-persistent"))
