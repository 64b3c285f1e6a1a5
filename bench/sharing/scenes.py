# SPDX-License-Identifier: BSD-2-Clause
"""Who does what on the shared disk: two runs, a greedy and a polite initiator, three weights. In paired rounds.

The disk is the target's simulated one, the same in every variant; only `sched=` differs. Knows lanes and loads; must
not know how the scheduler decides.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison import statistics
from comparison.lanes_many import ManyLane
from comparison.measure import MismatchError, Round, check, load_spec
from comparison.server import PrivateTarget
from comparison.workloads import Workload

from vscsi.native import ffi, lib

DISK = "rpm=7200&seek=8&step=0.8&rate=150M&disk=shared"
PART_NBYTES = 8 << 30
"""Each of the two LUNs that lie on the disk, one behind the other."""
QUANTILES = (0.5, 0.99)
STREAM = Workload("seqread", 65536, 8, 100, False)
SINGLE = Workload("seqread", 65536, 1, 100, False)
IDLE_MS = 4
GREEDY, POLITE = Workload("randread", 4096, 128, 100, True), Workload("randread", 4096, 1, 100, True)
GREEDY_CHANNELS = 2
WEIGHTS = (1, 2, 4)
WEIGHED = Workload("randread", 4096, 32, 100, True)


@dataclass(frozen=True)
class Load:
    """What one initiator does."""

    lane: ManyLane
    workload: Workload
    span_nbytes: int


def together(loads: Sequence[Load], seconds: float, seed: int) -> list[Round]:
    """All loads at the same time. MismatchError."""
    done: list[Round | None] = [None] * len(loads)
    errors: list[BaseException] = []

    def run(index: int, load: Load) -> None:
        try:
            spec = load_spec(load.workload, load.span_nbytes, seconds, seed=seed + index)
            done[index] = check(load.lane, load.lane.run(spec))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(loads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [one for one in done if one is not None]


def rate(one: Round, seconds: float, workload: Workload) -> float:
    """MB/s; what was still under way when the time was over counts as if it had come in time."""
    return one.ios * workload.block_nbytes / 1e6 / max(seconds, int(one.result.elapsed_ns) / 1e9)


class Place:
    """A target with two LUNs on one disk, and initiators of it."""

    def __init__(self, folder: Path, words: str) -> None:
        folder.mkdir()
        self._stack = contextlib.ExitStack()
        stores = [f"sim:mem:{PART_NBYTES >> 30}G?{DISK}{words}" for _ in range(2)]
        self.server = PrivateTarget(stores, folder, spin_us=0)
        self._stack.callback(self.server.close)

    def lane(self, name: str, luns: Sequence[int]) -> ManyLane:
        """One nexus with a channel for each of `luns`."""
        lane = ManyLane(name, self.server.socket, luns, spin_us=0)
        self._stack.callback(lane.close)
        return lane

    def schedule(self, *words: str) -> dict[str, int]:
        """`vscsi-admin schedule 0`: how many requests each initiator port has had."""
        program = Path(sys.executable).with_name("vscsi-admin")
        command = [str(program), "-U", str(self.server.socket), "--json", "schedule", "0", *words]
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return {one["port"]: int(one["requests"]) for one in answer["nexuses"]}

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def places(folder: Path) -> Iterator[dict[str, Place]]:
    """The same disk with and without the scheduler."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, words in (("fifo", ""), ("fair", ",sched=fair")):
            found[name] = Place(folder / name, words)
            stack.callback(found[name].close)
        yield found


def _latencies(rounds: Sequence[Round]) -> dict[str, float]:
    """Quantiles over all rounds, in ms."""
    total = ffi.new("struct vscsi_load_result *")
    for one in rounds:
        lib.vscsi_load_merge(total, one.result)
    return {f"p{q * 100:g}_ms": round(lib.vscsi_hist_quantile(total, q) / 1e6, 2) for q in QUANTILES}


Tell = Callable[[str], None]


def streams(where: dict[str, Place], rounds: int, seconds: float, tell: Tell) -> dict[str, Any]:
    """Two initiators read sequentially, each from its own LUN: MB/s of both, without and with turns."""
    loads = {
        name: [Load(place.lane(f"{name} {lun}", [lun]), STREAM, PART_NBYTES) for lun in (0, 1)]
        for name, place in where.items()
    }
    found: dict[str, list[float]] = {name: [] for name in loads}
    least: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(rounds):
        tell(f"two streams: round {number + 1} of {rounds}")
        for name in statistics.order(list(loads), number):
            rates = [rate(one, seconds, STREAM) for one in together(loads[name], seconds, number)]
            found[name].append(sum(rates))
            least[name].append(min(rates) / max(rates))
    out: dict[str, Any] = {"workload": STREAM.label, "initiators": 2}
    for name, values in found.items():
        middle, low, high = statistics.interval(values)
        out[name] = {"mb_per_s": {"median": round(middle, 1), "low": round(low, 1), "high": round(high, 1)}}
        out[name]["slower_over_faster"] = round(statistics.interval(least[name])[0], 3)
    out["fair_over_fifo"] = statistics.ratio(found["fair"], found["fifo"])
    return out


