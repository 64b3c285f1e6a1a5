# SPDX-License-Identifier: BSD-2-Clause
"""Draws docs/ratios.svg from what bench/compare.py --json wrote: `docs/ratios.py docs/bench.json docs/ratios.svg`.

Knows the bench's schema and SVG; needs nothing beyond the standard library. Same JSON, same picture.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

BARS = (("srp_over_direct", "SCSI over SRP", "#2a6f97"), ("blkif_over_direct", "blkif", "#e07a3f"))
LEFT, PLOT, RIGHT = 170, 470, 150
TOP, ROW, BAR, BOTTOM = 84, 58, 18, 62
FONT = 'font-family="DejaVu Sans, Verdana, sans-serif"'


def _text(x: float, y: float, text: str, *, size: int = 13, anchor: str = "start", colour: str = "#222") -> str:
    style = f'{FONT} font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _label(row: dict[str, Any]) -> str:
    size = row["block_size"]
    return f"{row['workload']} {size // 1024}k qd{row['queue_depth']}"


def _bar(y: float, ratio: dict[str, float], colour: str, scale: float) -> list[str]:
    x = LEFT + ratio["median"] * scale
    low, high, middle = LEFT + ratio["low"] * scale, LEFT + ratio["high"] * scale, y + BAR / 2
    whisker = 'stroke="#222" stroke-width="1.5"'
    return [
        f'<rect x="{LEFT}" y="{y:g}" width="{x - LEFT:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" y1="{middle:g}" x2="{high:.1f}" y2="{middle:g}" {whisker}/>',
        *(
            f'<line x1="{at:.1f}" y1="{middle - 4:g}" x2="{at:.1f}" y2="{middle + 4:g}" {whisker}/>'
            for at in (low, high)
        ),
    ]


def draw(document: dict[str, Any]) -> str:
    """The picture."""
    rows = [row for row in document["ratios"] if all(name in row for name, _, _ in BARS)]
    top = max(1.0, *(row[name]["high"] for row in rows for name, _, _ in BARS))
    limit = -(-int(top * 100) // 25) * 0.25
    scale = PLOT / limit
    width, height = LEFT + PLOT + RIGHT, TOP + ROW * len(rows) + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(16, 28, "I/O per second through the ring, as a share of the same image I/O without one", size=15),
    ]
    for index, (_, name, colour) in enumerate(BARS):
        x = LEFT + index * 170
        out += [f'<rect x="{x}" y="44" width="14" height="14" fill="{colour}"/>', _text(x + 20, 56, name)]
    out.append(_text(LEFT + 2 * 170 - 40, 56, "whiskers: 90 % interval", colour="#666"))
    step = 0.25 if limit <= 1.5 else 0.5
    for k in range(int(limit / step) + 1):
        at = LEFT + k * step * scale
        colour = "#888" if k * step == 1 else "#ddd"
        out.append(f'<line x1="{at:g}" y1="{TOP - 8}" x2="{at:g}" y2="{height - BOTTOM}" stroke="{colour}"/>')
        out.append(_text(at, height - BOTTOM + 18, f"{k * step:.2f}", size=12, anchor="middle", colour="#666"))
    for index, row in enumerate(rows):
        y = TOP + index * ROW
        out.append(_text(LEFT - 12, y + BAR + 4, _label(row), anchor="end"))
        for offset, (name, _, colour) in enumerate(BARS):
            out += _bar(y + offset * (BAR + 2), row[name], colour, scale)
        if "srp_over_blkif" in row:
            ratio = row["srp_over_blkif"]
            out.append(_text(LEFT + PLOT + 14, y + BAR + 4, f"srp/blkif {ratio['median']:.2f}"))
    place = document["environment"]
    note = (
        f"{place['cpu']}, {place['cpus']} CPUs, Linux {place['kernel']}; {place['rounds']} paired rounds of "
        f"{place['seconds']:g} s; {place['slots']} slots each"
    )
    out += [_text(16, height - 14, note, size=11, colour="#666"), "</svg>"]
    return "\n".join(out) + "\n"


def main() -> int:
    """The entry point."""
    if len(sys.argv) != 3:
        print("usage: ratios.py BENCH.json PICTURE.svg", file=sys.stderr)
        return 1
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
