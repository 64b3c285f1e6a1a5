# SPDX-License-Identifier: BSD-2-Clause
"""Builds the fuzz targets in C: with libFuzzer where clang is at hand, and with gcc to replay what was found.

Knows which files make up a target; knows nothing of what they test. A program stays in .setup/fuzz until a source of it
changes. There is none for decoders alone: through the rings all but a few lines of them are reached (coverage.py).
Inputs stand in tests/fuzz/corpus: <target>.pack and sessions-<target>.pack hold many, each behind its length (4 bytes,
little-endian), and regressions/<target>/ those that once broke something, a file each.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NATIVE = HERE / "native"
CORPUS = HERE / "corpus"
BUILT = ROOT / ".setup" / "fuzz"

FLAGS = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-D_GNU_SOURCE",
    '-DVSCSI_STAMP="fuzz"',
    "-Wall",
    "-Wextra",
    "-Wno-unused-function",
    "-fno-omit-frame-pointer",
]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COVERAGE = ["-fprofile-instr-generate", "-fcoverage-mapping"]


@dataclass(frozen=True)
class FuzzTarget:
    """One harness: its own files, the folders of the product's C, and files of these that it replaces."""

    name: str
    harness: tuple[str, ...]
    folders: tuple[str, ...]
    without: tuple[str, ...] = ()
    hooked: bool = True
    libraries: tuple[str, ...] = ()

    def sources(self, root: Path = ROOT) -> list[Path]:
        """C files to compile; `root`: the checkout, or a copy of it with changes."""
        product = [
            path
            for folder in self.folders
            for path in sorted((root / folder).glob("*.c"))
            if not any(re.fullmatch(pattern, path.name) for pattern in self.without)
        ]
        return product + [NATIVE / name for name in self.harness]

    def flags(self, root: Path = ROOT) -> list[str]:
        """Folders of headers, and what stands before every file."""
        found = [f"-I{root / folder}" for folder in self.folders] + [f"-I{NATIVE}"]
        return found + (["-include", str(NATIVE / "hooks.h")] if self.hooked else [])

    def inputs(self) -> list[Path]:
        """The corpus, seeds from recorded sessions (record.py), and the regressions of this target."""
        packs = [CORPUS / f"{kind}{self.name}.pack" for kind in ("", "sessions-")]
        return [p for p in packs if p.exists()] + sorted((CORPUS / "regressions" / self.name).glob("*"))


ALL = ("program.c", "race.c")  # of every harness

TARGETS = {
    target.name: target
    for target in (
        FuzzTarget(
            "target",
            (
                *ALL,
                "domain.c",
                "engine.c",
                "blockio_inside.c",
                "loop_inside.c",
                "commands.c",
                "world.c",
                "world_end.c",
                "watch.c",
                "requests.c",
                "target_fuzz.c",
            ),
            ("vscsi/native", "target/native"),
            # These two are compiled as part of blockio_inside.c and loop_inside.c.
            without=(r"blockio\.c", r"loop\.c"),
            libraries=("-luring",),
        ),
        FuzzTarget("initiator", (*ALL, "front.c", "initiator_fuzz.c"), ("vscsi/native", "initiator/native")),
    )
}


def environment() -> dict[str, str]:
    """Without what a run of the tests under a sanitizer has set."""
    dropped = {"LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _stamp(command: Iterable[str], files: Iterable[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(target: FuzzTarget, compiler: str, extra: list[str], root: Path, kind: str) -> Path:
    sources = target.sources(root)
    headers = [*NATIVE.glob("*.[ch]"), *(path for folder in target.folders for path in (root / folder).glob("*.[ch]"))]
    command = [compiler, *FLAGS, *extra, *target.flags(root), *map(str, sources), *target.libraries, "-lpthread", "-lm"]
    program = BUILT / f"{target.name}-{kind}-{_stamp(command, [*sources, *sorted(headers)])}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        if root == ROOT:
            for old in BUILT.glob(f"{target.name}-{kind}-*"):
                old.unlink()
        part = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [*command, "-o", str(part)], capture_output=True, text=True, env=environment(), check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        part.rename(program)
    return program


def replayer(target: FuzzTarget, root: Path = ROOT) -> Path:
    """The program that replays and changes inputs, built by gcc. RuntimeError: what the compiler says."""
    own = [str(NATIVE / name) for name in ("replay.c", "mutate.c")]
    return _build(target, "gcc", [*SANITIZE, "-fsanitize-coverage=trace-pc", *own], root, "replay")


def clang() -> str | None:
    """A clang, whatever its version."""
    names = ["clang", *(f"clang-{version}" for version in range(30, 13, -1))]
    return next((name for name in names if shutil.which(name)), None)


def fuzzer(target: FuzzTarget, compiler: str) -> Path:
    """The libFuzzer program. RuntimeError: what the compiler says."""
    return _build(target, compiler, [*SANITIZE, "-fsanitize=fuzzer"], ROOT, "fuzzer")


def measurer(target: FuzzTarget, compiler: str) -> Path:
    """A program that replays and counts which lines of the product were reached."""
    return _build(target, compiler, [*COVERAGE, "-fsanitize=fuzzer"], ROOT, "measurer")


# ---- packs ----


def unpack(pack: Path) -> Iterator[bytes]:
    """The inputs in a pack."""
    data = pack.read_bytes()
    at = 0
    while at + 4 <= len(data):
        nbytes = int.from_bytes(data[at : at + 4], "little")
        yield data[at + 4 : at + 4 + nbytes]
        at += 4 + nbytes


def pack(inputs: Iterable[bytes]) -> bytes:
    """The inputs as one file, in an order that does not depend on where they came from."""
    return b"".join(len(one).to_bytes(4, "little") + one for one in sorted(set(inputs)))


def write_inputs(target: FuzzTarget, folder: Path) -> None:
    """The checked-in inputs as files."""
    for path in target.inputs():
        many = unpack(path) if path.suffix == ".pack" else [path.read_bytes()]
        for number, one in enumerate(many):
            (folder / f"{path.stem}-{number}").write_bytes(one)
