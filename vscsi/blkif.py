# SPDX-License-Identifier: BSD-2-Clause
"""Xen blkif negotiation, both ends: what each side publishes in the store, and how the other reads it.

Nodes and defaults are those of Xen's public io/blkif.h; what the peer wrote comes out within bounds or
RemoteProtocolError says which node is wrong. Virtual-device numbers follow Xen's vbd interface, both ways.
Knows no store, ring, image or thread; the XenBus states are elsewhere.
"""

import re
from dataclasses import dataclass

from vscsi.errors import RemoteProtocolError
from vscsi.native import lib
from vscsi.nodes import MAX_TEXT, Nodes, RingNodes, flag, number, order_nodes, ring_pages

PROTOCOL = "x86_64-abi"
"""The name of the 64-bit layout, whatever CPU it runs on: every 64-bit Xen ABI pads these structs alike."""
MAX_QUEUES = 16
MAX_INDIRECT_SEGMENTS = 256
"""What Linux's back end offers: 1 MiB a request. The ABI allows 4096."""
ABI_INDIRECT_SEGMENTS = lib.BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST * lib.BLKIF_SEGS_PER_INDIRECT_PAGE
MAX_SECTORS = (1 << 63) // lib.VSCSI_SECTOR_SIZE - 1

# ---- virtual-device numbers (Xen's vbd interface) ----

_XVD_MAJOR, _SD_MAJOR = 202, 8
_HD_MAJORS = (3, 22)
_EXTENDED = 1 << 28
_XVD_OLD_DISKS = 16


