# SPDX-License-Identifier: BSD-2-Clause
"""A folder with a file for each disk, as operations of a file system: paths and offsets in, bytes and errnos out.

Method names and arguments are those that FUSE libraries of the high-level kind call. Any thread. Errors are OSError.
Knows what Linux asks of a file system; must not know a FUSE library, nor SCSI.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any

from initiator.mount.disk import Disk

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
"""Of fallocate(2)."""
STAT_BLOCK = 512
FIRST_FILE_HANDLE = 1


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Files:
    """`disks` by file name. `shared`: everybody may use them. `on_start` is called once, when the kernel is there."""

    use_ns = True

    def __init__(
        self, disks: Mapping[str, Disk], *, shared: bool = False, on_start: Callable[[], None] = lambda: None
    ) -> None:
        self._disks = list(disks.items())
        self._numbers = {f"/{name}": number for number, name in enumerate(disks)}
        self._shared, self._on_start = shared, on_start
        self._began_ns = time.time_ns()
        self._written_ns = [self._began_ns] * len(self._disks)

    def _number(self, path: str, *, folder: int = errno.EISDIR) -> int:
        if path == "/":
            raise _error(folder)
        if path not in self._numbers:
            raise _error(errno.ENOENT)
        return self._numbers[path]

    def _disk(self, handle: int) -> Disk:
        return self._disks[handle - FIRST_FILE_HANDLE][1]

    # ---- the folder ----

    def init(self, path: str) -> None:
        self._on_start()

    def readdir(self, path: str, handle: int) -> list[str]:
        """Names in the folder."""
        if path != "/":
            self._number(path)
            raise _error(errno.ENOTDIR)
        return [".", "..", *(name for name, _ in self._disks)]

    def getattr(self, path: str, handle: int | None = None) -> dict[str, Any]:
        """Attributes by the names of struct stat; the size as the target tells it now."""
        times = {"st_uid": os.getuid(), "st_gid": os.getgid(), "st_ctime": self._began_ns, "st_atime": self._began_ns}
        if path == "/":
            mode = stat.S_IFDIR | (0o555 if self._shared else 0o500)
            return {**times, "st_mode": mode, "st_nlink": 2, "st_mtime": self._began_ns}
        number = self._number(path)
        mode = 0o444 if self._shared else 0o400
        try:
            facts = self._disks[number][1].look()
            nbytes, block = facts.nbytes, facts.block_nbytes
            if not facts.readonly:
                mode |= mode >> 1
        except OSError:  # no medium: open says so; here it would only spoil the list
            nbytes, block = 0, STAT_BLOCK
        return {
            **times,
            "st_mode": stat.S_IFREG | mode,
            "st_nlink": 1,
            "st_size": nbytes,
            "st_blocks": nbytes // STAT_BLOCK,
            "st_blksize": max(4096, block),
            "st_mtime": self._written_ns[number],
        }

    def statfs(self, path: str) -> dict[str, int]:
        """Nothing is free: each disk has its size."""
        sizes = [disk.look().nbytes for _, disk in self._disks]
        return {
            "f_bsize": 4096,
            "f_frsize": 4096,
            "f_blocks": sum(sizes) // 4096,
            "f_files": len(sizes),
            "f_namemax": 255,
        }

    # ---- files ----

    def open(self, path: str, flags: int) -> int:
        """A handle. EROFS for writing to what is write-protected. O_TRUNC does nothing, as on a block device."""
        number = self._number(path)
        facts = self._disks[number][1].look()
        if flags & os.O_ACCMODE != os.O_RDONLY and facts.readonly:
            raise _error(errno.EROFS)
        return number + FIRST_FILE_HANDLE

    def read(self, path: str, nbytes: int, offset: int, handle: int) -> bytes:
        """What stands there; short at the end."""
        return self._disk(handle).read(offset, nbytes)

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        """How much was written."""
        n = self._disk(handle).write(offset, data)
        self._written_ns[handle - FIRST_FILE_HANDLE] = time.time_ns()
        return n

    def flush(self, path: str, handle: int) -> int:
        """close(2): says nothing of durability."""
        return 0

    def release(self, path: str, handle: int) -> int:
        """The last close."""
        return 0

    def fsync(self, path: str, datasync: int, handle: int) -> int:
        """Durable when it returns."""
        disk = self._disk(handle)
        if not disk.facts.readonly:
            disk.flush()
        return 0

    def truncate(self, path: str, nbytes: int, handle: int | None = None) -> int:
        """A disk keeps its size: anything else is EINVAL, as ftruncate(2) says of a block device."""
        if nbytes != self._disks[self._number(path)][1].look().nbytes:
            raise _error(errno.EINVAL)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, nbytes: int, handle: int) -> int:
        """Punches a hole, or zeroes; EOPNOTSUPP for what a disk has no command for."""
        disk = self._disk(handle)
        if mode == PUNCH_HOLE | KEEP_SIZE:
            disk.punch(offset, nbytes)
        elif mode in (ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
            disk.zero(offset, nbytes)
        else:
            raise _error(errno.EOPNOTSUPP)
        return 0

    def lseek(self, path: str, offset: int, whence: int, handle: int) -> int:
        """SEEK_DATA and SEEK_HOLE, which are all that the kernel asks."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise _error(errno.EINVAL)
        return self._disk(handle).seek(offset, hole=whence == os.SEEK_HOLE)

    def _refuse(self, *_arguments: Any) -> int:
        """The folder and its files are what the target has."""
        raise _error(errno.EPERM)

    create = mknod = mkdir = unlink = rmdir = rename = link = symlink = chmod = chown = _refuse

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Taken and forgotten: programs that copy set it."""
        self._number(path, folder=errno.EPERM)
        return 0
