# SPDX-License-Identifier: BSD-2-Clause
"""Whether a process that has nothing to do sleeps: context switches of all its threads, counted once it has settled.

Knows /proc/PID/task; must not know what the process does or when it was last asked for something.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KERNEL_THREAD = "iou-wrk-"
"""io_uring's workers. The kernel lets one go after five seconds without work, which takes it a few switches; the last
one of a ring it keeps, and that one wakes every five seconds from then on."""
SETTLE_SECONDS = 15.0
REST_SECONDS = 1.0
POLL_SECONDS = 0.25
COUNTERS = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")


@dataclass(frozen=True)
class Thread:
    """A thread at one moment."""

    name: str
    switches: int


@dataclass(frozen=True)
class Idle:
    """`by`: switches by the name of the thread, those that had any; `words`: what was waited for, and who switched."""

    by: dict[str, int]
    words: str

    @property
    def switches(self) -> int:
        """Of all threads."""
        return sum(self.by.values())


def threads(folder: Path) -> dict[str, Thread]:
    """Those of a process by their id, from its `task` folder."""
    out = {}
    for task in folder.iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        fields = dict(line.partition(":")[::2] for line in lines)
        out[task.name] = Thread(fields["Name"].strip(), sum(int(fields[name]) for name in COUNTERS))
    return out


def between(before: dict[str, Thread], after: dict[str, Thread]) -> dict[str, int]:
    """Switches by name of thread; one that has ended counts as one at least, one that is new with all it has had."""
    by: Counter[str] = Counter()
    for number, thread in after.items():
        earlier = before.get(number)
        by[thread.name] += thread.switches - (earlier.switches if earlier else 0)
    for number in set(before) - set(after):
        by[before[number].name] += 1
    return {name: count for name, count in sorted(by.items()) if count}


def _workers(folder: Path) -> int:
    return sum(thread.name.startswith(KERNEL_THREAD) for thread in threads(folder).values())


def measure(
    folder: Path,
    seconds: float,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Idle:
    """Wait until io_uring's workers of earlier load have ended, for `settle_seconds` at most; count for `seconds`."""
    began = clock()
    sleep(REST_SECONDS)
    while (left := _workers(folder)) and clock() < began + settle_seconds:
        sleep(POLL_SECONDS)
    waited = clock() - began
    before = threads(folder)
    sleep(seconds)
    by = between(before, threads(folder))
    words = f"waited {waited:.1f} s until no io_uring worker was left"
    if left:
        words = f"waited {waited:.1f} s, measured though io_uring workers were left: {left}"
    who = ", ".join(f"{name} {count}" for name, count in by.items()) or "none"
    return Idle(by, f"{words}; {seconds:g} s, {len(before)} threads, switches: {who}")
