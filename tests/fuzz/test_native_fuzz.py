# SPDX-License-Identifier: BSD-2-Clause
"""The fuzz targets in C without their fuzzer: everything they have met so far, and random changes of it, under ASan.

Knows how to run a program; what is promised stands in tests/fuzz/native.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fuzz.mistakes import MISTAKES
from fuzz.programs import CORPUS, ROOT, TARGETS, FuzzTarget, environment, pack, replayer, unpack

LONG = os.environ.get("VSCSI_FUZZ") == "long"
MUTATIONS = 20000 if LONG else 600
RACES = 30 if LONG else 1
CASES = [(name, mistake) for name, mistakes in MISTAKES.items() for mistake in mistakes]
SHOWN = CASES if os.environ.get("VSCSI_FUZZ_MISTAKES") == "all" else []
targets = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@pytest.fixture(autouse=True, scope="module")
def compiler():
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")


def replay(program: Path, folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [str(program), *map(str, arguments)]
    env = environment() | {"UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)


def good(target: FuzzTarget, folder: Path, *arguments: object) -> dict[str, int]:
    """What the program counted; it found nothing."""
    seed = int.from_bytes(os.urandom(4)) if LONG else 1
    done = replay(replayer(target), folder, "-s", seed, *arguments)
    broken = folder / "broken.bin"
    assert done.returncode == 0, f"{done.stderr}\nseed {seed}; {broken.read_bytes().hex() if broken.exists() else ''}"
    print(done.stdout)
    return {name: int(count) for count, name in re.findall(r"(\d+) (\w[\w ]*)", done.stdout)}


@targets
def test_corpus_and_mutations_of_it(target: FuzzTarget, tmp_path: Path):
    inputs = target.inputs()
    assert inputs, "no corpus"
    assert good(target, tmp_path, "-m", MUTATIONS, *inputs)["mutations"] == MUTATIONS


@targets
def test_recorded_sessions_reach_what_nothing_does(target: FuzzTarget, tmp_path: Path):
    nothing = good(target, tmp_path)
    sessions = good(target, tmp_path, CORPUS / f"sessions-{target.name}.pack")
    assert sessions["places"] > 1.5 * nothing["places"]


@targets
def test_recorded_sessions_beside_a_thread_that_rewrites_memory(target: FuzzTarget, tmp_path: Path):
    counted = good(target, tmp_path, "-r", RACES, CORPUS / f"sessions-{target.name}.pack")
    assert counted["raced writes"] > counted["inputs"]


@targets
def test_corpus_is_small_and_in_order(target: FuzzTarget):
    for packed in target.inputs():
        if packed.suffix == ".pack":
            assert packed.stat().st_size < 150_000
            inputs = list(unpack(packed))
            assert len(inputs) > 10
            assert pack(inputs) == packed.read_bytes()


def changed(folder: Path, target: FuzzTarget, file: str, old: str, new: str) -> Path:
    """A copy of the product's C with one text replaced."""
    for package in {name.split("/")[0] for name in target.folders}:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    text = (folder / file).read_text()
    assert text.count(old) == 1, f"{file} no longer holds {old!r} once"
    (folder / file).write_text(text.replace(old, new))
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "mistake"), SHOWN)
def test_a_mistake_would_be_found(name: str, mistake: str, tmp_path: Path):
    """VSCSI_FUZZ_MISTAKES=all: every one of them; each has to be compiled."""
    target = TARGETS[name]
    root = changed(tmp_path / "product", target, *MISTAKES[name][mistake])
    program = replayer(target, root)
    try:
        done = replay(program, tmp_path, "-r", 5, "-m", 20000, *target.inputs())
    finally:
        program.unlink()
    assert done.returncode != 0, "nothing was found"
