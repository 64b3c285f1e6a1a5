# SPDX-License-Identifier: BSD-2-Clause
"""`make fuzz`: every fuzz target for Python for some seconds each, guided by coverage where atheris is installed.

python -m fuzz.python SECONDS [TARGET...]: each target in a process of its own; inputs that reach something new stay in
.setup/fuzz/found-python-TARGET for the next run. Ends with 1 if anything broke; the input is then in
.setup/fuzz/broken-python-TARGET-*, and once it is understood in tests/fuzz/corpus/regressions/TARGET.
"""

import argparse
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import ModuleType

from fuzz.programs import BUILT, environment

INPUT_NBYTES = 20_000
PACKAGES = ("vscsi", "target", "initiator")


class Mistaken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with one text of it replaced."""

    def __init__(self, module: str, old: str, new: str) -> None:
        self._module, self._old, self._new = module, old, new

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None and spec.origin is not None, f"there is no {name}"
        self._source = Path(spec.origin)
        return importlib.util.spec_from_file_location(name, spec.origin, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        text = self._source.read_text()
        assert text.count(self._old) == 1, f"{self._module} no longer holds {self._old!r} once"
        exec(compile(text.replace(self._old, self._new), str(self._source), "exec"), module.__dict__)


def broken(name: str, data: bytes, error: BaseException) -> int:
    """Keeps the input, says what it did."""
    BUILT.mkdir(parents=True, exist_ok=True)
    path = BUILT / f"broken-python-{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"fuzz: {name}: BROKEN by {path.name}: {type(error).__name__}: {error}", flush=True)
    return 1


def at_random(name: str, *, seconds: float, inputs: int, seed: int) -> int:
    """Changes of seeds, and of changes, until the time is up or something breaks."""
    from fuzz.python.registry import guarded, load

    target, rng = load()[name], Random(seed)
    pool = target.seeds()
    until, tried = time.monotonic() + seconds, 0
    with guarded() as run:
        while time.monotonic() < until and tried < inputs:
            data = target.mutate(rng.choice(pool), rng)
            tried += 1
            if rng.random() < 0.05 and len(data) < INPUT_NBYTES:
                pool[rng.randrange(len(pool)) if len(pool) > 2000 else len(pool) :] = [data]
            try:
                run(target, data)
            except Exception as error:
                return broken(name, data, error)
    print(f"fuzz: {name}: {tried} inputs, changed at random", flush=True)
    return 0


def guided(name: str, seconds: int) -> int:
    """By atheris, which ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES)):
        for package in PACKAGES:
            importlib.import_module(package)
        from fuzz.python.registry import guarded, load

        target = load()[name]
    found = BUILT / f"found-python-{name}"
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (found / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, most_nbytes: int, seed: int) -> bytes:
        rng = Random(seed)
        changed = target.mutate(data, rng) if rng.random() < 0.7 else atheris.Mutate(data, len(data) + 16)
        return bytes(changed[:most_nbytes])

    with guarded() as run:

        def one(data: bytes) -> None:
            try:
                run(target, data)
            except Exception as error:
                broken(name, data, error)
                raise

        options = [f"-max_total_time={seconds}", f"-max_len={INPUT_NBYTES}", "-timeout=60", "-rss_limit_mb=4096"]
        options += ["-print_final_stats=1", f"-artifact_prefix={BUILT}/broken-python-{name}-", str(found)]
        atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
        atheris.Fuzz()
    return 0


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def install() -> None:
    """It is big, and nothing else needs it: fetched when somebody fuzzes."""
    if not has_atheris():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "atheris>=2.3"]
        if subprocess.run(command, check=False).returncode:
            print("fuzz: atheris cannot be installed: changes are made at random", flush=True)
        importlib.invalidate_caches()


def all_of_them(names: list[str], seconds: int) -> int:
    """One after the other, each in a process of its own."""
    worst = 0
    for name in names:
        command = [sys.executable, "-P", "-m", "fuzz.python", "--one", str(seconds), name]
        done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True, check=False)
        lines = done.stderr.splitlines()
        if has_atheris():
            units = [line.split()[-1] for line in lines if "number_of_executed_units" in line]
            edges = [line.split("cov: ")[1].split()[0] for line in lines if "cov: " in line]
            said = f"{units[-1] if units else 0} inputs, {edges[-1] if edges else 0} edges, guided by atheris"
            print(f"fuzz: {name}: {said}{', BROKEN' if done.returncode else ''}", flush=True)
        if done.returncode:
            worst = 1
            print("\n".join(lines[-40:]), flush=True)
    return worst


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="fuzz.python", description=__doc__)
    parser.add_argument("--one", action="store_true", help="in this process")
    parser.add_argument("--mistake", nargs=3, metavar=("MODULE", "OLD", "NEW"), help="plant this into a module first")
    parser.add_argument(
        "--inputs", type=int, help="at random, and no more than so many; the last argument is the target"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("words", nargs="*", metavar="SECONDS TARGET...")
    arguments = parser.parse_args()
    if arguments.mistake:
        sys.meta_path.insert(0, Mistaken(*arguments.mistake))
    words = arguments.words
    if arguments.inputs is not None:
        return at_random(words[-1], seconds=1e9, inputs=arguments.inputs, seed=arguments.seed)
    seconds = int(words[0])
    if arguments.one:
        if has_atheris():
            return guided(words[1], seconds)
        return at_random(words[1], seconds=seconds, inputs=sys.maxsize, seed=time.time_ns())
    from fuzz.python.registry import load

    install()
    return all_of_them(words[1:] or list(load()), seconds)


if __name__ == "__main__":
    sys.exit(main())
