# SPDX-License-Identifier: BSD-2-Clause
"""The order of things: verify, warm up, then paired rounds A B B A; and the ratios. Knows lanes by their methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from . import statistics
from .measure import Lane, Series, check, load_spec, series_of
from .workloads import Workload

WARM_UP_SECONDS = 0.1
RATIOS = (("srp", "blkif"), ("srp", "direct"), ("blkif", "direct"))


def compare(
    lanes: Sequence[Lane],
    workloads: Sequence[Workload],
    span_nbytes: int,
    *,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> list[Series]:
    """Run everything. `tell` hears what is going on. Raises MismatchError."""
    by_name = {lane.name: lane for lane in lanes}
    names = list(by_name)
    all_series: list[Series] = []
    for workload in workloads:
        for lane in lanes:
            tell(f"{workload.label}: verifying {lane.name}")
            lane.verify(workload, span_nbytes)
        for lane in lanes:
            check(lane, lane.run(load_spec(workload, span_nbytes, min(WARM_UP_SECONDS, seconds), seed=1)))
        series = {name: Series(workload, name) for name in names}
        for number in range(rounds):
            tell(f"{workload.label}: round {number + 1} of {rounds}")
            # Every lane of a round gets the same offsets in the same order.
            for name in statistics.order(names, number):
                lane = by_name[name]
                spec = load_spec(workload, span_nbytes, seconds, seed=number + 2)
                started = time.time()
                done = check(lane, lane.run(spec))
                done.started = started
                series[name].rounds.append(done)
        all_series += series.values()
    return all_series


def ratios(all_series: Sequence[Series], workloads: Sequence[Workload]) -> list[dict[str, Any]]:
    """The `ratios` of the JSON: those whose lanes both ran."""
    out = []
    for workload in workloads:
        row: dict[str, Any] = {
            "workload": workload.name,
            "block_size": workload.block_nbytes,
            "queue_depth": workload.queue_depth,
            "rate_per_s": workload.rate_per_s,
        }
        for above, below in RATIOS:
            first, second = (series_of(all_series, workload, name) for name in (above, below))
            if first and second:
                row[f"{above}_over_{below}"] = statistics.ratio(first.iops, second.iops)
        out.append(row)
    return out
