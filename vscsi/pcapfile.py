# SPDX-License-Identifier: BSD-2-Clause
"""Where a capture goes: a file, a FIFO, or standard output. What is written is at once the kernel's, so that it
survives the end of this process, however it ends.

Knows descriptors; must not know what is written. Not thread-safe: callers have a lock or one thread.
"""

import logging
import os
import select
import stat
import sys
import time

log = logging.getLogger("vscsi.pcap")

STDOUT = "-"
PIPE_BUF = 4096
"""A pipe that is ready for writing takes so much without blocking (POSIX)."""
LOOK_SECONDS = 0.1


class PcapFile:
    """Opens `path` for writing: a new file (mode 0600: it holds data of disks), a FIFO (waits for its reader), or '-'.

    '-' takes standard output for the capture alone: what this program and its children print goes to stderr from then
    on. OSError if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard output" if path == STDOUT else path
        self.broken = False
        self._deadline: float | None = None
        if path == STDOUT:
            sys.stdout.flush()
            self._fd = os.dup(1)
            os.dup2(2, 1)
        else:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)

    def write(self, data: bytes) -> None:
        """All of it; waits for a reader that is slow. What fails is logged once; then nothing is written any more."""
        view = memoryview(data)
        while len(view) and not self.broken:
            try:
                if self._regular:
                    view = view[os.write(self._fd, view) :]
                elif self._ready():
                    view = view[os.write(self._fd, view[:PIPE_BUF]) :]
                elif self._deadline is not None and time.monotonic() > self._deadline:
                    self._end("its reader is too slow")
            except OSError as error:
                gone = isinstance(error, BrokenPipeError)
                self._end("nobody reads it any more" if gone else (error.strerror or str(error)).lower())

    def _ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(LOOK_SECONDS * 1000))

    def _end(self, why: str) -> None:
        self.broken = True
        log.warning("%s: the capture ends here: %s", self.name, why)

    def hurry(self, seconds: float) -> None:
        """A reader that is slow is waited for so long and no longer. From any thread."""
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        self.broken = True
        if fd >= 0:
            os.close(fd)
