# SPDX-License-Identifier: BSD-2-Clause
"""A file that holds one write at a time, whole, while it is carried out elsewhere; after a crash it can be finished.

Knows files, checksums, and what survives a loss of power: only what has been through fsync, and of the rest any part.
The former content is kept too: it tells whether the image found later is the one that was being written. Must not know
units, blocks or SCSI.
"""

import contextlib
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from target.state import sync_folder

_HEAD = struct.Struct("<8sQQ")
_MAGIC = b"vscsiAW1"
_DIGEST_NBYTES = 32
_SECTOR_NBYTES = 512
"""A disk loses power between sectors, a process dies between pages: within a sector all is old or all is new."""
_RECORD_MAX_NBYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A write that was promised to happen as a whole: from byte `offset` on `new` takes the place of `old`."""

    offset: int
    new: bytes
    old: bytes

    def belongs_to(self, found: bytes | memoryview) -> bool:
        """Whether bytes read from the place of the write can be what the write was carried out on, or a part of it."""
        step = _SECTOR_NBYTES
        return len(found) == len(self.new) and all(
            bytes(found[i : i + step]) in (self.old[i : i + step], self.new[i : i + step])
            for i in range(0, len(found), step)
        )

    def encode(self) -> bytes:
        head = _HEAD.pack(_MAGIC, self.offset, len(self.new))
        digest = hashlib.sha256(head)
        digest.update(self.new)
        digest.update(self.old)
        return head + digest.digest() + self.new + self.old


def decode(data: bytes) -> Record | None:
    """What `Record.encode` made; None: there is no record, or not all of it."""
    start = _HEAD.size + _DIGEST_NBYTES
    if len(data) < start:
        return None
    magic, offset, nbytes = _HEAD.unpack_from(data)
    if magic != _MAGIC or len(data) < start + 2 * nbytes:
        return None
    record = Record(offset, data[start : start + nbytes], data[start + nbytes : start + 2 * nbytes])
    return record if record.encode()[:start] == data[:start] else None


class Journal:
    """The file. Methods raise OSError; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def load(self) -> Record | None:
        """The write that was not finished, if there is one."""
        try:
            if self.path.stat().st_size > _RECORD_MAX_NBYTES:
                return None
            return decode(self.path.read_bytes())
        except FileNotFoundError:
            return None

    def commit(self, record: Record) -> None:
        """From its return on the write will happen. If it fails nothing is left of the record."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            sync_folder(self.path.parent)
        try:
            self._put(record.encode())
            self._sync()
        except OSError:
            self.clear()
            raise

    def clear(self) -> None:
        """Forgets the record, for good; its bytes are given back too. Does nothing if there is no file."""
        if self._fd < 0:
            with contextlib.suppress(FileNotFoundError):
                self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        if self._fd >= 0:
            self._cut()
            self._sync()

    def set_aside(self) -> Path:
        """Renames a record that is not to be carried out."""
        aside = self.path.with_suffix(".unused")
        self.path.replace(aside)
        sync_folder(self.path.parent)
        return aside

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # What reaches the file, step by step; tests stop in between.

    def _put(self, data: bytes) -> None:
        view, done = memoryview(data), 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], done)

    def _cut(self) -> None:
        os.ftruncate(self._fd, 0)

    def _sync(self) -> None:
        os.fsync(self._fd)
