# SPDX-License-Identifier: BSD-2-Clause
"""Helper: what bench/compare.py --json would write, small and made up, with no machine behind it."""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT / "bench") not in sys.path:
    sys.path.insert(0, str(ROOT / "bench"))

SPEED = {"srp": 0.9, "blkif": 1.0, "direct": 1.2}


def result(workload="randread", block=4096, depth=32, protocol="srp", rate=0, rounds=5):
    """A row of `results`."""
    source = random.Random(f"{workload} {block} {depth} {protocol} {rate}")
    iops = [depth * 10000 * SPEED[protocol] * source.uniform(0.95, 1.05) for _ in range(rounds)]
    values = sorted(source.lognormvariate(10, 0.4) for _ in range(200))
    sides = {"initiator": 0.0 if protocol == "direct" else 1.25, "target": 1.5}
    one = {"p50_us": 22.0, "p99_us": 60.0, "cpu_us_per_io": sides, "kicks_per_io": {"initiator": 0.01, "target": 0.02}}
    return {
        "workload": workload,
        "block_size": block,
        "queue_depth": depth,
        "protocol": protocol,
        "rate_per_s": rate,
        "unsent": 0,
        "iops": sorted(iops)[rounds // 2],
        "mb_per_s": sorted(iops)[rounds // 2] * block / 1e6,
        "latency_us": {"p50": 22.0, "p90": 40.0, "p99": 60.0, "p99_9": 90.0, "max": 100.0},
        "cpu_us_per_io": sides,
        "kicks_per_io": one["kicks_per_io"],
        "rounds": [one | {"iops": value, "mb_per_s": value * block / 1e6} for value in iops],
        "histogram": {"ns": [int(value) for value in values], "count": [1] * len(values)},
    }


def ratio(middle=0.9):
    return {"median": middle, "low": middle - 0.01, "high": middle + 0.01}


def document(depths=(1, 4, 32, 128), blocks=(4096, 65536, 131072), rate=100000):
    """A whole one: depth and block size sweeps, one open loop."""
    keys = [("randread", 4096, depth, 0) for depth in depths]
    keys += [(name, block, 8, 0) for name in ("seqread", "seqwrite") for block in blocks]
    keys += [("randread", 4096, 32, rate)] if rate else []
    return {
        "schema": 1,
        "environment": {
            "time": "2026-01-02T03:04:05Z", "kernel": "6.1", "machine": "x86_64", "cpu": "A CPU <of> some kind",
            "cpus": 2, "governor": None, "python": "3.11", "git": "0123456789ab", "load_average": [0.1, 0.2, 0.3],
            "spin_us": 50, "slots": 256, "rounds": 5, "seconds": 0.1, "size": 1 << 24,
            "command": "bench/compare.py --report DIR",
        },
        "table": [["randread", 4096, 32]],
        "code": [
            {"protocol": name, "what": "on the wire, C", "files": 1, "lines": lines}
            for name, lines in (("blkif", 300), ("srp", 600), ("both", 5000))
        ],
        "results": [result(*key[:3], protocol, key[3]) for key in keys for protocol in SPEED],
        "ratios": [
            {"workload": name, "block_size": block, "queue_depth": depth, "rate_per_s": rate_,
             "srp_over_blkif": ratio(0.9), "srp_over_direct": ratio(0.75), "blkif_over_direct": ratio(0.83)}
            for name, block, depth, rate_ in keys
        ],
    }  # fmt: skip
