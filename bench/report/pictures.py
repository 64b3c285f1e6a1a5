# SPDX-License-Identifier: BSD-2-Clause
"""The pictures of the plain bench and its sweeps: one function each, from the JSON to a Picture or None.

Knows the JSON through `facts` and what a reader should look at. Geometry is svg's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import facts, histogram, svg
from .facts import COLOURS, Document, Result, name_of
from .picture import Drawer, Picture, picture

KEY_WORKLOADS = (("randread", 4096, 1), ("randread", 4096, 32), ("randwrite", 4096, 32), ("seqread", 128 << 10, 8))


@picture
def ratios(document: Document) -> Picture | None:
    """Both protocols as a share of `direct`."""
    title = "I/O per second through the ring, as a share of the same image I/O without one"
    rows, table = [], []
    for row in document.get("ratios", []):
        if row.get("rate_per_s") or (row["workload"], row["block_size"], row["queue_depth"]) not in _table_rows(
            document
        ):
            continue
        bars = []
        for protocol in ("srp", "blkif"):
            if found := row.get(f"{protocol}_over_direct"):
                bars.append(
                    svg.Bar(name_of(protocol), COLOURS[protocol], found["median"], found["low"], found["high"],
                            f"{found['median']:.2f}")
                )  # fmt: skip
        if bars:
            rows.append(svg.Row(facts.label(row), tuple(bars)))
        names = ("srp_over_blkif", "srp_over_direct", "blkif_over_direct")
        table.append((facts.label(row), *(facts.ratio_words(row[name]) if name in row else "-" for name in names)))
    if not rows:
        return None
    words = "1 is the image I/O alone, in one thread. Whiskers: 90 % interval of the median of paired rounds."
    scale = svg.linear([1.0, *(bar.high or bar.value for row in rows for bar in row.bars)])
    drawn = svg.bars(title, words, scale, "share of direct's I/O per second", rows, mark_at=1.0)
    return Picture("ratios", title, words, drawn, ("workload", "srp / blkif", "srp / direct", "blkif / direct"),
                   tuple(table))  # fmt: skip


def _table_rows(document: Document) -> set[tuple[str, int, int]]:
    """The workloads of the plain table: those the sweeps have added would only repeat what their curves show."""
    rows = document.get("table")
    source = rows if rows is not None else [_key(row) for row in document.get("ratios", [])]
    return {(str(name), int(nbytes), int(depth)) for name, nbytes, depth in source}


def _key(row: Result) -> tuple[str, int, int]:
    return row["workload"], row["block_size"], row["queue_depth"]


def _over(
    rows: Sequence[Result], x: str, value: Callable[[Result], tuple[float, float, float]], unit: str, x_words: Any
) -> tuple[list[svg.Line], tuple[tuple[str, ...], ...]]:
    """Lines of a value with its interval over a column, and the table of it."""
    names = facts.protocols(rows)
    lines = []
    cells: dict[tuple[int, str], str] = {}
    for protocol in names:
        points = []
        for row in sorted((row for row in rows if row["protocol"] == protocol), key=lambda row: int(row[x])):
            middle, low, high = value(row)
            cells[row[x], protocol] = facts.with_interval(middle, low, high)
            words = f"{x_words(row[x])}: {cells[row[x], protocol]} {unit}"
            points.append(svg.Point(row[x], middle, low, high, words))
        lines.append(svg.Line(name_of(protocol), COLOURS.get(protocol, 3), tuple(points)))
    steps = sorted({row[x] for row in rows})
    table = tuple((str(x_words(at)), *(cells.get((at, name), "-") for name in names)) for at in steps)
    return lines, table


@picture
def depth(document: Document) -> Picture | None:
    """IOPS over queue depth."""
    rows = facts.results(document, workload="randread", block_size=4096)
    if len({row["queue_depth"] for row in rows}) < 3:
        return None
    title = "4 KiB random reads: I/O per second over queue depth"
    words = "Requests under way at once, closed loop. Whiskers: 90 % interval of the median round."
    lines, table = _over(rows, "queue_depth", facts.iops, "IOPS", lambda at: f"depth {at}")
    drawn = svg.lines(
        title, words,
        svg.logarithmic([row["queue_depth"] for row in rows], base=2),
        svg.linear([p.high or p.y for line in lines for p in line.points]),
        "queue depth", "I/O per second", lines,
    )  # fmt: skip
    return Picture("depth", title, words, drawn, ("", *(line.name for line in lines)), table)


def _percentile(nines: float) -> str:
    share = 100 * (1 - 1 / nines)
    return f"{share:.10g} %"


def _latency(key: str, title: str, words: str, rows: Sequence[Result]) -> Picture | None:
    lines, cells = [], []
    for protocol in facts.protocols(rows):
        row = next(row for row in rows if row["protocol"] == protocol)
        if not row.get("histogram"):
            continue
        curve = histogram.curve(row["histogram"])
        points = tuple(svg.Point(x, y, words=f"{_percentile(x)}: {y:.1f} µs") for x, y in curve)
        lines.append(svg.Line(name_of(protocol), COLOURS.get(protocol, 3), points, marks=False))
        quantiles = (0.5, 0.9, 0.99, 0.999, 0.9999)
        found = [f"{histogram.quantile(row['histogram'], q) / 1000:.1f}" for q in (*quantiles, 1.0)]
        p50 = facts.interval(row, lambda one: float(one["p50_us"]))
        cells.append((name_of(protocol), *found, f"{p50[0]:.1f} [{p50[1]:.1f} .. {p50[2]:.1f}]"))
    if not lines:
        return None
    x = svg.logarithmic([p.x for line in lines for p in line.points] or [1.0], label=_percentile)
    y = svg.logarithmic([p.y for line in lines for p in line.points if p.y > 0] or [1.0])
    drawn = svg.lines(title, words, x, y, "share of requests answered within", "microseconds", lines)
    header = ("µs", "p50", "p90", "p99", "p99.9", "p99.99", "max", "p50 by rounds")
    return Picture(key, title, words, drawn, header, tuple(cells))


def _closed(at: int) -> Drawer:
    def drawer(document: Document) -> Picture | None:
        rows = facts.results(document, workload="randread", block_size=4096, queue_depth=at)
        words = "Closed loop: the next request is sent when one has been answered. Both axes are logarithmic."
        return _latency(f"latency-qd{at}", f"4 KiB random reads, depth {at}: latency by percentile", words, rows)

    return drawer


for _depth in (1, 32):
    picture(_closed(_depth))


@picture
def open_loop(document: Document) -> Picture | None:
    """Latency at a fixed rate."""
    rates = sorted({row.get("rate_per_s", 0) for row in document.get("results", [])} - {0})
    if not rates:
        return None
    rate = rates[len(rates) // 2]
    rows = facts.results(document, rate_per_s=rate)
    words = (
        "Open loop: a request is due every so many nanoseconds, answered or not, and its latency counts from when it "
        "was due, so that a stall hides nothing. Both axes are logarithmic."
    )
    title = f"4 KiB random reads at {svg.number(rate)} I/O per second: latency by percentile"
    return _latency("open-loop", title, words, rows)


def _throughput(workload: str, verb: str) -> Drawer:
    def drawer(document: Document) -> Picture | None:
        rows = facts.results(document, workload=workload, queue_depth=8)
        if len({row["block_size"] for row in rows}) < 3:
            return None
        title = f"Sequential {verb}, depth 8: throughput over block size"
        words = "Megabytes (10^6) a second. Whiskers: 90 % interval of the median round."
        lines, table = _over(rows, "block_size", facts.mb_per_s, "MB/s", lambda at: f"{facts.size(int(at))}")
        drawn = svg.lines(
            title, words,
            svg.logarithmic([row["block_size"] for row in rows], base=2, label=lambda at: facts.size(int(at))),
            svg.linear([p.high or p.y for line in lines for p in line.points]),
            "block size in bytes", "MB/s", lines,
        )  # fmt: skip
        return Picture(f"throughput-{workload}", title, words, drawn, ("block", *(line.name for line in lines)), table)

    return drawer


for _workload, _verb in (("seqread", "reads"), ("seqwrite", "writes")):
    picture(_throughput(_workload, _verb))


def _per_io(key: str, column: str, title: str, words: str, x_label: str, digits: int) -> Drawer:
    """Bars of what an I/O costs, both sides added up; the table has each side."""

    def total(one: dict[str, Any]) -> float:
        return float(sum(one[column].values()))

    def drawer(document: Document) -> Picture | None:
        rows, table = [], []
        for name, nbytes, depth_ in KEY_WORKLOADS:
            found = facts.results(document, workload=name, block_size=nbytes, queue_depth=depth_)
            bars = []
            for protocol in facts.protocols(found):
                row = next(row for row in found if row["protocol"] == protocol)
                middle, low, high = facts.interval(row, total)
                text = f"{middle:.{digits}f}"
                bars.append(svg.Bar(name_of(protocol), COLOURS.get(protocol, 3), middle, low, high, text))
                sides = (f"{row[column][side]:.{digits}f}" for side in facts.CPU_NAMES)
                spread = f"{middle:.{digits}f} [{low:.{digits}f} .. {high:.{digits}f}]"
                table.append((facts.label(row), name_of(protocol), *sides, spread))
            if bars:
                rows.append(svg.Row(facts.label(found[0]), tuple(bars)))
        if not rows:
            return None
        scale = svg.linear([bar.high or bar.value for row in rows for bar in row.bars])
        drawn = svg.bars(title, words, scale, x_label, rows)
        return Picture(
            key, title, words, drawn, ("workload", "", "initiator", "target", "both, by rounds"), tuple(table)
        )

    return drawer


picture(
    _per_io(
        "cpu", "cpu_us_per_io", "CPU time an I/O, both processes",
        "Microseconds of CPU time, spinning included; direct has one process only. The table tells the sides apart.",
        "microseconds an I/O", 2,
    )
)  # fmt: skip
picture(
    _per_io(
        "kicks", "kicks_per_io", "Events sent an I/O, both directions",
        "One event is one system call and perhaps one wake-up of the other side; 0 means that spinning, batches and "
        "event suppression made it unnecessary.",
        "events an I/O", 3,
    )
)  # fmt: skip
