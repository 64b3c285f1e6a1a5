# SPDX-License-Identifier: BSD-2-Clause
"""What ties the target to other processes: the command of --run, the parent, the pid file, a private socket folder.

Knows processes and files. Must not know what is served. What only some options need is imported with them: a target
starts sooner.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from vscsi.cli import CliError, ExitStatus

_PR_SET_PDEATHSIG = 1
_PATIENCE_SECONDS = 5.0


def exit_with_parent() -> None:
    """SIGTERM comes when the parent ends. If it has ended already, this ends the program."""
    import ctypes

    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise CliError(f"--exit-with-parent: {os.strerror(ctypes.get_errno()).lower()}", ExitStatus.OS_ERROR)
    if os.getppid() != parent:
        sys.exit(ExitStatus.OK)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only we can enter, for as long as needed."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="vscsi-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def pidfile(path: Path) -> Iterator[None]:
    """Writes our process id, whole or not at all, and takes the file away at the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{os.getpid()}\n")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        words = (error.strerror or str(error)).lower()
        raise CliError(f"{path}: cannot write the pid file: {words}", ExitStatus.FILE) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


class Child:
    """The command of --run. When it ends, `stop` is called; when we end first, it is told to."""

    def __init__(self, command: str, socket: Path, uri: str, stop: Callable[[], None]) -> None:
        import subprocess

        # Our own programs are found even where the place they are installed in is not on the path.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        environment = {**os.environ, "PATH": path, "uri": uri, "unixsocket": str(socket), "VSCSI_URI": uri}
        self._process = subprocess.Popen(["/bin/sh", "-c", command], env=environment)
        self._stop = stop
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="vscsi-captive", daemon=True).start()

    def _watch(self) -> None:
        self._process.wait()
        self._ended.set()
        self._stop()

    def finish(self) -> int:
        """Ends the command if it still runs; its exit status as a shell would have it."""
        if self._process.poll() is None:
            self._process.terminate()
            self._ended.wait(_PATIENCE_SECONDS)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        code = self._process.returncode
        return 128 - code if code < 0 else code
