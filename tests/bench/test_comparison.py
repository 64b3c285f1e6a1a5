# SPDX-License-Identifier: BSD-2-Clause
"""The bench's own arithmetic, order and care for images; the runs as a whole are in tests/interop."""

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from comparison import environment, image, measure, report, rounds, statistics, workloads  # noqa: E402

from vscsi.native import ffi, lib  # noqa: E402


class FakeLane:
    """A lane that does as many I/Os as it is told, and remembers when it ran."""

    def __init__(self, name, diary, ios):
        self.name, self.diary, self.ios = name, diary, ios

    def verify(self, workload, span_nbytes):
        self.diary.append(("verify", self.name))

    def run(self, spec):
        self.diary.append((int(spec.seed), self.name))
        result = ffi.new("struct vscsi_load_result *", {"ios": self.ios, "elapsed_ns": 10**9, "max_ns": 5000})
        result.histogram[63] = self.ios
        return measure.Round(result, target_cpu_ns=3000 * self.ios, initiator_cpu_ns=1000 * self.ios)

    def close(self):
        pass


def test_rounds_are_paired_and_reversed():
    diary = []
    lanes = [FakeLane("blkif", diary, 100), FakeLane("srp", diary, 90), FakeLane("direct", diary, 200)]
    picked = workloads.pick(["seqread"], [], [])
    series = rounds.compare(lanes, picked, 1 << 24, rounds=4, seconds=0.01, tell=lambda text: None)
    assert diary[:3] == [("verify", "blkif"), ("verify", "srp"), ("verify", "direct")]
    timed = [name for seed, name in diary if seed not in ("verify", 1)]
    forwards = ["blkif", "srp", "direct"]
    assert timed == forwards + forwards[::-1] + forwards + forwards[::-1]
    # All of one round get the same offsets.
    assert [seed for seed, _ in diary[6:]] == [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3
    (row,) = rounds.ratios(series, picked)
    assert row["srp_over_blkif"] == {"median": 0.9, "low": 0.9, "high": 0.9}
    assert row["srp_over_direct"]["median"] == 0.45
    assert row["blkif_over_direct"]["median"] == 0.5
    document = series[1].to_json()
    assert document["protocol"] == "srp"
    assert document["iops"] == 90
    assert document["mb_per_s"] == pytest.approx(90 * (128 << 10) / 1e6, abs=0.01)
    assert set(document["latency_us"]) == {"p50", "p90", "p99", "p99_9", "max"}
    assert document["cpu_us_per_io"] == {"initiator": 1.0, "target": 3.0}
    assert len(document["rounds"]) == 4


def test_a_series_knows_when_it_ran(monkeypatch):
    """From the start of its first round to the end of its last, those of the other lanes between them included."""
    hours = itertools.count(1000.0)
    monkeypatch.setattr(rounds.time, "time", lambda: next(hours))
    lanes = [FakeLane("blkif", [], 100), FakeLane("srp", [], 90)]
    picked = workloads.pick(["seqread"], [], [])
    series = rounds.compare(lanes, picked, 1 << 24, rounds=2, seconds=0.01, tell=lambda text: None)
    found = {row["protocol"]: (row["started"], row["lasted"]) for row in (one.to_json() for one in series)}
    assert found == {"blkif": (1000.0, 4.0), "srp": (1001.0, 2.0)}


def test_failed_io_ends_the_run():
    lane = FakeLane("srp", [], 10)
    done = lane.run(measure.load_spec(workloads.WORKLOADS[0], 1 << 20, 0.1, 1))
    done.result.errors = 1
    with pytest.raises(measure.MismatchError, match="1 of 10"):
        measure.check(lane, done)
    with pytest.raises(measure.MismatchError, match="not one"):
        measure.check(lane, FakeLane("srp", [], 0).run(measure.load_spec(workloads.WORKLOADS[0], 1 << 20, 0.1, 1)))


def test_interval_holds_the_median_and_narrows_with_rounds():
    source = random.Random(7)
    few = [source.gauss(1.0, 0.03) for _ in range(5)]
    many = few + [source.gauss(1.0, 0.03) for _ in range(200)]
    middle, low, high = statistics.interval(few)
    assert min(few) <= low <= middle <= high <= max(few)
    _, low_many, high_many = statistics.interval(many)
    assert high_many - low_many < high - low
    assert low_many <= 1.0 <= high_many
    assert statistics.interval(few) == statistics.interval(few)


def test_interval_covers_the_truth_as_often_as_it_says():
    source = random.Random(1)
    hits = 0
    for _ in range(100):
        low, high = statistics.interval([source.gauss(0, 1) for _ in range(15)])[1:]
        hits += low <= 0 <= high
    assert 80 <= hits <= 99


def test_pick():
    assert workloads.pick([], [], []) == list(workloads.WORKLOADS)
    both = workloads.pick(["randread"], [], [])
    assert [w.queue_depth for w in both] == [32, 1]
    # Two rows that become the same by the options count once.
    assert len(workloads.pick(["randread"], [8192], [4])) == 1
    assert [w.label for w in workloads.pick(["mix"], [], [1, 2])] == ["mix 4k qd1", "mix 4k qd2"]


def test_a_named_image_is_copied_and_left_alone(tmp_path):
    named = tmp_path / "named.img"
    content = os.urandom(1 << 20)
    named.write_bytes(content)
    path, span = image.prepare(named, 1 << 30, tmp_path, overwrite=False)
    assert path != named
    assert span == 1 << 20
    path.write_bytes(b"overwritten")
    assert named.read_bytes() == content


def test_a_fresh_image_has_no_holes(tmp_path):
    path, span = image.prepare(None, 3 << 20, tmp_path, overwrite=False)
    assert path.stat().st_size == span == 3 << 20
    assert path.stat().st_blocks * 512 >= span


def test_images_that_cannot_be_used(tmp_path):
    (tmp_path / "tiny").write_bytes(b"x")
    with pytest.raises(image.ImageError, match="smaller than a page"):
        image.prepare(tmp_path / "tiny", 1 << 20, tmp_path, overwrite=False)
    with pytest.raises(image.ImageError, match="neither"):
        image.prepare(tmp_path, 1 << 20, tmp_path, overwrite=False)
    with pytest.raises(FileNotFoundError):
        image.prepare(tmp_path / "missing", 1 << 20, tmp_path, overwrite=False)


def test_process_cpu_counts_threads_that_have_ended():
    burn = "import threading as t\nx=t.Thread(target=lambda: sum(range(10000000)))\nx.start(); x.join(); input()"
    process = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE)
    try:
        end = time.monotonic() + 20
        while environment.process_cpu_ns(process.pid) < 30_000_000 and time.monotonic() < end:
            time.sleep(0.01)
        first = environment.process_cpu_ns(process.pid)
        assert 30_000_000 <= first < 20 * 10**9
        assert environment.rss_anon_kib(process.pid) > 100
    finally:
        process.stdin.close()
        process.wait()


