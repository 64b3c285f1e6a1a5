# SPDX-License-Identifier: BSD-2-Clause
"""Which lines of the product's C the inputs reach: `PYTHONPATH=tests .venv/bin/python -m fuzz.coverage [TARGET...]`
prints a table of those that they never do.

Needs clang and llvm-cov. Knows how to count; what a line that is not reached means, whoever reads the table decides.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.programs import BUILT, ROOT, TARGETS, FuzzTarget, clang, environment, measurer, write_inputs

Lines = dict[str, dict[int, int]]
"""How often each line of each file was reached."""


def _tools(compiler: str) -> list[str]:
    """llvm-profdata and llvm-cov of the compiler's version; [] where they are not both installed."""
    version = re.search(r"\d+$", Path(os.path.realpath(shutil.which(compiler) or compiler)).name)
    tools = [shutil.which(f"{tool}-{version[0]}" if version else tool) for tool in ("llvm-profdata", "llvm-cov")]
    return [tool for tool in tools if tool] if all(tools) else []


def reached(target: FuzzTarget, compiler: str, *folders: Path) -> Lines:
    """Lines of the product's C, by what the inputs in these folders reach; empty without llvm-cov."""
    tools = _tools(compiler)
    if not tools:
        return {}
    program = measurer(target, compiler)
    with tempfile.TemporaryDirectory() as folder:
        raw, merged = Path(folder) / "raw", Path(folder) / "merged"
        env = environment() | {"LLVM_PROFILE_FILE": str(raw)}
        subprocess.run([str(program), "-runs=0", *map(str, folders)], capture_output=True, env=env, check=False)
        subprocess.run([tools[0], "merge", "-o", str(merged), str(raw)], check=True)
        command = [tools[1], "export", "-format=lcov", f"-instr-profile={merged}", str(program)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines: Lines = {}
    for record in text.split("end_of_record"):
        name = re.search(r"^SF:(.*)$", record, re.MULTILINE)
        if name and "/tests/" not in name[1] and name[1].startswith(str(ROOT)):
            found = lines.setdefault(name[1].removeprefix(f"{ROOT}/"), {})
            for line, count in re.findall(r"^DA:(\d+),(\d+)", record, re.MULTILINE):
                found[int(line)] = found.get(int(line), 0) + int(count)
    return lines


def total(lines: Lines) -> tuple[int, int]:
    """Lines reached, and lines."""
    return sum(bool(n) for file in lines.values() for n in file.values()), sum(map(len, lines.values()))


def ranges(numbers: list[int], known: list[int]) -> str:
    """Line numbers as runs; lines without code do not end one."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and known.index(runs[-1][1]) + 1 == known.index(number):
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def table(lines: Lines) -> str:
    """File, lines reached, lines, and which are not."""
    rows = []
    for name, found in sorted(lines.items()):
        known = sorted(found)
        missing = [line for line in known if not found[line]]
        rows.append(f"{name:34} {len(known) - len(missing):4} of {len(known):4}  {ranges(missing, known)}")
    covered, count = total(lines)
    return "\n".join([*rows, f"{'all':34} {covered:4} of {count:4}"])


def main() -> int:
    """The table of each target, over what is checked in and what `make fuzz` has found."""
    parser = argparse.ArgumentParser(prog="fuzz.coverage", description=__doc__)
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help="default: all")
    compiler = clang()
    if compiler is None or not _tools(compiler):
        print("fuzz: needs clang and llvm-cov; type: apt-get install clang-14 llvm-14", file=sys.stderr)
        return 1
    for name in parser.parse_args().target or TARGETS:
        found = BUILT / f"found-{name}"
        found.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(TARGETS[name], Path(folder))
            print(f"{name}:\n{table(reached(TARGETS[name], compiler, Path(folder), found))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
