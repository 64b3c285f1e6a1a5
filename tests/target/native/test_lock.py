# SPDX-License-Identifier: BSD-2-Clause
"""The lock of a logical unit under fire, plain and under ThreadSanitizer; and broken on purpose, which must show."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0.5"))
FLAGS = ["-std=gnu11", "-O2", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wshadow"]
BREAKS = {
    "no fence": ("syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0", "false"),
    "does not wait": ("atomic_load_explicit(&lock->inside, memory_order_acquire); i++", "false; i++"),
    "the last guest only": ("lock->guests++ == 0 && lock->owner", "lock->guests++ == 1 && lock->owner"),
}


def run(tmp_path: Path, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    lock = tmp_path / "lock.c"
    lock.write_text(source)
    program = tmp_path / "lock_stress"
    folders = [f"-I{ROOT / folder}" for folder in ("target/native", "vscsi/native")]
    command = ["gcc", *FLAGS, *flags, *folders, str(HERE / "lock_stress.c"), str(lock), "-o", str(program), "-lpthread"]
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    built = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert built.returncode == 0, built.stderr
    how = ["setarch", "-R"] if flags else []
    seconds = str(SECONDS)
    done = subprocess.run(
        [*how, str(program), seconds], capture_output=True, text=True, check=False, env=clean, timeout=SECONDS + 60
    )
    if done.returncode == 77:
        pytest.skip("no membarrier here: the lock is a mutex")
    if "setarch: failed" in done.stderr or "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run with this kernel's memory layout")
    return done


@pytest.mark.stress
@pytest.mark.parametrize("variant", ["plain", "tsan"])
def test_nobody_meets_anybody(tmp_path, variant):
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    flags = ["-fsanitize=thread", "-Wno-tsan"] if variant == "tsan" else []
    done = run(tmp_path, (ROOT / "target/native/lock.c").read_text(), *flags)
    assert (done.returncode, done.stderr) == (0, "")
    seen = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}
    assert seen["lost"] == 0
    assert min(seen["gate"], seen["mutex"], seen["guest"], seen["waited"]) > 0


@pytest.mark.parametrize("how", BREAKS)
def test_what_is_broken_shows(tmp_path, how):
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    if how.startswith("no fence") and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU always sees its own stores")
    source = (ROOT / "target/native/lock.c").read_text()
    right, wrong = BREAKS[how]
    assert right in source
    # Two CPUs must meet in a few nanoseconds; on a busy machine that takes a while.
    for _ in range(20):
        done = run(tmp_path, source.replace(right, wrong))
        if done.returncode == 1:
            return
    pytest.fail("it was not noticed")
