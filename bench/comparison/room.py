# SPDX-License-Identifier: BSD-2-Clause
"""What the scenes of the goals share: the image, the length of rounds, targets and lanes that are closed at the end.

Knows how lanes are opened and compared; knows no goal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import rounds
from .measure import Lane, Series
from .server import PrivateTarget
from .workloads import Workload

READ = Workload("randread", 4096, 32, 100, True)
WRITE = Workload("randwrite", 4096, 32, 0, True)
SINGLE = Workload("randread", 4096, 1, 100, True)
SPIN_US = 50


@dataclass
class Room:
    """Where and how long is measured."""

    image: Path
    span_nbytes: int
    folder: Path
    rounds: int
    seconds: float
    tell: Callable[[str], None]

    @contextlib.contextmanager
    def target(self, *luns: str, spin_us: int = SPIN_US, options: Sequence[str] = ()) -> Iterator[PrivateTarget]:
        """A target that serves these stores, as --lun has them."""
        server = PrivateTarget(luns, self.folder, spin_us=spin_us, options=options)
        try:
            yield server
        finally:
            server.close()

    def compare(
        self, lanes: Sequence[Lane], workload: Workload, span_nbytes: int = 0, *, verify: bool = True
    ) -> dict[str, Series]:
        """Verify, warm up, and run the paired rounds of one workload: the series by lane."""
        span = span_nbytes or self.span_nbytes
        if not verify:
            lanes = [_Unverified(lane) for lane in lanes]
        series = rounds.compare(lanes, [workload], span, rounds=self.rounds, seconds=self.seconds, tell=self.tell)
        return {one.protocol: one for one in series}


class _Unverified:
    """A lane of which nothing comes back that could be verified."""

    def __init__(self, lane: Lane) -> None:
        self.name, self.run, self.close = lane.name, lane.run, lane.close

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """See above."""


def pin(pid: int, cpu: int) -> None:
    """Bind every thread a process has now to one CPU."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.sched_setaffinity(int(thread.name), {cpu})


@contextlib.contextmanager
def pinned_here(cpu: int) -> Iterator[None]:
    """This thread on one CPU for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cpus() -> tuple[int, int] | None:
    """Two CPUs to bind the two ends to, if there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else None
