# SPDX-License-Identifier: BSD-2-Clause
"""fio on the image itself, without any target: what everybody measures disks with, as a lane.

Knows where it is pointed to; its command line and its JSON are peers.fio's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from peers.fio import command, parse
from peers.peer import PeerError, call, round_of

from .measure import MismatchError, Round
from .workloads import Workload

PROGRAM = "fio"
HINT = "fio is not installed; make bench-peers"


def installed() -> bool:
    """Whether there is a fio to run."""
    return shutil.which(PROGRAM) is not None


def version() -> str:
    """What it says of itself."""
    return subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout.strip()


class FioLane:
    """`engine` on `image`, `jobs` processes with the whole queue depth each."""

    def __init__(self, image: Path, *, engine: str = "io_uring", direct: bool = False, jobs: int = 1) -> None:
        self.name = f"fio {engine}{' direct=1' if direct else ''}{f' numjobs={jobs}' if jobs > 1 else ''}"
        self._options = [f"--filename={image}", f"--ioengine={engine}", f"--direct={int(direct)}", f"--numjobs={jobs}"]

    def run(self, spec: Any) -> Round:
        """One run of fio. Its CPU time stands under the initiator."""
        try:
            ios, seconds, bins, cpu = parse(call(command(spec, self._options)))
        except PeerError as error:
            raise MismatchError(f"{self.name}: {error}") from None
        return round_of(ios, seconds, bins, client_ns=int(cpu * 1e9), server_ns=0)

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """fio's business."""

    def close(self) -> None:
        """Nothing is left of it."""
