# SPDX-License-Identifier: BSD-2-Clause
"""One initiator's memory and its target's view of it, for tests of the grant table: both roles in one process."""

import fcntl
import os
from typing import Any

from vscsi.native import ffi, lib

PAGE = 4096
DOMID = 5
TABLE_PAGES = 2
NR_GRANTS = TABLE_PAGES * 512
FIRST = 8
EPERM, ENOMEM, EACCES, EFAULT, EBUSY, EINVAL, EFBIG, ERANGE = -1, -12, -13, -14, -16, -22, -27, -34
PERMIT, READONLY, READING, WRITING, SUB_PAGE = 1, 4, 8, 16, 256


def memfd(nbytes: int, *, seal: bool = True, flags: int = os.MFD_ALLOW_SEALING) -> int:
    """A memory file as an initiator makes it."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | flags)
    os.ftruncate(fd, nbytes)
    if seal:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def new_mapper(fds: list[int], table_frame: int = 0, table_pages: int = 1) -> tuple[Any, int]:
    error = ffi.new("int *")
    mapper = lib.vscsi_mapper_new(fds, len(fds), table_frame, table_pages, DOMID, error)
    return mapper, error[0]


class Memory:
    """One initiator's memory, mapped by its target: regions of the given numbers of frames."""

    def __init__(self, *frames: int, table_frame: int = 0) -> None:
        fds = [memfd(n * PAGE) for n in frames]
        self.mapper, error = new_mapper(fds, table_frame, TABLE_PAGES)
        assert error == 0
        for fd in fds:
            os.close(fd)
        self.granter = ffi.new("struct vscsi_granter *", {"table": self.mapper.table, "nr_grants": NR_GRANTS})
        self.frames = sum(frames)
        self.page = ffi.new("uint8_t **")

    def address(self, frame: int) -> int:
        for region in self.mapper.regions[0 : self.mapper.nr_regions]:
            if region.first_frame <= frame < region.first_frame + region.nr_frames:
                return int(ffi.cast("uintptr_t", region.base)) + (frame - region.first_frame) * PAGE
        raise AssertionError(frame)

    def get(self, gref: int, write: bool = False, persistent: bool = False) -> int:
        return lib.vscsi_mapper_get(self.mapper, gref, write, persistent, self.page)

    def put(self, gref: int, write: bool = False, persistent: bool = False) -> None:
        lib.vscsi_mapper_put(self.mapper, gref, write, persistent)

    def grant(self, gref: int, frame: int, *, domid: int = DOMID, readonly: bool = False) -> int:
        return lib.vscsi_granter_grant(self.granter, gref, domid, frame, readonly)

    def end(self, gref: int) -> int:
        return lib.vscsi_granter_end(self.granter, gref)

    def flags(self, gref: int) -> int:
        return lib.vscsi_granter_flags(self.granter, gref)

    def raw(self, gref: int, flags: int, domid: int, frame: int) -> None:
        self.mapper.table[gref] = flags | domid << 16 | frame << 32

    def close(self) -> None:
        lib.vscsi_mapper_free(self.mapper)
