# SPDX-License-Identifier: BSD-2-Clause
"""How a row of the goals is worded, for the terminal and for the page: bound, measured value, verdict, their order.

Knows the JSON's `goals`; prints nothing and knows no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

RULE = "A goal is missed only if the whole 90 % interval lies on the wrong side of it."


def grouped(rows: Sequence[Row]) -> list[Row]:
    """Rows about the same work side by side, wherever they were measured; else in their order."""
    places = {work: place for place, work in enumerate(dict.fromkeys(row["work"] for row in rows))}
    return sorted(rows, key=lambda row: places[row["work"]])


def bound(row: Row) -> str:
    """`>= 0.97`, `<= 1 MiB`, or nothing."""
    for sign, value in ((">=", row["at_least"]), ("<=", row["at_most"])):
        if value is not None:
            return f"{sign} {value:g} {row['unit']}".rstrip()
    return ""


def measured(row: Row) -> str:
    """Median and interval, the value if there was one only, or why there is none."""
    if row["median"] is None:
        return str(row["note"])
    values = [float(row[name]) for name in ("median", "low", "high")]
    largest = max(map(abs, values))
    places = 0 if largest >= 100 or all(value.is_integer() for value in values) else 1 if largest >= 10 else 3
    middle, low, high = (f"{value:.{places}f}" for value in values)
    return middle if low == high else f"{middle} [{low} .. {high}]"


def missed(rows: Sequence[Row]) -> list[str]:
    """One sentence for each goal that was not met."""
    return [
        f"{row['work']}: {row['what']} is {measured(row)}, the goal is {bound(row)}"
        for row in grouped(rows)
        if row["met"] is False
    ]


def tally(rows: Sequence[Row]) -> str:
    """How many were met, missed and not measured."""
    judged = [row["met"] for row in rows if row["met"] is not None]
    unmeasured = sum(row["met"] is None and bool(bound(row)) for row in rows)
    words = f"{judged.count(True)} of {len(judged)} goals met"
    if judged.count(False):
        words += f", {judged.count(False)} missed"
    return f"{words}; {unmeasured} not measured" if unmeasured else words
