# SPDX-License-Identifier: BSD-2-Clause
"""The initiator's memory: one sealed memfd with the grant table in its first frames and an arena behind it.

Knows frames, grant references and who may have which page; knows nothing of rings or of what the pages carry.
On this bus a malicious target can reach every byte of it, so it holds I/O buffers and rings only.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import threading
import weakref
from typing import Any

from vscsi.native import ffi, lib

from .errors import BusError
from .pages import PageAllocator

PAGE = int(lib.VSCSI_PAGE_SIZE)
RESERVED = int(lib.VSCSI_GREF_RESERVED)
ENTRIES_PER_PAGE: int = PAGE // ffi.sizeof("struct vscsi_grant_entry")
IN_USE = int(lib.GTF_READING | lib.GTF_WRITING)

MFD_NOEXEC_SEAL = 8  # Linux 6.3; some systems insist on it, older ones refuse it

_live: "weakref.WeakSet[Memory]" = weakref.WeakSet()
_inherited: list[mmap.mmap] = []


def _keep_in_child() -> None:
    # The child does not have these mappings (MADV_DONTFORK). Collecting the objects there would unmap whatever the
    # child has since put at the same addresses.
    _inherited.extend(memory._mmap for memory in _live)


os.register_at_fork(after_in_child=_keep_in_child)


def table_pages(nr_frames: int) -> int:
    """Pages of grant table that hold an entry for each of `nr_frames` frames and the reserved ones."""
    return -(-(nr_frames + RESERVED) // ENTRIES_PER_PAGE)


def _memfd(nbytes: int) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("vscsi", flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("vscsi", flags)
    try:
        os.ftruncate(fd, nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Memory:
    """`nbytes` (rounded up to pages) of memory to share with one target. Methods may be called from any thread.

    Grants come in two kinds. A grant of pages that `alloc` has handed out belongs to that allocation and ends with it.
    A grant of pages not handed out is standing (persistent mapping grants the whole arena so): allocations come and go
    over it, `grant` and `revoke` of allocated pages leave it alone, and the target may hold such pages in use for good.
    """

    def __init__(self, nbytes: int) -> None:
        nr_frames = -(-nbytes // PAGE)
        self.first_frame = table_pages(nr_frames)
        if nr_frames <= self.first_frame:
            raise BusError(f"{nbytes} bytes of memory leave no room beside the grant table")
        self.nbytes = nr_frames * PAGE
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        try:
            self.fd = _memfd(self.nbytes)
        except OSError as error:
            raise BusError(f"cannot make {self.nbytes} bytes of shared memory: {error.strerror}") from error
        try:
            self._mmap = mmap.mmap(self.fd, self.nbytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            os.close(self.fd)
            raise BusError(f"cannot map {self.nbytes} bytes of shared memory: {error.strerror}") from error
        self._mmap.madvise(mmap.MADV_DONTFORK)
        _live.add(self)
        self._buffer = ffi.from_buffer("uint8_t[]", self._mmap, require_writable=True)
        self._view = memoryview(self._mmap)
        self.base: Any = ffi.cast("uint8_t *", self._buffer)
        self.address = int(ffi.cast("uintptr_t", self._buffer))
        self.granter: Any = ffi.new(
            "struct vscsi_granter *",
            {"table": ffi.cast("uint64_t *", self._buffer), "nr_grants": self.first_frame * ENTRIES_PER_PAGE},
        )
        self._allocator = PageAllocator(self.first_frame, nr_frames - self.first_frame)
        self._allocated = bytearray(nr_frames)
        self._standing = bytearray(nr_frames)

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise BusError(f"this memory belongs to process {self._pid}; a forked child must connect for itself")
        if self._closed:
            raise BusError("this memory is closed")

    @property
    def view(self) -> memoryview:
        """All of it, writable. BusError in a forked child or after `close`."""
        self._check()
        return self._view

    @property
    def free_nbytes(self) -> int:
        """Bytes that `alloc` could still hand out, though perhaps not in one piece."""
        with self._lock:
            return self._allocator.free_pages * PAGE

    def gref(self, frame: int) -> int:
        """The grant reference of a frame."""
        return frame + RESERVED

    def alloc(self, nbytes: int) -> int:
        """Byte offset of a page-aligned, contiguous run that holds `nbytes` (> 0). MemoryError; BusError."""
        self._check()
        if nbytes <= 0:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        count = -(-nbytes // PAGE)
        with self._lock:
            start = self._allocator.alloc(count)
            self._allocated[start : start + count] = b"\1" * count
        return start * PAGE

    def free(self, offset: int) -> None:
        """Give back what `alloc` returned, ending its grants.

        BusError, and nothing given back, while the target has one of those grants in use, or for a wrong offset.
        """
        self._check()
        start, odd = divmod(offset, PAGE)
        with self._lock:
            try:
                count = self._allocator.size(start)
            except KeyError:
                odd = 1
            if odd:
                raise BusError(f"nothing was allocated at offset {offset}")
            self._end(range(start, start + count))
            self._allocator.free(start)
            self._allocated[start : start + count] = bytes(count)

    def _frames(self, offset: int, nbytes: int) -> range:
        if nbytes <= 0 or offset < self.first_frame * PAGE or offset + nbytes > self.nbytes:
            raise BusError(f"{nbytes} bytes at offset {offset} are outside the arena")
        return range(offset // PAGE, (offset + nbytes - 1) // PAGE + 1)

    def grant(self, offset: int, nbytes: int, *, readonly: bool = False) -> list[int]:
        """Grant the target the pages that these bytes touch; the reference of each page, in order.

        A page granted alike already stays as it is. BusError, with nothing newly granted, if one is granted otherwise.
        """
        self._check()
        frames = self._frames(offset, nbytes)
        first, at = frames.start, ffi.new("uint32_t *")
        with self._lock:
            rc = lib.vscsi_granter_grant_run(
                self.granter, first + RESERVED, lib.VSCSI_TARGET_DOMID, first, len(frames), int(readonly), at
            )
            if rc == -errno.EEXIST:
                raise BusError(f"page {first + at[0]} is granted already, with other permissions")
            if rc:
                raise BusError(f"cannot grant pages {first} to {frames[-1]}: {os.strerror(-rc)}")
            self._stand(slice(frames.start, frames.stop))
        return [frame + RESERVED for frame in frames]

    def _stand(self, frames: slice) -> None:
        """Those that nobody has allocated are granted for good."""
        allocated = self._allocated[frames]
        if not any(allocated):
            self._standing[frames] = b"\1" * len(allocated)
            return
        for frame, taken in enumerate(allocated, frames.start):
            if not taken:
                self._standing[frame] = 1

    def revoke(self, offset: int, nbytes: int) -> None:
        """End the grants of the pages that these bytes touch. BusError, with nothing ended, if one is in use."""
        self._check()
        with self._lock:
            self._end(self._frames(offset, nbytes))

    def _end(self, frames: range) -> None:
        ending = [frame for frame in frames if not (self._standing[frame] and self._allocated[frame])]
        for frame in ending:
            if lib.vscsi_granter_flags(self.granter, frame + RESERVED) & IN_USE:
                raise BusError(f"page {frame} is still in use by the target")
        for frame in ending:
            # The target may have taken it into use since: the compare-and-swap inside decides.
            if lib.vscsi_granter_end(self.granter, frame + RESERVED):
                raise BusError(f"page {frame} is still in use by the target")
            self._standing[frame] = 0

    def close(self) -> None:
        """Unmap and close. Nothing may use `base`, `granter` or a channel on this memory any more. Idempotent."""
        if self._closed:
            return
        self._closed = True
        os.close(self.fd)
        if os.getpid() != self._pid:
            return
        _live.discard(self)
        self._view.release()
        ffi.release(self._buffer)
        # If someone still holds a slice of `view`, the memory goes when the last slice does.
        with contextlib.suppress(BufferError):
            self._mmap.close()
