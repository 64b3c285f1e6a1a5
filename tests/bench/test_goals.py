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
        "0.500  [0.500 .. 0.500]",
        "MISSED",
        "fio is not installed",
        "<= 1 MiB",
        "1 of 2 goals met",
    ):
        assert word in said
    assert "and one line" in said
    assert scenes.missed(document)
    assert not scenes.missed({"rows": rows[1:]})


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
