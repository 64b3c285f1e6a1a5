# SPDX-License-Identifier: BSD-2-Clause
"""`make fuzz`: every fuzz target in C with libFuzzer for some seconds each; prints executions, coverage, crashes.

python -m fuzz SECONDS [TARGET...] [--keep]: what is new in coverage stays in .setup/fuzz/found-TARGET for the next run;
with --keep the corpus that is checked in becomes the smallest that reaches as much. Ends with 1 if anything broke; the
input is then in .setup/fuzz/broken-TARGET-*, and once it is understood in tests/fuzz/corpus/regressions/TARGET.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.programs import BUILT, CORPUS, TARGETS, FuzzTarget, clang, environment, fuzzer, measurer, pack, unpack

MOST_NBYTES = 700
MOST_KEPT = 100_000


def seeds(target: FuzzTarget, folder: Path) -> None:
    """The checked-in inputs as files."""
    for path in target.inputs():
        many = unpack(path) if path.suffix == ".pack" else [path.read_bytes()]
        for number, one in enumerate(many):
            (folder / f"{path.stem}-{number}").write_bytes(one)


def run(program: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """The fuzzer, with nothing of it on the terminal."""
    command = [str(program), *map(str, arguments)]
    env = environment() | {"UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=BUILT, check=False)


def lines_reached(target: FuzzTarget, compiler: str, corpus: Path) -> str:
    """Lines of the product's C that the corpus reaches, by llvm-cov; "" where there is none."""
    version = re.search(r"\d+$", Path(os.path.realpath(shutil.which(compiler) or compiler)).name)
    tools = [shutil.which(f"{tool}-{version[0]}" if version else tool) for tool in ("llvm-profdata", "llvm-cov")]
    if not all(tools):
        return ""
    program = measurer(target, compiler)
    with tempfile.TemporaryDirectory() as folder:
        raw, merged = Path(folder) / "raw", Path(folder) / "merged"
        env = environment() | {"LLVM_PROFILE_FILE": str(raw)}
        subprocess.run([str(program), "-runs=0", str(corpus)], capture_output=True, env=env, check=False)
        subprocess.run([str(tools[0]), "merge", "-o", str(merged), str(raw)], check=True)
        command = [str(tools[1]), "export", "-summary-only", f"-instr-profile={merged}", str(program)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    files = json.loads(text)["data"][0]["files"]
    ours = [f["summary"]["lines"] for f in files if "/tests/" not in f["filename"]]
    covered, count = sum(f["covered"] for f in ours), sum(f["count"] for f in ours)
    return f", {covered} of {count} lines of C"


def fuzz(target: FuzzTarget, compiler: str, seconds: int) -> bool:
    """One target for so long. False: something broke."""
    program = fuzzer(target, compiler)
    found = BUILT / f"found-{target.name}"
    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds(target, Path(folder))
        done = run(
            program,
            f"-max_total_time={seconds}",
            f"-max_len={MOST_NBYTES}",
            "-print_final_stats=1",
            "-timeout=30",
            f"-artifact_prefix=broken-{target.name}-",
            found,
            folder,
        )
    units = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    edges = re.findall(r"cov: (\d+)", done.stderr)
    said = f"{units[1] if units else 0} executions, {edges[-1] if edges else 0} edges"
    broken = "" if done.returncode == 0 else ", BROKEN"
    print(f"fuzz: {target.name}: {said}{lines_reached(target, compiler, found)}{broken}", flush=True)
    if done.returncode:
        print("\n".join(done.stderr.splitlines()[-60:]), flush=True)
    return done.returncode == 0


def keep(target: FuzzTarget, compiler: str) -> None:
    """Makes the checked-in corpus the smallest that reaches what has been reached, within MOST_KEPT bytes."""
    with tempfile.TemporaryDirectory() as old, tempfile.TemporaryDirectory() as new:
        seeds(target, Path(old))
        run(fuzzer(target, compiler), "-merge=1", new, old, BUILT / f"found-{target.name}")
        inputs, size = [], 0
        for path in sorted(Path(new).iterdir(), key=lambda path: path.stat().st_size):
            size += path.stat().st_size + 4
            if size <= MOST_KEPT:
                inputs.append(path.read_bytes())
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{target.name}.pack").write_bytes(pack(inputs))
    print(f"fuzz: {target.name}: {len(inputs)} inputs kept, {sum(map(len, inputs))} bytes")


def main() -> int:
    """Run the targets one after another."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("seconds", type=int, help="for each target")
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--keep", action="store_true", help="rewrite the checked-in corpus")
    arguments = parser.parse_args()
    compiler = clang()
    if compiler is None:
        print("fuzz: the targets in C need clang; type: apt-get install clang libclang-rt-14-dev", file=sys.stderr)
        return 1
    good = True
    for name in arguments.target or TARGETS:
        good &= fuzz(TARGETS[name], compiler, arguments.seconds)
        if arguments.keep:
            keep(TARGETS[name], compiler)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
