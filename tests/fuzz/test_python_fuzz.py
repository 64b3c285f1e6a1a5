# SPDX-License-Identifier: BSD-2-Clause
"""The fuzz targets for Python without a coverage-guided fuzzer: what was recorded of real sessions, what once broke
something, and changes of it that hypothesis chooses. And mistakes planted into the code, each of which must be found.

Knows how targets are run; what is promised stands in tests/fuzz/python.
"""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.programs import pack, unpack
from fuzz.python.mistakes import MISTAKES
from fuzz.python.registry import FuzzTarget, guarded, load

LONG = os.environ.get("VSCSI_FUZZ") == "long"
UNIT = 2000 if LONG else 10
"""Inputs for each unit of a target's weight."""
TARGETS = load()
SHOWN = MISTAKES if os.environ.get("VSCSI_FUZZ_MISTAKES") == "all" else {}
targets = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@targets
def test_corpus(target: FuzzTarget):
    seeds = target.seeds()
    assert seeds, "no corpus"
    with guarded() as run:
        for seed in seeds:
            run(target, seed)


@targets
def test_changes_of_it(target: FuzzTarget):
    seeds = target.seeds()

    @settings(max_examples=UNIT * target.weight, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds) | st.binary(max_size=200), st.integers(0, 1 << 32))
    def tried(seed: bytes, number: int) -> None:
        run(target, target.mutate(seed, Random(number)))

    with guarded() as run:
        tried()


@targets
def test_corpus_is_small_and_in_order(target: FuzzTarget):
    assert target.pack.stat().st_size < 40_000
    assert pack(unpack(target.pack)) == target.pack.read_bytes()


@pytest.mark.parametrize("mistake", SHOWN.values(), ids=list(SHOWN))
def test_a_mistake_would_be_found(mistake: tuple[str, str, str, str]):
    """VSCSI_FUZZ_MISTAKES=all: every one of them, in a process of its own."""
    name, module, old, new = mistake
    command = [sys.executable, "-P", "-m", "fuzz.python", "--mistake", module, old, new, "--inputs", "20000", name]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, f"nothing was found: {done.stdout}{done.stderr}"
    print(done.stdout)
