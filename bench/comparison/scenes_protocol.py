# SPDX-License-Identifier: BSD-2-Clause
"""Goals of the protocol itself: the null store, a bare ring beside it, and what an I/O costs in instructions.

Knows valgrind's command line and what the C driver prints; the driver is bench/native/hot_path.c.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .goals import Scene, Verdict, ratio
from .lanes import BlkifLane, SrpLane
from .programs import ProgramError, build, clean_environment
from .room import READ, SPIN_US, WRITE, Room
from .worker import WorkerLane

DEPTH = 32
TURNS = 50
PROTOCOLS = ("srp", "blkif")
SIDES = {"initiator": "initiators_turn", "target": "targets_turn"}


def null_store(room: Room) -> Scene:
    """Reads that give zeros and writes that go nowhere, against blkif and against a ring with nothing behind it."""
    scene = Scene()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(room.target(f"null:{room.span_nbytes}"))
        lanes = [BlkifLane(server.socket, 0, SPIN_US), SrpLane(server.socket, 0, SPIN_US)]
        for lane in lanes:
            stack.callback(lane.close)
        note = ""
        bare: list[WorkerLane] = []
        try:
            bare.append(WorkerLane("bare", [str(build("bare")), "ring"]))
            stack.callback(bare[0].close)
        except ProgramError as error:
            note = str(error)
        for workload in (WRITE, READ):
            # A null store forgets: there is nothing to verify.
            by = room.compare([*lanes, *bare], workload, verify=False)
            label = f"{workload.label}, null store"
            scene.verdicts.append(Verdict(label, "SRP / blkif", ratio(by["srp"], by["blkif"]), at_least=0.85))
            # A read clears 4 KiB, which is not protocol.
            if workload is WRITE:
                values = ratio(by["bare"], by["srp"]) if bare else []
                what = "time of an I/O / a bare ring's"
                scene.verdicts.append(Verdict(label, what, values, at_most=6.0, note=note))
            rates = ", ".join(f"{name} {1e9 / max(_middle(one.iops), 1):.0f}" for name, one in by.items())
            scene.lines.append(f"{label}: {rates} ns an I/O")
    return scene


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


# ---- counts ----


@dataclass(frozen=True)
class Counts:
    """What the driver counted in all its turns."""

    done: int
    failed: int
    allocations: int
    target_locks: int
    initiator_locks: int


def drive(protocol: str, store: str, *, read_percent: int = 100, sealed: bool = False) -> Counts:
    """Both ends in one thread, without valgrind. RuntimeError if it fails, or makes a system call though `sealed`."""
    command = [str(build("hot_path")), protocol, str(read_percent), store, str(DEPTH), str(TURNS)]
    done = subprocess.run(
        [*command, *(["sealed"] if sealed else [])],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    if done.returncode:
        raise RuntimeError(f"hot_path {protocol} {store}: status {done.returncode} {done.stderr.strip()}")
    return Counts(**{name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)})


def instructions(protocol: str, side: str, store: str, *, read_percent: int = 100) -> float:
    """Instructions an I/O of one side, by callgrind. Raises ProgramError."""
    if not shutil.which("valgrind"):
        raise ProgramError("valgrind is not installed")
    command = [str(build("hot_path")), protocol, str(read_percent), store, str(DEPTH), str(TURNS)]
    with tempfile.NamedTemporaryFile(prefix="vscsi-callgrind-") as out:
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", "--collect-atstart=no"]
        done = subprocess.run(
            [*tool, f"--toggle-collect={SIDES[side]}", *command],
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
        )
        totals = re.search(r"^totals: (\d+)", Path(out.name).read_text(errors="replace"), re.MULTILINE)
    counted = re.search(r"done=(\d+) failed=0", done.stdout)
    if done.returncode or not totals or not counted:
        raise ProgramError(f"callgrind: status {done.returncode} {done.stderr.strip().splitlines()[-1:]}")
    return int(totals[1]) / int(counted[1])


def counts(room: Room) -> Scene:
    """Instructions an I/O, and what the null store's path must not do."""
    scene = Scene()
    work = "null store, one I/O"
    try:
        done = drive("srp", "null", sealed=True)
    except (ProgramError, RuntimeError) as error:
        scene.verdicts.append(Verdict(work, "allocations, locks and system calls", [], at_most=0, note=str(error)))
        return scene
    per_io = [(done.allocations + done.target_locks) / done.done]
    scene.verdicts.append(Verdict(work, "allocations and locks; no system call", per_io, at_most=0))
    try:
        found = {
            protocol: {side: instructions(protocol, side, str(room.image)) for side in SIDES} for protocol in PROTOCOLS
        }
    except ProgramError as error:
        scene.lines.append(f"instructions an I/O: {error}")
        return scene
    for side in SIDES:
        told = ", ".join(f"{protocol} {found[protocol][side]:.0f}" for protocol in PROTOCOLS)
        scene.lines.append(f"instructions of a 4 KiB read, {side}, without the kernel: {told}")
    return scene
