# SPDX-License-Identifier: BSD-2-Clause
"""One timed round of one lane, and what a run of rounds adds up to. Knows native results, no protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from report import histogram

from vscsi.native import ffi, lib

from .workloads import Workload

QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p99_9": 0.999}


@dataclass
class Round:
    """What one run of the load generator counted. Times in ns; `result` is cdata `struct vscsi_load_result *`."""

    result: Any
    target_cpu_ns: int = 0
    target_kicks: int = 0
    initiator_cpu_ns: int = 0
    started: float = 0.0
    """Seconds since the epoch."""

    @property
    def ended(self) -> float:
        """Seconds since the epoch."""
        return self.started + int(self.result.elapsed_ns) / 1e9

    @property
    def ios(self) -> int:
        return int(self.result.ios)

    @property
    def iops(self) -> float:
        return self.ios * 1e9 / max(int(self.result.elapsed_ns), 1)

    def us(self, quantile: float) -> float:
        """A latency quantile in microseconds."""
        return float(lib.vscsi_hist_quantile(self.result, quantile)) / 1000

    def to_json(self, workload: Workload) -> dict[str, Any]:
        ios = max(self.ios, 1)
        return {
            "iops": round(self.iops, 1),
            "mb_per_s": round(self.iops * workload.block_nbytes / 1e6, 2),
            "p50_us": round(self.us(0.5), 2),
            "p99_us": round(self.us(0.99), 2),
            "cpu_us_per_io": {
                "initiator": round(self.initiator_cpu_ns / ios / 1000, 3),
                "target": round(self.target_cpu_ns / ios / 1000, 3),
            },
            "kicks_per_io": {
                "initiator": round(self.result.kicks / ios, 4),
                "target": round(self.target_kicks / ios, 4),
            },
        }


class Lane(Protocol):
    """One way to the image: a protocol, or `direct`."""

    name: str

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """Write data by this lane, at this block size and depth, and read it back. Raises MismatchError."""

    def run(self, spec: Any) -> Round:
        """Run the load that `spec` (struct vscsi_load_spec *) describes."""

    def close(self) -> None:
        """Give everything back."""


class MismatchError(Exception):
    """Data came back otherwise than it was written, or I/O failed."""


def load_spec(workload: Workload, span_nbytes: int, seconds: float, seed: int, *, max_ios: int = 0) -> Any:
    """The native description of a workload."""
    return ffi.new(
        "struct vscsi_load_spec *",
        {
            "block_nbytes": workload.block_nbytes,
            "queue_depth": workload.queue_depth,
            "read_percent": workload.read_percent,
            "random": int(workload.random),
            "span_nbytes": span_nbytes // workload.block_nbytes * workload.block_nbytes,
            "duration_ns": int(seconds * 1e9),
            "max_ios": max_ios,
            "seed": seed,
            "rate_per_s": workload.rate_per_s,
        },
    )


@dataclass
class Series:
    """All rounds of one workload over one lane."""

    workload: Workload
    protocol: str
    rounds: list[Round] = field(default_factory=list)

    @property
    def iops(self) -> list[float]:
        return [one.iops for one in self.rounds]

    def to_json(self) -> dict[str, Any]:
        """A row of the JSON's `results`."""
        total = ffi.new("struct vscsi_load_result *")
        for one in self.rounds:
            lib.vscsi_load_merge(total, one.result)
        ios = max(int(total.ios), 1)
        iops = median(self.iops)
        latency = {name: round(lib.vscsi_hist_quantile(total, q) / 1000, 2) for name, q in QUANTILES.items()}
        return {
            "workload": self.workload.name,
            "block_size": self.workload.block_nbytes,
            "queue_depth": self.workload.queue_depth,
            "protocol": self.protocol,
            "rate_per_s": self.workload.rate_per_s,
            "started": round(self.rounds[0].started, 3),
            "lasted": round(self.rounds[-1].ended - self.rounds[0].started, 3),
            "unsent": int(total.unsent),
            "iops": round(iops, 1),
            "mb_per_s": round(iops * self.workload.block_nbytes / 1e6, 2),
            "latency_us": {**latency, "max": round(total.max_ns / 1000, 2)},
            "cpu_us_per_io": {
                "initiator": round(sum(one.initiator_cpu_ns for one in self.rounds) / ios / 1000, 3),
                "target": round(sum(one.target_cpu_ns for one in self.rounds) / ios / 1000, 3),
            },
            "kicks_per_io": {
                "initiator": round(total.kicks / ios, 4),
                "target": round(sum(one.target_kicks for one in self.rounds) / ios, 4),
            },
            "rounds": [one.to_json(self.workload) for one in self.rounds],
            "histogram": histogram.of_native([one.result for one in self.rounds]),
        }


def check(lane: Lane, done: Round) -> Round:
    """`done`, unless its I/O failed."""
    if done.result.errors:
        raise MismatchError(f"{lane.name}: {done.result.errors} of {done.ios} requests failed")
    if not done.ios:
        raise MismatchError(f"{lane.name}: not one request was answered")
    return done


def series_of(all_series: Sequence[Series], workload: Workload, protocol: str) -> Series | None:
    """The series of one workload over one lane."""
    return next((s for s in all_series if s.workload == workload and s.protocol == protocol), None)
