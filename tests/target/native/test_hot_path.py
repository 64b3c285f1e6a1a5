# SPDX-License-Identifier: BSD-2-Clause
"""What a small command costs, in counts: instructions by callgrind below a bound, no allocation, lock or system call.

Both ends run in one thread (bench/native/hot_path.c), so that the counts are the same each time. Whoever goes beyond a
bound and has a reason raises it; whoever gets well below lowers it.
"""

import platform
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from comparison.scenes_protocol import DEPTH, TURNS, drive, instructions

# A 4 KiB write to the null store with gcc 12 on x86-64, and a tenth more for other compilers.
SLACK = 1.10
BOUNDS = {
    ("srp", "target"): 743,
    ("srp", "initiator"): 482,
    ("blkif", "target"): 673,
    ("blkif", "initiator"): 459,
}


@pytest.fixture(autouse=True)
def _compiler():
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")


@pytest.mark.parametrize("protocol", ["srp", "blkif"])
@pytest.mark.parametrize("read_percent", [0, 100])
def test_nothing_but_the_ring_is_touched(protocol, read_percent):
    """A system call would kill the driver; the initiator's one lock a batch is the load generator's own."""
    done = drive(protocol, "null", read_percent=read_percent, sealed=True)
    assert (done.done, done.failed) == (DEPTH * TURNS, 0)
    assert (done.allocations, done.target_locks) == (0, 0)
    assert done.initiator_locks == TURNS


def test_the_seal_holds(tmp_path):
    """Reading an image takes a system call, which the sealed driver does not survive."""
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    assert drive("srp", str(image)).failed == 0
    with pytest.raises(RuntimeError, match="status -31"):
        drive("srp", str(image), sealed=True)


@pytest.mark.parametrize(("protocol", "side"), BOUNDS)
def test_instructions_of_a_command(protocol, side):
    if not shutil.which("valgrind") or platform.machine() != "x86_64":
        pytest.skip("valgrind is not installed, or counts what another instruction set needs")
    counted = instructions(protocol, side, "null", read_percent=0)
    assert 100 < counted < BOUNDS[protocol, side] * SLACK
