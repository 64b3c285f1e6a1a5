# SPDX-License-Identifier: BSD-2-Clause
"""Line and bar charts as SVG text: axes, marks, whiskers, legend. Same input, same text.

Knows geometry, numbers and words. Must not know what is measured. On a page colours are CSS variables, set once for
light, dark and paper. A picture that stands alone (`standalone`) names its colours and uses no variable: viewers that
are no browsers draw what they cannot look up in black, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, LINES_HEIGHT = 520, 360
LEFT, RIGHT, BOTTOM = 58, 16, 46
TINY, SMALL, NORMAL, LARGE = 10, 11, 12, 14
NOTE = 18
EM = 0.56
"""Width of an average character, in units of the font size."""

# Okabe and Ito's colours, which the colour-blind can tell apart; each series has a mark of its own besides.
LIGHT = ("#0072b2", "#d55e00", "#5f5f5f", "#00795a", "#a9558a", "#8a6d00", "#2a86bd", "#333333", "#7a4b2a", "#4f5bd5")
DARK = ("#56b4e9", "#ff8c42", "#b5b5b5", "#2cc79a", "#e59ac5", "#e6c74c", "#8fd0f5", "#e0e0e0", "#d0a080", "#a5adff")
PAPER = {"--ink": "#1d1d1f", "--soft": "#5d5d63", "--grid": "#dcdce0", "--ground": "#ffffff"}
NIGHT = {"--ink": "#ececf0", "--soft": "#a8a8b0", "--grid": "#3a3a40", "--ground": "#17171a"}


def _named(colours: Sequence[str], others: dict[str, str]) -> dict[str, str]:
    return {f"--c{k}": colour for k, colour in enumerate(colours)} | others


DAY, DARKNESS = _named(LIGHT, PAPER), _named(DARK, NIGHT)
SHAPES = (
    'svg text{font-family:system-ui,"DejaVu Sans",Verdana,sans-serif}svg .grid,svg .axis{stroke-width:1}'
    "svg .whisker{stroke-width:1.5}svg .line{fill:none;stroke-width:2}"
)


def _coloured(colour: Callable[[str], str]) -> str:
    """What is drawn in which colour."""
    parts = [
        ("text", "fill", "--ink"),
        (".soft", "fill", "--soft"),
        (".grid", "stroke", "--grid"),
        (".axis", "stroke", "--soft"),
        (".whisker", "stroke", "--ink"),
        (".ground", "fill", "--ground"),
    ]
    parts += [(f".s{k}", "stroke", f"--c{k}") for k in range(len(LIGHT))]
    parts += [(f".f{k}", "fill", f"--c{k}") for k in range(len(LIGHT))]
    return "".join(f"svg {what}{{{how}:{colour(name)}}}" for what, how, name in parts)


def style() -> str:
    """The CSS of all pictures of a page: variables for light, dark and paper, and what is drawn with them."""
    light, dark = (";".join(f"{name}:{value}" for name, value in every.items()) for every in (DAY, DARKNESS))
    return (
        f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"{SHAPES}{_coloured(lambda name: f'var({name},{DAY[name]})')}"
    )


def _own_style() -> str:
    """The same for one picture: the colours of paper first, since not every viewer knows media queries."""
    dark = _coloured(DARKNESS.__getitem__)
    return f"{SHAPES}{_coloured(DAY.__getitem__)}@media screen and (prefers-color-scheme:dark){{{dark}}}"


# ---- scales ----


@dataclass(frozen=True)
class Scale:
    """From values to the fraction of the axis; `ticks` are (value, label)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """0 at the low end, 1 at the high one; what lies outside is put on the edge."""
        if self.log:
            value = max(value, self.low)
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, part))


def number(value: float) -> str:
    """About three digits, with k and M."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.99995:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def linear(values: Sequence[float], label: object = number) -> Scale:
    """From 0 to a round number above the largest."""
    top = max([*values, 0.0]) or 1.0
    raw = top / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= raw)
    count = math.ceil(top / step - 1e-9)
    words = label if callable(label) else number
    return Scale(0.0, step * count, tuple((step * k, words(step * k)) for k in range(count + 1)))


def logarithmic(values: Sequence[float], base: int = 10, label: object = number) -> Scale:
    """Whole powers of `base` around the values; at most nine ticks. Values that are not positive do not count."""
    positive = [value for value in values if value > 0] or [1.0]
    low = math.floor(math.log(min(positive), base) + 1e-9)
    high = max(math.ceil(math.log(max(positive), base) - 1e-9), low + 1)
    stride = -(-(high - low) // 8)
    words = label if callable(label) else number
    ticks = tuple((float(base**k), words(float(base**k))) for k in range(low, high + 1, stride))
    return Scale(float(base) ** low, float(base) ** high, ticks, log=True)


# ---- what is drawn ----


@dataclass(frozen=True)
class Point:
    """One value with its interval, if there is one, and what a pointer over it is told."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    words: str = ""


