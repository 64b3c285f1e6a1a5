# SPDX-License-Identifier: BSD-2-Clause
"""`python -m suite`: libiscsi's conformance suite through the SG_IO door, over all LUN set-ups; a table or JSON.

Exit status 0: nothing failed, every skip is explained and its test passed on another set-up. 1: else. 15: no tool.
Knows options and output; everything else is in its neighbours.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from .catalogue import STARTED
from .log import Verdict
from .runner import TOOL, Result, every_test, run_many
from .setups import SETUPS
from .verdict import EXPLAINED, Report, explanation, report, wanted

COLUMNS = (Verdict.PASSED.value, EXPLAINED, Verdict.SKIPPED.value, Verdict.FAILED.value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conformance", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--setup", action="append", choices=SETUPS, help="only this set-up; may be repeated")
    parser.add_argument("--test", action="append", metavar="GLOB", help="only these tests, e.g. 'Sanitize.*'")
    parser.add_argument("--jobs", type=int, help="how many at once (default: as many as CPUs)")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument("--logs", action="store_true", help="print the whole log of what is wrong")
    parser.add_argument("--list", action="store_true", help="print the tests that would be started, and end")
    return parser


def _as_dict(result: Result) -> dict[str, Any]:
    return {
        "setup": result.setup,
        "test": result.test,
        "verdict": result.outcome.verdict.value,
        "notes": list(result.outcome.notes),
        "explanation": explanation(result),
    }


def as_json(results: Sequence[Result], made: Report, **about: Any) -> dict[str, Any]:
    """What --json prints, `about` first; `bench/report/conformance.py` reads it."""
    return {
        **about,
        "good": made.good,
        "counts": {name: dict(counts) for name, counts in made.counts.items()},
        "tests": len({result.test for result in results}),
        "passed_somewhere": len({result.test for result in results if result.outcome.verdict is Verdict.PASSED}),
        "passed_nowhere": made.never,
        "results": [_as_dict(result) for result in results],
    }


def _show(made: Report, seconds: float, *, logs: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("set-up", *COLUMNS, title=f"libiscsi's tests through the SG_IO door ({seconds:.0f} s)")
    for name, counts in made.counts.items():
        table.add_row(name, *(str(counts[column]) for column in COLUMNS))
    console.print(table)
    if made.explained:
        table = Table("set-up", "test", "why it cannot pass there", title="impossible for the set-up")
        for result, why in made.explained:
            table.add_row(result.setup, result.test, why)
        console.print(table)
    if made.wrong:
        table = Table("set-up", "test", "", "log", title="wrong")
        for result in made.wrong:
            notes = Text("\n".join(result.outcome.notes))
            table.add_row(result.setup, result.test, result.outcome.verdict.value, notes)
        console.print(table)
    for test in made.never:
        console.print(f"{test} passed on no set-up")
    if logs:
        for result in made.wrong:
            console.print(Text(f"---- {result.setup} {result.test}\n{result.log}"))


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    args = _parser().parse_args(argv)
    if shutil.which("iscsi-test-cu") is None:
        print(f"conformance: {TOOL} is not installed; type: sudo apt-get install libiscsi-bin", file=sys.stderr)
        return 15
    every = every_test()
    tests = wanted(every)
    if len(tests) != STARTED:
        print(f"conformance: this {TOOL} has other tests than 1.19.0: {len(tests)} would run", file=sys.stderr)
    chosen = [test for test in tests if not args.test or any(fnmatchcase(test, glob) for glob in args.test)]
    if args.list:
        print("\n".join(chosen))
        return 0
    setups = args.setup or list(SETUPS)
    pairs = [(setup, test) for setup in setups for test in chosen if SETUPS[setup].wants(test)]
    total, began = len(pairs), time.monotonic()
    done = 0

    def tell(result: Result) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            print(f"\r\033[K{done}/{total} {result.setup} {result.test}", end="", file=sys.stderr, flush=True)

    results = run_many(pairs, jobs=args.jobs, on_result=tell)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    complete = chosen == tests and len(setups) == len(SETUPS)
    made = report(results, complete=complete)
    seconds = time.monotonic() - began
    if args.json:
        about = {"seconds": round(seconds, 1), "not_started": len(every) - len(tests), "complete": complete}
        print(json.dumps(as_json(results, made, **about), indent=2))
    else:
        _show(made, seconds, logs=args.logs)
    return 0 if made.good else 1


if __name__ == "__main__":
    sys.exit(main())
