# SPDX-License-Identifier: BSD-2-Clause
"""Which loads are compared: a table of rows, and how the command line picks and changes them. Knows no protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Workload:
    """A closed loop: `queue_depth` requests of `block_nbytes` are always outstanding.

    With a rate it is an open one: so many are due a second, at most `queue_depth` are outstanding.
    """

    name: str
    block_nbytes: int
    queue_depth: int
    read_percent: int
    random: bool
    rate_per_s: int = 0

    @property
    def label(self) -> str:
        """As the table shows it."""
        size = f"{self.block_nbytes // 1024}k" if self.block_nbytes % 1024 == 0 else str(self.block_nbytes)
        rate = f" at {self.rate_per_s}/s" if self.rate_per_s else ""
        return f"{self.name} {size} qd{self.queue_depth}{rate}"


WORKLOADS = (
    Workload("randread", 4096, 32, 100, True),
    Workload("randwrite", 4096, 32, 0, True),
    Workload("randread", 4096, 1, 100, True),
    Workload("seqread", 128 << 10, 8, 100, False),
    Workload("seqwrite", 128 << 10, 8, 0, False),
    Workload("mix", 4096, 32, 70, True),
)
NAMES = tuple(dict.fromkeys(workload.name for workload in WORKLOADS))


def pick(names: Sequence[str], block_nbytes: Sequence[int], queue_depths: Sequence[int]) -> list[Workload]:
    """The rows with these names (all if none are given), at each of these block sizes and depths if given."""
    picked = []
    for row in WORKLOADS:
        if names and row.name not in names:
            continue
        for size in block_nbytes or [row.block_nbytes]:
            for depth in queue_depths or [row.queue_depth]:
                picked.append(replace(row, block_nbytes=size, queue_depth=depth))
    return list(dict.fromkeys(picked))
