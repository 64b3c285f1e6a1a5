# SPDX-License-Identifier: BSD-2-Clause
"""The `direct` lane: the image I/O alone, with the target's engine, in one thread of its own process: the limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vscsi.native import ffi

from .environment import process_cpu_ns
from .measure import MismatchError, Round, check, load_spec
from .workloads import Workload

WORKER = Path(__file__).with_name("direct_worker.py")


class DirectLane:
    """Reads and writes `image` with no protocol in between."""

    name = "direct"

    def __init__(self, image: Path, *, nowait: bool = True) -> None:
        self._image = image
        self._worker = subprocess.Popen(
            [sys.executable, str(WORKER), str(image), str(int(nowait))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _receive(self, nbytes: int) -> bytes:
        assert self._worker.stdout
        data = self._worker.stdout.read(nbytes)
        if len(data) < nbytes:
            raise MismatchError(f"direct: its process ended with status {self._worker.wait()}")
        return data

    def run(self, spec: Any) -> Round:
        """Run the load in the worker; its CPU time stands under the target, whose part it plays."""
        assert self._worker.stdin
        before = process_cpu_ns(self._worker.pid)
        self._worker.stdin.write(bytes(ffi.buffer(spec)))
        self._worker.stdin.flush()
        status = int.from_bytes(self._receive(4), sys.byteorder, signed=True)
        result = ffi.new("struct vscsi_load_result *")
        ffi.buffer(result)[:] = self._receive(ffi.sizeof("struct vscsi_load_result"))
        if status < 0:
            raise MismatchError(f"direct: {os.strerror(-status)}")
        return Round(result, target_cpu_ns=process_cpu_ns(self._worker.pid) - before)

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """Write and read a known number of blocks: exactly these must have changed in the image, and no other.

        The engine's buffers hold nothing in particular, so what counts is where it writes, and how much.
        """
        block = workload.block_nbytes
        count = min(workload.queue_depth * 2, span_nbytes // block - 1)
        marked = os.urandom(block) * (count + 1)
        with self._image.open("r+b", buffering=0) as image:
            image.write(marked)
            for percent in (0, 100):
                part = Workload(workload.name, block, min(workload.queue_depth, count), percent, False)
                done = check(self, self.run(load_spec(part, count * block, 60.0, seed=0, max_ios=count)))
                if done.ios != count:
                    raise MismatchError(f"direct: {done.ios} I/Os done, {count} wanted")
            image.seek(0)
            found = image.read(len(marked))
        changed = [found[at : at + block] != marked[at : at + block] for at in range(0, len(marked), block)]
        if changed != [True] * count + [False]:
            raise MismatchError(f"direct: {sum(changed)} blocks written where {count} were wanted")

    def close(self) -> None:
        """End the worker."""
        assert self._worker.stdin
        self._worker.stdin.close()
        self._worker.wait()
