# SPDX-License-Identifier: BSD-2-Clause
"""Medians and bootstrap intervals of paired ratios. Knows numbers only.

Two runs of the same loop differ by some per cent on a shared machine, and the machine drifts. So the protocols run in
paired rounds, a ratio is taken within each round, and what is reported is the median of these ratios with the interval
that resampling the rounds gives.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

CONFIDENCE = 0.90
RESAMPLES = 4000


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Median, and low and high end of its percentile bootstrap interval. Same values, same result."""
    if not values:
        raise ValueError("no rounds")
    source = random.Random(len(values))
    medians = sorted(median(source.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - confidence) / 2
    low = medians[int(tail * RESAMPLES)]
    high = medians[min(int((1 - tail) * RESAMPLES), RESAMPLES - 1)]
    return median(values), low, high


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """The paired ratio of two series of rounds, as the JSON has it."""
    pairs = [a / b for a, b in zip(above, below, strict=True) if b]
    if not pairs:
        return {"median": 0.0, "low": 0.0, "high": 0.0}
    middle, low, high = interval(pairs)
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def order(names: Sequence[str], number: int) -> list[str]:
    """Who runs when in round `number`: forwards, then backwards (A B B A), so that drift hits both alike."""
    return list(names) if number % 2 == 0 else list(reversed(names))
