# SPDX-License-Identifier: BSD-2-Clause
"""bench/compare.py as a whole: runs from a checkout, verifies, writes the JSON it promises; speed is not judged."""

import json
from pathlib import Path

from programs import run

COMPARE = Path(__file__).resolve().parents[2] / "bench" / "compare.py"
SHORT = ["--rounds", "2", "--seconds", "0.05", "--size", "16M"]


def test_runs_and_writes_json(folder):
    result = folder / "result.json"
    done = run(COMPARE, *SHORT, "--workload", "randread", "--workload", "seqwrite", "--json", result, timeout=110)
    assert done.status == 0, done.err
    for word in ("randread 4k qd32", "randread 4k qd1", "seqwrite 128k qd8", "srp / blkif"):
        assert word in done.text
    document = json.loads(result.read_text())
    assert document["schema"] == 1
    place = document["environment"]
    assert place["slots"] == 256
    assert place["rounds"] == 2
    assert {"kernel", "cpu", "python", "load_average", "spin_us", "git", "governor"} <= set(place)
    assert len(document["results"]) == 9
    for row in document["results"]:
        assert row["protocol"] in ("blkif", "srp", "direct")
        assert row["iops"] > 0
        assert row["mb_per_s"] > 0
        assert 0 < row["latency_us"]["p50"] <= row["latency_us"]["p99"] <= row["latency_us"]["p99_9"]
        assert row["cpu_us_per_io"]["target"] > 0
        assert (row["cpu_us_per_io"]["initiator"] > 0) == (row["protocol"] != "direct")
        assert set(row["kicks_per_io"]) == {"initiator", "target"}
        assert len(row["rounds"]) == 2
    assert len(document["ratios"]) == 3
    for row in document["ratios"]:
        for name in ("srp_over_blkif", "srp_over_direct", "blkif_over_direct"):
            assert 0 < row[name]["low"] <= row[name]["median"] <= row[name]["high"]


def test_goals(folder):
    """Each goal with a verdict; --check tells of a missed one by the exit status. What is measured is not judged."""
    result = folder / "goals.json"
    done = run(COMPARE, *SHORT, "--goals", "null", "channels", "--check", "--json", result, timeout=110)
    document = json.loads(result.read_text())
    rows = document["goals"]["rows"]
    assert done.status == int(any(row["met"] is False for row in rows)), done.err
    assert f"of {len(rows)} goals met" in done.text
    assert len(rows) == 5
    for row in rows:
        assert row["low"] <= row["median"] <= row["high"]
        assert row["met"] in (True, False)


def test_running_target_and_options(serve):
    target = serve("2=mem:32M")
    options = [*SHORT, "--socket", target.socket, "--lun", "2", "--workload", "mix", "--block-size", "8k"]
    done = run(COMPARE, *options, "--queue-depth", "4", "--overwrite", "--json", "-", timeout=110)
    assert done.status == 0, done.err
    document = json.loads(done.text)
    assert {row["protocol"] for row in document["results"]} == {"blkif", "srp"}
    assert {(row["block_size"], row["queue_depth"]) for row in document["results"]} == {(8192, 4)}
    assert "srp_over_direct" not in document["ratios"][0]


def test_mistakes(folder):
    for arguments, status, word in (
        (["--socket", folder / "none.sock"], 1, "--overwrite"),
        (["--socket", folder / "none.sock", "--overwrite"], 99, "none.sock"),
        (["--image", folder / "none.img"], 15, "none.img"),
        (["--block-size", "100"], 1, "100"),
        (["--json", folder / "none" / "x.json"], 15, "none"),
        (["--queue-depth", "1000"], 1, "1000"),
        (["--goals", "nothing"], 1, "nothing"),
        (["--check"], 1, "--goals"),
        (["--goals", "null", "--workload", "mix"], 31, "--goals"),
    ):
        done = run(COMPARE, *SHORT, *arguments)
        assert done.status == status, (arguments, done.err)
        assert word in done.err
        assert done.err.count("\n") == 1
