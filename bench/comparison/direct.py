# SPDX-License-Identifier: BSD-2-Clause
"""The `direct` lane: the image I/O alone, with the target's engine, in one thread of its own process: the limit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .measure import MismatchError, check, load_spec
from .worker import WorkerLane
from .workloads import Workload

WORKER = Path(__file__).with_name("direct_worker.py")


class DirectLane(WorkerLane):
    """Reads and writes `image` with no protocol in between."""

    def __init__(self, image: Path, *, nowait: bool = True) -> None:
        super().__init__("direct", [sys.executable, str(WORKER), str(image), str(int(nowait))])
        self._image = image

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
