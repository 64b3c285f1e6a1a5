# SPDX-License-Identifier: BSD-2-Clause
"""Backing stores: what a logical unit's bytes live in. The base class, and the registry through which they are found.

Knows byte offsets and what a store can do. A new store is one file here, or a class that another package offers under
the entry-point group `vscsi.stores`. Must not know SCSI, LUNs or blocks.
"""

import contextlib
import errno
import logging
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Flag, auto
from pathlib import Path
from typing import Any, TypeVar

from target import debug
from target.native import ffi, lib

SLOW = debug.declare("store.slow", "serve READ and WRITE of every image through Python, as if it had no descriptor")
GROUP = "vscsi.stores"
log = logging.getLogger(__name__)


_PREFETCH_NBYTES = 64 << 20
"""The kernel starts reading while it is asked to: more at once would keep a worker busy."""


class Can(Flag):
    """What a store can do; decides what the logical unit says of itself."""

    WRITE = auto()
    FLUSH = auto()
    """Has a volatile cache that flush() empties."""
    TRIM = auto()
    """trim() gives space back."""
    ZERO = auto()
    """What was trimmed reads as zeros."""
    ERASE_KEY = auto()
    """erase_key() makes everything in it meaningless at once."""


_REFUSALS = (errno.EROFS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT)
"""They say that a write was not even begun."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of the write itself, or of one before it when that was written back."""


class StoreError(Exception):
    """The store cannot be opened: one line for the user."""


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """What the user asked for. `rest` is what follows `scheme:`."""

    rest: str
    readonly: bool = False
    cache: str = "wb"
    size: int | None = None
    block_nbytes: int = 512
    discard: bool = True


class Store:
    """One open backing store. Offsets and lengths are in bytes; methods raise OSError.

    A store with a descriptor (`fd`) is read and written by the native core and needs no readinto or write of its own
    for that; one without is served through Python. Any method may be called from several threads at once.
    """

    fd: int | None = None
    nbytes: int = 0
    can: Can = Can(0)
    path: Path | None = None
    """The image's file, for what is kept beside it; None: nothing can be."""
    identity: str = ""
    """The same for the same image at every start, for the serial number; empty: the LUN has to tell units apart."""
    is_block_device: bool = False
    is_null: bool = False
    is_direct: bool = False
    is_volatile: bool = False
    """What it holds is gone when the target ends, however it ends."""
    witness: int | None = None
    """Another open file description of what `fd` opens, made before anything was written: the kernel tells it of lost
    data in its own right."""
    created: bool = False
    """Opening it has made the image: what lies beside it is of an earlier one of that name."""
    rotational: bool | None = None
    rotation_rate: int = 0
    """Revolutions a minute, 0 if unknown."""
    device: str = ""
    """The same for stores that lie on the same device; empty: nobody knows."""
    base: int | None = None
    """Where the store begins on its device, in bytes; None: nobody knows."""
    disk: Any = None
    """The simulated disk that it lies on."""
    trim_nbytes: int = 0
    """Size and alignment of what trim can give back, 0 if unknown."""
    physical_nbytes: int = 0
    """Size that writes should be aligned to, 0 if unknown."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @property
    def native_fd(self) -> int | None:
        """The descriptor that the native core may read and write, if it may."""
        return None if SLOW.value else self.fd

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fills the whole buffer."""
        raise NotImplementedError

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        """Writes the whole buffer; with `fua` it is durable on return."""
        raise NotImplementedError

    def measure(self) -> int:
        """Its size as it is now, in bytes."""
        return self.nbytes

    def resize(self, nbytes: int) -> None:
        """Gives it another size; what is new reads as zeros."""
        raise OSError(errno.EOPNOTSUPP, "this store cannot change its size")

    def flush(self) -> None:
        """Makes everything written so far durable."""

    def lost(self, error: OSError) -> bool:
        """Whether what was written before may be lost, too, after a durable write has failed with `error`."""
        return error.errno not in _REFUSALS + _NO_SPACE

    def reserve(self, offset: int, nbytes: int) -> None:
        """Sees to it that a write of the range will not lack space; OSError if there is none. Changes no content."""

    def trim(self, offset: int, nbytes: int) -> None:
        """Gives the space of a range back."""
        raise NotImplementedError

    def extents(self, offset: int, nbytes: int) -> Iterator[tuple[int, int, bool]]:
        """Cuts the range, from front to back and without gaps, into (offset, nbytes, whether it has space)."""
        yield offset, nbytes, True

    def conceal(self, data: bytes, offset: int) -> bytes:
        """What is written to that place in a form that may be kept outside of the store: encrypted if the store is."""
        return data

    def reveal(self, data: bytes, offset: int) -> bytes:
        """What `conceal` was given; OSError or nonsense if that was not of this store."""
        return data

    def used(self) -> int | None:
        """Bytes that have space of their own now; None: nobody knows."""
        return None

    def free(self) -> int | None:
        """Bytes that could be given space besides; None: nothing but the size limits it."""
        return None

    def prefetch(self, offset: int, nbytes: int) -> None:
        """The range will be read soon. Only advice: must not wait for the data, and never fails."""

    def evict(self, offset: int, nbytes: int) -> None:
        """What caches hold of the range, all of it durable, should be dropped. Only advice: never fails."""

    def erase_key(self) -> None:
        """Throws the key away that the content is encrypted with."""
        raise NotImplementedError

    def close(self) -> None:
        """Releases the store; it is not used afterwards."""

    def abandon(self) -> None:
        """Takes away what opening this store has made; nothing was served."""

    def buffer(self, nbytes: int) -> memoryview:
        """Memory that readinto and write can take: aligned to pages where the store needs it."""
        return memoryview(mmap.mmap(-1, nbytes)) if self.is_direct else memoryview(bytearray(nbytes))


