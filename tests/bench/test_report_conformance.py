# SPDX-License-Identifier: BSD-2-Clause
"""What the conformance suite prints is what the report reads: from results to the page, both ends as they are."""

import json

import pytest
from bench_document import ROOT, document
from programs import run
from report import claims, conformance, page
from suite.__main__ import as_json
from suite.log import Outcome, Verdict
from suite.runner import Result
from suite.verdict import report

NOT_REMOVABLE = "Logical unit is not removable. Skipping test."


def printed(*more, complete=True):
    """A skip that the catalogue explains, passed elsewhere, and `more` results."""
    results = [
        Result("512n", "PreventAllow.Simple", Outcome(Verdict.SKIPPED, (NOT_REMOVABLE,)), ""),
        Result("removable", "PreventAllow.Simple", Outcome(Verdict.PASSED), ""),
        Result("512n", "Inquiry.Standard", Outcome(Verdict.PASSED), ""),
        *more,
    ]
    made = as_json(results, report(results, complete=complete), complete=complete, seconds=1.0, not_started=51)
    return json.loads(json.dumps(made))


def failure(setup="4Kn", test="Inquiry.EVPD"):
    return Result(setup, test, Outcome(Verdict.FAILED, ("x.c:7",)), "a log")


def answer(found):
    made = document() | {"conformance": conformance.digest(found)}
    return next(one for text, one in claims.answers(made) if "Half an emulation" in text)


def test_everything_explained():
    found = answer(printed())
    assert found.verdict is claims.Verdict.REFUTED
    first, *others = found.evidence
    assert first.startswith("2 tests of libiscsi's")
    assert "on 2 kinds of logical unit; 2 passed on at least one. 51 others" in first
    assert others == [
        "512n: 1 passed; 1 impossible for the set-up, each with its reason; 0 failed.",
        "removable: 1 passed; 0 failed.",
    ]


def test_a_failure_is_told():
    found = answer(printed(failure()))
    assert found.verdict is claims.Verdict.PARTLY
    assert "4Kn: 0 passed; 1 failed." in found.evidence
    assert found.evidence[-1] == "Passed on no set-up: Inquiry.EVPD."
    skipped = Result("thick", "Inquiry.EVPD", Outcome(Verdict.SKIPPED, ("no reason known",)), "")
    assert "thick: 0 passed; 1 skipped without a reason; 0 failed." in answer(printed(skipped)).evidence


def test_a_part_of_the_suite_answers_nothing():
    found = answer(printed(complete=False))
    assert found.verdict is claims.Verdict.OPEN
    assert found.evidence[0].startswith("Only a part of")


def test_the_report_takes_the_file(tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps(document()))
    (tmp_path / "conformance.json").write_text(json.dumps(printed(failure())))
    sources = ["--from", tmp_path / "plain.json", "--conformance", tmp_path / "conformance.json"]
    done = run(ROOT / "bench" / "compare.py", *sources, "--report", tmp_path / "out")
    assert done.status == 0, done.err
    made = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert "results" not in made["conformance"]
    assert made["conformance"]["counts"]["removable"] == {"passed": 1, "impossible": 0, "skipped": 0, "failed": 0}
    assert "Passed on no set-up: Inquiry.EVPD." in (tmp_path / "out" / "index.html").read_text()
    assert page.build(made, [], ()) == page.build(
        made | {"conformance": conformance.digest(made["conformance"])}, [], ()
    )


@pytest.mark.parametrize(
    "other",
    [{}, {"schema": 1, "results": []}, printed() | {"counts": {}}, printed() | {"counts": {"512n": {"good": 1}}}],
    ids=["nothing", "the bench's own", "no set-up", "another verdict"],
)
def test_something_else_is_refused(other):
    assert conformance.digest(other) is None


def test_something_else_is_one_line(tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps(document()))
    done = run(
        ROOT / "bench" / "compare.py", "--from", tmp_path / "plain.json", "--conformance", tmp_path / "plain.json"
    )
    assert (done.status, done.err.count("\n")) == (15, 1)
    assert "make conformance ARGS=--json" in done.err
