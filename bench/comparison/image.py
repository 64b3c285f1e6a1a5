# SPDX-License-Identifier: BSD-2-Clause
"""The image that is measured: always one that may be written to, full of data, and hot in the page cache.

An image the user names is copied; only a block device is served itself, and only if the user says that it may be
overwritten. Knows files, nothing of protocols.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

CHUNK_NBYTES = 1 << 20


class ImageError(Exception):
    """One line about an image that cannot be used."""


def fill(path: Path, nbytes: int) -> None:
    """A new file of this size in which no block is a hole."""
    pattern = os.urandom(CHUNK_NBYTES)
    with path.open("wb") as file:
        for start in range(0, nbytes, CHUNK_NBYTES):
            file.write(pattern[: min(CHUNK_NBYTES, nbytes - start)])


def heat(path: Path, nbytes: int) -> None:
    """Read it once, so that the page cache has it; and let what is dirty be written now, not in a timed round."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        buffer = bytearray(CHUNK_NBYTES)
        done = 0
        while done < nbytes and (count := file.readinto(buffer)):
            done += count
    if done < nbytes:
        raise ImageError(f"{path} ends after {done} of {nbytes} bytes")


def prepare(named: Path | None, nbytes: int, folder: Path, *, overwrite: bool) -> tuple[Path, int]:
    """The path to serve and the bytes of it to use. `folder` takes what has to be made. Raises ImageError, OSError."""
    if named is None:
        path = folder / "bench.img"
        fill(path, nbytes)
        heat(path, nbytes)
        return path, nbytes
    mode = named.stat().st_mode
    if stat.S_ISBLK(mode):
        if not overwrite:
            raise ImageError(f"{named} is a block device whose data the bench would destroy; say --overwrite if it may")
        with named.open("rb") as device:
            size = device.seek(0, os.SEEK_END)
        path = named
    elif stat.S_ISREG(mode):
        size = named.stat().st_size
        path = folder / "bench.img"
        shutil.copyfile(named, path)
    else:
        raise ImageError(f"{named} is neither a file nor a block device")
    span = min(size, nbytes) // 4096 * 4096
    if not span:
        raise ImageError(f"{named} is smaller than a page")
    heat(path, span)
    return path, span
