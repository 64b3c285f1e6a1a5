# SPDX-License-Identifier: BSD-2-Clause
"""Every option of `vscsi-target`, and its help: the one list from which configuration files take their keys, too.

Knows how options are read and what they are called. Must not know what is done with them, nor open anything.
"""

import argparse
from collections.abc import Sequence

import vscsi
from target import debug, limits, worker  # noqa: F401  (worker declares debug flags)
from target.access import port_pattern
from target.faults_rule import help_lines
from target.lunspec import KEYS
from target.native import lib
from target.stores import schemes
from vscsi.cli import ArgumentParser, argument

PROG = "vscsi-target"
ENGINES = {"auto": "auto", "io_uring": "uring", "pool": "pool"}

EXAMPLES = """\
examples:
  vscsi-target --lun 0=disk.img                     serve an image until interrupted
  vscsi-target --lun 0=disk.img,size=1G             the same; creates it, sparse, if there is none
  vscsi-target --lun 0=disk.img,ro --lun 1=mem:64M  two logical units, one of them a RAM disk
  vscsi-target --lun 0=a,,b.img,bs=4096,cache=wt    ',,' is a literal comma
  vscsi-target --config disks.toml --lun 7=mem:64M  what a file says, and one unit more; see docs/vscsi-target.toml
  vscsi-target --lun 0=mem:1G -U - --run 'vscsi-initiator -u "$uri" inquiry'

stores:
{stores}

keys of --lun:
{keys}

words of --fault:
{faults}

debug flags (-D):
{flags}

Exit statuses are those of sg3_utils(8): 0 good (also after SIGTERM), 1 syntax, 15 an image or the socket cannot be
opened, 33 some I/O did not end (--abort-limit); with --run, what the command returned.
"""


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, for people."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:{width}}  {words}" for name, words in rows)


def _epilog() -> str:
    return EXAMPLES.format(
        stores=table([(scheme.name, scheme.help) for scheme in schemes().values()]),
        keys=table([(f"{name}=", row.metadata["help"]) for name, row in KEYS.items()]),
        faults=table(help_lines()),
        flags=table([(flag.name, flag.help) for flag in debug.flags()]),
    )


def _port(text: str) -> str:
    try:
        return port_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


NO_SETTINGS = frozenset({"config", "check", "dump_config", "dump_stores", "version", "help"})
"""Options (by `dest`) about the program itself, which a configuration file has no say in."""


def settings(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Every option that says what is served and how, by its long name without the dashes."""
    rows = [action for action in parser._actions if action.dest not in NO_SETTINGS]
    return {next(name[2:] for name in row.option_strings if name.startswith("--")): row for row in rows}


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
    add(
        "--fault",
        action="append",
        metavar="LUN:RULE",
        default=[],
        help="let commands fail, wait or get lost: LUN:WORD,WORD...; repeatable; words: below, recipes: docs/faults.md",
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
    add(
        "--abort-limit",
        type=argument(1, 3_600_000),
        metavar="MS",
        default=20_000,
        help="I/O that takes longer once it has been aborted, or once the target is to stop, counts as stuck: the "
        "function fails, or the target leaves without it (default: 20000)",
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
    for name, row in limits.rows():
        about = row.metadata
        number = argument(about["least"], about["most"])
        metavar, words = about["metavar"], about["help"]
        add(f"--{name}", dest=row.name, type=number, default=row.default, metavar=metavar, help=words)
    add(
        "--config",
        "-c",
        metavar="FILE",
        help="read options (by their long names) and logical units from there, in TOML; the command line adds to it "
        "and wins over it",
    )
    add("--dump-config", action="store_true", help="print all that is asked for as such a file, and stop")
    add("--check", action="store_true", help="open everything, say what would be served, and stop")
    add("--dump-stores", action="store_true", help="list the kinds of stores and stop")
    add("--log", choices=("stderr", "null"), default="stderr", help="where messages go")
    add("--debug", "-D", action="append", metavar="COMPONENT.FLAG=N", default=[], help="a debug flag; repeatable")
    add("--verbose", "-v", action="count", default=0, help="say more; twice, even more")
    add("--version", "-V", action="version", version=f"{PROG} {vscsi.__version__}", help="show the version and stop")
    add("--help", "-h", action=_Help, nargs=0, help="show this and stop")
    return parser
