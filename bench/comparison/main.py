# SPDX-License-Identifier: BSD-2-Clause
"""The command line of the bench: options, the run as a whole, what is printed. Measures nothing itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ablations import run as ablations_run
from ablations import table as ablations_table
from peers import run as peers_run
from peers import table as peers_table
from report import conformance, sweep, write

from vscsi.cli import ArgumentParser, CliError, ExitStatus, argument, run

from . import environment, goals_table, image, report, rounds, scenes, workloads
from .measure import Lane, MismatchError
from .room import Room
from .server import PrivateTarget, ServerError, stored

PROG = "compare.py"
SCHEMA = 1
PARTS = {"results", "goals", "peers", "ablations"}
"""What a run may have measured."""
SLOTS = 256
QUICK = {"rounds": 3, "seconds": 0.2, "size": 64 << 20}
FULL = {"rounds": 15, "seconds": 1.0, "size": 256 << 20}
DEFAULT_SPIN_US = 50

EXAMPLES = """\
examples:
  bench/compare.py                                   the default set, about five minutes
  bench/compare.py --quick                           a rough look in half a minute
  bench/compare.py --workload randread --queue-depth 1 --queue-depth 32 --json result.json
  bench/compare.py --report DIR                      a page with pictures and the argument of 2006, about 25 minutes
  bench/compare.py --report DIR --goals --peers --ablations --scheduler sched.json --conformance conf.json
                                                     all there is, above an hour
  bench/compare.py --from DIR/bench.json --report DIR           the page anew, from what was measured
  bench/compare.py --socket /run/user/1000/vscsi/default.sock --lun 2 --overwrite
