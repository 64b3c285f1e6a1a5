# SPDX-License-Identifier: BSD-2-Clause
"""One HTML page from the bench's JSON: nothing is fetched, no script is needed; light, dark, phone, paper.

Knows HTML and the order of things. What pictures show is pictures', what claims are answered with is claims'.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from . import claims, facts, goal_rows, svg
from .facts import Document
from .picture import Picture

GOALS = ("goals", "peer_goals")
GOAL_WORDS = {True: "met", False: "missed", None: ""}
TITLE = "What SCSI costs over a shared-memory ring"

STYLE = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:72rem;padding:1rem 1rem 3rem;background:var(--ground);color:var(--ink);
 font:16px/1.5 system-ui,"DejaVu Sans",Verdana,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.6rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
p,li{max-width:46rem}a{color:var(--c0)}code,pre{font-size:.9em;overflow-wrap:anywhere}
pre{white-space:pre-wrap;border-left:3px solid var(--grid);padding-left:.8rem}
.soft{color:var(--soft)}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.5rem}
figure{margin:0;min-width:0;max-width:42rem}figure svg{width:100%;height:auto;display:block}
figcaption{font-size:.9rem;color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;margin:.4rem 0}
th,td{text-align:right;padding:.15rem .6rem;border-bottom:1px solid var(--grid);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600}
td.words,th.words{white-space:normal;text-align:left;min-width:12rem}
summary{cursor:pointer;font-size:.85rem;color:var(--soft)}
.claim{border-top:1px solid var(--grid);padding:.6rem 0}.claim h3{font-size:1rem;margin:0}
.claim p{margin:.25rem 0;font-size:.95rem}
.verdict{display:inline-block;font-weight:600;font-size:.85rem;padding:0 .5rem;border:1.5px solid;border-radius:.3rem}
.refuted{color:var(--c3)}.holds{color:var(--c1)}.partly{color:var(--c5)}.open{color:var(--soft)}
@media print{body{max-width:none;padding:0;font-size:11pt}.pictures{grid-template-columns:1fr 1fr}
 figure,.claim{break-inside:avoid}details{break-inside:avoid}}
"""
# Paper shows the tables that are folded away on screens.
SCRIPT = (
    "addEventListener('beforeprint',()=>document.querySelectorAll('details').forEach(d=>d.open=true));"
    "if(location.hash==='#all')document.querySelectorAll('details').forEach(d=>d.open=true)"
)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int | None = None) -> str:
    """`words`: the column whose cells are words, which may take several lines."""
    kinds = [' class="words"' if column == words else "" for column in range(len(header))]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(header, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(str(cell))}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(one: Picture) -> str:
    return (
        f'<figure id="{one.key}">{one.svg}<figcaption>{escape(one.words)}</figcaption>'
        f"<details><summary>The numbers</summary>{_table(one.header, one.table)}</details></figure>"
    )


def _claim(text: str, answer: claims.Answer, shown: set[str]) -> str:
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in answer.evidence)
    links = ", ".join(f'<a href="#{key}">{key}</a>' for key in answer.see if key in shown)
    see = f'<p class="soft">See: {links}</p>' if links else ""
    kind = answer.verdict.name.lower()
    return (
        f'<div class="claim"><h3>“{escape(text)}”</h3><p><span class="verdict {kind}">{escape(answer.verdict.value)}'
        f"</span></p>{words}{see}</div>"
    )


def summary(document: Document) -> list[str]:
    """The first sentences: what the ratios say, whichever way they point."""
    out = []
    for name, nbytes, depth in (("randread", 4096, 32), ("randread", 4096, 1), ("seqread", 128 << 10, 8)):
        found = facts.ratios(document, "srp_over_blkif", workload=name, block_size=nbytes, queue_depth=depth)
        if found:
            label, ratio = found[0]
            word = "ahead of" if ratio["low"] > 1 else "behind" if ratio["high"] < 1 else "not told apart from"
            out.append(f"{label}: SRP does {facts.ratio_words(ratio)} of blkif's I/O per second ({word} it).")
    if rows := _goal_rows(document):
        listed = "; what is missed is listed under Goals" if goal_rows.missed(rows) else ""
        out.append(f"Of speed, {goal_rows.tally(rows)}{listed}.")
    return out


def _goal_rows(document: Document) -> list[dict[str, Any]]:
    return [row for name in GOALS for row in document.get(name, {}).get("rows", [])]


