# SPDX-License-Identifier: BSD-2-Clause
"""What a logical unit has to remember beside its blocks: small documents in a folder, replaced as a whole.

Knows files and how a change is made durable. Must not know what is remembered, nor SCSI. The folder is made when
something is first saved; without one everything is kept in memory, until the target ends.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z][a-z0-9-]*")


class State:
    """Named JSON documents. `folder` None keeps them in memory. Any thread may call.

    Whoever serves a unit claims its folder: two units that share one would overwrite each other's documents.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._memory: dict[str, dict[str, Any]] = {}
        self._claimed = False
        self._fd = -1
        self.damaged: set[str] = set()
        """Documents that were set aside."""

    def claim(self, *, make: bool = False) -> None:
        """The folder is this unit's alone until `close`; if there is none yet, from when it is made (`make`: now).

        OSError: it cannot be made or opened; BlockingIOError: another unit, of this or another target, has it.
        """
        self._claimed = True
        if self.folder is not None:
            with self._lock:
                if make:
                    self._make_folder(self.folder)
                elif self.folder.is_dir():
                    self._take(self.folder)

    def _take(self, folder: Path) -> None:
        if not self._claimed or self._fd >= 0:
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise BlockingIOError(error.errno, "another logical unit keeps its state there", str(folder)) from error
        except OSError:  # a file system without locks
            pass
        self._fd = fd

    def close(self) -> None:
        """Ends the claim."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    @property
    def durable(self) -> bool:
        """Whether what is saved now would outlive the target."""
        if self.folder is None:
            return False
        where = self.folder if self.folder.exists() else self.folder.parent
        return os.access(where, os.W_OK | os.X_OK)

    def load(self, name: str) -> dict[str, Any] | None:
        """The document saved last, or None. One that cannot be understood is set aside and said so in the log."""
        path = self.path(_checked(name) + ".json")
        with self._lock:
            if path is None:
                text = self._memory.get(name)
                return None if text is None else dict(text)
            try:
                document = json.loads(path.read_bytes())
                if not isinstance(document, dict):
                    raise ValueError("not an object")
            except FileNotFoundError:
                return None
            except (ValueError, RecursionError) as error:
                self._set_aside(path, error)
                return None
            return document

    def reject(self, name: str, why: object) -> None:
        """A document that was loaded makes no sense: it is set aside, too, and the log says so."""
        path = self.path(_checked(name) + ".json")
        with self._lock:
            self._memory.pop(name, None)
            if path is not None:
                self._set_aside(path, why)

    def _set_aside(self, path: Path, why: object) -> None:
        aside = _free(path.with_suffix(".damaged"))
        log.error("%s cannot be understood (%s): kept as %s", path, why, aside.name)
        self.damaged.add(path.stem)
        with contextlib.suppress(OSError):
            path.replace(aside)

    def save(self, name: str, document: dict[str, Any]) -> None:
        """Replaces a document; on return it is durable if anything is. OSError: the former one is still there."""
        _checked(name)
        data = json.dumps(document, indent=1).encode()
        with self._lock:
            if self.folder is None:
                self._memory[name] = json.loads(data)
                return
            self._make_folder(self.folder)
            write_durably(self.folder / f"{name}.json", data)

    def remove(self, name: str) -> None:
        """Forgets a document, durably; no error if there is none."""
        _checked(name)
        with self._lock:
            if self.folder is None:
                self._memory.pop(name, None)
                return
            with contextlib.suppress(FileNotFoundError):
                (self.folder / f"{name}.json").unlink()
                sync_folder(self.folder)

    def path(self, name: str) -> Path | None:
        """Where a file of that name belongs, for what is no document; None: nowhere."""
        return None if self.folder is None else self.folder / name

    def make_path(self, name: str) -> Path | None:
        """The same, and the folder is there. OSError if it cannot be made."""
        if self.folder is not None:
            with self._lock:
                self._make_folder(self.folder)
        return self.path(name)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        self._take(folder)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not a name of lower-case letters, digits and hyphens")
    return name


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a file in one step: after a crash it holds the old content or the new. OSError if it cannot."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    sync_folder(path.parent)


def set_aside(folder: Path) -> None:
    """Renames a folder that an image of the same name has left behind, so that a new image does not inherit it."""
    if not folder.is_dir():
        return
    aside = _free(folder.with_name(f"{folder.name}.old"), first="1")
    folder.rename(aside)
    sync_folder(folder.parent)
    log.warning("%s is of an image that is gone: kept as %s", folder, aside.name)


def _free(path: Path, first: str = "") -> Path:
    """The path with a number behind it, or with `first`, such that nothing is there."""
    names = itertools.chain((first,), map(str, itertools.count(2)))
    return next(free for name in names if not os.path.lexists(free := path.with_name(path.name + name)))


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
