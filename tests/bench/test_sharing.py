# SPDX-License-Identifier: BSD-2-Clause
"""What bench/scheduler.py says of its numbers; the run as a whole is in the quick form of one scene."""

import copy
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from sharing import show  # noqa: E402


def ratio(median: float) -> dict[str, float]:
    return {"median": median, "low": median * 0.9, "high": median * 1.1}


DOCUMENT = {
    "environment": {"git": "abc", "time": "2026-01-02T03:04:05Z"},
    "disk": "rpm=7200",
    "streams": {
        "workload": "seqread 64k qd8",
        "fifo": {"mb_per_s": ratio(30.0), "slower_over_faster": 1.0},
        "fair": {"mb_per_s": ratio(120.0), "slower_over_faster": 0.9},
        "fair_over_fifo": ratio(4.0),
    },
    "single": {
        "workload": "seqread 64k qd1",
        "idle_ms": 4,
        "fair": {"mb_per_s": ratio(4.0)},
        "idle": {"mb_per_s": ratio(44.0)},
        "idle_over_fair": ratio(11.0),
    },
    "polite": {
        "workload": "randread 4k qd1",
        "greedy": "randread 4k qd256",
        "alone": {"iops": 80.0, "p50_ms": 12.0, "p99_ms": 20.0},
        "fifo": {"iops": 0.3, "p50_ms": 3000.0, "p99_ms": 3300.0, "greedy_iops": 80.0},
        "fair": {"iops": 40.0, "p50_ms": 24.0, "p99_ms": 41.0, "greedy_iops": 50.0},
        "p99_fifo_over_alone": ratio(165.0),
        "p99_fair_over_alone": ratio(2.05),
    },
    "weights": {
        "workload": "randread 4k qd32",
        "rows": [{"weight": w, "wanted": w / 7, "median": w / 7, "low": w / 7.1, "high": w / 6.9} for w in (1, 2, 4)],
    },
}


def test_the_sentences_and_the_table_have_the_numbers():
    streams, polite, weights = show.claims(DOCUMENT)
    assert "120 MB/s" in streams and "30 without" in streams and "4.00 (3.60 to 4.40)" in streams
    assert "2.05" in polite and "165.00" in polite
    assert "1:2:4 give 14.3 %, 28.6 %, 57.1 %" in weights
    text = show.table(DOCUMENT)
    assert "sched=fair" in text and "41.0" in text and "57.1 %" in text
    assert "44.0" in text and "11.00" in text


@pytest.mark.parametrize(
    "gain, p99, said", [(4.0, 2.9, "refuted"), (4.0, 3.1, "partly"), (0.9, 2.0, "partly"), (None, 2.0, "")]
)
def test_the_verdict_follows_from_the_goals(gain, p99, said):
    document = copy.deepcopy(DOCUMENT)
    document["polite"]["p99_fair_over_alone"] = ratio(p99)
    document["streams"] = gain and document["streams"] | {"fair_over_fifo": ratio(gain)}
    assert show.verdict(document) == said


def test_the_picture_is_xml_and_the_same_again():
    drawn = show.picture(DOCUMENT)
    texts = [text.text for text in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert "3300 ms" in texts and "120 MB/s" in texts
    assert drawn == show.picture(json.loads(json.dumps(DOCUMENT)))


def test_a_scene_runs(tmp_path):
    command = [
        sys.executable,
        ROOT / "bench" / "scheduler.py",
        "--scene",
        "streams",
        "--rounds",
        "1",
        "--seconds",
        "0.3",
    ]
    done = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["streams"]["fair"]["mb_per_s"]["median"] > 0 and document["schema"] == 1
    assert len(document["claims"]) == 1 and document["verdict"] == ""


def test_a_users_mistakes_are_one_line(tmp_path):
    for words in (["--json", tmp_path / "no" / "x.json"], ["--from", tmp_path / "none"]):
        done = subprocess.run(
            [sys.executable, ROOT / "bench" / "scheduler.py", *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 15 and done.stderr.count("\n") == 1