def _goals(document: Document) -> str:
    rows = _goal_rows(document)
    if not rows:
        return ""
    lines = [line for name in GOALS for line in document.get(name, {}).get("lines", [])]
    cells = [
        (row["work"], row["what"], goal_rows.bound(row), goal_rows.measured(row), GOAL_WORDS[row["met"]])
        for row in goal_rows.grouped(rows)
    ]
    missed = "".join(f"<li>{escape(words)}</li>" for words in goal_rows.missed(rows))
    listed = f'<p>Missed:</p><ul id="missed">{missed}</ul>' if missed else ""
    said = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<section id="goals"><h2>Goals</h2><p>{escape(goal_rows.tally(rows))}. '
        f'<span class="soft">{escape(goal_rows.RULE)}</span></p>{listed}'
        f"{_table(('work', 'what', 'goal', 'measured', ''), cells, words=1)}"
        f"{f'<ul>{said}</ul>' if said else ''}</section>"
    )


def _versions(document: Document) -> str:
    rows = [
        (row["title"], row.get("version") or "this project", "; ".join(row["settings"]))
        for row in document.get("peers", [])
        if not row.get("skipped")
    ]
    if not rows:
        return ""
    return f"<h2>Versions and settings of the others</h2>{_table(('', 'version', 'settings'), rows, words=2)}"


def _code(document: Document) -> str:
    rows = [(row["protocol"], row["what"], row["files"], row["lines"]) for row in document.get("code", [])]
    if not rows:
        return ""
    note = "Lines that are neither empty nor comment, of both sides together; tests and command lines are not counted."
    table = _table(("for", "what", "files", "lines"), rows)
    return f'<section id="code"><h2>Code</h2><p class="soft">{note}</p>{table}</section>'


def _machine(document: Document) -> str:
    place: dict[str, Any] = document["environment"]
    words = (
        f"{place.get('cpu', '?')}, {place.get('cpus', '?')} CPUs, {place.get('machine', '?')}, Linux "
        f"{place.get('kernel', '?')}, Python {place.get('python', '?')}; {place.get('time', '?')}; load average "
        f"{', '.join(str(one) for one in place.get('load_average', ['?']))}; revision {place.get('git') or 'unknown'}."
    )
    rounds = (
        f"{place.get('rounds', '?')} paired rounds of {place.get('seconds', 0):g} s; {place.get('slots', '?')} slots "
        f"in each ring; both ends look at the ring for {place.get('spin_us', '?')} µs before they sleep; "
        f"{int(place.get('size', 0)) >> 20} MiB of image, hot in the page cache."
    )
    warning = ""
    load = place.get("load_average") or [0]
    if load[0] > 1.0:
        warning = (
            "<p><strong>The machine was busy with other work when this began: read the intervals first.</strong></p>"
        )
    return f"<p>{escape(words)}</p><p>{escape(rounds)}</p>{warning}"


def _missing(document: Document) -> str:
    skipped = [f"{row['title']}: {row['skipped']}" for row in document.get("peers", []) if row.get("skipped")]
    skipped += [f"{row['title']}: {row['skipped']}" for row in document.get("ablations", []) if row.get("skipped")]
    if not skipped:
        return ""
    return "<h2>Left out</h2><ul>" + "".join(f"<li>{escape(words)}</li>" for words in skipped) + "</ul>"


def build(document: Document, drawn: Sequence[Picture], files: Sequence[str]) -> str:
    """The page. `files` are those that lie beside it, for the reader to take."""
    shown = {one.key for one in drawn} | ({"code"} if document.get("code") else set())
    command = document["environment"].get("command", "bench/compare.py --report DIR")
    links = "".join(f'<li><a href="{escape(name)}">{escape(name)}</a></li>' for name in files)
    first = "".join(f"<li>{escape(words)}</li>" for words in summary(document))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(TITLE)}</title><style>{svg.style()}{STYLE}</style></head><body><main>",
        f"<h1>{escape(TITLE)}</h1>",
        "<p>blkif and SCSI over SRP run over the same ring, grants, event channels and image I/O, in paired rounds; "
        "<em>direct</em> is that image I/O alone, without a ring. Only the protocol differs. Every workload first "
        "wrote known data and read it back.</p>",
        f"<ul>{first}</ul>" if first else "",
        '<section id="pictures"><h2>Measured</h2><div class="pictures">',
        *map(_figure, drawn),
        "</div></section>",
        '<section id="claims"><h2>The argument of 2006</h2><p>When SCSI over a ring was proposed for Xen, these '
        "objections were made. Each has the measurement that answers it, whichever way, or says that none does.</p>",
        "".join(_claim(text, answer, shown) for text, answer in claims.answers(document)),
        "</section>",
        _goals(document),
        _code(document),
        f'<section id="how"><h2>Where and how</h2>{_machine(document)}',
        "<p>Ratios are medians of ratios taken within each round (order A B B A), with the 90 % interval that "
        "resampling the rounds gives. The same on another machine, from a checkout:</p>",
        f"<pre>make setup\n{escape(command)}</pre>",
        f"<p>Beside this page:</p><ul>{links}</ul>" if links else "",
        _versions(document),
        _missing(document),
        f"</section></main><script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"
