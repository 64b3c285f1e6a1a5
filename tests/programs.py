# SPDX-License-Identifier: BSD-2-Clause
"""Helper: real programs run as users run them: a vscsi-target on a private socket, and whatever talks to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
READY_SECONDS = 30


@dataclass
class Done:
    """A program that has ended. `out` is bytes; `text` is the same, decoded."""

    status: int
    out: bytes
    err: str

    @property
    def text(self):
        return self.out.decode()


def run(*command, data=None, env=None, timeout=60, **keywords):
    """Run a program to its end, with nothing of the caller's VSCSI_URI."""
    environment = {name: value for name, value in os.environ.items() if name != "VSCSI_URI"} | (env or {})
    words = [str(word) for word in command]
    keywords.setdefault("cwd", "/")
    if data is None:
        keywords.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        words, input=data, capture_output=True, timeout=timeout, env=environment, check=False, **keywords
    )
    err = done.stderr.decode()
    assert "Traceback" not in err, err
    return Done(done.returncode, done.stdout, err)


def one_line(done, status, *words):
    """It ended with this status and one line on stderr that has these words."""
    assert done.status == status, (done.status, done.err)
    assert done.err.startswith("vscsi-initiator"), done.err
    assert done.err.count("\n") == 1, done.err
    for word in words:
        assert word in done.err
    return done


def tool(name):
    """A program of the system; the test is skipped where it is not installed."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


class Target:
    """A running vscsi-target."""

    def __init__(self, folder, *luns, options=()):
        self.folder = folder
        self.socket = folder / "t.sock"
        self.pidfile = folder / "t.pid"
        self.log = folder / "t.log"
        command = [BIN / "vscsi-target", "-U", self.socket, "--pidfile", self.pidfile, "--exit-with-parent", *options]
        for lun in luns:
            command += ["--lun", lun]
        with self.log.open("wb") as log:
            words = [str(word) for word in command]
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + READY_SECONDS
        while not self.pidfile.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, "vscsi-target did not become ready"
            time.sleep(0.01)

    def uri(self, lun=0):
        return f"vscsi+unix:///{lun}?socket={self.socket}"

    def initiator(self, *arguments, lun=None, **keywords):
        """vscsi-initiator with this target's socket."""
        where = ["--socket", self.socket] if lun is None else ["--uri", self.uri(lun)]
        return run(BIN / "vscsi-initiator", *where, *arguments, **keywords)

    def stop(self):
        """Orderly stop: the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


class Restarting:
    """A target program that is ended and started again, on the same socket and image."""

    def __init__(self, folder, *options, size="8M"):
        self.folder, self.options, self.size = folder, options, size
        self.start()

    def start(self):
        (self.folder / "t.pid").unlink(missing_ok=True)
        self.target = Target(self.folder, f"0={self.folder / 'disk.img'},size={self.size}", options=self.options)

    @property
    def socket(self):
        return self.target.socket

    @property
    def is_running(self):
        return self.target.process.poll() is None

    def freeze(self):
        os.kill(self.target.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.target.process.pid, signal.SIGCONT)

    def kill(self):
        self.target.process.kill()
        self.target.process.wait()
