# SPDX-License-Identifier: BSD-2-Clause
"""A folder whose files are kept in memory and whose every operation is recorded: a FUSE file system with direct I/O, so
that writes, RWF_DSYNC, fdatasync and holes arrive as the target's engines make them, at once and in order.

Knows mfusepy. Its process must not open these files itself: the kernel would ask the one who waits for the answer.
"""

import contextlib
import errno
import importlib.util
import os
import random
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from programs import tool

from crash.log import Log, Op

PUNCH = 0x03  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
SECONDS = 30


class Content:
    """One file's bytes."""

    def __init__(self, name: str, nbytes: int = 0) -> None:
        self.name = name
        self.data = bytearray(nbytes)


class Folder:
    """The file system's operations, in the words of mfusepy. Paths begin with a slash.

    `hesitate`: the chance that an operation takes a millisecond or two, so that others overtake it.
    """

    use_ns = True

    def __init__(self, log: Log, *, hesitate: float = 0.1, seed: int = 0) -> None:
        self.log, self.hesitate = log, hesitate
        self.files: dict[str, Content] = {}
        self.folders: set[str] = {"/"}
        self._random = random.Random(seed)
        self._lock = log.lock

    def make(self, name: str, nbytes: int) -> None:
        """A file that is there before anything is recorded."""
        self.files["/" + name] = Content(name, nbytes)

    def _pause(self) -> None:
        if self._random.random() < self.hesitate:
            time.sleep(self._random.random() * 0.002)

    def _file(self, path: str) -> Content:
        try:
            return self.files[path]
        except KeyError:
            raise OSError(errno.EISDIR if path in self.folders else errno.ENOENT, path) from None

    # ---- what is recorded ----

    def write(self, path, data, offset, fi):
        file = self._file(path)
        durable = bool(fi.flags & os.O_DSYNC)
        op = self.log.begin(Op("write", file.name, offset, bytes(data), durable))
        self._pause()
        with self._lock:
            if len(file.data) < offset:
                file.data.extend(bytes(offset - len(file.data)))
            file.data[offset : offset + len(data)] = data
            self.log.end(op)
        return len(data)

    def fallocate(self, path, mode, offset, nbytes, fi):
        del fi
        file = self._file(path)
        if mode == 0:
            return 0  # there is always space
        if mode != PUNCH:
            raise OSError(errno.EOPNOTSUPP, "only holes")
        nbytes = max(0, min(nbytes, len(file.data) - offset))
        op = self.log.begin(Op("punch", file.name, offset, bytes(nbytes)))
        self._pause()
        with self._lock:
            file.data[offset : offset + nbytes] = bytes(nbytes)
            self.log.end(op)
        return 0

    def fsync(self, path, datasync, fi):
        del datasync, fi
        op = self.log.begin(Op("flush", self._file(path).name))
        self._pause()
        self.log.end(op)
        return 0

    def truncate(self, path, nbytes, fi=None):
        del fi
        file = self._file(path)
        with self._lock:
            op = self.log.begin(Op("truncate", file.name, nbytes))
            if nbytes < len(file.data):
                del file.data[nbytes:]
            else:
                file.data.extend(bytes(nbytes - len(file.data)))
            self.log.end(op)
        return 0

    def create(self, path, mode, fi):
        del mode
        with self._lock:
            self.files[path] = Content(path[1:])
            self.log.end(self.log.begin(Op("create", path[1:])))
        fi.direct_io = 1
        return 0

    def rename(self, old, new):
        with self._lock:
            self.files[new] = self.files.pop(old)
            self.log.end(self.log.begin(Op("rename", old[1:], data=new[1:].encode())))
        return 0

    def unlink(self, path):
        with self._lock:
            self._file(path)
            del self.files[path]
            self.log.end(self.log.begin(Op("unlink", path[1:])))
        return 0

    def mkdir(self, path, mode):
        del mode
        self.folders.add(path)
        return 0

    def fsyncdir(self, path, datasync, fh):
        del datasync, fh
        self.log.end(self.log.begin(Op("flush names", path[1:])))
        return 0

    # ---- what is not ----

    def init_with_config(self, connection, config):
        del connection, config

    def open(self, path, fi):
        self._file(path)
        fi.direct_io = 1
        return 0

    def read(self, path, nbytes, offset, fi):
        del fi
        return bytes(self._file(path).data[offset : offset + nbytes])

    def getattr(self, path, fh=None):
        del fh
        if path in self.folders:
            return dict(st_mode=stat.S_IFDIR | 0o700, st_nlink=2, st_uid=os.getuid(), st_gid=os.getgid())
        file = self._file(path)
        mode = stat.S_IFREG | 0o600
        owner = dict(st_uid=os.getuid(), st_gid=os.getgid())
        return dict(st_mode=mode, st_nlink=1, st_size=len(file.data), st_blocks=len(file.data) // 512, **owner)

    def readdir(self, path, fh):
        del fh
        inside = [name for name in (*self.files, *self.folders) if name != "/" and os.path.dirname(name) == path]  # noqa: PTH120
        return [".", "..", *(name.rpartition("/")[2] for name in inside)]

    def statfs(self, path):
        del path
        return dict(f_bsize=4096, f_frsize=4096, f_blocks=1 << 20, f_bfree=1 << 19, f_bavail=1 << 19, f_namemax=255)

    def chmod(self, path, mode):
        del path, mode
        return 0

    def utimens(self, path, times=None):
        del path, times
        return 0

    def release(self, path, fi):
        del path, fi
        return 0

    def flush(self, path, fi):
        del path, fi
        return 0


def why_not() -> str | None:
    """What is missing for FUSE, if anything is."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not to be had here"
    return None if importlib.util.find_spec("mfusepy") else "mfusepy is not installed"


@contextlib.contextmanager
def mounted(folder: Folder, place: Path):
    """Serves the folder there, from threads of this process."""
    if reason := why_not():
        pytest.skip(reason)
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    import mfusepy

    place.mkdir()
    failed: list[BaseException] = []

    def serve():
        try:
            mfusepy.FUSE(folder, str(place), raw_fi=True, foreground=True, fsname="crash", max_idle_threads=8)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    end = time.monotonic() + SECONDS
    while not is_mounted(place):
        if failed or not thread.is_alive():
            pytest.skip(f"FUSE mounts are refused here: {failed}")
        assert time.monotonic() < end, "the recording folder is not mounted"
        time.sleep(0.01)
    try:
        yield place
    finally:
        subprocess.run([tool("fusermount3"), "-u", "-z", place], check=True)
        thread.join(SECONDS)
        assert not thread.is_alive()


def is_mounted(place: Path) -> bool:
    return any(line.split()[4] == str(place) for line in Path("/proc/self/mountinfo").read_text().splitlines())