def test_environment_tells_the_machine():
    place = environment.describe(spin_us=50)
    assert place["kernel"] == os.uname().release
    assert place["cpus"] == len(os.sched_getaffinity(0))
    assert place["spin_us"] == 50
    assert len(place["load_average"]) == 3


def test_report_names_everything(capsys):
    lanes = [FakeLane(name, [], 100) for name in ("blkif", "srp", "direct")]
    picked = workloads.pick(["mix"], [], [])
    series = rounds.compare(lanes, picked, 1 << 24, rounds=2, seconds=0.01, tell=lambda text: None)
    report.show(
        {
            "environment": environment.describe(spin_us=50, rounds=2, seconds=0.01, slots=256),
            "results": [one.to_json() for one in series],
            "ratios": rounds.ratios(series, picked),
        }
    )
    shown = capsys.readouterr().out
    for word in ("mix 4k qd32", "blkif", "direct", "srp / blkif", "1.000  [1.000 .. 1.000]", "spin 50 us", "p99.9"):
        assert word in shown
    assert "…" not in shown, "a column is too narrow"


def test_quantiles_of_merged_rounds():
    lane = FakeLane("srp", [], 50)
    series = measure.Series(workloads.WORKLOADS[0], "srp", [lane.run(_spec()) for _ in range(2)])
    series.rounds[1].result.histogram[63] = 0
    series.rounds[1].result.histogram[10] = 50
    latency = series.to_json()["latency_us"]
    assert latency["p50"] == pytest.approx(0.01)
    assert latency["p99"] == pytest.approx(0.06, abs=0.005)
    assert latency["max"] == 5.0
    assert lib.VSCSI_HIST_SUB_BITS == 6


def _spec():
    return measure.load_spec(workloads.WORKLOADS[0], 1 << 20, 0.1, 1)
