# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-target`: the command line of the target, with nbdkit's manners.

Knows how the program ends; turns options into logical units, a listener and a server. Every mistake of the
user is one line on stderr and an exit status. Must not know rings, commands or stores.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from target import captive, debug, limits, logs
from target.limits import Limits
from target.lu import LogicalUnit, open_lu
from target.lunspec import LunSpec, LunSpecError, parse_all
from target.native import lib
from target.options import ENGINES, PROG, build_parser, table
from target.stores import StoreError, schemes
from vscsi.cli import CliError, ExitStatus, complain, run

if TYPE_CHECKING:
    from target.server import Server, ServerOptions
    from vscsi.bus.local import Listener
    from vscsi.pcapfile import PcapFile


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    return run(PROG, lambda: _main(build_parser(), argv))


def _arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What a configuration file and, over it, the command line ask for."""
    args = parser.parse_args(argv)
    if args.config is None:
        return args
    from target.config import load_under

    return parser.parse_args(argv, load_under(args.config, parser, over=args))


def _main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    args = _arguments(parser, argv)
    if args.check and args.run is not None:
        raise CliError("--check serves nothing: it cannot be given with --run", ExitStatus.CONTRADICTING_OPTIONS)
    if args.snaplen and args.pcap is None:
        raise CliError("--snaplen goes only with --pcap", ExitStatus.CONTRADICTING_OPTIONS)
    for text in args.debug:
        try:
            debug.set_flag(text)
        except ValueError as error:
            raise CliError(str(error)) from error
    logs.configure(PROG, args.log, args.verbose, debug=bool(args.debug))
    if args.dump_stores:
        print(table([(scheme.name, scheme.help) for scheme in schemes().values()]))
        return ExitStatus.OK
    if args.dump_config:
        from target.config import dump

        _specs(args)
        print(dump(args, parser), end="")
        return ExitStatus.OK
    if args.exit_with_parent:
        captive.exit_with_parent()
    with contextlib.ExitStack() as unserved, _units(_specs(args), unserved) as units:
        if args.check:
            for unit in units:
                print(unit.describe())
            return ExitStatus.OK
        return _serve(args, units, unserved.pop_all)


def _specs(args: argparse.Namespace) -> list[LunSpec]:
    """The logical units that are asked for."""
    if not args.lun:
        raise CliError("nothing to serve: give at least one --lun, for example --lun 0=disk.img")
    try:
        specs = parse_all(args.lun, readonly=args.readonly, faults=args.fault)
    except LunSpecError as error:
        raise CliError(str(error)) from error
    if len(specs) > lib.VT_MAX_LUS:
        raise CliError(f"{len(specs)} logical units are too many: at most {lib.VT_MAX_LUS}")
    return specs


@contextlib.contextmanager
def _units(specs: list[LunSpec], unserved: contextlib.ExitStack) -> Iterator[list[LogicalUnit]]:
    """Opens every logical unit, and closes those that are still open at the end.

    `unserved` gets what takes the images away that were created, for the case that they are never served.
    """
    with contextlib.ExitStack() as stack:
        units = []
        for spec in specs:
            try:
                unit = open_lu(spec)
            except StoreError as error:
                raise CliError(f"lun {spec.lun}: {error}", ExitStatus.FILE) from error
            stack.callback(unit.close)
            unserved.callback(unit.abandon)
            units.append(unit)
        yield units


def uri_of(path: Path, lun: int) -> str:
    """What an initiator is told to find this unit."""
    return f"vscsi+unix:///{lun}?socket={quote(os.fsencode(path))}"


def _limits(args: argparse.Namespace) -> Limits:
    return Limits(**{row.name: getattr(args, row.name) for _, row in limits.rows()})


def _pcap(path: str) -> "PcapFile":
    from vscsi.pcapfile import PcapFile

    return PcapFile(path)


def _options(args: argparse.Namespace) -> "ServerOptions":
    from target.server import ServerOptions

    return ServerOptions(
        limits=_limits(args),
        loops=args.loops,
        spin_us=args.spin_us,
        abort_limit_ms=args.abort_limit,
        engine=ENGINES[args.engine],
        pcap=None if args.pcap is None else _pcap(args.pcap),
        snap_nbytes=args.snaplen or 0,
        allow_initiators=tuple(args.allow_initiator),
    )


def _listen(stack: contextlib.ExitStack, args: argparse.Namespace) -> "Listener":
    from vscsi.bus.local import BusError, Listener

    path = None if args.unix is None else Path(args.unix).absolute()
    if args.unix == "-" or (args.unix is None and args.run is not None):
        path = stack.enter_context(captive.private_folder()) / "socket"
    try:
        return Listener(
            path,
            allow_uids={os.geteuid(), 0, *args.allow_uid},
            allow_gids=args.allow_gid,
            max_connections=args.connections,
            max_memory_nbytes=args.initiator_memory,
            total_memory_nbytes=args.memory,
        )
    except BusError as error:
        raise CliError(str(error), ExitStatus.FILE) from error
    except OSError as error:
        where = path or "the default socket"
        raise CliError(f"{where}: cannot listen: {(error.strerror or str(error)).lower()}", ExitStatus.FILE) from error


def _serve(args: argparse.Namespace, units: list[LogicalUnit], keep: Callable[[], object]) -> int:
    """Serves until told to stop. `keep` is called once created images have to stay."""
    from target.server import Server

    with contextlib.ExitStack() as stack:
        options = _options(args)
        listener = _listen(stack, args)
        stack.callback(listener.close)
        try:
            server = Server(listener, units, options)
        except OSError as error:
            raise _cannot_start(args, error) from error
        uris = {unit.lun: uri_of(listener.path, unit.lun) for unit in units}
        child: captive.Child | None = None

        def ready() -> None:
            nonlocal child
            if args.pidfile:
                stack.enter_context(captive.pidfile(Path(args.pidfile)))
            keep()
            if args.run is None and args.log != "null":
                for unit in units:
                    complain(PROG, f"{unit.describe()}: {uris[unit.lun]}")
            if args.run is not None:
                child = captive.Child(args.run, listener.path, next(iter(uris.values())), server.stop)

        server.on_ready = ready
        try:
            with _signals(server.stop):
                _run(args, server)
        finally:
            status = child.finish() if child else None
        if server.stuck:
            return ExitStatus.TIMEOUT
        return ExitStatus.OK if status is None else status


def _run(args: argparse.Namespace, server: "Server") -> None:
    started = False
    announce = server.on_ready

    def ready() -> None:
        nonlocal started
        started = True
        announce()

    server.on_ready = ready
    try:
        server.run()
    except OSError as error:
        if started:
            raise
        raise _cannot_start(args, error) from error


def _cannot_start(args: argparse.Namespace, error: OSError) -> CliError:
    words = (error.strerror or str(error)).lower()
    hint = " (io_uring may be refused here: try --engine auto)" if args.engine == "io_uring" else ""
    return CliError(f"cannot start: {words}{hint}", ExitStatus.FILE)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT ask for an orderly stop; a second one ends the program at once."""

    def handler(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


if __name__ == "__main__":
    sys.exit(main())
