# SPDX-License-Identifier: BSD-2-Clause
"""The goals: what was measured for each, with its 90 % interval, and whether it is met. Knows numbers and words only.

A goal is missed only if the whole interval lies on the wrong side of its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import statistics
from .measure import Series


@dataclass(frozen=True)
class Verdict:
    """One row of the table. `values`: one for each round. Without a bound it is only told."""

    work: str
    what: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def goal(self) -> str:
        """The bound as text."""
        for sign, bound in ((">=", self.at_least), ("<=", self.at_most)):
            if bound is not None:
                return f"{sign} {bound:g}{f' {self.unit}' if self.unit else ''}"
        return ""

    @property
    def interval(self) -> tuple[float, float, float]:
        """Median, low and high end."""
        return statistics.interval(self.values)

    @property
    def met(self) -> bool | None:
        """None: nothing was measured, or nothing was wanted."""
        if not self.values or (self.at_least is None and self.at_most is None):
            return None
        _, low, high = self.interval
        return (self.at_least is None or high >= self.at_least) and (self.at_most is None or low <= self.at_most)

    def to_json(self) -> dict[str, Any]:
        """A row of the JSON's `goals`."""
        middle, low, high = self.interval if self.values else (None, None, None)
        return {
            "work": self.work,
            "what": self.what,
            "unit": self.unit,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "median": _rounded(middle),
            "low": _rounded(low),
            "high": _rounded(high),
            "met": self.met,
            "note": self.note,
            "rounds": [_rounded(value) for value in self.values],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


@dataclass
class Scene:
    """What a group of goals measured: rows of the table, and lines to be printed beside it."""

    verdicts: list[Verdict] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def ratio(above: Series, below: Series) -> list[float]:
    """IOPS over IOPS, round by round."""
    return [a / b for a, b in zip(above.iops, below.iops, strict=True) if b]


def excess(above: Series, below: Series, quantile: float = 0.5) -> list[float]:
    """How much longer `above` took, in microseconds, round by round."""
    return [a.us(quantile) - b.us(quantile) for a, b in zip(above.rounds, below.rounds, strict=True)]
