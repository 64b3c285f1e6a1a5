# SPDX-License-Identifier: BSD-2-Clause
"""The pictures of peers, ablations and the scheduler: as `pictures` does it, from the JSON to a Picture or None."""

from __future__ import annotations

from . import facts, svg
from .facts import Document
from .picture import Picture, picture

PEER_COLOURS = {"socket": 3, "file": 2, "ours": 4}
KIND_NAMES = {
    0: "SRP over the ring",
    2: "the file itself",
    3: "another target",
    4: "another door to our LUN",
    9: "other",
}
RING_TITLES = {"srp": "SRP over the ring, both ends spin", "srp, sleeping": "SRP over the ring, neither end spins"}


@picture
def peers(document: Document) -> Picture | None:
    """SRP over the ring and every other way, depth 1 and 32."""
    titles = {row["name"]: row["title"] for row in document.get("peers", [])}
    kinds = {row["name"]: PEER_COLOURS.get(row["kind"], 9) for row in document.get("peers", [])}
    rows, table = [], []
    for depth_ in (32, 1):
        found = [row for row in document.get("peer_results", []) if row["queue_depth"] == depth_]
        for row in sorted(found, key=lambda row: -float(row["iops"])):
            middle, low, high = facts.iops(row)
            name = row["protocol"]
            colour, kind = kinds.get(name, 0), KIND_NAMES[kinds.get(name, 0)]
            bar = svg.Bar(kind, colour, middle, low, high, svg.number(middle))
            rows.append(svg.Row(f"{name}, depth {depth_}", (bar,)))
            latency = row["latency_us"]
            told = [f"{latency[q]:.1f}" if latency["max"] else "-" for q in ("p50", "p99")]
            cpu = [svg.number(row["cpu_us_per_io"][side]) for side in facts.CPU_NAMES]
            title = titles.get(name, RING_TITLES.get(name, name))
            table.append((facts.label(row), title, facts.with_interval(middle, low, high), *told, *cpu))
    if not rows:
        return None
    title = "4 KiB random reads: other ways to the same image"
    words = (
        "The same image, in the same rounds; what other programs read is not compared. iscsi-perf tells no latencies. "
        "CPU time in microseconds an I/O: of the program that asks, and of the one that answers (for the doors, "
        "without the process that owns the rings)."
    )
    scale = svg.linear([bar.high or bar.value for row in rows for bar in row.bars])
    drawn = svg.bars(title, words, scale, "I/O per second", rows)
    header = ("workload", "by", "IOPS", "p50 µs", "p99 µs", "CPU, client", "CPU, server")
    return Picture("peers", title, words, drawn, header, tuple(table))


@picture
def ablations(document: Document) -> Picture | None:
    """What each choice is worth."""
    done = [row for row in document.get("ablations", []) if "ratio" in row]
    if not done:
        return None
    rows = [
        svg.Row(row["name"], (svg.Bar("otherwise / default", 0, row["ratio"]["median"], row["ratio"]["low"],
                                      row["ratio"]["high"], f"{row['ratio']['median']:.2f}"),))
        for row in done
    ]  # fmt: skip
    title = "SRP with one thing done otherwise, over SRP as it is"
    words = "I/O per second; below 1 the default is the better choice. The table says what each name stands for."
    scale = svg.linear([1.0, *(bar.high or bar.value for row in rows for bar in row.bars)])
    drawn = svg.bars(title, words, scale, "share of the default's I/O per second", rows, mark_at=1.0)
    table = tuple(
        (row["name"], row["title"], facts.label(row), facts.ratio_words(row["ratio"]), *facts.both(row)) for row in done
    )
    header = ("", "otherwise", "workload", "IOPS", "p50 µs", "CPU µs an I/O", "events an I/O")
    return Picture("ablations", title, words, drawn, header, table)


@picture
def scheduler(document: Document) -> Picture | None:
    """What bench/scheduler.py has measured."""
    from sharing import show

    found = document.get("scheduler") or {}
    if not found.get("streams") and not found.get("polite"):
        return None
    table = [(words,) for words in show.claims(found)]
    words = f"{show.WORDS} On a simulated disk: {found.get('disk', '?')}."
    return Picture("scheduler", show.TITLE, words, show.drawn(found), ("measured",), tuple(table))
