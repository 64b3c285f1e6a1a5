# SPDX-License-Identifier: BSD-2-Clause
"""Where a local bus listens: the default path, folders that are safe to use, and the lock that tells stale from live.

Knows paths, owners, modes and locks. Speaks no protocol.
"""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from .errors import BusError

SUN_PATH_MAX = 107


def default_socket_path() -> Path:
    """$XDG_RUNTIME_DIR/vscsi/default.sock, else /tmp/vscsi-<uid>/default.sock. Makes nothing.

    A runtime directory that is not ours is ignored, as the XDG Base Directory Specification asks (sudo keeps the
    variable of the user who called it).
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        try:
            found = Path(runtime).stat()
        except OSError:
            pass
        else:
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
                return Path(runtime) / "vscsi" / "default.sock"
    return Path(f"/tmp/vscsi-{os.geteuid()}") / "default.sock"


def check_folder(folder: Path) -> None:
    """BusError unless `folder` is a real folder of ours that nobody else may enter.

    Whoever owned it could put a target of his own there, and would be handed our memory.
    """
    try:
        found = folder.lstat()
    except OSError as error:
        raise BusError(f"{folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise BusError(f"{folder} is not a folder; remove it")
    if found.st_uid != os.geteuid():
        raise BusError(f"{folder} belongs to user {found.st_uid}, not to us; give a socket path of your own")
    if found.st_mode & 0o077:
        raise BusError(f"{folder} is open to other users; run: chmod 700 {folder}")


def make_folder(folder: Path) -> None:
    """Make `folder` with mode 0700, or check the one that is there. BusError."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise BusError(f"cannot make {folder}: {error.strerror}") from error
    check_folder(folder)


def check_length(path: Path) -> None:
    """BusError if `path` does not fit a socket address."""
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        raise BusError(f"socket path {path} is longer than {SUN_PATH_MAX} bytes")


class SocketLock:
    """Held by the target that listens at `path`, for as long as it lives: the kernel drops it with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._pid = os.getpid()
        while True:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise BusError(f"cannot listen at {path}: {self._why(error)}") from error
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._fd)
                if error.errno != errno.EWOULDBLOCK:
                    raise BusError(f"cannot lock {self._path}: {error.strerror}") from error
                raise BusError(f"another target is listening at {path}") from None
            if self._is_current():
                return
            os.close(self._fd)  # the one who held it removed it meanwhile: ours locks nothing

    def _why(self, error: OSError) -> str:
        """What the user has to see to: mostly the folder, not a lock file of which he never heard."""
        if error.errno == errno.ENOENT and not self._path.parent.is_dir():
            return f"there is no folder {self._path.parent}"
        words = (error.strerror or str(error)).lower()
        return f"{words} for {self._path}" if self._path.exists() else f"{words} to make a file in {self._path.parent}"

    def _is_current(self) -> bool:
        try:
            at_path = self._path.lstat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._fd)
        return (at_path.st_dev, at_path.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Remove the lock file and let go of it. In a forked child: only close."""
        if self._fd < 0:
            return
        if os.getpid() == self._pid:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def clear_stale(path: Path) -> None:
    """With the lock held: remove a socket that no process listens on. BusError if one does, or it is no socket."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BusError(f"cannot listen at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise BusError(f"cannot listen at {path}: it exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            pass
        except BlockingIOError:
            raise BusError(f"another target is listening at {path}") from None
        except OSError as error:
            raise BusError(f"cannot listen at {path}: {error.strerror}") from error
        else:
            raise BusError(f"another target is listening at {path}")
    path.unlink(missing_ok=True)
