# SPDX-License-Identifier: BSD-2-Clause
"""A lane whose load runs in a process of its own: specifications go in on stdin, results come out on stdout, in binary.

Knows that conversation; knows nothing of what the process does in between.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from vscsi.native import ffi

from .environment import process_cpu_ns
from .measure import MismatchError, Round
from .workloads import Workload


class WorkerLane:
    """`command` reads a struct vscsi_load_spec and answers with a status (int32) and a struct vscsi_load_result."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _receive(self, nbytes: int) -> bytes:
        assert self._worker.stdout
        data = self._worker.stdout.read(nbytes)
        if len(data) < nbytes:
            raise MismatchError(f"{self.name}: its process ended with status {self._worker.wait()}")
        return data

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._worker.pid

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
            raise MismatchError(f"{self.name}: {os.strerror(-status)}")
        return Round(result, target_cpu_ns=process_cpu_ns(self._worker.pid) - before)

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """Nothing to verify: what moves no data cannot move it wrongly."""

    def close(self) -> None:
        """End the worker."""
        assert self._worker.stdin
        self._worker.stdin.close()
        self._worker.wait()
