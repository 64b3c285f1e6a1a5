# SPDX-License-Identifier: BSD-2-Clause
"""A target whose writes can be kept back: a library in its process waits before each write that begins with HELD, until
it is let go. Once each time it is armed, a sync does so too and then fails, or a durable write finds no space.
The pool engine makes these calls itself. Knows no protocol.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Target, tool

HELD = b"HELD"
FAIL_SYNC, FULL, LOST = "fail-sync", "full", "lost"
SOURCE = """#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void hold(void)
{
    char byte;
    int told = open(getenv("HOLD_TOLD"), O_WRONLY | O_CLOEXEC);
    if (write(told, "x", 1) != 1)
        abort();
    close(told);
    int gate = open(getenv("HOLD_GATE"), O_RDONLY | O_CLOEXEC);
    if (read(gate, &byte, 1) != 0)
        abort();
    close(gate);
}

static int armed(const char *name)
{
    return unlink(getenv(name)) == 0;
}

int fdatasync(int fd)
{
    if (armed("HOLD_SYNC")) {
        hold();
        errno = EIO;
        return -1;
    }
    if (armed("HOLD_LOST")) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int flags)
{
    if (!(flags & RWF_NOWAIT) && n && v[0].iov_len >= 4 && memcmp(v[0].iov_base, "HELD", 4) == 0)
        hold();
    if (flags & RWF_DSYNC && armed("HOLD_FULL")) {
        errno = ENOSPC;
        return -1;
    }
    return flags ? syscall(SYS_pwritev2, fd, v, n, at, at >> 31 >> 1, flags) : pwritev(fd, v, n, at);
}
"""


class Holding:
    """One write at a time is held."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.target = target
        self._folder = folder
        self._told, self._gate = folder / "told", folder / "gate"
        self._opened: int | None = None

    def arm(self, what: str) -> None:
        """The next sync is held, and fails with EIO; or it fails at once; or the next durable write does (ENOSPC)."""
        (self._folder / what).touch()

    def wait(self) -> None:
        """Returns once a write is held."""
        with self._told.open("rb", buffering=0) as told:
            assert told.read(1) == b"x"
        self._opened = os.open(self._gate, os.O_WRONLY)

    def let_go(self) -> None:
        """The write that is held goes on."""
        opened, self._opened = self._opened, None
        if opened is not None:
            os.close(opened)


@contextlib.contextmanager
def holding(folder: Path, lun: str = "", *more: str, options: tuple[str, ...] = ()) -> Iterator[Holding]:
    """Serves a new `disk.img` there as LUN 0, and `more` LUNs."""
    (folder / "hold.c").write_text(SOURCE)
    words = [tool("gcc"), "-shared", "-fPIC", "-O1", "-o", folder / "hold.so", folder / "hold.c"]
    subprocess.run(words, check=True)
    os.mkfifo(folder / "told")
    os.mkfifo(folder / "gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(folder / "hold.so")))))
        patch.setenv("HOLD_TOLD", str(folder / "told"))
        patch.setenv("HOLD_GATE", str(folder / "gate"))
        patch.setenv("HOLD_SYNC", str(folder / FAIL_SYNC))
        patch.setenv("HOLD_FULL", str(folder / FULL))
        patch.setenv("HOLD_LOST", str(folder / LOST))
        luns = f"0={folder / 'disk.img'},size=8M{lun}", *more
        target = Target(folder, *luns, options=("--engine", "pool", *options))
    made = Holding(folder, target)
    try:
        yield made
    finally:
        made.let_go()
        status = target.stop()
    text = target.log.read_text()
    assert status == 0 and "Traceback" not in text, text
