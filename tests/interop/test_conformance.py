# SPDX-License-Identifier: BSD-2-Clause
"""The short form of `make conformance`: a few of libiscsi's suites on every set-up, and what the runner itself decides.

The long form runs all 179 tests on all set-ups.
"""

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from programs import tool
from suite.catalogue import EXCLUDED, STARTED, Rule
from suite.log import Outcome, Verdict, judge
from suite.runner import TOOL, Result, every_test
from suite.setups import SETUPS
from suite.verdict import report, wanted

TESTS = Path(__file__).resolve().parents[1]
SHORT = ("Inquiry.*", "Mandatory.*", "Unmap.*", "Write16.BeyondEol", "MultipathIO.Simple")


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "suite", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        timeout=600,
        check=False,
    )


@pytest.mark.timeout(600)
def test_short_form():
    tool(TOOL)
    globs = [word for glob in SHORT for word in ("--test", glob)]
    setups = [word for name in ("4Kn", "read-only") for word in ("--setup", name)]
    done = run("--json", *setups, *globs)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    wrong = [row for row in found["results"] if row["verdict"] != "passed" and not row["explanation"]]
    assert (done.returncode, found["good"], wrong) == (0, True, [])
    assert found["counts"]["4Kn"]["passed"] >= 12


def test_what_is_started():
    tool(TOOL)
    tests = every_test()
    assert len(wanted(tests)) == STARTED
    assert [pattern for pattern in EXCLUDED if not any(fnmatchcase(test, pattern) for test in tests)] == []


LOG = """\
    [SKIPPED] PERSISTENT RESERVE IN is not implemented.
Suite: S
  Test: T ...{body}

Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      1      1    n/a      0        0
               tests      1      1      {passed}      {failed}        0
             asserts      2      2      2      0      n/a
"""


def test_skip_in_the_log_is_no_pass():
    skipped = LOG.format(body="    [SKIPPED] UNMAP is not implemented.\npassed", passed=1, failed=0)
    assert judge(skipped, 0) == Outcome(Verdict.SKIPPED, ("UNMAP is not implemented.",))
    assert judge(LOG.format(body="passed", passed=1, failed=0), 0) == Outcome(Verdict.PASSED)


def test_failure_tells_why():
    failed = LOG.format(body="FAILED\n    1. x.c:7  - CU_ASSERT_EQUAL(a,b)", passed=0, failed=1)
    assert judge(failed, 1) == Outcome(Verdict.FAILED, ("x.c:7  - CU_ASSERT_EQUAL(a,b)",))
    probing = LOG.format(body="    [FAILED] X failed\npassed", passed=1, failed=0)
    assert judge(probing, 0).verdict is Verdict.PASSED


@pytest.mark.parametrize("status", [139, 143, 1, 0])
def test_a_tool_that_did_not_come_to_its_end_has_failed(status):
    cut = LOG.format(body="", passed=1, failed=0).partition("Run Summary")[0]
    assert judge(cut, status).verdict is Verdict.FAILED
    assert judge("", status).verdict is Verdict.FAILED


def test_a_test_that_did_not_run_has_failed():
    log = LOG.format(body="", passed=0, failed=0).replace("tests      1      1", "tests      1      0")
    assert judge(log, 0).verdict is Verdict.FAILED


def result(setup, test, verdict, *notes):
    return Result(setup, test, Outcome(verdict, notes), "")


def test_unexplained_skip_is_wrong_and_explained_one_must_pass_elsewhere():
    skip = result("512n", "PreventAllow.Simple", Verdict.SKIPPED, "Logical unit is not removable. Skipping test.")
    elsewhere = result("removable", "PreventAllow.Simple", Verdict.PASSED)
    assert report([skip, elsewhere], complete=True).good
    alone = report([skip], complete=True)
    assert (alone.good, alone.never) == (False, ["PreventAllow.Simple"])
    assert report([skip], complete=False).good
    other = result("512n", "PreventAllow.Simple", Verdict.SKIPPED, "PREVENTALLOW is not implemented.")
    assert report([other, elsewhere], complete=True).wrong == [other]


def test_rule_wants_every_note_explained():
    rule = Rule("512n thick", "A.* B.C", "^x", "because")
    assert rule.explains("thick", "A.Z", ("x1", "x2"))
    assert not rule.explains("thick", "A.Z", ("x1", "y"))
    assert not rule.explains("thick", "A.Z", ())
    assert not rule.explains("4Kn", "A.Z", ("x",))
    assert not rule.explains("512n", "B.D", ("x",))


def test_set_ups_are_those_of_the_catalogue():
    from suite import catalogue

    named = {name for rule in (*catalogue.SKIPS, *catalogue.FAILURES) for name in rule.setups.split()}
    assert named <= set(SETUPS)
