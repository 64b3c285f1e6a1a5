# SPDX-License-Identifier: BSD-2-Clause
"""The table on the terminal: what each protocol did, and the ratios with their spread. Knows the JSON, nothing else."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 118
LEGEND = """\
Latencies in microseconds; cpu: microseconds of CPU time an I/O; kick: events sent an I/O; I initiator, T target;
+-: half the distance between best and worst round. All do the same image I/O. blkif: one look at the unit's state, no
CDB. srp: CDB, task set, unit attention and reservation checks, status with residuals. direct: one thread, no ring."""


def _size(nbytes: int) -> str:
    return f"{nbytes // 1024}k" if nbytes % 1024 == 0 else str(nbytes)


def _label(row: dict[str, Any]) -> str:
    rate = f" at {_number(row['rate_per_s'])}/s" if row.get("rate_per_s") else ""
    return f"{row['workload']} {_size(row['block_size'])} qd{row['queue_depth']}{rate}"


def _number(value: float) -> str:
    """About three digits."""
    if value >= 10000:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(result: dict[str, Any]) -> str:
    """Half the distance between the best and the worst round, in per cent."""
    iops = [one["iops"] for one in result["rounds"]]
    middle = result["iops"]
    return f"{(max(iops) - min(iops)) / 2 / middle * 100:.0f}%" if middle else ""


COLUMNS = ("IOPS", "+-", "MB/s", "p50", "p99", "p99.9", "max", "cpu I", "cpu T", "kick I", "kick T")


def _table(title: str, **keywords: Any) -> Table:
    return Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left", **keywords)


def _results(document: dict[str, Any]) -> Table:
    table = _table("blkif, SCSI over SRP, and the image alone")
    table.add_column("workload", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for result in document["results"]:
        full = _label(result)
        if last not in (None, full):
            table.add_row()
        label = full if full != last else ""
        last = full
        latency, cpu, kicks = result["latency_us"], result["cpu_us_per_io"], result["kicks_per_io"]
        table.add_row(
            label,
            result["protocol"],
            _number(result["iops"] / 1000) + "k",
            _spread(result),
            _number(result["mb_per_s"]),
            *(_number(latency[name]) for name in ("p50", "p99", "p99_9", "max")),
            _number(cpu["initiator"]),
            _number(cpu["target"]),
            f"{kicks['initiator']:.3f}",
            f"{kicks['target']:.3f}",
        )
    return table


def _ratios(document: dict[str, Any]) -> Table:
    table = _table("ratios of IOPS: median of paired rounds [90 % interval]")
    table.add_column("workload", no_wrap=True)
    names = ("srp_over_blkif", "srp_over_direct", "blkif_over_direct")
    for name in names:
        table.add_column(name.replace("_over_", " / "), justify="right", no_wrap=True)
    for row in document["ratios"]:
        cells = [
            f"{row[name]['median']:.3f}  [{row[name]['low']:.3f} .. {row[name]['high']:.3f}]" if name in row else "-"
            for name in names
        ]
        table.add_row(_label(row), *cells)
    return table


def show(document: dict[str, Any]) -> None:
    """Print both tables and where they came from."""
    console = Console(highlight=False, markup=False)
    if console.width < WIDTH:
        console = Console(highlight=False, markup=False, width=WIDTH)
    console.print(_results(document))
    console.print(LEGEND, soft_wrap=True)
    console.print()
    console.print(_ratios(document))
    place = document["environment"]
    console.print(
        f"Linux {place['kernel']}, {place['cpu']}, {place['cpus']} CPUs, load {place['load_average'][0]}; "
        f"{place['rounds']} rounds of {place['seconds']:g} s; {place['slots']} slots each; spin {place['spin_us']} us; "
        f"{place['git'] or 'no revision'}",
        soft_wrap=True,
    )