@dataclass(frozen=True)
class VirtualDevice:
    """`family` is "xvd", "sd" or "hd"; `disk` counts from 0, `partition` 0 is the whole disk."""

    family: str
    disk: int
    partition: int = 0

    @property
    def name(self) -> str:
        """As Linux and Xen's tools spell it: xvda, xvdaa3, sdb1."""
        letters, disk = "", self.disk
        while True:
            letters = chr(ord("a") + disk % 26) + letters
            disk = disk // 26 - 1
            if disk < 0:
                return self.family + letters + (str(self.partition) if self.partition else "")

    @property
    def devid(self) -> int:
        """The number that names it in the store. Raises ValueError if the numbering has no place for it."""
        disk, partition = self.disk, self.partition
        if disk < 0 or partition < 0:
            raise ValueError(f"no virtual device number for {self}")
        if self.family == "xvd" and disk < _XVD_OLD_DISKS and partition < 16:
            return _XVD_MAJOR << 8 | disk << 4 | partition
        if self.family == "xvd" and disk < 1 << 20 and partition < 256:
            return _EXTENDED | disk << 8 | partition
        if self.family == "sd" and disk < 16 and partition < 16:
            return _SD_MAJOR << 8 | disk << 4 | partition
        if self.family == "hd" and disk < 4 and partition < 64:
            return _HD_MAJORS[disk // 2] << 8 | (disk % 2) << 6 | partition
        raise ValueError(f"no virtual device number for {self}")

    @classmethod
    def from_devid(cls, devid: int) -> "VirtualDevice":
        """Raises ValueError for a number outside the scheme."""
        if devid >> 28 == 1:
            return cls("xvd", devid >> 8 & 0xFFFFF, devid & 0xFF)
        major, minor = devid >> 8, devid & 0xFF
        if major == _XVD_MAJOR:
            return cls("xvd", minor >> 4, minor & 15)
        if major == _SD_MAJOR:
            return cls("sd", minor >> 4, minor & 15)
        if major in _HD_MAJORS and minor < 128:
            return cls("hd", _HD_MAJORS.index(major) * 2 + (minor >> 6), minor & 63)
        raise ValueError(f"no virtual device has the number {devid}")

    @classmethod
    def from_name(cls, name: str) -> "VirtualDevice":
        """Raises ValueError."""
        match = re.fullmatch(r"(xvd|sd|hd)([a-z]{1,5})([1-9][0-9]{0,2})?", name, re.ASCII)
        if match is None:
            raise ValueError(f"no virtual device is called {name!r}")
        disk = -1
        for letter in match[2]:
            disk = (disk + 1) * 26 + ord(letter) - ord("a")
        found = cls(match[1], disk, int(match[3] or 0))
        _ = found.devid
        return found


def devid_of_lun(lun: int) -> int:
    """The virtual device under which a LUN (0..16383) is served: xvd numbering, whole disks."""
    return VirtualDevice("xvd", lun).devid


def lun_of_devid(devid: int) -> int:
    """Raises ValueError if no LUN is served under that number."""
    device = VirtualDevice.from_devid(devid)
    if device.family != "xvd" or device.partition or device.devid != devid:
        raise ValueError(f"virtual device {devid} is no whole disk in our numbering")
    return device.disk


# ---- what the target publishes ----


@dataclass(frozen=True)
class Limits:
    """Published before InitWait: what the initiator may ask for."""

    max_ring_page_order: int = lib.VSCSI_MAX_RING_ORDER
    max_queues: int = 1
    max_indirect_segments: int = MAX_INDIRECT_SEGMENTS

    def nodes(self) -> dict[str, str]:
        out = {
            "max-ring-page-order": str(self.max_ring_page_order),
            "max-ring-pages": str(1 << self.max_ring_page_order),
            "multi-queue-max-queues": str(self.max_queues),
        }
        if self.max_indirect_segments:
            out["feature-max-indirect-segments"] = str(self.max_indirect_segments)
        return out

    @classmethod
    def parse(cls, nodes: Nodes) -> "Limits":
        """A target that offers more than the ABI or we can use is simply not taken at its word."""
        order = number(nodes, "max-ring-page-order", 0, 63, -1)
        if order < 0:
            order = number(nodes, "max-ring-pages", 1, 1 << 20, 1).bit_length() - 1
        return cls(
            min(order, lib.VSCSI_MAX_RING_ORDER),
            min(number(nodes, "multi-queue-max-queues", 1, 1 << 16, 1), MAX_QUEUES),
            min(number(nodes, "feature-max-indirect-segments", 0, 1 << 20, 0), ABI_INDIRECT_SEGMENTS),
        )


@dataclass(frozen=True)
class Properties:
    """Published in one transaction with Connected. `sectors` counts 512 bytes; sizes are in bytes.

    `info` holds the VDISK_* bits: CDROM, REMOVABLE, READONLY.
    """

    sectors: int
    sector_size: int = 512
    physical_sector_size: int = 512
    info: int = 0
    barrier: bool = False
    flush: bool = False
    persistent: bool = False
    discard: bool = False
    discard_granularity: int = 0
    discard_alignment: int = 0
    discard_secure: bool = False

    @property
    def readonly(self) -> bool:
        return bool(self.info & lib.VDISK_READONLY)

    def nodes(self) -> dict[str, str]:
        out = {
            "sectors": self.sectors,
            "sector-size": self.sector_size,
            "physical-sector-size": self.physical_sector_size,
            "info": self.info,
            "feature-barrier": int(self.barrier),
            "feature-flush-cache": int(self.flush),
            "feature-persistent": int(self.persistent),
            "feature-discard": int(self.discard),
        }
        if self.discard:
            out["discard-granularity"] = self.discard_granularity or self.sector_size
            out["discard-alignment"] = self.discard_alignment
            out["discard-secure"] = int(self.discard_secure)
        return {name: str(value) for name, value in out.items()} | {"mode": "r" if self.readonly else "w"}

    @classmethod
    def parse(cls, nodes: Nodes) -> "Properties":
        """Raises RemoteProtocolError: missing sizes, or sizes that fit no disk."""
        sector_size = number(nodes, "sector-size", lib.VSCSI_SECTOR_SIZE, lib.VSCSI_PAGE_SIZE)
        if sector_size & (sector_size - 1):
            raise RemoteProtocolError(f"node sector-size is {sector_size}, not a power of two")
        physical = number(nodes, "physical-sector-size", sector_size, 1 << 30, sector_size)
        if physical % sector_size:
            raise RemoteProtocolError(f"node physical-sector-size is {physical}, not a multiple of {sector_size}")
        info = number(nodes, "info", 0, (1 << 32) - 1, 0)
        if nodes.get("mode", "w") == "r":
            info |= lib.VDISK_READONLY
        return cls(
            number(nodes, "sectors", 0, MAX_SECTORS),
            sector_size,
            physical,
            info,
            flag(nodes, "feature-barrier"),
            flag(nodes, "feature-flush-cache"),
            flag(nodes, "feature-persistent"),
            flag(nodes, "feature-discard"),
            number(nodes, "discard-granularity", 0, 1 << 40, sector_size),
            number(nodes, "discard-alignment", 0, 1 << 40, 0),
            flag(nodes, "discard-secure"),
        )


# ---- what the initiator publishes ----


@dataclass(frozen=True)
class Request:
    """The initiator's side of the negotiation, published before Initialised: its queues and what it can do."""

    queues: tuple[RingNodes, ...]
    persistent: bool = True
    large_sector_size: bool = False

    def nodes(self) -> dict[str, str]:
        """One queue stands at the top; more stand in queue-N/, and then nothing of a queue at the top."""
        out = order_nodes(len(self.queues[0].grefs))
        if len(self.queues) == 1:
            out |= self.queues[0].nodes()
        else:
            out["multi-queue-num-queues"] = str(len(self.queues))
            for k, queue in enumerate(self.queues):
                out |= queue.nodes(f"queue-{k}/")
        out["protocol"] = PROTOCOL
        out["feature-persistent"] = str(int(self.persistent))
        if self.large_sector_size:
            out["feature-large-sector-size"] = "1"
        return out

    @classmethod
    def parse(cls, nodes: Nodes, limits: Limits) -> "Request":
        """Raises RemoteProtocolError: beyond the limits, a page or a port that stands twice, a foreign ABI."""
        protocol = nodes.get("protocol", PROTOCOL)
        if protocol != PROTOCOL:
            raise RemoteProtocolError(f"protocol {protocol[:MAX_TEXT]!r} is not {PROTOCOL}")
        count = number(nodes, "multi-queue-num-queues", 1, limits.max_queues, 1)
        pages = ring_pages(nodes, limits.max_ring_page_order)
        prefixes = (
            [""] if count == 1 and "queue-0/event-channel" not in nodes else [f"queue-{k}/" for k in range(count)]
        )
        queues = tuple(RingNodes.parse(nodes, pages, prefix) for prefix in prefixes)
        grefs = [gref for queue in queues for gref in queue.grefs]
        if len(set(grefs)) != len(grefs) or len({queue.port for queue in queues}) != count:
            raise RemoteProtocolError("two queues share a page or an event channel")
        return cls(queues, flag(nodes, "feature-persistent"), flag(nodes, "feature-large-sector-size"))


def plan(limits: Limits, ring_pages_wanted: int, queues_wanted: int = 1) -> tuple[int, int]:
    """Pages of each ring (a power of two) and number of queues: what is wanted, as far as the target allows."""
    pages = min(ring_pages_wanted, 1 << limits.max_ring_page_order)
    return 1 << (max(pages, 1).bit_length() - 1), max(1, min(queues_wanted, limits.max_queues))


def segments_per_request(limits: Limits) -> int:
    """Pages of data one request can name: 11 in the slot, or more through indirect segments."""
    return max(int(lib.BLKIF_MAX_SEGMENTS_PER_REQUEST), limits.max_indirect_segments)
