# SPDX-License-Identifier: BSD-2-Clause
"""Who gets how much of a device that several initiators share: weights and limits, and which units share a device.

Knows rules (an initiator port, or all, and a number) and tells the native core what follows for each nexus; the core
decides whose turn it is (target/native/sched_queue.c). docs/scheduling.md is the user's page. Must not know rings.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from target.access import fits, port_pattern
from target.native import ffi, lib
from target.part import Nexus, Part, part
from target.stores.sizes import parse_size

if TYPE_CHECKING:
    from target.lu import LogicalUnit

BLKIF = "blkif"
"""In place of an initiator port: connections that have none."""
DEFAULT_WEIGHT = 100
DEFAULT_QUANTUM_US = 40000
DEPTH_ROTATIONAL, DEPTH = 1, 16
_APART = 1 << 50
"""Bytes between units of which nobody knows how far apart they lie."""

Rule = tuple[str, int]
"""For whom (a pattern of initiator ports, BLKIF, or '' for all) and how much."""
K = TypeVar("K")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
            raise ValueError(f"'{text}' is not a number from {low} to {high}")
        return int(text)

    return convert


depth = _integer(1, lib.VT_SCHED_MAX_DEPTH)
idle_ms = _integer(0, lib.VT_SCHED_MAX_IDLE_US // 1000)
_weight, _iops = _integer(1, lib.VT_SCHED_MAX_WEIGHT), _integer(0, 1 << 30)


def _rules(convert: Callable[[str], int]) -> Callable[[str], tuple[Rule, ...]]:
    def read(text: str) -> tuple[Rule, ...]:
        found: list[Rule] = []
        for word in text.split("+"):
            who, colon, value = word.rpartition(":")
            found.append((who if who == BLKIF or not colon else port_pattern(who), convert(value)))
        return tuple(found)

    return read


weights, iops, bandwidths = _rules(_weight), _rules(_iops), _rules(parse_size)
"""Read `VALUE` or `PORT:VALUE`, several with + between them. ValueError."""


def value_for(rules: tuple[Rule, ...], port_id: bytes | None, default: int) -> int:
    """The value of the last rule that fits a port; None: a blkif connection."""
    for who, value in reversed(rules):
        if not who or (who == BLKIF if port_id is None else who != BLKIF and fits(port_id, [who])):
            return value
    return default


@dataclass
class Schedule:
    """How one device is shared. Limits are for each nexus: requests and bytes a second, 0: none."""

    number: int
    """The native core's."""
    rotational: bool
    depth: int
    quantum_us: int = DEFAULT_QUANTUM_US
    idle_ms: int = 0
    weights: tuple[Rule, ...] = ()
    iops: tuple[Rule, ...] = ()
    bandwidths: tuple[Rule, ...] = ()
    units: list["LogicalUnit"] = field(default_factory=list)

    def share(self, port_id: bytes | None) -> Any:
        """A new `struct vt_sched_share` for an initiator port; None: for a blkif connection."""
        share = ffi.new("struct vt_sched_share *")
        share.weight = value_for(self.weights, port_id, DEFAULT_WEIGHT)
        share.iops = value_for(self.iops, port_id, 0)
        share.bytes_per_s = value_for(self.bandwidths, port_id, 0)
        return share

    def config(self) -> Any:
        """A new `struct vt_sched_config`."""
        config = ffi.new("struct vt_sched_config *")
        config.depth, config.rotational, config.quantum_us = self.depth, self.rotational, self.quantum_us
        config.idle_us = self.idle_ms * 1000
        config.seed = int.from_bytes(os.urandom(8))
        return config


