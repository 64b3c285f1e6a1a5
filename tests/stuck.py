# SPDX-License-Identifier: BSD-2-Clause
"""A folder whose file I/O can be made to hang, for targets that serve an image in it from another process.

Knows the recording folder of the crash tests, and adds a gate before it. Must not know what is served.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crash.folder import Folder, mounted
from crash.log import Log

SECONDS = 30


class Gate(Folder):
    """`hangs(what, offset, nbytes)` says which of "read", "write" and "fsync" wait until `let_go`."""

    def __init__(self) -> None:
        super().__init__(Log(), hesitate=0)
        self.hangs: Callable[[str, int, int], bool] = lambda what, offset, nbytes: False
        self.waiting = 0
        self._open = threading.Event()
        self._count = threading.Lock()

    def let_go(self) -> None:
        """Everything that hangs goes on, and nothing hangs any more."""
        self.hangs = lambda what, offset, nbytes: False
        self._open.set()

    def wait_for(self, count: int) -> None:
        """Until so many operations hang."""
        end = time.monotonic() + SECONDS
        while self.waiting < count:
            assert time.monotonic() < end, f"{self.waiting} operations hang, not {count}"
            time.sleep(0.005)

    def _pass(self, what: str, offset: int = 0, nbytes: int = 0) -> None:
        if not self.hangs(what, offset, nbytes):
            return
        with self._count:
            self.waiting += 1
        self._open.wait(SECONDS)
        with self._count:
            self.waiting -= 1

    def read(self, path, nbytes, offset, fi):
        self._pass("read", offset, nbytes)
        return super().read(path, nbytes, offset, fi)

    def write(self, path, data, offset, fi):
        self._pass("write", offset, len(data))
        return super().write(path, data, offset, fi)

    def fsync(self, path, datasync, fi):
        self._pass("fsync")
        return super().fsync(path, datasync, fi)


@contextlib.contextmanager
def gated(place: Path, **files: int) -> Iterator[Gate]:
    """Files of these sizes in a folder at `place`, none of which hangs at first."""
    folder = Gate()
    for name, nbytes in files.items():
        folder.make(name, nbytes)
    with mounted(folder, place):
        try:
            yield folder
        finally:
            folder.let_go()
