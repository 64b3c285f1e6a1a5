# SPDX-License-Identifier: BSD-2-Clause
"""The report from a small JSON: complete, self-contained, honest about what is missing and about who loses."""

import json
import re
from html.parser import HTMLParser

import pytest
from bench_document import ROOT, document, ratio, result
from programs import run
from report import claims, code_size, page, picture, write

VOID = {"meta", "link", "br", "img", "rect", "circle", "line", "path"}
KEYS = ["ratios", "depth", "latency-qd1", "latency-qd32", "open-loop", "throughput-seqread", "throughput-seqwrite"]


class Checker(HTMLParser):
    """Every element closed, in order; what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.fetched, self.links, self.tables = [], [], [], [], 0

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if named.get("id"):
            self.ids.append(named["id"])
        self.fetched += [named[name] for name in ("src", "data", "poster", "xlink:href") if name in named]
        if tag == "link":
            self.fetched.append(named.get("href"))
        if tag == "a":
            self.links.append(named["href"])
        self.tables += tag == "table"

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def read(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def test_a_whole_report(tmp_path):
    index = write.report(document(), tmp_path / "out")
    text = index.read_text()
    seen = read(text)
    assert seen.fetched == []
    assert "@import" not in text
    assert "url(" not in text
    assert set(KEYS) <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.tables >= len(KEYS)
    for link in seen.links:
        assert link[1:] in seen.ids if link.startswith("#") else (index.parent / link).exists(), link
    for words in ("A CPU &lt;of&gt; some kind", "bench/compare.py --report DIR", "0.900 [0.890 .. 0.910]", "behind it"):
        assert words in text
    assert json.loads((index.parent / "bench.json").read_text())["results"] == document()["results"]
    assert len(list((index.parent / "histograms").glob("*.hgrm"))) == len(document()["results"])
    assert {path.stem for path in (index.parent / "pictures").iterdir()} >= set(KEYS)


def test_the_same_json_gives_the_same_page(tmp_path):
    first = write.report(document(), tmp_path / "a")
    again = write.report(json.loads((tmp_path / "a" / "bench.json").read_text()), tmp_path / "b")
    assert first.read_text() == again.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"results": []},
        {"ratios": []},
        {"table": None},
        {"peers": [{"name": "x", "title": "A peer", "kind": "socket", "settings": [], "skipped": "not installed"}]},
        {"ablations": [{"name": "y", "title": "Some choice", "skipped": "no O_DIRECT here"}]},
        {"scheduler": {}},
        {"results": [row for row in document()["results"] if row["protocol"] == "srp"]},
        {"results": [{k: v for k, v in row.items() if k != "histogram"} for row in document()["results"]]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_pieces_may_be_missing(change):
    made = {k: v for k, v in (document() | change).items() if v is not None}
    read(page.build(made, picture.draw(made), ()))
    for row in (*change.get("peers", ()), *change.get("ablations", ())) if isinstance(change, dict) else ():
        assert row["skipped"] in page.build(made, [], ())


def with_all():
    """Peers, ablations and goals, too."""
    made = document()
    side = result()
    made["peers"] = [
        {"name": "tgt", "title": "tgt over iSCSI", "kind": "socket", "settings": ["a setting"], "version": "tgt 1.0"},
        {"name": "nbdkit", "title": "nbdkit", "kind": "socket", "settings": [], "skipped": "not installed"},
    ]
    made["peer_results"] = [result(depth=depth) | {"protocol": name} for depth in (32, 1) for name in ("srp", "tgt")]
    label = {"label": "randread 4k qd32", "peer": "tgt"}
    made["peer_ratios"] = [
        label | {"ring": "srp", "ratio": ratio(12)},
        label | {"ring": "srp, sleeping", "ratio": ratio(9)},
    ]
    goal = {"work": "randread 4k qd32", "what": "srp / tgt", "unit": "", "at_least": 10.0, "at_most": None, "note": ""}
    made["peer_goals"] = {"rows": [goal | ratio(12) | {"met": True}], "lines": []}
    nothing = {"median": None, "low": None, "high": None, "met": None, "note": "cannot be had here"}
    made["goals"] = {"rows": [goal | ratio(9) | {"met": False}, goal | nothing], "lines": ["a line of the goals"]}
    row = {
        "name": "grants",
        "title": "otherwise than usual",
        "workload": "randread",
        "block_size": 4096,
        "queue_depth": 32,
    }
    made["ablations"] = [row | {"ratio": ratio(0.5), "default": side, "otherwise": side}]
    return made


def test_peers_ablations_and_goals_are_shown(tmp_path):
    index = write.report(with_all(), tmp_path)
    seen = read(index.read_text())
    assert {"peers", "ablations", "goals"} <= set(seen.ids)
    for words in ("tgt 1.0", "a setting", "not installed", "otherwise than usual", "a line of the goals", "missed",
                  "&gt;= 10", "cannot be had here", "12.000 [11.990 .. 12.010]"):  # fmt: skip
        assert words in index.read_text()
    assert "<li>randread 4k qd32: srp / tgt is 9.000 [8.990 .. 9.010], the goal is &gt;= 10</li>" in index.read_text()
    assert "1 of 2 goals met, 1 missed; 1 not measured; what is missed is listed under Goals." in index.read_text()
    assert answer("iSCSI", with_all()).verdict is claims.Verdict.REFUTED


def test_nothing_missed_is_nothing_listed():
    made = with_all()
    made["goals"]["rows"] = []
    text = page.build(made, [], ())
    assert 'id="missed"' not in text
    assert "Of speed, 1 of 1 goals met." in text


def answer(text, made):
    return next(found for name, found in claims.answers(made) if text in name)


def test_claims_are_answered_by_the_numbers_whichever_way():
    made = document()
    assert answer("overkill", made).verdict is claims.Verdict.HOLDS
    for row in made["ratios"]:
        row["srp_over_blkif"] = ratio(0.99)
    assert answer("overkill", made).verdict is claims.Verdict.REFUTED
    made["ratios"][0]["srp_over_blkif"] = ratio(0.8)
    assert answer("overkill", made).verdict is claims.Verdict.PARTLY
    assert answer("overhead", made).verdict is claims.Verdict.REFUTED
    for row in made["results"]:
        if row["protocol"] == "srp":
            row["cpu_us_per_io"] = {"initiator": 5, "target": 5}
    assert answer("overhead", made).verdict is claims.Verdict.PARTLY


def test_what_is_not_measured_is_not_answered():
    made = document()
    for text in ("iSCSI", "CD and tape", "shared disk", "Half an emulation"):
        assert answer(text, made).verdict is claims.Verdict.OPEN
    assert len(claims.CLAIMS) == 8
    nothing = {"environment": made["environment"]}
    verdicts = [found.verdict for _, found in claims.answers(nothing)]
    assert verdicts.count(claims.Verdict.OPEN) == 7  # tests answer for tagged queues


def test_lists_of_numbers_stay_on_one_line():
    made = {"a": [1, 2.5, "x, y"], "b": [{"c": [1, 2]}], "d": [], "e": [[1, 2], [3, 4]]}
    text = write.dump(made)
    assert json.loads(text) == made
    assert '"a": [1, 2.5, "x, y"]' in text
    assert '"c": [1, 2]' in text


C = """/* one
 * comment */
