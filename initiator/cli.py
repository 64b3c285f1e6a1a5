# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-initiator`: the command line of the virtual HBA, with the words, texts and exit statuses of sg3_utils.

Knows the options that every command has and how a program ends. The commands themselves stand in `initiator/commands`;
nothing of the native layer is imported before one of them needs a target.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import vscsi
from initiator import commands
from vscsi.cli import ArgumentParser, CliError, ExitStatus, argument, run

PROG = "vscsi-initiator"

EXAMPLES = """\
examples:
  vscsi-initiator inquiry                       the target that listens at the default place, LUN 0
  vscsi-initiator inquiry --page di             its device identification VPD page
  vscsi-initiator -u 'vscsi+unix:///3?socket=/run/t.sock' readcap
  vscsi-initiator --lun 0 write --lba 0 --verify disk.img
  vscsi-initiator read --blocks 1 --hex
  vscsi-initiator raw 12 00 00 00 24 00 --in 36
  vscsi-target --lun 0=disk.img -U - --run 'vscsi-initiator -u "$uri" inquiry'

'vscsi-initiator COMMAND --help' tells more about a command. Exit statuses are those of sg3_utils(8):
0 good, 1 syntax, 15 no target, 22 LBA out of range, 5 other illegal request, 99 transport, ...
"""


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds") from None
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} seconds make no sense as a time-out")
    return seconds


def _port(text: str) -> bytes:
    digits = text.removeprefix("0x").replace(":", "")
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", digits, re.ASCII):
        raise argparse.ArgumentTypeError(f"'{text}' is no port identifier: up to 32 hex digits")
    return int(digits, 16).to_bytes(16)


def _common(parser: argparse.ArgumentParser) -> None:
    """The options that stand before or after the command's name."""
    group = parser.add_argument_group("common options")

    def add(*flags: str, **keywords: object) -> None:
        group.add_argument(*flags, default=argparse.SUPPRESS, **keywords)  # type: ignore[arg-type]

    add("-u", "--uri", metavar="URI", help="vscsi+unix:///LUN?socket=PATH (default: $VSCSI_URI)")
    add("--socket", type=Path, metavar="PATH", help="where the target listens (default: the user's default target)")
    add("--lun", type=argument(0, 16383), metavar="N", help="logical unit number (default: the URI's, else 0)")
    add("--protocol", choices=("srp", "blkif"), help="blkif: only with read, write and sync (default: srp)")
    add("--initiator-port", type=_port, metavar="HEX", help="this initiator's port identifier (default: random)")
    add("--timeout", type=_timeout, metavar="SECS", help="longest wait for one command (default: 30)")
    add("--pcap", metavar="FILE", help="write the commands, their data and answers there, for Wireshark; - is stdout")
    add(
        "--snaplen",
        type=argument(1, 65535),
        metavar="N",
        help="with --pcap: keep N bytes of every packet (default: all)",
    )
    add("-v", "--verbose", action="count", help="show each CDB in hex; twice: sense data too")
    group.add_argument("-V", "--version", action="version", version=f"{PROG} {vscsi.__version__}")


def _defaults() -> argparse.Namespace:
    return argparse.Namespace(
        uri=None,
        socket=None,
        lun=None,
        initiator_port=None,
        protocol="srp",
        timeout=30.0,
        verbose=0,
        pcap=None,
        snaplen=0,
    )


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help for the whole program: the list of commands is made only when somebody asks for it."""


def _list_commands() -> str:
    return "commands:\n" + "".join(f"  {name:<10}{commands.find(name).HELP}\n" for name in commands.names())


class _TopParser(ArgumentParser):
    def format_help(self) -> str:
        """Usage, options, then commands and examples."""
        return super().format_help() + "\n" + _list_commands() + "\n" + EXAMPLES


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, commands.Command]:
    """Options of the program, the command, and the options of the command. Exits (SystemExit) on a syntax error."""
    top = _TopParser(prog=PROG, description="Send SCSI commands to a vscsi-target.", formatter_class=_Help)
    _common(top)
    top.add_argument("command", nargs="?", metavar="COMMAND", help="what to do, see below")
    top.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its options")
    args = top.parse_args(argv, _defaults())
    if args.command is None:
        top.error(f"which COMMAND? {', '.join(commands.names())}")
    try:
        command = commands.find(args.command)
    except KeyError:
        top.error(f"there is no command '{args.command}'; commands: {', '.join(commands.names())}")
    parser = ArgumentParser(
        prog=f"{PROG} {args.command}",
        description=command.DESCRIPTION,
        epilog=f"examples:\n{command.EXAMPLES}",
        formatter_class=_Help,
        # Options behind another program's name are not ours, not even those that begin like ours.
        allow_abbrev=not getattr(command, "RUNS_PROGRAM", False),
    )
    command.add_arguments(parser)
    _common(parser)
    rest = args.rest
    del args.rest
    return parser.parse_args(rest, args), command


def _body(argv: Sequence[str]) -> int:
    args, command = parse(argv)
    from initiator.cli_session import Session

    if args.protocol == "blkif" and not getattr(command, "BLKIF", False):
        raise CliError(
            f"{args.command} sends SCSI commands; --protocol blkif goes only with read, write and sync",
            ExitStatus.CONTRADICTING_OPTIONS,
        )
    if args.snaplen and args.pcap is None:
        raise CliError("--snaplen goes only with --pcap", ExitStatus.CONTRADICTING_OPTIONS)
    if args.pcap is not None and args.protocol == "blkif":
        raise CliError(
            "--pcap shows SCSI commands: it does not go with --protocol blkif", ExitStatus.CONTRADICTING_OPTIONS
        )
    with Session(args) as session:
        return command.run(args, session)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run(PROG, lambda: _body(arguments))
