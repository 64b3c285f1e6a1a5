# SPDX-License-Identifier: BSD-2-Clause
"""Another store behind a simulated disk: it answers as slowly as a head, a platter and one queue would let it.

Knows the numbers that make a disk, and which stores lie on the same one. What they cost in time is the native core's
(target/native/sched_disk.c); the fast path waits there, what Python reads and writes waits here. Must not know SCSI.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from target.native import ffi, lib
from target.stores import StoreError, StoreSpec, open_store, store
from target.stores.layered import LayeredStore
from target.stores.sizes import parse_size


def _number(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"'{text}' is not a number from {low:g} to {high:g}")
        return value

    return convert


def _rate(text: str) -> int:
    value = parse_size(text)
    if value < 1024:
        raise ValueError(f"{text} is less than 1K a second")
    return value


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the user said of the disk: revolutions a minute, milliseconds, bytes a second."""

    rpm: float = 7200
    seek: float = 8
    """Between random places, on average."""
    step: float = 0.8
    """The shortest."""
    rate: int = 150_000_000
    disk: str = ""
    """Stores with the same name lie on the same disk, one behind the other."""


_KEYS: dict[str, Callable[[str], Any]] = {
    "rpm": _number(60, 60000),
    "seek": _number(0, 1000),
    "step": _number(0, 1000),
    "rate": _rate,
    "disk": str,
}


def parse(text: str) -> tuple[str, Geometry]:
    """STORE?key=value&... cut into both. ValueError."""
    inner, _, rest = text.partition("?")
    values: dict[str, Any] = {}
    for word in rest.split("&") if rest else ():
        name, equals, value = word.partition("=")
        if name not in _KEYS or not equals or not value:
            raise ValueError(f"'{word}' is not one of {', '.join(f'{key}=...' for key in _KEYS)}")
        values[name] = _KEYS[name](value)
    return inner, Geometry(**values)


class Disk:
    """One simulated disk, for as many stores as lie on it."""

    _named: ClassVar[dict[str, "Disk"]] = {}
    _lock = threading.Lock()

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, self.nbytes, self._stores = geometry, 0, 0
        config = ffi.new("struct vt_disk_config *")
        config.nbytes, config.bytes_per_s = 1, geometry.rate
        config.revolution_us = round(60e6 / geometry.rpm)
        config.seek_us, config.step_us = round(geometry.seek * 1000), round(geometry.step * 1000)
        self.native = lib.vt_disk_new(config)
        if self.native == ffi.NULL:
            raise MemoryError

    @classmethod
    def take(cls, geometry: Geometry, nbytes: int) -> "tuple[Disk, int]":
        """The disk, and the offset of a store of that size on it. ValueError if it has other numbers already."""
        with cls._lock:
            disk = cls._named.get(geometry.disk) if geometry.disk else None
            if disk is None:
                disk = cls(geometry)
                if geometry.disk:
                    cls._named[geometry.disk] = disk
            elif disk.geometry != geometry:
                given = ", ".join(f.name for f in fields(geometry) if f.name != "disk")
                raise ValueError(f"disk '{geometry.disk}' is there already, with other numbers ({given})")
            base, disk._stores = disk.nbytes, disk._stores + 1
            disk.nbytes += nbytes
            lib.vt_disk_resize(disk.native, disk.nbytes)
            return disk, base

    def release(self) -> None:
        """A store does not use it any more; the last one frees it."""
        with self._lock:
            self._stores -= 1
            if self._stores:
                return
            if self.geometry.disk:
                del self._named[self.geometry.disk]
            lib.vt_disk_free(self.native)

    def wait(self, offset: int, nbytes: int) -> None:
        """Returns when the disk would be done with a request."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        time.sleep(max(0, int(lib.vt_disk_serve(self.native, offset, nbytes, now)) - now) / 1e9)


@store("sim", help="sim:STORE?rpm=7200&seek=8&rate=150M  another store, as slow as a disk with a head (seek in ms)")
class SimStore(LayeredStore):
    """A store with a descriptor, and a disk that is not there."""

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__()
        try:
            inner, geometry = parse(spec.rest)
        except ValueError as error:
            raise StoreError(f"sim:{spec.rest}: {error}") from error
        self._inner = open_store(inner, spec)
        try:
            if self._inner.fd is None:
                raise StoreError(f"sim:{inner}: only a store with a file descriptor can lie on a simulated disk")
            self.disk, self._start = Disk.take(geometry, self._inner.nbytes)
        except ValueError as error:
            self._discard()
            raise StoreError(f"sim:{spec.rest}: {error}") from error
        except BaseException:
            self._discard()
            raise
        for name in ("nbytes", "can", "path", "is_block_device", "is_direct", "is_volatile", "created", "trim_nbytes"):
            setattr(self, name, getattr(self._inner, name))
        self.physical_nbytes, self.identity = self._inner.physical_nbytes, self._inner.identity
        self.warnings = self._inner.warnings
        self.base = self._start
        self.rotational, self.rotation_rate = True, round(geometry.rpm)
        self.device = f"sim:{geometry.disk}" if geometry.disk else f"sim:{id(self.disk)}"

    # Another medium takes over the numbers of the one before: there is one place that knows them.

    @property
    def fd(self) -> int | None:
        return self._inner.fd

    @fd.setter
    def fd(self, fd: int | None) -> None:
        self._inner.fd = fd

    @property
    def witness(self) -> int | None:
        return self._inner.witness

    @witness.setter
    def witness(self, fd: int | None) -> None:
        self._inner.witness = fd

    def _discard(self) -> None:
        self._inner.abandon()
        self._inner.close()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        self.disk.wait(self._start + offset, len(buffer))
        self._inner.readinto(buffer, offset)

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        self.disk.wait(self._start + offset, len(buffer))
        self._inner.write(buffer, offset, fua)

    def reserve(self, offset: int, nbytes: int) -> None:
        self._inner.reserve(offset, nbytes)

    def used(self) -> int | None:
        return self._inner.used()

    def free(self) -> int | None:
        return self._inner.free()

    def prefetch(self, offset: int, nbytes: int) -> None:
        self._inner.prefetch(offset, nbytes)

    def evict(self, offset: int, nbytes: int) -> None:
        self._inner.evict(offset, nbytes)

    def close(self) -> None:
        is_open = self.fd is not None and self.fd >= 0
        self._inner.close()
        if is_open:
            self.disk.release()

    def abandon(self) -> None:
        self._inner.abandon()

    def buffer(self, nbytes: int) -> memoryview:
        return self._inner.buffer(nbytes)
