# SPDX-License-Identifier: BSD-2-Clause
"""The goals on the terminal. Knows the JSON, nothing else."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 118
VERDICT = {True: "met", False: "MISSED", None: ""}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def show(goals: dict[str, Any]) -> None:
    """Print the table and the lines that belong to it."""
    console = Console(highlight=False, markup=False)
    if console.width < WIDTH:
        console = Console(highlight=False, markup=False, width=WIDTH)
    table = Table(title="goals", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    for name in ("work", "what", "goal", "measured, median [90 % interval]", ""):
        table.add_column(name, no_wrap=name != "what")
    last = ""
    for row in goals["rows"]:
        sign, bound = (">=", row["at_least"]) if row["at_least"] is not None else ("<=", row["at_most"])
        goal = "" if bound is None else f"{sign} {bound:g} {row['unit']}".rstrip()
        measured = row["note"]
        if row["median"] is not None:
            measured = f"{_number(row['median'])}  [{_number(row['low'])} .. {_number(row['high'])}]"
        verdict = VERDICT[row["met"]]
        if row["work"] != last and last:
            table.add_row()
        table.add_row(row["work"] if row["work"] != last else "", row["what"], goal, measured, verdict)
        last = row["work"]
    console.print(table)
    for line in goals["lines"]:
        console.print(line, soft_wrap=True)
    judged = [row["met"] for row in goals["rows"] if row["met"] is not None]
    console.print(f"{judged.count(True)} of {len(judged)} goals met", soft_wrap=True)
