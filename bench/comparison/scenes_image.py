# SPDX-License-Identifier: BSD-2-Clause
"""Goals on one image in the page cache: SRP against blkif, against the engine alone, and against fio; and O_DIRECT.

Knows which lanes run which load, and the bounds. How they are compared is `rounds`.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from statistics import median

from . import fio
from .direct import DirectLane
from .goals import Scene, Verdict, excess, ratio
from .lanes import BlkifLane, SrpLane
from .measure import Lane, Series
from .room import READ, SINGLE, SPIN_US, WRITE, Room, pin, pinned_here, two_cpus
from .server import stored
from .worker import WorkerLane
from .workloads import Workload

RANDOM = (0.97, 0.85)
SEQUENTIAL = (0.99, 0.95)
STREAMS = tuple(
    Workload(name, nbytes, 8, percent, False)
    for nbytes in (128 << 10, 1 << 20)
    for name, percent in (("seqread", 100), ("seqwrite", 0))
)


def _open(stack: contextlib.ExitStack, *lanes: Lane) -> list[Lane]:
    for lane in lanes:
        stack.callback(lane.close)
    return list(lanes)


def throughput(room: Room) -> Scene:
    """SRP, blkif and direct: small random I/O at depth 32, large sequential I/O at depth 8, and depth 1 spinning."""
    scene = Scene()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(room.target(stored(room.image)))
        lanes = _open(
            stack,
            BlkifLane(server.socket, 0, SPIN_US),
            SrpLane(server.socket, 0, SPIN_US),
            DirectLane(room.image),
        )
        for workload, bounds in [*((w, RANDOM) for w in (READ, WRITE)), *((w, SEQUENTIAL) for w in STREAMS)]:
            if room.span_nbytes < 2 * workload.block_nbytes * workload.queue_depth:
                continue
            by = room.compare(lanes, workload)
            for name, bound in zip(("blkif", "direct"), bounds, strict=True):
                verdict = Verdict(workload.label, f"SRP / {name}", ratio(by["srp"], by[name]), at_least=bound)
                scene.verdicts.append(verdict)
        by = room.compare(lanes, SINGLE)
        for name, most in (("direct", 2.0), ("blkif", 0.3)):
            values = excess(by["srp"], by[name])
            what = f"p50 of SRP - p50 of {name}, both ends spinning"
            scene.verdicts.append(Verdict(SINGLE.label, what, values, at_most=most, unit="us"))
        scene.lines.append(f"{SINGLE.label}, spinning: p50 {_medians(by)} us")
    return scene


def _medians(by: dict[str, Series]) -> str:
    return ", ".join(f"{name} {median(one.us(0.5) for one in series.rounds):.2f}" for name, series in by.items())


def sleeping(room: Room) -> Scene:
    """Depth 1 and depth 32 while nobody spins: a wake-up each way, and what the target's CPU pays for an I/O."""
    from .programs import ProgramError, build

    scene = Scene()
    cpus = two_cpus()
    what = "p50 of SRP / (p50 of ping-pong + p50 of direct), no spinning"
    try:
        bare = build("bare")
    except ProgramError as error:
        scene.verdicts.append(Verdict(SINGLE.label, what, [], at_most=1.15, note=str(error)))
        return scene
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(room.target(stored(room.image), spin_us=0))
        direct = DirectLane(room.image)
        pinning = [str(cpu) for cpu in cpus] if cpus else []
        pingpong = WorkerLane("pingpong", [str(bare), "pingpong", *pinning])
        lanes = _open(stack, SrpLane(server.socket, 0, 0), direct, pingpong)
        blkif = BlkifLane(server.socket, 0, 0)
        stack.callback(blkif.close)
        if cpus:
            pin(server.pid, cpus[1])
            pin(direct.pid, cpus[1])
            with pinned_here(cpus[0]):
                by = room.compare(lanes, SINGLE)
                both = room.compare([blkif, lanes[0]], READ)
        else:
            by = room.compare(lanes, SINGLE)
            both = room.compare([blkif, lanes[0]], READ)
    values = [
        srp.us(0.5) / max(ping.us(0.5) + alone.us(0.5), 0.001)
        for srp, ping, alone in zip(*(by[name].rounds for name in ("srp", "pingpong", "direct")), strict=True)
    ]
    scene.verdicts.append(Verdict(SINGLE.label, what, values, at_most=1.15))
    costs = [
        (srp.target_cpu_ns / max(srp.ios, 1)) / max(other.target_cpu_ns / max(other.ios, 1), 1)
        for srp, other in zip(both["srp"].rounds, both["blkif"].rounds, strict=True)
    ]
    what = "target's CPU time an I/O, SRP / blkif, no spinning"
    scene.verdicts.append(Verdict(READ.label, what, costs, at_most=1.15))
    scene.lines.append(f"{SINGLE.label}, no spinning: p50 {_medians(by)} us")
    return scene


def against_fio(room: Room) -> Scene:
    """SRP and fio's io_uring engine on the same file; fio with two jobs beside it."""
    scene = Scene()
    what = "SRP / fio's io_uring engine"
    if not fio.installed():
        scene.verdicts.append(Verdict(READ.label, what, [], at_least=1.0, note=fio.HINT))
        return scene
    with room.target(stored(room.image)) as server, contextlib.ExitStack() as stack:
        srp, one, two = _open(
            stack,
            SrpLane(server.socket, 0, SPIN_US),
            fio.FioLane(room.image),
            fio.FioLane(room.image, jobs=2),
        )
        by = room.compare([srp, one, two], READ)
    scene.verdicts.append(Verdict(READ.label, what, ratio(by["srp"], by[one.name]), at_least=1.0))
    for name, series in by.items():
        seconds = sum(done.initiator_cpu_ns + done.target_cpu_ns for done in series.rounds) / 1e9
        ios = max(sum(done.ios for done in series.rounds), 1)
        rate = median(series.iops) / 1000
        scene.lines.append(
            f"{READ.label}: {name} {rate:.0f}k IOPS, {seconds:.2f} CPU seconds, {seconds * 1e6 / ios:.2f} us an I/O"
        )
    scene.lines.append(f"fio: {fio.version()}")
    return scene


def o_direct(room: Room) -> Scene:
    """The same past the page cache."""
    scene = Scene()
    what = "SRP / fio's io_uring engine, O_DIRECT"
    if not fio.installed():
        scene.verdicts.append(Verdict(READ.label, what, [], at_least=0.97, note=fio.HINT))
        return scene
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(room.target(f"{stored(room.image)},cache=none"))
        srp, other = _open(stack, SrpLane(server.socket, 0, SPIN_US), fio.FioLane(room.image, direct=True))
        by = room.compare([srp, other], replace(READ))
    scene.verdicts.append(Verdict(READ.label, what, ratio(by["srp"], by[other.name]), at_least=0.97))
    scene.lines.append(
        f"{READ.label}, O_DIRECT: {', '.join(f'{name} {median(s.iops) / 1000:.1f}k IOPS' for name, s in by.items())}"
    )
    return scene
