# SPDX-License-Identifier: BSD-2-Clause
"""`make fuzz`: every fuzz target in C with libFuzzer for some seconds each; prints executions, coverage, crashes.

python -m fuzz SECONDS [TARGET...] [--keep]: what is new in coverage stays in .setup/fuzz/found-TARGET for the next run;
with --keep the corpus that is checked in becomes the smallest that reaches as much. Ends with 1 if anything broke; the
input is then in .setup/fuzz/broken-TARGET-*, and once it is understood in tests/fuzz/corpus/regressions/TARGET.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.coverage import reached, total
from fuzz.programs import BUILT, CORPUS, TARGETS, FuzzTarget, clang, environment, fuzzer, pack, replayer, write_inputs

MOST_NBYTES = 1000
MOST_KEPT = 100_000
MOST_WORDS = 1000


def run(program: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """The fuzzer, with nothing of it on the terminal."""
    command = [str(program), *map(str, arguments)]
    env = environment() | {"UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=BUILT, check=False)


def dictionary(target: FuzzTarget, path: Path) -> None:
    """Whole operations of the checked-in inputs, as words that the fuzzer puts into others."""
    done = run(replayer(target), "-o", *target.inputs())
    words = sorted({line for line in done.stdout.splitlines() if re.fullmatch(r"([0-9a-f]{2}){2,32}", line)})
    every = max(1, len(words) // MOST_WORDS)
    text = "".join(f'"{re.sub("..", lambda byte: chr(92) + "x" + byte[0], word)}"\n' for word in words[::every])
    path.write_text(text)


def fuzz(target: FuzzTarget, compiler: str, seconds: int) -> bool:
    """One target for so long. False: something broke."""
    program = fuzzer(target, compiler)
    found = BUILT / f"found-{target.name}"
    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(target, Path(folder))
        words = BUILT / f"{target.name}.dict"
        dictionary(target, words)
        done = run(
            program,
            f"-dict={words}",
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
    covered, count = total(reached(target, compiler, found))
    lines = f", {covered} of {count} lines of C" if count else ""
    print(f"fuzz: {target.name}: {said}{lines}{broken}", flush=True)
    if done.returncode:
        print("\n".join(done.stderr.splitlines()[-60:]), flush=True)
    return done.returncode == 0


def keep(target: FuzzTarget, compiler: str) -> None:
    """Makes the checked-in corpus the smallest that reaches what has been reached, within MOST_KEPT bytes."""
    with tempfile.TemporaryDirectory() as old, tempfile.TemporaryDirectory() as new:
        write_inputs(target, Path(old))
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
