# SPDX-License-Identifier: BSD-2-Clause
"""Compiles and runs the C programs of these tests, plain and under the sanitizers, with headers as they are or changed.

Knows gcc; knows nothing of rings. A program's exit status is 0 (passed), 1 (failed) or 77 (cannot run here).
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NATIVE = ROOT / "vscsi" / "native"

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes"]
VARIANTS = {
    "plain": [],
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    # Fences mean nothing to ThreadSanitizer; the ring's ordering of data does not rest on them.
    "tsan": ["-fsanitize=thread", "-Wno-tsan"],
}

Compile = Callable[..., Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """compile_c("x.c", "tsan", native=folder) -> program: the C file here, with the C files of `native`."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    done: dict[tuple[object, ...], Path] = {}

    def compile_(name: str, variant: str = "plain", *, native: Path = NATIVE, flags: tuple[str, ...] = ()) -> Path:
        key = (name, variant, native, flags)
        if key not in done:
            program = tmp_path_factory.mktemp("program") / name.removesuffix(".c")
            command = ["gcc", "-std=gnu11", "-O2", "-g", "-D_GNU_SOURCE", '-DVSCSI_STAMP="test"', *WARNINGS]
            command += [*VARIANTS[variant], *flags, f"-I{native}", f"-I{HERE}", str(HERE / name)]
            command += [*map(str, sorted(native.glob("*.c"))), "-lpthread", "-o", str(program)]
            built = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
            assert built.returncode == 0, built.stderr
            done[key] = program
        return done[key]

    return compile_


@pytest.fixture(scope="session")
def run_c() -> Run:
    """run_c(program, *arguments): skips on exit status 77 and where a sanitizer cannot live."""

    def run(program: Path, *arguments: object, timeout: float = 90) -> "subprocess.CompletedProcess[str]":
        command = [str(program), *map(str, arguments)]
        done = _run(command, timeout)
        if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
            # ThreadSanitizer of this age and a kernel that randomises more than it expects.
            done = _run(["setarch", "-R", *command], timeout)
        if "unexpected memory mapping" in done.stderr or "setarch: failed" in done.stderr:
            pytest.skip("ThreadSanitizer does not run with this kernel's memory layout")
        if done.returncode == 77:
            pytest.skip("the program cannot run here")
        return done

    return run


def _run(command: list[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=clean_environment(), check=False
    )


def clean_environment() -> dict[str, str]:
    """Without what the run of the tests itself under a sanitizer has set."""
    dropped = {"LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


@pytest.fixture
def changed_native(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """changed_native(file, old, new) -> a copy of vscsi/native with one text replaced, to prove that tests can fail."""

    def change(file: str, old: str, new: str) -> Path:
        folder = tmp_path / "native"
        shutil.copytree(NATIVE, folder)
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{file} no longer holds {old!r} once"
        (folder / file).write_text(text.replace(old, new))
        return folder

    return change