class DescriptorStore(Store):
    """A store behind a descriptor that pread and pwrite understand."""

    fd: int

    def readinto(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self.fd, [buffer[done:]], offset + done)
            if not count:
                raise OSError(5, "end of the image reached: it has been truncated")
            done += count

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        if self.is_direct and _address(buffer) % mmap.PAGESIZE:
            aligned = self.buffer(len(buffer))
            aligned[:] = buffer
            buffer = aligned
        done, flags = 0, os.RWF_DSYNC if fua else 0
        while done < len(buffer):
            done += os.pwritev(self.fd, [buffer[done:]], offset + done, flags)

    def measure(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_END)

    def resize(self, nbytes: int) -> None:
        if self.is_block_device:
            raise OSError(errno.EOPNOTSUPP, "a block device cannot be resized from here")
        os.ftruncate(self.fd, nbytes)

    def flush(self) -> None:
        os.fdatasync(self.fd)

    def witnessed(self) -> None:
        """Opens the witness, if the system can. To be called once `fd` is there."""
        with contextlib.suppress(OSError):
            self.witness = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def lost(self, error: OSError) -> bool:
        if error.errno not in _NO_SPACE or self.witness is None:
            return error.errno not in _REFUSALS
        try:
            os.fdatasync(self.witness)
        except OSError:
            return True
        return False

    def extents(self, offset: int, nbytes: int) -> Iterator[tuple[int, int, bool]]:
        """By the holes of the file; a block device, or a file system that has no holes, tells nothing: all mapped."""
        end = offset + nbytes
        while offset < end:
            try:
                data = offset if self.is_block_device else min(end, os.lseek(self.fd, offset, os.SEEK_DATA))
            except OSError as error:
                data = end if error.errno == errno.ENXIO else offset  # ENXIO: nothing but a hole up to the end
                if error.errno != errno.ENXIO:
                    yield offset, end - offset, True
                    return
            if data > offset:
                yield offset, data - offset, False
            offset = data
            if offset < end:
                hole = end if self.is_block_device else min(end, os.lseek(self.fd, offset, os.SEEK_HOLE))
                if hole > offset:
                    yield offset, hole - offset, True
                offset = hole

    def used(self) -> int | None:
        return None if self.is_block_device or self.fd < 0 else os.fstat(self.fd).st_blocks * 512

    def prefetch(self, offset: int, nbytes: int) -> None:
        if not self.is_direct:
            self._advise(offset, min(nbytes, _PREFETCH_NBYTES), os.POSIX_FADV_WILLNEED)

    def evict(self, offset: int, nbytes: int) -> None:
        self._advise(offset, nbytes, os.POSIX_FADV_DONTNEED)

    def _advise(self, offset: int, nbytes: int, advice: int) -> None:
        with contextlib.suppress(OSError):
            os.posix_fadvise(self.fd, offset, nbytes, advice)

    def reserve(self, offset: int, nbytes: int) -> None:
        if self.is_block_device:
            return
        try:
            os.posix_fallocate(self.fd, offset, nbytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot: the write will tell
                raise

    def trim(self, offset: int, nbytes: int) -> None:
        error = lib.vt_discard(self.fd, self.is_block_device, offset, nbytes)
        if error < 0:
            raise OSError(-error, os.strerror(-error))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.witness is not None:
            os.close(self.witness)
            self.witness = None


def _address(buffer: memoryview) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


@dataclass(frozen=True, slots=True)
class Scheme:
    """A kind of store: `name:rest` on the command line."""

    name: str
    help: str
    open: Callable[[StoreSpec], Store]


_SCHEMES: dict[str, Scheme] = {}
_Open = TypeVar("_Open", bound=Callable[[StoreSpec], Store])


def store(name: str, help: str) -> Callable[[_Open], _Open]:
    """Registers a class (or function) that opens stores under `name:`."""

    def register(open_: _Open) -> _Open:
        _SCHEMES[name] = Scheme(name, help, open_)
        return open_

    return register


def _load(wanted: str | None = None) -> None:
    """Loads stores of other packages (or just one): their modules register them. A broken one is logged."""
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        if point.name in _SCHEMES or wanted not in (None, point.name):
            continue
        try:
            point.load()
        except Exception as error:
            log.warning("store '%s' cannot be loaded: %s", point.name, error)


def schemes() -> Mapping[str, Scheme]:
    """Every store there is, those of other packages included."""
    _load()
    return dict(sorted(_SCHEMES.items()))


def open_store(text: str, spec: StoreSpec) -> Store:
    """Opens what `text` names: `scheme:rest`, or a path. StoreError with one clear line."""
    name, colon, rest = text.partition(":")
    if colon and name not in _SCHEMES and re.fullmatch(r"[a-z][a-z0-9+]*", name) and not os.path.lexists(text):
        _load(name)
        if name not in _SCHEMES:
            known = ", ".join(sorted(_SCHEMES))
            raise StoreError(f"{text}: no such file, and no store is called '{name}' (stores: {known})")
    if not colon or name not in _SCHEMES:
        name, rest = "file", text
    return _SCHEMES[name].open(replace(spec, rest=rest))


# Built-in stores register themselves on import.
from target.stores import crypt, file, mem, null, sim  # noqa: E402, F401