"""


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds") from None
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is out of range, expected 0.01 to 3600")
    return value


def _block_size(text: str) -> int:
    value = argument(512, 1 << 20)(text)
    if value % 512:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 512")
    return value


def parser() -> ArgumentParser:
    """The options."""
    out = ArgumentParser(
        prog=PROG,
        description="Compare blkif with SCSI over SRP: same ring, grants, events and image I/O.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--image", type=Path, metavar="FILE", help="measure on a copy of this image, or on a block device")
    out.add_argument("--size", type=argument(1 << 20), metavar="BYTES", help="how much of it to use (default: 256M)")
    out.add_argument("--seconds", type=_seconds, metavar="S", help="length of a round (default: 1)")
    out.add_argument("--rounds", type=argument(1, 10000), metavar="N", help="rounds of each protocol (default: 15)")
    out.add_argument(
        "--workload", action="append", default=[], choices=workloads.NAMES, help="only this one; repeatable"
    )
    out.add_argument(
        "--block-size", action="append", default=[], type=_block_size, metavar="BYTES", help="instead of its own"
    )
    out.add_argument(
        "--queue-depth", action="append", default=[], type=argument(1, 128), metavar="N", help="instead of its own"
    )
    out.add_argument("--quick", action="store_true", help="3 rounds of 0.2 s on 64 MiB")
    out.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything to FILE; - is stdout, without the table"
    )
    out.add_argument(
        "--report", type=Path, metavar="DIR", help="measure more, and write a page, its pictures, histograms and JSON"
    )
    out.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", action="append",
        help="measure nothing: take this JSON for --report, --docs; repeatable, for parts that were measured apart",
    )  # fmt: skip
    out.add_argument("--docs", type=Path, metavar="DIR", help="draw the pictures of the project's documents there")
    out.add_argument(
        "--scheduler", type=Path, metavar="FILE", help="with --report: what bench/scheduler.py --json has written"
    )
    out.add_argument(
        "--conformance", type=Path, metavar="FILE",
        help="with --report: what make conformance ARGS=--json has printed",
    )  # fmt: skip
    out.add_argument(
        "--spin-us", type=argument(0, 100000), default=DEFAULT_SPIN_US, metavar="US",
        help=f"both ends look at the ring so long before they sleep (default: {DEFAULT_SPIN_US})",
    )  # fmt: skip
    out.add_argument("--socket", type=Path, metavar="PATH", help="use this running target instead of a private one")
    out.add_argument(
        "--lun", type=argument(0, 16383), default=0, metavar="N", help="its LUN, with --socket (default: 0)"
    )
    out.add_argument("--overwrite", action="store_true", help="data on the block device or LUN may be destroyed")
    out.add_argument(
        "--goals", nargs="*", choices=list(scenes.SCENES), metavar="SCENE",
        help="instead, or in the report too: is this as fast as it should be? All of these scenes, or some: "
        f"{', '.join(scenes.SCENES)}; 15 minutes",
    )  # fmt: skip
    out.add_argument("--check", action="store_true", help="with --goals, --peers: exit status 1 if one is missed")
    out.add_argument(
        "--peers", nargs="*", metavar="PEER",
        help="instead, or in the report too: other targets, the file itself, other doors to the LUN; all, or these",
    )  # fmt: skip
    out.add_argument(
        "--ablations", nargs="*", metavar="CHOICE",
        help="instead, or in the report too: what each choice of the implementation is worth; all, or these",
    )  # fmt: skip
    out.add_argument("--progress", action="store_true", help="tell on stderr what is going on, tty or not")
    return out


@contextlib.contextmanager
def _teller(args: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    if sys.stderr.isatty() and not args.progress:
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(text)
    elif args.progress:
        yield lambda text: print(text, file=sys.stderr, flush=True)
    else:
        yield lambda text: None


def _lanes(stack: contextlib.ExitStack, socket: Path, path: Path | None, args: argparse.Namespace) -> list[Lane]:
    from .direct import DirectLane
    from .lanes import BlkifLane, SrpLane

    lanes: list[Lane] = []
    for kind in (BlkifLane, SrpLane):
        lane = kind(socket, args.lun, args.spin_us)
        stack.callback(lane.close)
        if lane.slots != SLOTS:
            raise CliError(f"{lane.name} has {lane.slots} slots, not {SLOTS}: no fair comparison", ExitStatus.OTHER)
        lanes.append(lane)
    if path is not None:
        direct = DirectLane(path)
        stack.callback(direct.close)
        lanes.append(direct)
    return lanes


def _picked(args: argparse.Namespace) -> list[workloads.Workload]:
    """The closed loops: what was asked for; else the plain table, and with --report the sweeps."""
    if args.report is not None and not (args.workload or args.block_size or args.queue_depth):
        return sweep.closed()
    return workloads.pick(args.workload, args.block_size, args.queue_depth)


def _measure(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    picked = _picked(args)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vscsi-bench-", dir=_scratch())))
        path: Path | None = None
        server: PrivateTarget | None = None
        if args.socket is None:
            tell("making the image")
            path, span = image.prepare(args.image, args.size, folder, overwrite=args.overwrite)
            server = PrivateTarget([stored(path)], folder, spin_us=args.spin_us)
            stack.callback(server.close)
            socket = server.socket
        else:
            socket, span = args.socket, args.size
        lanes = _lanes(stack, socket, path, args)
        span = min(span, *(lane.nbytes for lane in lanes if hasattr(lane, "nbytes")))
        largest = max(workload.block_nbytes * workload.queue_depth for workload in picked)
        if span < largest * 2:
            raise CliError(f"{span} bytes are too few for {largest} bytes under way at once; choose a larger --size")
        pid = lanes[0].target_pid  # type: ignore[attr-defined]
        idle_rss_kib = environment.rss_anon_kib(pid)
        place = environment.describe(
            spin_us=args.spin_us,
            slots=SLOTS,
            rounds=args.rounds,
            seconds=args.seconds,
            size=span,
            persistent_grants=True,
            command=shlex.join(["bench/compare.py", *args.words]),
            target_rss_anon_kib=idle_rss_kib,
        )
        try:
            series = rounds.compare(lanes, picked, span, rounds=args.rounds, seconds=args.seconds, tell=tell)
            if args.report is not None:
                opened = sweep.opened(series)
                series += rounds.compare(lanes, opened, span, rounds=args.rounds, seconds=args.seconds, tell=tell)
                picked = [*picked, *opened]
        except MismatchError as error:
            said = f"; the target's last words: {server.said()}" if server else ""
            raise MismatchError(f"{error}{said}") from None
        return {
            "schema": SCHEMA,
            "environment": place,
            "table": [[row.name, row.block_nbytes, row.queue_depth] for row in workloads.WORKLOADS],
            "results": [one.to_json() for one in series],
            "ratios": rounds.ratios(series, picked),
        }


def _extras(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """What has targets and loads of its own: goals, peers, ablations."""
    with tempfile.TemporaryDirectory(prefix="vscsi-bench-", dir=_scratch()) as name:
        folder = Path(name)
        tell("making the image")
        path, span = image.prepare(args.image, args.size, folder, overwrite=args.overwrite)
        room = Room(path, span, folder, args.rounds, args.seconds, tell)
        place = environment.describe(spin_us=DEFAULT_SPIN_US, rounds=args.rounds, seconds=args.seconds, size=span)
        out: dict[str, Any] = {"schema": SCHEMA, "environment": place}
        if args.goals is not None:
            out["goals"] = scenes.run(room, args.goals)
        if args.peers is not None:
            out |= peers_run.measure(room, args.peers)
        if args.ablations is not None:
            out |= ablations_run.measure(room, args.ablations)
        return out


def _has_extras(args: argparse.Namespace) -> bool:
    return any(one is not None for one in (args.goals, args.peers, args.ablations))


def _scratch() -> str | None:
    """Where images go: a real file system if there is one, since /tmp often is memory."""
    return "/var/tmp" if Path("/var/tmp").is_dir() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise CliError(f"{path}: {(error.strerror or str(error)).lower()}", ExitStatus.FILE) from None
    except ValueError as error:
        raise CliError(f"{path} is not JSON: {error}", ExitStatus.FILE) from None
    if not isinstance(document, dict):
        raise CliError(f"{path} is not what this bench writes", ExitStatus.FILE)
    return document


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """What other programs have found out for the report."""
    out: dict[str, Any] = {}
    if args.scheduler is not None:
        out["scheduler"] = _read(args.scheduler)
    if args.conformance is not None:
        out["conformance"] = conformance.digest(_read(args.conformance))
        if out["conformance"] is None:
            raise CliError(f"{args.conformance} is not what 'make conformance ARGS=--json' prints", ExitStatus.FILE)
    return out


def _check(args: argparse.Namespace) -> None:
    if args.socket is not None and not args.overwrite:
        raise CliError("the bench writes to the LUN: say --overwrite if its data may be destroyed", ExitStatus.SYNTAX)
    others = (args.socket, args.source, args.workload, args.block_size, args.queue_depth)
    if _has_extras(args) and any(others):
        words = "--goals, --peers and --ablations have targets and loads of their own"
        raise CliError(words, ExitStatus.CONTRADICTING_OPTIONS)
    if args.check and args.goals is None and args.peers is None:
        raise CliError("--check goes with --goals and --peers", ExitStatus.SYNTAX)
    if args.socket is not None and args.image is not None:
        raise CliError("--image and --socket do not go together", ExitStatus.CONTRADICTING_OPTIONS)
    if args.json is not None and str(args.json) != "-" and not args.json.parent.is_dir():
        raise CliError(f"there is no folder {args.json.parent}", ExitStatus.FILE)


def _document(args: argparse.Namespace) -> dict[str, Any]:
    """Measured, or read."""
    if args.source is not None:
        document: dict[str, Any] = {}
        for path in args.source:
            part = _read(path)
            if not PARTS & set(part) or part.get("schema") != SCHEMA:
                raise CliError(f"{path} is not what this bench writes (schema {SCHEMA})", ExitStatus.FILE)
            # Where and how stands for the plain run, if there is one.
            document = document | part if part.get("results") else part | document
        return document
    from initiator.errors import InitiatorError

    try:
        with _teller(args) as tell:
            document = _extras(args, tell) if _has_extras(args) else {}
            if args.report is not None or not document:
                document |= _measure(args, tell)
            return document
    except (image.ImageError, ServerError) as error:
        raise CliError(str(error), ExitStatus.FILE) from None
    except MismatchError as error:
        raise CliError(str(error), ExitStatus.MISCOMPARE) from None
    except InitiatorError as error:
        raise CliError(str(error), ExitStatus.OTHER) from None


def _write(args: argparse.Namespace, document: dict[str, Any]) -> None:
    try:
        if args.json is not None and str(args.json) != "-":
            args.json.write_text(write.dump(document))
        if args.report is not None:
            print(f"{PROG}: {write.report(document, args.report)}", file=sys.stderr)
        if args.docs is not None:
            write.docs(document, args.docs)
    except OSError as error:
        raise CliError(f"{error.filename}: {(error.strerror or str(error)).lower()}", ExitStatus.FILE) from None


def _body(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    args.words = list(sys.argv[1:] if argv is None else argv)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    _check(args)
    # Read first: a mistake in a name should not cost an hour of measuring.
    given = _given(args)
    document = _document(args) | given
    _write(args, document)
    if str(args.json) == "-":
        sys.stdout.write(write.dump(document))
    elif args.source is None or (args.report is None and args.docs is None):
        _show(document)
    missed = any(scenes.missed(document[name]) for name in ("goals", "peer_goals") if name in document)
    return ExitStatus.SYNTAX if args.check and missed else ExitStatus.OK


def _show(document: dict[str, Any]) -> None:
    """The tables of all that was measured."""
    if document.get("results"):
        report.show(document)
    if "goals" in document:
        goals_table.show(document["goals"])
    if "peers" in document:
        peers_table.show(document)
        goals_table.show(document["peer_goals"])
    if "ablations" in document:
        ablations_table.show(document)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: exit status."""
    return run(PROG, lambda: _body(argv))
