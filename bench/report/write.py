# SPDX-License-Identifier: BSD-2-Clause
"""The folder of a report: the page, the JSON it was made from, every histogram, every picture. Knows names of files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from . import code_size, facts, histogram, page, picture, svg
from .facts import Document

DOCS = ("ratios", "depth")
"""The pictures that the project's documents show."""


def dump(document: Document) -> str:
    """JSON that people can read and compare: lists of plain values stay on one line."""
    text = json.dumps(document, indent=1)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text) + "\n"


def _histogram_name(row: facts.Result) -> str:
    rate = f"-at{row['rate_per_s']}" if row.get("rate_per_s") else ""
    size = facts.size(row["block_size"])
    return f"{row['workload']}-{size}-qd{row['queue_depth']}{rate}-{row['protocol']}.hgrm"


def report(document: Document, folder: Path) -> Path:
    """Writes everything to `folder`, which is made if need be; the page's path. OSError."""
    if "code" not in document:
        document = document | {"code": code_size.count()}
    (folder / "histograms").mkdir(parents=True, exist_ok=True)
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "bench.json").write_text(dump(document))
    for row in document.get("results", []):
        if row.get("histogram"):
            (folder / "histograms" / _histogram_name(row)).write_text(histogram.hgrm(row["histogram"]))
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
