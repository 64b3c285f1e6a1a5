# SPDX-License-Identifier: BSD-2-Clause
"""The one place that knows a FUSE library (mfusepy, over libfuse 3): serves Files at a mount point until unmounted.

Chosen because it has fallocate, runs callbacks in several threads, needs no compiler, and is kept. Must not know SCSI.
"""

import os
import signal
from pathlib import Path
from typing import Any

from initiator.mount.files import Files

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""End the mount. Only the thread that serves may get them: block them in all others before they start."""
MAX_BACKGROUND = 64
MAX_THREADS, KNOWS_MAX_THREADS = 16, (3, 12)
"""Requests that are served at once, and the libfuse that can be told."""
INSTALL = "pip install 'vscsi[fuse]' and apt-get install fuse3"


class MountError(Exception):
    """One clear line that says what is missing or wrong."""


def library() -> Any:
    """The module. MountError if it, or libfuse, is not installed."""
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")  # it prefers libfuse 2 where both are
    try:
        import mfusepy
    except ImportError as error:
        raise MountError(f"the Python library mfusepy is not installed: {INSTALL}") from error
    except OSError as error:
        raise MountError(f"libfuse 3 is not installed: {INSTALL}") from error
    return mfusepy


def check(folder: Path) -> None:
    """Whether this could be a mount point. MountError."""
    if not folder.is_dir():
        raise MountError(f"{folder}: is not a directory")
    device = Path("/dev/fuse")
    if not device.exists():
        raise MountError("there is no /dev/fuse: the kernel module is missing, or this container may not use FUSE")
    if not os.access(device, os.R_OK | os.W_OK):
        raise MountError("/dev/fuse: permission denied")


class _Kernel:
    """Files, with what only a mounted file system is told."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.started = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def init_with_config(self, connection: Any, config: Any) -> None:
        """The kernel is there."""
        if connection is not None:
            connection.max_background = MAX_BACKGROUND
            connection.congestion_threshold = MAX_BACKGROUND * 3 // 4
        self.started = True
        self._files.init("/")


def serve(files: Files, folder: Path, *, shared: bool, readonly: bool, direct: bool) -> None:
    """Mounts and serves in this thread and libfuse's until the folder is unmounted or one of SIGNALS comes.

    The caller has blocked SIGNALS. MountError if it cannot be mounted; libfuse has said why on stderr.
    """
    mfusepy = library()
    base: Any = mfusepy.FUSE
    version = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
    # Without the first, libfuse 3.14 complains of its own default.
    options = {"max_idle_threads": MAX_THREADS}
    if version >= KNOWS_MAX_THREADS:
        options["max_threads"] = MAX_THREADS

    class Door(base):  # type: ignore[misc]
        """mfusepy 3.1 knows lseek's place but has no wrapper for it."""

        def lseek(self, path: bytes, offset: int, whence: int, info: Any) -> int:
            return int(self.operations.lseek(os.fsdecode(path), offset, whence, info.contents.fh))

    kernel = _Kernel(files)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        Door(
            kernel,
            os.fspath(folder),
            foreground=True,
            fsname="vscsi",
            subtype="vscsi",
            allow_other=shared,
            ro=readonly,
            direct_io=direct,
            **options,
        )
    except RuntimeError as error:
        if not kernel.started:  # else it was a signal that ended it
            raise MountError(f"{folder}: cannot be mounted") from error
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
