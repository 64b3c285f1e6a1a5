# SPDX-License-Identifier: BSD-2-Clause
"""The command line of bench/scheduler.py: options, the run as a whole. Measures nothing itself."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison import environment
from comparison.main import _seconds
from comparison.server import ServerError

from vscsi.cli import ArgumentParser, CliError, ExitStatus, argument, run

from . import scenes, show

PROG = "scheduler.py"
SCHEMA = 1
FULL, QUICK = {"rounds": 7, "seconds": 6.0}, {"rounds": 1, "seconds": 2.0}
EXAMPLES = """\
examples:
  bench/scheduler.py                          all scenes, about five minutes
  bench/scheduler.py --quick --scene polite   a rough look
  bench/scheduler.py --json docs/scheduler.json --svg docs/scheduling.svg
  bench/scheduler.py --from docs/scheduler.json --svg docs/scheduling.svg
"""


def parser() -> ArgumentParser:
    """The options."""
    out = ArgumentParser(
        prog=PROG,
        description="Several initiators on one simulated disk, with and without the target's scheduler.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--scene", action="append", choices=list(scenes.SCENES), help="only this one; repeatable")
    out.add_argument("--rounds", type=argument(1, 1000), metavar="N", help="paired rounds (default: 7)")
    out.add_argument("--seconds", type=_seconds, metavar="S", help="length of a round (default: 6)")
    out.add_argument("--quick", action="store_true", help="1 round of 2 s")
    out.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything to FILE; - is stdout, without the table"
    )
    out.add_argument("--svg", type=Path, metavar="FILE", help="draw the picture")
    out.add_argument("--from", type=Path, metavar="FILE", dest="source", help="show what --json wrote; measure nothing")
    out.add_argument("--progress", action="store_true", help="tell on stderr what is going on")
    return out


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The document."""
    settings = QUICK if args.quick else FULL
    rounds, seconds = int(args.rounds or settings["rounds"]), float(args.seconds or settings["seconds"])

    def tell(text: str) -> None:
        if args.progress or sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)

    document: dict[str, Any] = {
        "schema": SCHEMA,
        "environment": environment.describe(rounds=rounds, seconds=seconds),
        "disk": scenes.DISK.removesuffix("&disk=shared").replace("&", ", "),
    }
    with tempfile.TemporaryDirectory(prefix="vscsi-bench-") as folder, scenes.places(Path(folder)) as where:
        for name in args.scene or scenes.SCENES:
            document[name] = scenes.SCENES[name](where, rounds, seconds, tell)
    document["claims"], document["verdict"] = show.claims(document), show.verdict(document)
    return document


def _body(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    for path in (args.json, args.svg):
        if path is not None and str(path) != "-" and not path.parent.is_dir():
            raise CliError(f"there is no folder {path.parent}", ExitStatus.FILE)
    try:
        document = measure(args) if args.source is None else json.loads(args.source.read_text())
    except (OSError, ValueError) as error:
        raise CliError(str(error), ExitStatus.FILE) from None
    except ServerError as error:
        raise CliError(str(error), ExitStatus.FILE) from None
    except scenes.MismatchError as error:
        raise CliError(str(error), ExitStatus.MISCOMPARE) from None
    if args.svg is not None:
        args.svg.write_text(show.picture(document))
    if args.json is not None and str(args.json) == "-":
        print(json.dumps(document, indent=1))
        return ExitStatus.OK
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    print(show.table(document))
    return ExitStatus.OK


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: exit status."""
    return run(PROG, lambda: _body(argv))