def single(where: dict[str, Place], rounds: int, seconds: float, tell: Tell) -> dict[str, Any]:
    """The same at depth 1, with turns: MB/s of both when the head waits for the next request of a stream, and not."""
    place = where["fair"]
    loads = [Load(place.lane(f"single {lun}", [lun]), SINGLE, PART_NBYTES) for lun in (0, 1)]
    variants = {"fair": 0, "idle": IDLE_MS}
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        tell(f"two streams at depth 1: round {number + 1} of {rounds}")
        for name in statistics.order(list(variants), number):
            place.schedule("--idle", str(variants[name]))
            found[name].append(sum(rate(one, seconds, SINGLE) for one in together(loads, seconds, number)))
    place.schedule("--idle", "0")
    out: dict[str, Any] = {"workload": SINGLE.label, "initiators": 2, "idle_ms": IDLE_MS}
    for name, values in found.items():
        middle, low, high = statistics.interval(values)
        out[name] = {"mb_per_s": {"median": round(middle, 1), "low": round(low, 1), "high": round(high, 1)}}
    out["idle_over_fair"] = statistics.ratio(found["idle"], found["fair"])
    return out


def polite(where: dict[str, Place], rounds: int, seconds: float, tell: Tell) -> dict[str, Any]:
    """One initiator reads at depth 1, another one keeps 256 requests waiting: how long the first one waits."""
    variants: dict[str, list[Load]] = {}
    for name, place in where.items():
        one = Load(place.lane(f"polite {name}", [0]), POLITE, PART_NBYTES)
        many = Load(place.lane(f"greedy {name}", [0] * GREEDY_CHANNELS), GREEDY, PART_NBYTES)
        variants[name] = [one, many]
    variants["alone"] = variants["fair"][:1]
    names = ["alone", "fifo", "fair"]
    found: dict[str, list[Round]] = {name: [] for name in names}
    others: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        tell(f"greedy and polite: round {number + 1} of {rounds}")
        for name in statistics.order(names, number):
            done = together(variants[name], seconds, 100 * number)
            found[name].append(done[0])
            others[name] += [rate(other, seconds, GREEDY) * 1e6 / GREEDY.block_nbytes for other in done[1:]]
    out: dict[str, Any] = {
        "workload": POLITE.label,
        "greedy": f"{GREEDY.name} 4k qd{GREEDY.queue_depth * GREEDY_CHANNELS}",
    }
    for name in names:
        out[name] = {"iops": round(sum(one.iops for one in found[name]) / rounds, 1), **_latencies(found[name])}
        if others[name]:
            out[name]["greedy_iops"] = round(sum(others[name]) / rounds, 1)
    for name in ("fifo", "fair"):
        p99 = ([one.us(0.99) for one in found[which]] for which in (name, "alone"))
        out[f"p99_{name}_over_alone"] = statistics.ratio(*p99)
    return out


def weights(where: dict[str, Place], rounds: int, seconds: float, tell: Tell) -> dict[str, Any]:
    """Three greedy initiators with weights 1, 2 and 4: the shares of the requests that they get."""
    place = where["fair"]
    lanes = [place.lane(f"weight {weight}", [0]) for weight in WEIGHTS]
    rules = "+".join(f"{lane.port_id.hex()}:{weight}" for lane, weight in zip(lanes, WEIGHTS, strict=True))
    place.schedule("--weight", rules)
    shares: list[list[float]] = [[] for _ in WEIGHTS]
    for number in range(rounds):
        tell(f"weights: round {number + 1} of {rounds}")
        loads = [Load(lane, WEIGHED, PART_NBYTES) for lane in lanes]
        running = threading.Thread(target=together, args=(loads, seconds, number))
        running.start()
        # Only while all three are there: at the end each empties its queue, whatever its share.
        time.sleep(seconds * 0.1)
        before = place.schedule()
        time.sleep(seconds * 0.6)
        after = place.schedule()
        running.join()
        had = [after[lane.port_id.hex()] - before[lane.port_id.hex()] for lane in lanes]
        for share, value in zip(shares, had, strict=True):
            share.append(value / sum(had))
    out: dict[str, Any] = {"workload": WEIGHED.label, "rows": []}
    for weight, share in zip(WEIGHTS, shares, strict=True):
        middle, low, high = statistics.interval(share)
        out["rows"].append(
            {"weight": weight, "wanted": round(weight / sum(WEIGHTS), 4), "median": round(middle, 4),
             "low": round(low, 4), "high": round(high, 4)}
        )  # fmt: skip
    return out


SCENES: dict[str, Callable[[dict[str, Place], int, float, Tell], dict[str, Any]]] = {
    "streams": streams,
    "single": single,
    "polite": polite,
    "weights": weights,
}

__all__ = ["SCENES", "MismatchError", "places"]