#include <x.h>   // counts

int f(void) { return '"' + 1; /* and */ }   /* spans
*/ char *s = "/* no comment */";
"""
PYTHON = '"""Doc\nstring."""\n\nimport os  # counts\n# no\n\n\ndef f():\n    """Doc."""\n    return """two\nlines"""\n'


def test_lines_of_code():
    assert code_size.c_lines(C) == 3
    assert code_size.python_lines(PYTHON) == 4


def test_every_row_of_the_code_table_finds_its_files():
    rows = code_size.count()
    assert all(row["files"] > 0 and row["lines"] > 10 * row["files"] for row in rows), rows


def test_the_documents_show_what_the_json_says(tmp_path):
    """docs/ratios.svg is what `make pictures` draws from docs/bench.json."""
    write.docs(json.loads((ROOT / "docs" / "bench.json").read_text()), tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in (ROOT / "docs").glob("*.svg") if path.stem != "scheduling"}
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"\((docs/[a-z]+\.svg)\)", readme)
    assert shown
    assert all((ROOT / name).exists() for name in shown)


def test_from_a_file_without_measuring(tmp_path):
    (tmp_path / "some.json").write_text(json.dumps(document()))
    done = run(ROOT / "bench" / "compare.py", "--from", tmp_path / "some.json", "--report", tmp_path / "out")
    assert done.status == 0, done.err
    assert (tmp_path / "out" / "index.html").exists()
    assert "index.html" in done.err


def test_parts_that_were_measured_apart(tmp_path):
    """Peers alone, then the plain run: one page of both, with the machine of the plain run."""
    whole = with_all()
    apart = {"schema": 1, "environment": whole["environment"] | {"cpu": "another"}}
    apart |= {name: value for name, value in whole.items() if name.startswith("peer")}
    (tmp_path / "peers.json").write_text(json.dumps(apart))
    (tmp_path / "plain.json").write_text(json.dumps(document()))
    sources = ["--from", tmp_path / "peers.json", "--from", tmp_path / "plain.json"]
    done = run(ROOT / "bench" / "compare.py", *sources, "--report", tmp_path / "out")
    assert done.status == 0, done.err
    made = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert made["environment"]["cpu"] == document()["environment"]["cpu"]
    assert {"peers", "depth"} <= set(read((tmp_path / "out" / "index.html").read_text()).ids)


def test_mistakes(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "good.json").write_text(json.dumps(document()))
    for arguments, status, word in (
        (["--from", tmp_path / "none.json"], 15, "none.json"),
        (["--from", tmp_path / "bad.json"], 15, "not JSON"),
        (["--from", tmp_path / "other.json"], 15, "schema"),
        (["--from", tmp_path / "good.json", "--report", tmp_path / "bad.json"], 15, "bad.json"),
    ):
        done = run(ROOT / "bench" / "compare.py", *arguments)
        assert done.status == status, (arguments, done.err)
        assert word in done.err
        assert done.err.count("\n") == 1


def test_the_scheduler_is_shown(tmp_path):
    """What bench/scheduler.py --json writes: its sentences, its verdict, its picture."""
    side = {"mb_per_s": {"median": 30.0, "low": 29.0, "high": 31.0}, "slower_over_faster": 0.9}
    found = {
        "claims": ["Two streams on one disk."],
        "verdict": "refuted",
        "disk": "rpm=7200",
        "streams": {"workload": "seqread", "fifo": side, "fair": side, "fair_over_fifo": ratio(3)},
    }
    made = document() | {"scheduler": found}
    text = write.report(made, tmp_path).read_text()
    assert "scheduler" in read(text).ids
    assert "rpm=7200" in text
    assert answer("shared disk", made).verdict is claims.Verdict.REFUTED
    assert answer("shared disk", made).evidence == ("Two streams on one disk.",)
