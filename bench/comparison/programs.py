# SPDX-License-Identifier: BSD-2-Clause
"""The bench's own C programs (`bench/native`), compiled when they are first needed and kept in `.setup/bench`.

Knows gcc, and which of the project's C goes into which program; built anew whenever any of that C changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vscsi.native.stamp import stamp

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "bench" / "native"
KEPT = ROOT / ".setup" / "bench"
# As the modules are built (vscsi/native/build.py).
FLAGS = ("-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
COUNTED = ("malloc", "calloc", "realloc", "aligned_alloc", "pthread_mutex_lock")


class ProgramError(Exception):
    """One line about a program that cannot be had here."""


@dataclass(frozen=True)
class Program:
    """Which folders' C is linked, which files of it are not, and what else the linker is told."""

    folders: tuple[str, ...]
    without: tuple[str, ...] = ("stamp.c",)
    linker: tuple[str, ...] = ()


PROGRAMS = {
    "bare": Program(("vscsi/native",)),
    "hot_path": Program(
        ("target/native", "initiator/native", "vscsi/native"),
        without=("stamp.c", "loop.c"),
        linker=(f"-Wl,{','.join(f'--wrap={name}' for name in COUNTED)}", "-luring", "-lm"),
    ),
}


def clean_environment() -> dict[str, str]:
    """Without what a sanitizer preloads: these programs are not built for it."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def build(name: str) -> Path:
    """The program, compiled if it is not yet there. Raises ProgramError."""
    recipe = PROGRAMS[name]
    source = SOURCES / f"{name}.c"
    key = hashlib.sha256(stamp(ROOT).encode() + source.read_bytes() + repr((recipe, FLAGS)).encode())
    program = KEPT / f"{name}-{key.hexdigest()[:16]}"
    if program.exists():
        return program
    if not shutil.which("gcc"):
        raise ProgramError(f"{name}: gcc is not installed")
    KEPT.mkdir(parents=True, exist_ok=True)
    parts = [path for folder in recipe.folders for path in sorted((ROOT / folder).glob("*.c"))]
    # Under a name of its own until it is whole: two may build at once.
    unfinished = program.with_suffix(f".{os.getpid()}")
    command = ["gcc", *FLAGS, "-D_GNU_SOURCE", '-DVSCSI_STAMP="bench"', *(f"-I{ROOT / f}" for f in recipe.folders)]
    command += [str(source), *(str(path) for path in parts if path.name not in recipe.without)]
    command += ["-o", str(unfinished), *recipe.linker, "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    if done.returncode:
        raise ProgramError(f"{name} does not compile: {done.stderr.strip().splitlines()[-1]}")
    for old in KEPT.glob(f"{name}-*"):
        if old != unfinished and "." not in old.name:
            old.unlink(missing_ok=True)
    unfinished.replace(program)
    return program
