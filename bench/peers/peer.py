# SPDX-License-Identifier: BSD-2-Clause
"""What a peer is: a lane that can be missing, with a version and settings on record; the registry; its processes.

Knows how a program is found, started, watched and stopped. Must not know any peer by name.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from comparison.environment import process_cpu_ns
from comparison.measure import Round
from comparison.workloads import Workload

from vscsi.native import ffi, lib

READY_SECONDS = 15.0
STOP_SECONDS = 5.0
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"


class PeerError(Exception):
    """One line about a peer that does not do what it should."""


@dataclass(frozen=True)
class Site:
    """What is there for peers to work on: the image, a folder for their sockets, our target and its LUN 0."""

    image: Path
    span_nbytes: int
    folder: Path
    target_socket: Path
    target_pid: int

    @property
    def uri(self) -> str:
        """Of our target's LUN 0."""
        return f"vscsi+unix:///0?socket={self.target_socket}"


class Peer:
    """A way to the image. Subclasses say what they need, start it, and turn one load into a Round."""

    name: str = ""
    title: ClassVar[str]
    kind: ClassVar[str]
    """`socket`: another target, reached as a client would. `file`: no target. `ours`: another door to the same LUN."""
    commands: ClassVar[tuple[str, ...]]
    """Programs without which there is nothing to run; the first one's version is recorded."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Debian packages whose versions are recorded."""
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._servers: list[subprocess.Popen[bytes]] = []
        self.extra_pid = 0

    def missing(self) -> str:
        """Why it cannot run here, in one line, or nothing."""
        absent = [name for name in self.commands if find(name) is None]
        return f"{', '.join(absent)} not installed (make bench-peers)" if absent else ""

    def version(self) -> str:
        """What the record says."""
        return package_versions(self.packages)

    def supports(self, workload: Workload) -> bool:
        """Whether it can do this load at all."""
        return not workload.rate_per_s

    def start(self, site: Site) -> None:
        """Get ready for loads. PeerError."""

    def run(self, spec: Any) -> Round:
        """One load, `struct vscsi_load_spec *`. PeerError or MismatchError."""
        raise NotImplementedError

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """Most of these programs cannot be told what to write. What they answer is not looked at."""

    def close(self) -> None:
        """Stop what was started, by its process id. Idempotent."""
        while self._servers:
            stop(self._servers.pop())

    # ---- for subclasses ----

    def serve(self, command: Sequence[str], ready: Callable[[], bool], log: Path, **keywords: Any) -> int:
        """Start a server and wait until it is ready: its process id. PeerError."""
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*_die_with_the_bench(), find(command[0]) or command[0], *command[1:]],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, **keywords,
            )  # fmt: skip
        self._servers.append(process)
        end = time.monotonic() + READY_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text(errors="replace").strip().splitlines()
                self.close()
                raise PeerError(f"{command[0]} did not start: {said[-1] if said else 'it said nothing'}")
            time.sleep(0.02)
        return process.pid

    def cpu_ns(self) -> int:
        """CPU time so far of the servers."""
        pids = [process.pid for process in self._servers] + ([self.extra_pid] if self.extra_pid else [])
        return sum(process_cpu_ns(pid) for pid in pids)


def _die_with_the_bench() -> list[str]:
    """What is put before a server's command: a bench that was killed cannot stop it."""
    program = find("setpriv")
    return [program, "--pdeathsig", "KILL"] if program else []


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, insist."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find(name: str) -> str | None:
    """The program, also where only root looks."""
    return shutil.which(name, path=PATH)


def call(command: Sequence[str], seconds: float = 60.0, **keywords: Any) -> str:
    """Run a program to its end: what it printed. PeerError if it fails or takes too long."""
    try:
        done = subprocess.run(
            [find(command[0]) or command[0], *command[1:]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False, **keywords,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PeerError(f"{command[0]} took longer than {seconds:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PeerError(f"{command[0]}: {said[-1] if said else f'status {done.returncode}'}")
    return str(done.stdout)


def package_versions(names: Sequence[str]) -> str:
    """`tgt 1:1.0.85`: as dpkg has them; what it does not know is left out."""
    query = find("dpkg-query")
    if query is None:
        return "not known here"
    out = []
    for name in names:
        done = subprocess.run([query, "-W", "-f", "${Version}", name], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout:
            out.append(f"{name} {done.stdout}")
    return ", ".join(out)


def round_of(ios: int, seconds: float, bins: dict[int, int] | None = None, *, client_ns: int, server_ns: int) -> Round:
    """A Round from a program's numbers; `bins` are latencies in ns with their counts."""
    result = ffi.new("struct vscsi_load_result *")
    result.ios, result.elapsed_ns = ios, max(int(seconds * 1e9), 1)
    for ns, count in (bins or {}).items():
        result.histogram[lib.vscsi_hist_bucket_of(ns)] += count
        result.max_ns = max(result.max_ns, ns)
    return Round(result, target_cpu_ns=server_ns, initiator_cpu_ns=client_ns)


PEERS: list[type[Peer]] = []
Class = TypeVar("Class", bound=type[Peer])


def register(kind: Class) -> Class:
    """Puts a peer on the list."""
    PEERS.append(kind)
    return kind


def every() -> list[type[Peer]]:
    """All peers of this folder, in the order of their files' names."""
    package = importlib.import_module(__package__)
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{__package__}.{module}")
    return PEERS
