# SPDX-License-Identifier: BSD-2-Clause
"""What the measured scenes say: the table, the sentences with their verdict, the picture. Knows the JSON, no lane."""

from __future__ import annotations

from typing import Any

from report import svg

Document = dict[str, Any]
GOAL = 3.0
"""A greedy neighbour may raise the p99 of a polite initiator that many times."""
NAMES = (("alone", "alone", 2), ("fifo", "without the scheduler", 1), ("fair", "sched=fair", 0))


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def claims(document: Document) -> list[str]:
    """One sentence for each scene."""
    streams, polite, weights = (document.get(name) for name in ("streams", "polite", "weights"))
    out = []
    if streams:
        fifo, fair = (streams[name]["mb_per_s"]["median"] for name in ("fifo", "fair"))
        out.append(
            f"Two sequential streams of two initiators on one simulated disk: {fair:.0f} MB/s with the scheduler, "
            f"{fifo:.0f} without: {_ratio(streams['fair_over_fifo'])} times as much."
        )
    if polite:
        out.append(
            f"A polite initiator (depth 1) beside a greedy one (depth 256): its p99 is "
            f"{_ratio(polite['p99_fair_over_alone'])} times that of being alone with the scheduler, "
            f"{_ratio(polite['p99_fifo_over_alone'])} times without."
        )
    if weights:
        rows = weights["rows"]
        wanted = ":".join(str(row["weight"]) for row in rows)
        got = ", ".join(f"{row['median'] * 100:.1f} %" for row in rows)
        out.append(f"Weights {wanted} give {got} of the requests.")
    return out


def verdict(document: Document) -> str:
    """`refuted` if the target has scheduled the head: more throughput, and the polite one keeps its p99."""
    streams, polite = document.get("streams"), document.get("polite")
    if not streams or not polite:
        return ""
    gains = streams["fair_over_fifo"]["low"] > 1
    return "refuted" if gains and polite["p99_fair_over_alone"]["median"] <= GOAL else "partly"


def table(document: Document) -> str:
    """For people."""
    lines: list[str] = []
    if streams := document.get("streams"):
        lines.append(f"two initiators, each {streams['workload']}, on one disk      MB/s    slower/faster")
        for key, name, _ in NAMES[1:]:
            one = streams[key]
            lines.append(f"  {name:<42}{one['mb_per_s']['median']:>18.1f}{one['slower_over_faster']:>14.2f}")
        lines.append(f"  with/without: {_ratio(streams['fair_over_fifo'])}")
    if single := document.get("single"):
        lines.append(f"the same, each {single['workload']}, with sched=fair               MB/s")
        for key, name in (("fair", "a seek for each request"), ("idle", f"idle={single['idle_ms']}: the head waits")):
            lines.append(f"  {name:<42}{single[key]['mb_per_s']['median']:>18.1f}")
        lines.append(f"  with/without: {_ratio(single['idle_over_fair'])}")
    if polite := document.get("polite"):
        lines.append(f"{polite['workload']} beside {polite['greedy']}          IOPS   p50 ms   p99 ms  greedy IOPS")
        for key, name, _ in NAMES:
            one = polite[key]
            greedy = f"{one['greedy_iops']:.0f}" if "greedy_iops" in one else "-"
            lines.append(f"  {name:<40}{one['iops']:>10.1f}{one['p50_ms']:>9.1f}{one['p99_ms']:>9.1f}{greedy:>13}")
        lines.append(f"  p99 over alone: {_ratio(polite['p99_fair_over_alone'])}, goal {GOAL:g}; without: "
                     f"{_ratio(polite['p99_fifo_over_alone'])}")  # fmt: skip
    if weights := document.get("weights"):
        lines.append(f"three initiators, each {weights['workload']}           wanted      got")
        for row in weights["rows"]:
            interval = f"({row['low'] * 100:.1f} to {row['high'] * 100:.1f})"
            lines.append(
                f"  weight {row['weight']:<38}{row['wanted'] * 100:>9.1f} %{row['median'] * 100:>7.1f} % {interval}"
            )
    return "\n".join(lines)


TITLE = "One disk, several initiators, with and without the scheduler"
WORDS = "Throughput of two sequential streams (more is better); latency at depth 1 beside depth 256 (less is better)."


def drawn(document: Document) -> str:
    """SVG for a page: throughput of the streams and latency of the polite one, on a logarithmic axis."""
    rows = []
    if streams := document.get("streams"):
        bars = []
        for key, name, colour in NAMES[1:]:
            one = streams[key]["mb_per_s"]
            text = f"{one['median']:.0f} MB/s"
            bars.append(svg.Bar(name, colour, one["median"], one["low"], one["high"], text))
        rows.append(svg.Row("two streams", tuple(bars)))
    if polite := document.get("polite"):
        for quantile in ("p50", "p99"):
            values = [(name, colour, polite[key][f"{quantile}_ms"]) for key, name, colour in NAMES]
            bars = [svg.Bar(name, colour, value, text=f"{value:.0f} ms") for name, colour, value in values]
            rows.append(svg.Row(f"polite one, {quantile}", tuple(bars)))
    scale = svg.logarithmic([1.0, *(bar.value for row in rows for bar in row.bars)])
    return svg.bars(TITLE, WORDS, scale, "MB/s (two streams: more is better) or ms (polite one: less is better)", rows)


def picture(document: Document) -> str:
    """SVG for a file."""
    place = document["environment"]
    return svg.standalone(drawn(document), f"simulated disk ({document['disk']}); {place['git']}, {place['time'][:10]}")
