# SPDX-License-Identifier: BSD-2-Clause
"""Runs tests of libiscsi's iscsi-test-cu through the SG_IO door: a process, a target and an image for each of them.

Knows how to start things and in how many at once; what an outcome means is in suite.verdict.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .log import Outcome, Verdict, judge
from .setups import SETUPS, SIZE, Setup

TOOL = "iscsi-test-cu"
BIN = Path(sys.executable).parent
SECONDS = 120
FAMILY = "ALL."
TWO_PATHS = "MultipathIO."
"""Tests of this suite have a second I_T nexus to the same logical unit."""


class Result(NamedTuple):
    """One test on one set-up."""

    setup: str
    test: str
    outcome: Outcome
    log: str


def every_test() -> list[str]:
    """SUITE.TEST of all that the tool has."""
    listed = subprocess.run([TOOL, "--list"], capture_output=True, text=True, check=True).stdout
    names = [line.strip().removeprefix(FAMILY) for line in listed.splitlines() if line.startswith(FAMILY)]
    return [name for name in names if name.count(".") == 1]


def run_one(setup: Setup, test: str) -> Result:
    """One test on a fresh image and target. What goes wrong is a failed outcome, never an exception."""
    with tempfile.TemporaryDirectory(prefix="vscsi-suite-") as folder:
        paths = ["/dev/vscsi0", "/dev/vscsi@second/0"][: 2 if test.startswith(TWO_PATHS) else 1]
        tool = [TOOL, "--dataloss", "--allow-sanitize", "--test", FAMILY + test, *paths]
        door = shlex.join(["vscsi-initiator", "run", "--initiator", "second", "--", *tool])
        lun = f"0={setup.scheme}:{folder}/disk,size={SIZE},{setup.keys}"
        command = [str(BIN / "vscsi-target"), "-U", "-", "--lun", lun, "--run", f"exec {door}"]
        environment = {name: value for name, value in os.environ.items() if name != "VSCSI_URI"}
        if setup.name == "read-only":
            Path(folder, "disk").touch()
            os.truncate(Path(folder, "disk"), 32 << 20)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            log = (error.stdout or b"").decode(errors="replace")
            return Result(setup.name, test, Outcome(Verdict.FAILED, (f"no end within {SECONDS} s",)), log)
        log = done.stdout.decode(errors="replace")
        return Result(setup.name, test, judge(log, done.returncode), log)


def run_many(
    pairs: Iterable[tuple[str, str]], *, jobs: int | None = None, on_result: Callable[[Result], None] | None = None
) -> list[Result]:
    """Runs (set-up, test) pairs, `jobs` at once (as many as CPUs unless given), in order of the pairs."""
    results = []
    with ThreadPoolExecutor(jobs or len(os.sched_getaffinity(0))) as pool:
        for result in pool.map(lambda pair: run_one(SETUPS[pair[0]], pair[1]), pairs):
            results.append(result)
            if on_result is not None:
                on_result(result)
    return results
