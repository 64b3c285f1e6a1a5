# SPDX-License-Identifier: BSD-2-Clause
"""The goals of the bench: when one counts as missed, what the table says, and the C programs behind it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from comparison import goals, goals_table, scenes, workloads
from comparison.measure import Round, Series, load_spec
from comparison.programs import build
from comparison.worker import WorkerLane
from report import goal_rows

from vscsi.native import ffi


def test_a_goal_is_missed_only_if_the_whole_interval_is():
    values = [0.90, 0.94, 0.96, 0.98, 1.02]
    middle, low, high = goals.Verdict("w", "x", values).interval
    assert low < middle == 0.96 < high
    assert goals.Verdict("w", "x", values, at_least=high).met is True
    assert goals.Verdict("w", "x", values, at_least=high + 0.001).met is False
    assert goals.Verdict("w", "x", values, at_most=low).met is True
    assert goals.Verdict("w", "x", values, at_most=low - 0.001).met is False
    assert goals.Verdict("w", "x", values).met is None
    assert goals.Verdict("w", "x", [], at_least=1.0).met is None


def series(*iops):
    out = Series(workloads.WORKLOADS[0], "srp")
    for one in iops:
        result = ffi.new("struct vscsi_load_result *", {"ios": one, "elapsed_ns": 10**9, "max_ns": one})
        result.histogram[min(one, 63)] = one
        out.rounds.append(Round(result))
    return out


def test_ratios_and_differences_are_taken_within_a_round():
    assert goals.ratio(series(50, 60), series(100, 30)) == [0.5, 2.0]
    assert goals.excess(series(50, 60), series(40, 10)) == pytest.approx([0.010, 0.050])


def test_table_and_status(capsys):
    rows = [
        goals.Verdict("randread", "SRP / blkif", [0.5], at_least=0.97).to_json(),
        goals.Verdict("randread", "SRP / fio", [], at_least=1.0, note="fio is not installed").to_json(),
        goals.Verdict("target", "RssAnon", [0.25], at_most=1.0, unit="MiB").to_json(),
    ]
    document = {"rows": rows, "lines": ["and one line"]}
    goals_table.show(document)
    said = capsys.readouterr().out
    for word in (
        ">= 0.97",
        "0.500",
        "MISSED",
        "fio is not installed",
        "<= 1 MiB",
        "1 of 2 goals met, 1 missed; 1 not measured.",
    ):
        assert word in said
    assert "and one line" in said
    assert scenes.missed(document)
    assert not scenes.missed({"rows": rows[1:]})


def row(work, values, **bound):
    return goals.Verdict(work, "x", values, **bound).to_json()


def test_rows_of_one_work_stand_together():
    rows = [row("b", [1]), row("a", [2]), row("b", [3])]
    assert [(one["work"], one["median"]) for one in goal_rows.grouped(rows)] == [("b", 1), ("b", 3), ("a", 2)]


@pytest.mark.parametrize(
    ("values", "words"),
    [([3.0], "3"), ([0.0], "0"), ([0.684], "0.684"), ([0.9, 0.9], "0.900"), ([12.25], "12.2"), ([250.5], "250")],
)
def test_one_value_has_no_interval(values, words):
    assert goal_rows.measured(row("w", values)) == words


def test_an_interval_has_as_many_digits_as_its_median():
    made = row("w", [1.0]) | {"median": 101.4, "low": 99.6, "high": 103.0}
    assert goal_rows.measured(made) == "101 [100 .. 103]"


def test_missed_goals_are_said_in_words():
    rows = [
        row("w", [0.5], at_least=0.97),
        row("v", [3.0], at_most=1.0),
        row("u", [1.0], at_least=0.9),
        row("t", [9.0]),
    ]
    assert goal_rows.missed(rows) == ["w: x is 0.500, the goal is >= 0.97", "v: x is 3, the goal is <= 1"]
    assert goal_rows.tally(rows) == "1 of 3 goals met, 2 missed"
    assert goal_rows.tally(rows[2:]) == "1 of 1 goals met"


@pytest.mark.parametrize("kind", ["ring", "pingpong"])
def test_bare_ring_and_events(kind):
    """The yardsticks do as many as they are asked for, run after run, and answer each."""
    lane = WorkerLane(kind, [str(build("bare")), kind])
    try:
        for _ in range(2):
            done = lane.run(load_spec(workloads.WORKLOADS[0], 1 << 20, 30.0, seed=1, max_ios=300))
            assert (done.ios, done.result.errors) == (300, 0)
            assert done.result.elapsed_ns > 0
        assert (done.us(0.5) > 0) == (kind == "pingpong")
    finally:
        lane.close()
