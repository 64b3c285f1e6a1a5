# SPDX-License-Identifier: BSD-2-Clause
"""The folder of a report: the page, the JSON it was made from, every histogram, every picture. Knows names of files."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

from . import code_size, facts, histogram, hlog, page, picture, svg
from .facts import Document

DOCS = ("ratios", "depth")
"""The pictures that the project's documents show."""
LOG = "latency.hlog"
"""Every histogram of a report, for HdrHistogram's own tools; lies among the texts of percentiles."""


def dump(document: Document) -> str:
    """JSON that people can read and compare: lists of plain values stay on one line."""
    text = json.dumps(document, indent=1)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text) + "\n"


def _rows(document: Document) -> Iterator[tuple[str, facts.Result]]:
    """Every row that has a histogram, with a name that a file and a tag may have."""
    for prefix, key in (("", "results"), ("peers-", "peer_results")):
        for row in document.get(key, []):
            if not row.get("histogram", {}).get("ns"):
                continue
            rate = f"-at{row['rate_per_s']}" if row.get("rate_per_s") else ""
            parts = (row["workload"], facts.size(row["block_size"]), f"qd{row['queue_depth']}{rate}", row["protocol"])
            yield re.sub(r"[^\w.-]+", "-", prefix + "-".join(parts)), row


def _interval(document: Document, name: str, row: facts.Result) -> hlog.Interval:
    """When the rounds of a row began, and how long it took to their end, those of the others between them included.

    Where a row does not know it, the run's beginning and the length of its rounds.
    """
    place = document.get("environment", {})
    start, seconds = row.get("started"), row.get("lasted")
    if start is None or seconds is None:
        seconds = float(len(row["rounds"]) * place.get("seconds", 0))
        try:
            start = float(calendar.timegm(time.strptime(str(place.get("time")), "%Y-%m-%dT%H:%M:%SZ")))
        except ValueError:
            start = 0.0
    return hlog.Interval(name, float(start), float(seconds), row["histogram"])


def _histograms(document: Document, folder: Path) -> None:
    """A text of percentiles for each, and one log of all, each under its own tag."""
    rows = list(_rows(document))
    for name, row in rows:
        (folder / f"{name}.hgrm").write_text(histogram.hgrm(row["histogram"]))
    if rows:
        intervals = [_interval(document, name, row) for name, row in rows]
        (folder / LOG).write_text(hlog.log(intervals, f"bench/compare.py, latencies in ns; {facts.note(document)}"))


def report(document: Document, folder: Path) -> Path:
    """Writes everything to `folder`, which is made if need be; the page's path. OSError."""
    if "code" not in document:
        document = document | {"code": code_size.count()}
    (folder / "histograms").mkdir(parents=True, exist_ok=True)
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "bench.json").write_text(dump(document))
    _histograms(document, folder / "histograms")
    drawn = picture.draw(document)
    for one in drawn:
        (folder / "pictures" / f"{one.key}.svg").write_text(svg.standalone(one.svg, facts.note(document)))
    index = folder / "index.html"
    index.write_text(page.build(document, drawn, ("bench.json", "histograms/", "pictures/")))
    return index


def docs(document: Document, folder: Path) -> list[Path]:
    """Writes the pictures of the project's documents: their paths. OSError."""
    written = []
    for one in picture.draw(document):
        if one.key in DOCS:
            path = folder / f"{one.key}.svg"
            path.write_text(svg.standalone(one.svg, facts.note(document)))
            written.append(path)
    return written
