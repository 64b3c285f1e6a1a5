# SPDX-License-Identifier: BSD-2-Clause
"""Questions to the bench's JSON: which rows there are, a value with its interval, how a number is written.

Knows the schema and that any part of it may be missing. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from comparison import statistics

from .svg import number

Document = dict[str, Any]
Result = dict[str, Any]

PROTOCOLS = {"srp": "SCSI over SRP", "blkif": "blkif", "direct": "direct, no ring"}
COLOURS = {"srp": 0, "blkif": 1, "direct": 2}
CPU_NAMES = ("initiator", "target")


def name_of(protocol: str) -> str:
    """As a reader sees it."""
    return PROTOCOLS.get(protocol, protocol)


def size(nbytes: int) -> str:
    """512, 4k, 1M."""
    for factor, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if nbytes >= factor and nbytes % factor == 0:
            return f"{nbytes // factor}{letter}"
    return str(nbytes)


def results(document: Document, **wanted: Any) -> list[Result]:
    """Closed-loop rows with these values (`rate_per_s=...` for the others), in the JSON's order."""
    wanted.setdefault("rate_per_s", 0)
    return [
        row
        for row in document.get("results", [])
        if all(row.get(key, 0 if key == "rate_per_s" else None) == value for key, value in wanted.items())
    ]


def protocols(rows: Sequence[Result]) -> list[str]:
    """Those of the rows: the known ones in their order, then the others."""
    found = list(dict.fromkeys(row["protocol"] for row in rows))
    return [name for name in PROTOCOLS if name in found] + [name for name in found if name not in PROTOCOLS]


_interval = lru_cache(4096)(statistics.interval)
"""Several pictures ask for the same rounds."""


def interval(row: Result, value: Callable[[dict[str, Any]], float]) -> tuple[float, float, float]:
    """Median of a row's rounds, low and high end of its interval."""
    return _interval(tuple(value(one) for one in row["rounds"]))


def iops(row: Result) -> tuple[float, float, float]:
    return interval(row, lambda one: float(one["iops"]))


def mb_per_s(row: Result) -> tuple[float, float, float]:
    return interval(row, lambda one: float(one["mb_per_s"]))


def with_interval(middle: float, low: float, high: float) -> str:
    """`850k [840k .. 861k]`."""
    return f"{number(middle)} [{number(low)} .. {number(high)}]"


def ratio_words(ratio: dict[str, float]) -> str:
    """`0.981 [0.966 .. 0.992]`."""
    return f"{ratio['median']:.3f} [{ratio['low']:.3f} .. {ratio['high']:.3f}]"


def label(row: Result) -> str:
    """`randread 4k qd32`."""
    return f"{row['workload']} {size(row['block_size'])} qd{row['queue_depth']}"


def ratios(document: Document, name: str, **wanted: Any) -> list[tuple[str, dict[str, float]]]:
    """Label and ratio of the rows that have it."""
    return [
        (label(row), row[name])
        for row in document.get("ratios", [])
        if name in row and not row.get("rate_per_s") and all(row[key] == value for key, value in wanted.items())
    ]


def note(document: Document) -> str:
    """Where and how, in one line."""
    place = document.get("environment", {})
    return (
        f"{place.get('cpu', '?')}, {place.get('cpus', '?')} CPUs, Linux {place.get('kernel', '?')}; "
        f"{place.get('rounds', '?')} paired rounds of {place.get('seconds', 0):g} s"
    )


def both(row: dict[str, Any]) -> tuple[str, str, str]:
    """Of an ablation: p50, CPU time and events an I/O, as it is and otherwise."""
    sides = [row[name] for name in ("default", "otherwise")]
    return (
        " / ".join(f"{side['latency_us']['p50']:.1f}" for side in sides),
        " / ".join(f"{sum(side['cpu_us_per_io'].values()):.2f}" for side in sides),
        " / ".join(f"{sum(side['kicks_per_io'].values()):.3f}" for side in sides),
    )
