# SPDX-License-Identifier: BSD-2-Clause
"""The table on the terminal: what each protocol did, and the ratios with their spread. Knows the JSON, nothing else."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

WHAT_RUNS = (
    "Every column does the same image I/O. blkif: one look at the unit's state, no CDB. srp: CDB, task set, unit "
    "attention and reservation checks, status with residuals. direct: the image I/O alone, in one thread, no ring."
)


def _size(nbytes: int) -> str:
    return f"{nbytes // 1024}k" if nbytes % 1024 == 0 else str(nbytes)


def _spread(result: dict[str, Any]) -> str:
    """Half the distance between the best and the worst round, in per cent."""
    iops = [one["iops"] for one in result["rounds"]]
    middle = result["iops"]
    return f"±{(max(iops) - min(iops)) / 2 / middle * 100:.0f}%" if middle else ""


def _results(document: dict[str, Any]) -> Table:
    table = Table(title="blkif, SCSI over SRP, and the image alone", caption=WHAT_RUNS, caption_justify="left")
    table.add_column("workload", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    for name in ("IOPS", "spread", "MB/s", "p50", "p99", "p99.9", "max us", "cpu I", "cpu T us", "kicks I", "kicks T"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for result in document["results"]:
        key = (result["workload"], result["block_size"], result["queue_depth"])
        if last not in (None, key):
            table.add_section()
        label = f"{key[0]} {_size(key[1])} qd{key[2]}" if key != last else ""
        last = key
        latency, cpu, kicks = result["latency_us"], result["cpu_us_per_io"], result["kicks_per_io"]
        table.add_row(
            label,
            result["protocol"],
            f"{result['iops']:,.0f}",
            _spread(result),
            f"{result['mb_per_s']:,.0f}",
            *(f"{latency[name]:,.1f}" for name in ("p50", "p99", "p99_9")),
            f"{latency['max']:,.0f}",
            f"{cpu['initiator']:.2f}",
            f"{cpu['target']:.2f}",
            f"{kicks['initiator']:.3f}",
            f"{kicks['target']:.3f}",
        )
    return table


def _ratios(document: dict[str, Any]) -> Table:
    table = Table(title="ratios of IOPS: median of paired rounds [90 % interval]")
    table.add_column("workload", no_wrap=True)
    names = ("srp_over_blkif", "srp_over_direct", "blkif_over_direct")
    for name in names:
        table.add_column(name.replace("_over_", " / "), justify="right", no_wrap=True)
    for row in document["ratios"]:
        cells = [
            f"{row[name]['median']:.3f}  [{row[name]['low']:.3f} .. {row[name]['high']:.3f}]" if name in row else "-"
            for name in names
        ]
        table.add_row(f"{row['workload']} {_size(row['block_size'])} qd{row['queue_depth']}", *cells)
    return table


def show(document: dict[str, Any]) -> None:
    """Print both tables and where they came from."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=132)
    console.print(_results(document))
    console.print(_ratios(document))
    place = document["environment"]
    console.print(
        f"Linux {place['kernel']}, {place['cpu']}, {place['cpus']} CPUs, load {place['load_average'][0]}; "
        f"{place['rounds']} rounds of {place['seconds']:g} s; {place['slots']} slots each; spin {place['spin_us']} us; "
        f"{place['git'] or 'no revision'}",
        soft_wrap=True,
    )
