# SPDX-License-Identifier: BSD-2-Clause
"""The peers on the terminal. Knows the JSON, nothing else."""

from __future__ import annotations

from typing import Any

from report import facts
from report.svg import number
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 118


def show(document: dict[str, Any]) -> None:
    """One row for each way to the image and each load; versions and what was left out below."""
    console = Console(highlight=False, markup=False)
    if console.width < WIDTH:
        console = Console(highlight=False, markup=False, width=WIDTH)
    table = Table(title="ways to the same image", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    table.add_column("workload", no_wrap=True)
    table.add_column("by")
    for name in ("IOPS [90 % interval]", "p50 us", "p99 us", "cpu I", "cpu T", "SRP over the ring, times"):
        table.add_column(name, justify="right", no_wrap=True)
    ratios = {
        (row["label"], row["peer"]): facts.ratio_words(row["ratio"])
        for row in document["peer_ratios"]
        if row["ring"] == "srp"
    }
    titles = {peer["name"]: peer["title"] for peer in document["peers"]}
    for row in document["peer_results"]:
        latency, cpu = row["latency_us"], row["cpu_us_per_io"]
        told = [f"{latency[name]:.1f}" if latency["max"] else "-" for name in ("p50", "p99")]
        table.add_row(
            facts.label(row), titles.get(row["protocol"], row["protocol"]), facts.with_interval(*facts.iops(row)),
            *told, number(cpu["initiator"]), number(cpu["target"]), ratios.get((facts.label(row), row["protocol"]), ""),
        )  # fmt: skip
    console.print(table)
    for peer in document["peers"]:
        if peer.get("skipped"):
            console.print(f"left out: {peer['title']}: {peer['skipped']}", soft_wrap=True)
        elif peer.get("version"):
            console.print(f"{peer['name']}: {peer['version']}; {'; '.join(peer['settings'])}", soft_wrap=True)
