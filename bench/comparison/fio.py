# SPDX-License-Identifier: BSD-2-Clause
"""fio on the image itself, without any target: what everybody measures disks with, as a lane.

Knows fio's command line and JSON. A round is one run of fio; what it takes to start is not in its numbers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from vscsi.native import ffi

from .measure import MismatchError, Round
from .workloads import Workload

PROGRAM = "fio"
HINT = "fio is not installed; make bench-peers"
PATTERNS = {(True, True): "randread", (True, False): "randwrite", (False, True): "read", (False, False): "write"}


def installed() -> bool:
    """Whether there is a fio to run."""
    return shutil.which(PROGRAM) is not None


def version() -> str:
    """What it says of itself."""
    return subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout.strip()


class FioLane:
    """`engine` on `image`, `jobs` processes with the whole queue depth each.

    norandommap: each block may come more than once, as in our own loads; else fio keeps a bitmap of what it has done.
    """

    def __init__(self, image: Path, *, engine: str = "io_uring", direct: bool = False, jobs: int = 1) -> None:
        self.name = f"fio {engine}{' direct=1' if direct else ''}{f' numjobs={jobs}' if jobs > 1 else ''}"
        self._command = [
            PROGRAM, "--name=bench", f"--filename={image}", f"--ioengine={engine}", f"--direct={int(direct)}",
            f"--numjobs={jobs}", "--group_reporting", "--norandommap", "--time_based", "--output-format=json",
        ]  # fmt: skip

    def run(self, spec: Any) -> Round:
        """One run of fio. Its CPU time stands under the initiator."""
        pattern = PATTERNS[bool(spec.random), spec.read_percent > 0]
        command = [
            *self._command, f"--rw={pattern}", f"--bs={spec.block_nbytes}", f"--iodepth={spec.queue_depth}",
            f"--size={spec.span_nbytes}", f"--runtime={max(spec.duration_ns // 1000000, 1)}ms",
            f"--randseed={spec.seed}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        start = done.stdout.find("{")
        if done.returncode or start < 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise MismatchError(f"{self.name}: {said[-1] if said else f'status {done.returncode}'}")
        (job,) = json.loads(done.stdout[start:])["jobs"]
        side = job["read" if spec.read_percent > 0 else "write"]
        result = ffi.new("struct vscsi_load_result *")
        result.ios = side["total_ios"]
        result.errors = job.get("error", 0)
        # Of several jobs the run time is the sum; their rate is not.
        result.elapsed_ns = int(side["total_ios"] / side["iops"] * 1e9) if side["iops"] else 0
        seconds = job["job_runtime"] / 1000 * (job["usr_cpu"] + job["sys_cpu"]) / 100
        return Round(result, initiator_cpu_ns=int(seconds * 1e9))

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """fio's business."""

    def close(self) -> None:
        """Nothing is left of it."""
