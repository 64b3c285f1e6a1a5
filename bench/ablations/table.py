# SPDX-License-Identifier: BSD-2-Clause
"""The ablations on the terminal. Knows the JSON, nothing else."""

from __future__ import annotations

from typing import Any

from report import facts
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 118


def show(document: dict[str, Any]) -> None:
    """One row a choice; what was left out below."""
    console = Console(highlight=False, markup=False)
    if console.width < WIDTH:
        console = Console(highlight=False, markup=False, width=WIDTH)
    table = Table(title="SRP with one thing done otherwise, over SRP as it is", box=SIMPLE_HEAD, padding=(0, 1),
                  pad_edge=False, title_justify="left")  # fmt: skip
    table.add_column("choice")
    table.add_column("workload", no_wrap=True)
    for name in ("IOPS, median [90 % interval]", "p50 us", "cpu us", "kicks"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in document["ablations"]:
        if "ratio" in row:
            table.add_row(row["title"], facts.label(row), facts.ratio_words(row["ratio"]), *facts.both(row))
    console.print(table)
    for row in document["ablations"]:
        if row.get("skipped"):
            console.print(f"left out: {row['name']}: {row['skipped']}", soft_wrap=True)