class Schedules:
    """The schedules of all devices of a target, by the name of the device."""

    def __init__(self) -> None:
        self._by_device: dict[str, Schedule] = {}

    def join(self, core: Any, unit: "LogicalUnit") -> Schedule:
        """The unit takes part in the schedule of its device; what its specification says is added to that."""
        spec, store = unit.spec, unit.store
        device = f"={spec.device}" if spec.device else store.device or f"lun {unit.lun}"
        schedule = self._by_device.get(device)
        if schedule is None:
            wanted = spec.depth or (DEPTH_ROTATIONAL if unit.rotational else DEPTH)
            schedule = Schedule(-1, unit.rotational, wanted)
            schedule.number = _check(lib.vt_sched_add(core, schedule.config()), f"lun {unit.lun}: its scheduler")
            self._by_device[device] = schedule
        schedule.depth = min(schedule.depth, spec.depth or schedule.depth)
        schedule.idle_ms = max(schedule.idle_ms, spec.idle_ms or 0)
        schedule.weights += spec.weights or ()
        schedule.iops += spec.iops or ()
        schedule.bandwidths += spec.bandwidths or ()
        base = store.base if store.device and not spec.device and store.base is not None else unit.index * _APART
        _check(lib.vt_lu_schedule(core, unit.index, schedule.number, base), f"lun {unit.lun}: its scheduler")
        schedule.units.append(unit)
        return schedule


@part
class Scheduling(Part):
    """A unit's turn at its device; nothing unless its specification asks for it."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self.schedule: Schedule | None = None

    @property
    def _core(self) -> Any:
        return None if self.unit.device is None else self.unit.device.core

    def start(self) -> None:
        unit, core = self.unit, self._core
        if core is None or unit.device is None:
            return
        if (disk := unit.store.disk) is not None:
            _check(lib.vt_lu_disk(core, unit.index, disk.native, unit.store.base or 0), f"lun {unit.lun}: its disk")
        if unit.spec.sched == "fair":
            self.schedule = unit.device.shared(Schedules).join(core, unit)
            self.apply()

    def nexus_known(self, nexus: Nexus) -> None:
        if self.schedule is not None:
            self._forget(nexus)
            self._share(nexus.index, bytes(nexus.initiator_port_id))

    def nexus_forgotten(self, nexus: Nexus) -> None:
        if self.schedule is not None:
            self._forget(nexus)
            self._share(nexus.index, None)

    def _forget(self, nexus: Nexus) -> None:
        assert self.schedule is not None
        _check(lib.vt_sched_forget(self._core, self.schedule.number, nexus.index), "forgetting a nexus")

    def _share(self, index: int, port_id: bytes | None) -> None:
        assert self.schedule is not None
        share = self.schedule.share(port_id)
        _check(lib.vt_sched_share(self._core, self.schedule.number, index, share), "the share of a nexus")

    def change(self, values: dict[str, Any]) -> None:
        """Other values for fields of the schedule, in force for every unit on the device."""
        assert self.schedule is not None
        for name, value in values.items():
            setattr(self.schedule, name, value)
        if values:
            self.apply()

    def apply(self) -> None:
        """Tells the native core what the schedule says now, for every nexus there is and those to come."""
        assert self.schedule is not None and self.unit.device is not None
        _check(lib.vt_sched_update(self._core, self.schedule.number, self.schedule.config()), "a scheduler")
        self._share(lib.VT_ALL, None)
        for nexus in self.unit.device.nexuses():
            self._share(nexus.index, bytes(nexus.initiator_port_id))

    def shares(self) -> Iterator[dict[str, Any]]:
        """What each nexus may have, and has had, of the device; blkif connections without a port."""
        assert self.schedule is not None and self.unit.device is not None
        ports = {nexus.index: bytes(nexus.initiator_port_id) for nexus in self.unit.device.nexuses()}
        stats = ffi.new("struct vt_sched_stats *")
        for index in range(lib.VT_MAX_NEXUSES):
            _check(lib.vt_sched_stats(self._core, self.schedule.number, index, stats), "a scheduler")
            if index not in ports and not stats.requests + stats.waiting:
                continue
            share, port_id = self.schedule.share(ports.get(index)), ports.get(index)
            yield {
                "port": BLKIF if port_id is None else port_id.hex(),
                "weight": share.weight,
                "iops": share.iops,
                "bytes_per_s": share.bytes_per_s,
                "requests": stats.requests,
                "bytes": stats.bytes,
                "waited_us": stats.waited_ns // 1000 // max(1, stats.requests),
                "waiting": stats.waiting,
                "running": stats.running,
            }


def _check(rc: int, what: str) -> int:
    if rc < 0:
        raise OSError(-rc, f"{what}: {os.strerror(-rc)}")
    return rc
