# SPDX-License-Identifier: BSD-2-Clause
"""On what machine the numbers came about: kernel, CPU, Python, revision, load. Reads /proc and asks git."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CPUCLOCK_SCHED = 2


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _governor() -> str | None:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def describe(**settings: Any) -> dict[str, Any]:
    """The `environment` of the JSON; `settings` are those of this run."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    revision = _git("rev-parse", "--short=12", "HEAD")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "governor": _governor(),
        "python": platform.python_version(),
        "git": f"{revision}{'-dirty' if changed else ''}" if revision else None,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **settings,
    }


def process_cpu_ns(pid: int) -> int:
    """CPU time of a process so far, in ns: all its threads, those that have ended and io_uring's workers too.

    The kernel's own clock for it (clock_getcpuclockid(3)) is exact where /proc counts ticks.
    """
    return time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED)


def rss_anon_kib(pid: int) -> int | None:
    """RssAnon of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return None
