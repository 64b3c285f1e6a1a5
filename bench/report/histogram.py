# SPDX-License-Identifier: BSD-2-Clause
"""Latency histograms in numbers: quantiles, curves, and the text format that HdrHistogram's plotters read (.hgrm).

A histogram here is what the JSON has: {"ns": [value of a bucket, ...], "count": [...]}, values rising, none of them
empty. Knows no protocol and no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from vscsi.native import ffi, lib

SUB_BITS = int(lib.VSCSI_HIST_SUB_BITS)
TICKS_PER_HALF = 5
"""Rows of the text between one distance to 100 % and half of it, as HdrHistogram has it by default."""


def of_native(results: Any) -> dict[str, list[int]]:
    """All `struct vscsi_load_result *` of a list together; the largest value is kept exactly."""
    total = ffi.new("struct vscsi_load_result *")
    for one in results:
        lib.vscsi_load_merge(total, one)
    filled = [(int(lib.vscsi_hist_value(k)), int(n)) for k, n in enumerate(total.histogram) if n]
    out = {"ns": [min(value, int(total.max_ns)) for value, _ in filled], "count": [n for _, n in filled]}
    if out["ns"] and out["ns"][-1] < total.max_ns:
        if out["count"][-1] == 1:
            out["ns"][-1] = int(total.max_ns)
        else:
            out["count"][-1] -= 1
            out["ns"].append(int(total.max_ns))
            out["count"].append(1)
    return out


def quantile(histogram: dict[str, list[int]], q: float) -> int:
    """The smallest value that at least the fraction q of all does not exceed, in ns; 0 if there is none."""
    total = sum(histogram["count"])
    for value, below in zip(histogram["ns"], accumulate(histogram["count"]), strict=True):
        if below >= q * total:
            return value
    return histogram["ns"][-1] if histogram["ns"] else 0


def curve(histogram: dict[str, list[int]]) -> list[tuple[float, float]]:
    """(1 / (1 - q), latency in microseconds) for a picture: from the median's left to the last value but one."""
    total = sum(histogram["count"])
    points: list[tuple[float, float]] = []
    if total < 2:
        return points
    for k in range(int(math.log10(total) * 8) + 1):
        nines = 10 ** (k / 8)
        points.append((nines, quantile(histogram, 1 - 1 / nines) / 1000))
    return points


def levels(total: int) -> Iterator[float]:
    """The quantiles that a .hgrm shows: steps that halve each time the distance to 1 has halved."""
    q = 0.0
    while total and 1 - q > 1 / (2 * total):
        yield q
        halves = math.floor(math.log2(1 / (1 - q) + 1e-9)) + 1
        q += 1 / (TICKS_PER_HALF * 2**halves)
    yield 1.0


def hgrm(histogram: dict[str, list[int]]) -> str:
    """The percentile distribution as text, values in microseconds."""
    values, counts = histogram["ns"], histogram["count"]
    total = sum(counts)
    running = dict(zip(values, accumulate(counts), strict=True))
    out = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for q in levels(total):
        value = quantile(histogram, q)
        row = f"{value / 1000:12.3f} {q:2.12f} {running.get(value, 0):10d}"
        out.append(row if q == 1.0 else f"{row} {1 / (1 - q):14.2f}")
    mean = sum(v * n for v, n in zip(values, counts, strict=True)) / total if total else 0.0
    spread = math.sqrt(sum(n * (v - mean) ** 2 for v, n in zip(values, counts, strict=True)) / total) if total else 0.0
    out += [
        f"#[Mean    = {mean / 1000:12.3f}, StdDeviation   = {spread / 1000:12.3f}]",
        f"#[Max     = {(values[-1] if values else 0) / 1000:12.3f}, Total count    = {total:12d}]",
        f"#[Buckets = {64 - SUB_BITS:12d}, SubBuckets     = {1 << SUB_BITS:12d}]",
    ]
    return "\n".join(out) + "\n"
