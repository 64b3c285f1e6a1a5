# SPDX-License-Identifier: BSD-2-Clause
"""Goals of many at once: two channels, 64 nexuses, a target that has nothing to do, and how fast programs start.

Knows the command line of the initiator.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import idle
from .environment import rss_anon_kib
from .goals import Scene, Verdict, ratio
from .image import fill, heat
from .lanes_many import ManyLane
from .measure import check, load_spec
from .room import READ, SPIN_US, Room
from .server import stored
from .workloads import Workload

NEXUSES = 64
TOTAL_DEPTH = 256
SMALL_NBYTES = 4 << 20
IDLE_SECONDS = 10.0
MANY_CPUS = 4


def _images(room: Room, count: int, nbytes: int) -> list[Path]:
    paths = [room.folder / f"unit-{n}.img" for n in range(count)]
    for path in paths:
        fill(path, nbytes)
        heat(path, nbytes)
    return paths


def two_channels(room: Room) -> Scene:
    """One load thread, depth 32 on each of two channels of a nexus: on two LUNs, and both on one."""
    scene = Scene()
    cpus = len(os.sched_getaffinity(0))
    loops = 2 if cpus >= MANY_CPUS else 1
    bound = 1.6 if cpus >= MANY_CPUS else 0.9
    images = _images(room, 2, room.span_nbytes // 4)
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(room.target(*map(stored, images), options=["--loops", str(loops)]))
            lanes = []
            for name, luns in (("one channel", [0]), ("on two LUNs", [0, 1]), ("on one LUN", [0, 0])):
                lanes.append(ManyLane(name, server.socket, luns, spin_us=SPIN_US))
                stack.callback(lanes[-1].close)
            by = room.compare(lanes, READ, room.span_nbytes // 4)
    finally:
        for path in images:
            path.unlink()
    for lane in lanes[1:]:
        values = ratio(by[lane.name], by["one channel"])
        label = f"{READ.label}, two channels {lane.name}"
        scene.verdicts.append(Verdict(label, f"IOPS / one channel's, {cpus} CPUs", values, at_least=bound))
    return scene


def many_nexuses(room: Room) -> Scene:
    """64 nexuses with a LUN each against one; what an idle one costs; and that an idle target sleeps."""
    scene = Scene()
    images = _images(room, NEXUSES, SMALL_NBYTES)
    # The one nexus has as much to read as all of them, or the CPU's cache would decide.
    whole = room.folder / "whole.img"
    fill(whole, NEXUSES * SMALL_NBYTES)
    heat(whole, NEXUSES * SMALL_NBYTES)
    images.append(whole)
    # Two of 256 slots are never a command's: the one nexus makes do with 254.
    one = replace(READ, queue_depth=TOTAL_DEPTH)
    each = replace(READ, queue_depth=TOTAL_DEPTH // NEXUSES)
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(room.target(*map(stored, images)))
            before = rss_anon_kib(server.pid) or 0
            every = ManyLane(f"{NEXUSES} nexuses", server.socket, range(NEXUSES), spin_us=SPIN_US, nexuses=True)
            stack.callback(every.close)
            per_nexus = ((rss_anon_kib(server.pid) or 0) - before) / NEXUSES
            room.tell("an idle target")
            resting = idle.measure(Path(f"/proc/{server.pid}/task"), _idle_seconds(room))
            single = every.first("one nexus", NEXUSES)
            values = _paired(room, (every, each, SMALL_NBYTES), (single, one, NEXUSES * SMALL_NBYTES))
    finally:
        for path in images:
            path.unlink()
    scene.verdicts.append(
        Verdict(f"{NEXUSES} nexuses, total depth {TOTAL_DEPTH}", "IOPS / one nexus's", values, at_least=0.9)
    )
    scene.verdicts.append(Verdict("target, idle nexus", "RssAnon", [per_nexus / 1024], at_most=1.0, unit="MiB"))
    scene.verdicts.append(
        Verdict(
            f"target, idle, {NEXUSES} nexuses",
            f"switches in {_idle_seconds(room):g} s",
            [float(resting.switches)],
            at_most=0,
        )
    )
    scene.lines.append(f"target, idle, {NEXUSES} nexuses: {resting.words}")
    return scene


def _paired(room: Room, *loads: tuple[ManyLane, Workload, int]) -> list[float]:
    """Rounds A B B A of two lanes with a load of its own each: IOPS of the first over the second's."""
    rates: tuple[list[float], list[float]] = [], []
    for number in range(-1, room.rounds):
        room.tell(f"{loads[0][0].name}: round {number + 1} of {room.rounds}")
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            lane, workload, span = loads[index]
            done = check(lane, lane.run(load_spec(workload, span, room.seconds, seed=number + 2)))
            # The first round only warms up.
            if number >= 0:
                rates[index].append(done.iops)
    return [above / below for above, below in zip(*rates, strict=True)]


# ---- doing nothing ----


def _idle_seconds(room: Room) -> float:
    """The whole time where rounds are long, too; else a fifth of it."""
    return IDLE_SECONDS if room.seconds >= 1 else IDLE_SECONDS / 5


# ---- starting ----


def _inquiry(socket: Path) -> float:
    program = Path(sys.executable).parent / "vscsi-initiator"
    start = time.monotonic()
    subprocess.run(
        [str(program), "-u", f"vscsi+unix:///0?socket={socket}", "inquiry"],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.monotonic() - start) * 1000


def starting(room: Room) -> Scene:
    """From nothing to a target that takes connections, and a whole INQUIRY by the command line."""
    ready: list[float] = []
    asked: list[float] = []
    for number in range(room.rounds):
        room.tell(f"starting: round {number + 1} of {room.rounds}")
        with room.target(stored(room.image)) as server:
            ready.append(server.ready_ms)
            asked.append(_inquiry(server.socket))
    rows: Sequence[tuple[str, str, list[float], float]] = (
        ("vscsi-target", "start to ready", ready, 150.0),
        ("vscsi-initiator inquiry", "whole process", asked, 250.0),
    )
    return Scene([Verdict(work, what, values, at_most=most, unit="ms") for work, what, values, most in rows])
