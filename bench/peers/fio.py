# SPDX-License-Identifier: BSD-2-Clause
"""fio as the driver of a peer: its command line, and its JSON as a Round with every latency.

Knows fio, no peer. A round is one run of fio; what it takes to start is not in its numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from comparison.measure import Round

from .peer import Peer, PeerError, call, round_of

PATTERNS = {(1, 100): "randread", (1, 0): "randwrite", (0, 100): "read", (0, 0): "write"}


def command(spec: Any, options: Sequence[str]) -> list[str]:
    """fio for this load.

    norandommap: each block may come more than once, as in our own loads. invalidate=0: else fio throws the image out of
    the page cache, for itself and for whoever is measured next.
    """
    pattern = PATTERNS.get((int(spec.random), int(spec.read_percent)))
    mixed = [f"--rw={'randrw' if spec.random else 'rw'}", f"--rwmixread={spec.read_percent}"]
    return [
        "fio", "--name=bench", *([f"--rw={pattern}"] if pattern else mixed), f"--bs={spec.block_nbytes}",
        f"--iodepth={spec.queue_depth}", f"--size={spec.span_nbytes}", f"--randseed={spec.seed}", "--norandommap",
        "--invalidate=0", "--time_based", f"--runtime={max(spec.duration_ns // 1000000, 1)}ms", "--group_reporting",
        "--output-format=json+", *options,
    ]  # fmt: skip


def parse(text: str) -> tuple[int, float, dict[int, int], float]:
    """I/Os, seconds, latencies (ns: count) and fio's own CPU seconds. PeerError."""
    start = text.find("{")
    try:
        job = json.loads(text[start:])["jobs"][0]
    except (ValueError, KeyError, IndexError):
        raise PeerError("fio printed no JSON") from None
    if job.get("error"):
        raise PeerError(f"fio: error {job['error']}")
    ios, iops = 0, 0.0
    bins: dict[int, int] = {}
    for side in ("read", "write"):
        part = job[side]
        ios += part["total_ios"]
        iops += part["iops"]
        for ns, count in part.get("clat_ns", {}).get("bins", {}).items():
            bins[int(ns)] = bins.get(int(ns), 0) + count
    if not ios or not iops:
        raise PeerError("fio: not one I/O was done")
    # Of several jobs the run times add up and the rates do too.
    cpu = job["job_runtime"] / 1000 * (job["usr_cpu"] + job["sys_cpu"]) / 100
    return ios, ios / iops, bins, cpu


class FioPeer(Peer):
    """A peer that fio drives; `options` say where to."""

    commands: ClassVar[tuple[str, ...]] = ("fio",)
    packages: ClassVar[tuple[str, ...]] = ("fio",)

    def __init__(self) -> None:
        super().__init__()
        self.options: list[str] = []
        self.prefix: list[str] = []

    def run(self, spec: Any) -> Round:
        before = self.cpu_ns()
        text = call([*self.prefix, *command(spec, self.options)])
        ios, seconds, bins, cpu = parse(text)
        return round_of(ios, seconds, bins, client_ns=int(cpu * 1e9), server_ns=self.cpu_ns() - before)
