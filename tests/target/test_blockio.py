# SPDX-License-Identifier: BSD-2-Clause
"""Both block I/O engines, driven from C (`native/blockio_test*.c`), plain and under the sanitizers.

Knows how the program is compiled and run, and the names of its topics; what is tested stands in C.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "native"

FLAGS = ["-std=gnu11", "-g", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes"]
FOLDERS = [ROOT / "target/native", ROOT / "vscsi/native", HERE]
VARIANTS = {
    "plain": [],
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "tsan": ["-fsanitize=thread"],
}
TOPICS = [
    "read-write",
    "half-cached",
    "many-iovecs",
    "short-file",
    "bad-descriptor",
    "durable",
    "asks-for-durability",
    "sync-discard",
    "null-image",
    "busy-turn",
    "thousands",
    "watch",
    "wake-up",
    "mixed",
    "overflow",
    "cancel",
    "direct",
    "probe",
    "steps",
    "refused",
]
# "uring-bare" is io_uring on a kernel that knows none of the set-up flags we like.
CASES = [(variant, engine) for variant in VARIANTS for engine in ("uring", "pool")] + [("plain", "uring-bare")]
NOT_HERE = 77

Program = Callable[[str], Path]


def environment() -> dict[str, str]:
    """What an outer sanitizer preloads is not for these programs, which bring their own."""
    return {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")}


def run(program: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [*prefix, str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment(), check=False)


def check(program: Path, engine: str, topic: str, folder: Path) -> None:
    done = run(program, engine, topic, folder)
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
        # ThreadSanitizer of this age and a kernel that randomises more than it expects.
        done = run(program, engine, topic, folder, prefix=("setarch", "-R"))
    if "unexpected memory mapping" in done.stderr or "setarch: failed" in done.stderr:
        pytest.skip("ThreadSanitizer does not run with this kernel's memory layout")
    if done.returncode == NOT_HERE:
        pytest.skip("not possible here (file system, or io_uring refused)")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """program("asan") -> the compiled test program."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")

    @cache
    def compile_(variant: str) -> Path:
        to = tmp_path_factory.mktemp("blockio") / variant
        sources = [*sorted(HERE.glob("blockio_test*.c")), *sorted((ROOT / "target/native").glob("blockio*.c"))]
        command = ["gcc", *FLAGS, *VARIANTS[variant], *(f"-I{folder}" for folder in FOLDERS), *map(str, sources)]
        done = subprocess.run(
            [*command, "-luring", "-lpthread", "-ldl", "-o", str(to)],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return to

    return compile_


def test_topics(program: Program) -> None:
    """No topic of the program is left out here."""
    assert run(program("plain"), "topics").stdout.split() == TOPICS


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize(("variant", "engine"), CASES)
def test_topic(program: Program, tmp_path: Path, variant: str, engine: str, topic: str) -> None:
    """Exit status 0; a sanitizer's finding or the line of a failed check otherwise."""
    check(program(variant), engine, topic, tmp_path)


@pytest.mark.parametrize(
    "topic", ["read-write", "half-cached", "durable", "sync-discard", "thousands", "direct", "probe"]
)
@pytest.mark.parametrize("engine", ["uring", "pool"])
def test_tmpfs(program: Program, engine: str, topic: str) -> None:
    """The file system that knows no RWF_NOWAIT."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        pytest.skip("no /dev/shm")
    check(program("plain"), engine, topic, shm)


def test_unknown_topic(program: Program, tmp_path: Path) -> None:
    """An unknown topic is a failure, not a pass."""
    done = run(program("plain"), "pool", "no-such-topic", tmp_path)
    assert done.returncode == 1
    assert "no-such-topic" in done.stderr
