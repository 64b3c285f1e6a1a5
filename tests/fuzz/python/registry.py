# SPDX-License-Identifier: BSD-2-Clause
"""The table of fuzz targets for Python, and how one input is judged: the same for hypothesis, atheris and replays.

A finding is an exception that was not declared, a traceback in the log, an input that takes too much processor time, or
one that takes too much memory. Knows none of the targets.
"""

import contextlib
import importlib
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzz.programs import CORPUS, unpack
from fuzz.python import mutation

MODULES = ("conversation", "commands", "files", "owner", "bus", "pages", "programs", "door", "capture")
HANG_SECONDS = 20.0
"""Of processor time, for one input."""
MEMORY_NBYTES = 1 << 30
"""Of address space, beyond what was there before."""


class Finding(AssertionError):
    """One input has broken a promise."""


class Hang(BaseException):
    """Nothing that a target could catch by mistake."""


@dataclass(frozen=True)
class FuzzTarget:
    """`run` takes any bytes; what it may raise stands in `allowed`. `mutate` makes others of an input."""

    name: str
    run: Callable[[bytes], None]
    allowed: tuple[type[BaseException], ...]
    mutate: Callable[[bytes, Random], bytes]
    weight: int
    """How many inputs the short form tries, in units."""

    @property
    def pack(self) -> Path:
        return CORPUS / "python" / f"{self.name}.pack"

    def seeds(self) -> list[bytes]:
        """What was recorded of real sessions, and what once broke something."""
        found = list(unpack(self.pack)) if self.pack.exists() else []
        return found + [path.read_bytes() for path in sorted((CORPUS / "regressions" / self.name).glob("*"))]


TARGETS: dict[str, FuzzTarget] = {}


def target(
    name: str,
    *allowed: type[BaseException],
    mutate: Callable[[bytes, Random], bytes] = mutation.of_bytes,
    weight: int = 1,
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Makes a function a fuzz target."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[name] = FuzzTarget(name, run, allowed, mutate, weight)
        return run

    return register


def load() -> dict[str, FuzzTarget]:
    """Every target there is."""
    for name in MODULES:
        importlib.import_module(f"fuzz.python.{name}")
    return TARGETS


class _Tracebacks(logging.Handler):
    """What the code under test calls its own bug: `log.exception`."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(logging.Formatter().format(record))


@contextlib.contextmanager
def guarded() -> Iterator[Callable[[FuzzTarget, bytes], None]]:
    """Gives the function that tries one input: Finding. Main thread only; nothing is logged meanwhile."""
    tracebacks, root = _Tracebacks(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [tracebacks]
    root.setLevel(logging.DEBUG)
    before = signal.signal(signal.SIGVTALRM, _hang)
    try:
        with _bounded_memory():

            def run(one: FuzzTarget, data: bytes) -> None:
                tracebacks.found.clear()
                signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
                try:
                    one.run(data)
                except one.allowed:
                    pass
                except Hang:
                    raise Finding(f"{one.name}: takes more than {HANG_SECONDS:g} s") from None
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                if tracebacks.found:
                    raise Finding(f"{one.name}: a traceback in the log:\n{tracebacks.found[0]}")

            yield run
    finally:
        signal.signal(signal.SIGVTALRM, before)
        root.handlers[:] = handlers
        root.setLevel(level)


def _hang(_signal: int, _frame: object) -> None:
    raise Hang


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_NBYTES
    if soft == resource.RLIM_INFINITY or wanted < soft:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
