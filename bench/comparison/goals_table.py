# SPDX-License-Identifier: BSD-2-Clause
"""The goals on the terminal. Knows the JSON, nothing else."""

from __future__ import annotations

from typing import Any

from report import goal_rows
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 118
WORK_WIDTH = 30
VERDICT = {True: "met", False: "MISSED", None: ""}


def show(goals: dict[str, Any]) -> None:
    """Print the table and the lines that belong to it."""
    console = Console(highlight=False, markup=False)
    if console.width < WIDTH:
        console = Console(highlight=False, markup=False, width=WIDTH)
    table = Table(title="goals", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    table.add_column("work", max_width=WORK_WIDTH)
    table.add_column("what")
    for name in ("goal", "measured, median [90 % interval]", ""):
        table.add_column(name, no_wrap=True)
    last = ""
    for row in goal_rows.grouped(goals["rows"]):
        if row["work"] != last and last:
            table.add_row()
        work = row["work"] if row["work"] != last else ""
        table.add_row(work, row["what"], goal_rows.bound(row), goal_rows.measured(row), VERDICT[row["met"]])
        last = row["work"]
    console.print(table)
    for line in goals["lines"]:
        console.print(line, soft_wrap=True)
    console.print(f"{goal_rows.tally(goals['rows'])}. {goal_rows.RULE}", soft_wrap=True)