@dataclass(frozen=True)
class Line:
    """A series; `colour` is an index that stays the same from picture to picture."""

    name: str
    colour: int
    points: tuple[Point, ...]
    marks: bool = True


@dataclass(frozen=True)
class Bar:
    """One bar of a row."""

    name: str
    colour: int
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Row:
    """Bars that belong together, under one label."""

    label: str
    bars: tuple[Bar, ...]


@dataclass
class _Canvas:
    height: float
    title: str
    words: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, size: int = NORMAL, anchor: str = "start", more: str = "") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def done(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self.words)}</desc>",
                f'<rect class="ground" width="{WIDTH}" height="{self.height:g}"/>',
                *self.parts,
                "</svg>",
            ]
        )


MARKS = (
    '<circle cx="{x:.1f}" cy="{y:.1f}" r="4"',
    '<rect x="{l:.1f}" y="{t:.1f}" width="8" height="8"',
    '<path d="M{x:.1f} {t:.1f}l5 8h-10z"',
    '<path d="M{x:.1f} {t:.1f}l5 4-5 5-5-5z"',
    '<path d="M{l:.1f} {t:.1f}h8l-4 8z"',
)


def _mark(colour: int, x: float, y: float, words: str = "") -> str:
    shape = MARKS[colour % len(MARKS)].format(x=x, y=y, l=x - 4, t=y - 4.5)
    inside = f"<title>{escape(words)}</title>" if words else ""
    name = shape[1 : shape.index(" ")]
    return f'{shape} class="f{colour % len(LIGHT)}">{inside}</{name}>'


def _legend(canvas: _Canvas, names: Sequence[tuple[str, int]], top: float) -> float:
    """Draws it in as many rows as it takes, and says where it ends."""
    x, y = 14.0, top
    for name, colour in names:
        needed = 22 + len(name) * NORMAL * EM + 14
        if x > 14 and x + needed > WIDTH - 8:
            x, y = 14.0, y + 18
        canvas.parts.append(_mark(colour, x + 6, y - 4))
        canvas.text(x + 18, y, name)
        x += needed
    return y


def _head(canvas: _Canvas, names: Sequence[tuple[str, int]]) -> float:
    """Title and legend: where the plot may begin."""
    words, y = [""], 22.0
    for word in canvas.title.split():
        if (len(words[-1]) + len(word) + 1) * LARGE * EM > WIDTH - 20:
            words.append("")
        words[-1] = f"{words[-1]} {word}".strip()
    for row in words:
        canvas.text(14, y, row, size=LARGE, more=' font-weight="600"')
        y += 18
    return _legend(canvas, names, y + 4) + 14


def lines(title: str, words: str, x: Scale, y: Scale, x_label: str, y_label: str, series: Sequence[Line]) -> str:
    """A chart of lines; a point with an interval gets a whisker."""
    canvas = _Canvas(LINES_HEIGHT, title, words)
    top = _head(canvas, [(one.name, one.colour) for one in series])
    canvas.text(14, top + 5, y_label, size=SMALL, more=' class="soft"')
    top += 15
    floor, right = LINES_HEIGHT - BOTTOM, WIDTH - RIGHT

    def px(value: float) -> float:
        return LEFT + x.at(value) * (right - LEFT)

    def py(value: float) -> float:
        return floor - y.at(value) * (floor - top)

    for value, label in y.ticks:
        canvas.line(LEFT, py(value), right, py(value), "grid")
        canvas.text(LEFT - 6, py(value) + 4, label, size=SMALL, anchor="end", more=' class="soft"')
    taken = 0.0
    for value, label in x.ticks:
        canvas.line(px(value), top, px(value), floor + 4, "grid")
        half = len(label) * SMALL * EM / 2
        # The last one would be cut off.
        wide = px(value) + half > WIDTH - 2
        at, anchor = (WIDTH - 2.0, "end") if wide else (px(value), "middle")
        begins = at - (2 * half if wide else half)
        # One that would run into its neighbour is left out; its line stays.
        if begins > taken:
            canvas.text(at, floor + 17, label, size=SMALL, anchor=anchor, more=' class="soft"')
            taken = begins + 2 * half
    canvas.line(LEFT, floor, right, floor, "axis")
    canvas.text((LEFT + right) / 2, LINES_HEIGHT - 8, x_label, size=SMALL, anchor="middle", more=' class="soft"')
    for one in series:
        kind = one.colour % len(LIGHT)
        path = "L".join(f"{px(p.x):.1f} {py(p.y):.1f}" for p in one.points)
        if path:
            canvas.parts.append(f'<path class="line s{kind}" d="M{path}"/>')
        for p in one.points:
            if p.low is not None and p.high is not None:
                canvas.line(px(p.x), py(p.low), px(p.x), py(p.high), f"whisker s{kind}")
            if one.marks:
                canvas.parts.append(_mark(one.colour, px(p.x), py(p.y), f"{one.name}: {p.words}" if p.words else ""))
    return canvas.done()


