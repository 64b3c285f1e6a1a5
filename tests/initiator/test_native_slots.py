# SPDX-License-Identifier: BSD-2-Clause
"""The slots' inline functions, by a C program of their own: tags and queues where their counters wrap."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "initiator" / "native", ROOT / "vscsi" / "native")


def test_tags_and_queues_wrap(tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    plain = {
        name: value for name, value in os.environ.items() if name != "LD_PRELOAD"
    }  # no sanitizer of the tests' own
    program = tmp_path / "slots"
    command = ["gcc", "-std=gnu11", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    command += [*(f"-I{folder}" for folder in FOLDERS), str(Path(__file__).with_name("slots.c"))]
    command += [str(FOLDERS[0] / "memory.c"), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, env=plain, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, env=plain, check=False)
    assert done.returncode == 0, done.stderr
