# SPDX-License-Identifier: BSD-2-Clause
"""What a report measures beyond the plain table: the depths, the block sizes, and the fixed rates of the open loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comparison.measure import Series
from comparison.workloads import WORKLOADS, Workload

DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128)
BLOCKS = (4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20)
LOADS = (0.25, 0.5, 0.75)
"""Rates of the open loop, as shares of what the slowest lane did in the closed one."""


def closed() -> list[Workload]:
    """All closed loops, those of the plain table first."""
    random = Workload("randread", 4096, 1, 100, True)
    rows = [*WORKLOADS, *(replace(random, queue_depth=depth) for depth in DEPTHS)]
    for name, percent in (("seqread", 100), ("seqwrite", 0)):
        rows += [Workload(name, nbytes, 8, percent, False) for nbytes in BLOCKS]
    return list(dict.fromkeys(rows))


def opened(done: Sequence[Series]) -> list[Workload]:
    """The open loops: at rates that every lane can follow, by what was just measured at depth 32."""
    from statistics import median

    base = Workload("randread", 4096, 32, 100, True)
    reached = [median(one.iops) for one in done if one.workload == base]
    if not reached:
        return []
    return [replace(base, rate_per_s=max(1, int(min(reached) * share) // 1000 * 1000)) for share in LOADS]