def bars(
    title: str, words: str, scale: Scale, x_label: str, rows: Sequence[Row], *, mark_at: float | None = None
) -> str:
    """Bars lying down, in groups; whiskers show the interval; `mark_at` draws one line through all."""
    high, gap, group = 15, 2, 12
    names = list(dict.fromkeys((bar.name, bar.colour) for row in rows for bar in row.bars))
    canvas = _Canvas(0, title, words)
    top = _head(canvas, names if len(names) > 1 else [])
    left = min(235.0, 16 + max([len(row.label) for row in rows] or [0]) * NORMAL * EM)
    room = max([len(bar.text) for row in rows for bar in row.bars] or [0]) * SMALL * EM + 12
    right = WIDTH - room - 8
    floor = top + sum(len(row.bars) * (high + gap) + group for row in rows)
    canvas.height = floor + BOTTOM

    def px(value: float) -> float:
        return left + scale.at(value) * (right - left)

    for value, label in scale.ticks:
        canvas.line(px(value), top - 4, px(value), floor, "grid")
        canvas.text(px(value), floor + 15, label, size=SMALL, anchor="middle", more=' class="soft"')
    if mark_at is not None:
        canvas.line(px(mark_at), top - 4, px(mark_at), floor, "axis")
    canvas.text((left + right) / 2, floor + 34, x_label, size=SMALL, anchor="middle", more=' class="soft"')
    y = top
    for row in rows:
        middle = y + len(row.bars) * (high + gap) / 2
        canvas.text(left - 6, middle + 3, row.label, anchor="end")
        for bar in row.bars:
            end = px(bar.value)
            title_ = escape(f"{row.label}, {bar.name}: {bar.text or number(bar.value)}")
            canvas.parts.append(
                f'<rect class="f{bar.colour % len(LIGHT)}" x="{left:.1f}" y="{y:.1f}" '
                f'width="{max(end - left, 0.5):.1f}" height="{high}"><title>{title_}</title></rect>'
            )
            if bar.low is not None and bar.high is not None:
                low, top_, centre = px(bar.low), px(bar.high), y + high / 2
                canvas.line(low, centre, top_, centre, "whisker")
                for at in (low, top_):
                    canvas.line(at, centre - 4, at, centre + 4, "whisker")
            if bar.text:
                canvas.text(right + 8, y + high - 3, bar.text, size=SMALL)
            y += high + gap
        y += group
    return canvas.done()


def standalone(picture: str, note: str = "") -> str:
    """The same picture as a file of its own: with its colours, a size, and a line below that says where it is from."""
    head, _, rest = picture.partition(">")
    if note:
        height = float(head.split('viewBox="0 0 ')[1].split('"')[0].split()[1])
        head = head.replace(f"{height:g}", f"{height + NOTE:g}")
        rest = rest.replace(f'height="{height:g}"', f'height="{height + NOTE:g}"', 1)
        words = f'<text class="soft" x="14" y="{height + 8:g}" font-size="{TINY}">{escape(note)}</text>'
        rest = f"{rest.removesuffix('</svg>')}{words}\n</svg>"
    head += f' width="{WIDTH}" style="max-width:100%;height:auto">'
    return f"{head}\n<style>{escape(_own_style(), quote=False)}</style>{rest}\n"
