# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-target`: the command line of the target, with nbdkit's manners.

Knows options and how the program ends; turns them into logical units, a listener and a server. Every mistake of the
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

import vscsi
from target import captive, debug, logs, worker  # noqa: F401  (worker declares debug flags)
from target.access import port_pattern
from target.lu import LogicalUnit, open_lu
from target.lunspec import KEYS, LunSpecError, parse_all
from target.native import lib
from target.stores import StoreError, schemes
from vscsi.cli import ArgumentParser, CliError, ExitStatus, argument, complain, run

if TYPE_CHECKING:
    from target.server import Server, ServerOptions
    from vscsi.bus.local import Listener

PROG = "vscsi-target"
ENGINES = {"auto": "auto", "io_uring": "uring", "pool": "pool"}

EXAMPLES = """\
examples:
  vscsi-target --lun 0=disk.img                     serve an image until interrupted
  vscsi-target --lun 0=disk.img,size=1G             the same; creates it, sparse, if there is none
  vscsi-target --lun 0=disk.img,ro --lun 1=mem:64M  two logical units, one of them a RAM disk
  vscsi-target --lun 0=a,,b.img,bs=4096,cache=wt    ',,' is a literal comma
  vscsi-target --lun 0=mem:1G -U - --run 'vscsi-initiator -u "$uri" inquiry'

stores:
{stores}

keys of --lun:
{keys}

debug flags (-D):
{flags}

Exit statuses are those of sg3_utils(8): 0 good (also after SIGTERM), 1 syntax, 15 an image or the socket cannot be
opened; with --run, what the command returned.
"""


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:{width}}  {words}" for name, words in rows)


def _epilog() -> str:
    return EXAMPLES.format(
        stores=_table([(scheme.name, scheme.help) for scheme in schemes().values()]),
        keys=_table([(f"{name}=", row.metadata["help"]) for name, row in KEYS.items()]),
        flags=_table([(flag.name, flag.help) for flag in debug.flags()]),
    )


def _port(text: str) -> str:
    try:
        return port_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _Help(argparse.Action):
    """--help: what takes time to look up is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.epilog = _epilog()
        parser.print_help()
        parser.exit()


def build_parser() -> ArgumentParser:
    """All options."""
    parser = ArgumentParser(
        prog=PROG,
        add_help=False,
        description="Serves disk images as SCSI logical units over a shared-memory ring, to programs on this machine.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--lun", "-l", action="append", metavar="N=STORE[,KEY=VALUE...]", default=[], help="a logical unit; repeatable")
    add(
        "--unix",
        "-U",
        metavar="PATH",
        help="socket to listen on; '-' is a private one (default: one per user, with --run a private one)",
    )
    add("--readonly", "-r", action="store_true", help="write-protect every logical unit")
    add(
        "--run",
        metavar="CMD",
        help="run a shell command with $uri and $unixsocket set; stop when it ends",
    )
    add("--pidfile", "-P", metavar="FILE", help="write the process id here once initiators can connect")
    add("--exit-with-parent", action="store_true", help="stop when the parent process ends")
    add(
        "--loops",
        "-t",
        type=argument(1, lib.VT_MAX_LOOPS),
        metavar="N",
        default=1,
        help="threads serving rings (default: 1)",
    )
    add(
        "--spin-us",
        type=argument(0, 1_000_000),
        metavar="US",
        default=50,
        help="how long an idle loop keeps looking before it sleeps (default: 50)",
    )
    add(
        "--engine",
        choices=tuple(ENGINES),
        default="auto",
        help="how images are read and written (auto: io_uring, else a pool of threads)",
    )
    add("--pcap", metavar="FILE", help="write all SRP traffic there, for Wireshark: a file, a FIFO, or - for stdout")
    add(
        "--snaplen",
        type=argument(1, 65535),
        metavar="N",
        help="with --pcap: keep N bytes of every packet (default: all)",
    )
    for kind in ("user", "group"):
        add(
            f"--allow-{kind[0]}id",
            action="append",
            type=argument(0, (1 << 32) - 2),
            metavar="N",
            default=[],
            help=f"let this {kind} connect, too, beside your own user and root; repeatable (use --unix with a folder "
            "that they can reach)",
        )
    add(
        "--allow-initiator",
        action="append",
        type=_port,
        metavar="ID",
        default=[],
        help="let only these initiator ports log in: hex, its beginning, or with * and ?; repeatable; ends blkif",
    )
    add("--check", action="store_true", help="open everything, say what would be served, and stop")
    add("--dump-stores", action="store_true", help="list the kinds of stores and stop")
    add("--log", choices=("stderr", "null"), default="stderr", help="where messages go")
    add("--debug", "-D", action="append", metavar="COMPONENT.FLAG=N", default=[], help="a debug flag; repeatable")
    add("--verbose", "-v", action="count", default=0, help="say more; twice, even more")
    add("--version", "-V", action="version", version=f"{PROG} {vscsi.__version__}", help="show the version and stop")
    add("--help", "-h", action=_Help, nargs=0, help="show this and stop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    return run(PROG, lambda: _main(build_parser().parse_args(argv)))


def _main(args: argparse.Namespace) -> int:
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
        print(_table([(scheme.name, scheme.help) for scheme in schemes().values()]))
        return ExitStatus.OK
    if args.exit_with_parent:
        captive.exit_with_parent()
    with contextlib.ExitStack() as unserved, _units(args.lun, unserved, readonly=args.readonly) as units:
        if args.check:
            for unit in units:
                print(unit.describe())
            return ExitStatus.OK
        return _serve(args, units, unserved.pop_all)


@contextlib.contextmanager
def _units(texts: list[str], unserved: contextlib.ExitStack, *, readonly: bool) -> Iterator[list[LogicalUnit]]:
    """Opens every logical unit, and closes those that are still open at the end.

    `unserved` gets what takes the images away that were created, for the case that they are never served.
    """
    if not texts:
        raise CliError("nothing to serve: give at least one --lun, for example --lun 0=disk.img")
    try:
        specs = parse_all(texts, readonly=readonly)
    except LunSpecError as error:
        raise CliError(str(error)) from error
    if len(specs) > lib.VT_MAX_LUS:
        raise CliError(f"{len(specs)} logical units are too many: at most {lib.VT_MAX_LUS}")
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


def _options(args: argparse.Namespace) -> "ServerOptions":
    from target.server import ServerOptions
    from vscsi.pcapfile import PcapFile

    return ServerOptions(
        loops=args.loops,
        spin_us=args.spin_us,
        engine=ENGINES[args.engine],
        pcap=None if args.pcap is None else PcapFile(args.pcap),
        snap_nbytes=args.snaplen or 0,
        allow_initiators=tuple(args.allow_initiator),
    )


def _listen(stack: contextlib.ExitStack, args: argparse.Namespace) -> "Listener":
    from vscsi.bus.local import BusError, Listener

    path = None if args.unix is None else Path(args.unix).absolute()
    if args.unix == "-" or (args.unix is None and args.run is not None):
        path = stack.enter_context(captive.private_folder()) / "socket"
    try:
        return Listener(path, allow_uids={os.geteuid(), 0, *args.allow_uid}, allow_gids=args.allow_gid)
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
