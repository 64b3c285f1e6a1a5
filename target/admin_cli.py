# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-admin`: what the owner of a running target tells it.

Knows options and how to wait for an answer; what the target does is `target.admin`'s. Must not know images.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vscsi
from target import scheduling_admin
from target.faults_admin import add_parser, in_words
from target.stores.sizes import format_size, parse_size
from vscsi.cli import ArgumentParser, CliError, ExitStatus, harmless, run

PROG = "vscsi-admin"
MEMORY_NBYTES = 1 << 20
EXAMPLES = """\
examples:
  vscsi-admin status                  what is served, and to whom
  vscsi-admin resize 0                look now whether LUN 0's image has another size
  vscsi-admin resize 0 --size 2G      grow it, and tell every initiator
  vscsi-admin eject 1                 take the medium of a removable LUN out
  vscsi-admin load 1 other.img        put another image in
  vscsi-admin fault add 0 read,lba=100-107,count=3,sense=3/11/00
                                      three reads of these blocks fail (docs/faults.md)

Exit statuses: 0 done, 1 syntax, 5 the target refuses, 15 no target there, 33 no answer in time.
"""


def build_parser() -> ArgumentParser:
    """All options."""
    parser = ArgumentParser(
        prog=PROG,
        description="Tells a running vscsi-target what to do. Only its owner and root may.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--unix", "-U", metavar="PATH", help="the target's socket (default: the one per user)")
    add("--json", "-j", action="store_true", help="print the answer as JSON")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait for an answer (default: 60)")
    add("--version", "-V", action="version", version=f"{PROG} {vscsi.__version__}", help="show the version and stop")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("status", help="what is served, and to whom")
    resize = _with_lun(actions, "resize", "take an image's size as it is now, or change it")
    resize.add_argument("--size", type=_size, dest="nbytes", metavar="SIZE", help="make the image this large first")
    resize.add_argument("--shrink", action="store_true", help="even if that cuts something off")
    eject = _with_lun(actions, "eject", "take the medium of a removable LUN out")
    eject.add_argument("--force", action="store_true", help="even if an initiator prevents its removal")
    load = _with_lun(actions, "load", "put the medium, or another one, into a removable LUN")
    add_parser(actions)
    scheduling_admin.add_parser(actions)
    load.add_argument("store", nargs="?", metavar="STORE", help="image to load (default: the one that was ejected)")
    return parser


def _with_lun(actions: Any, name: str, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=words, description=words)
    parser.add_argument("lun", type=int, metavar="LUN")
    return parser


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    return run(PROG, lambda: _main(build_parser().parse_args(argv)))


def _main(args: argparse.Namespace) -> int:
    from vscsi.bus.local import BusError, InitiatorConnection

    path = None if args.unix is None else Path(args.unix).absolute()
    try:
        connection = InitiatorConnection(path, memory_nbytes=MEMORY_NBYTES)
    except BusError as error:
        raise CliError(str(error), ExitStatus.FILE) from error
    try:
        connection.start()
        answer = connection.request("info") if args.action == "status" else _ask(connection, args)
    except BusError as error:
        raise CliError(str(error), ExitStatus.OTHER) from error
    finally:
        connection.close()
    if args.json:
        json.dump(answer, sys.stdout, indent=2)
        print()
    else:
        print(harmless(_safe_words(args.action, answer)))
    return ExitStatus.OK


def _safe_words(action: str, answer: dict[str, Any]) -> str:
    try:
        return _words(action, answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CliError("the target's answer makes no sense", ExitStatus.MALFORMED) from error


def _ask(connection: Any, args: argparse.Namespace) -> dict[str, Any]:
    names = ("action", "lun", "nbytes", "shrink", "force", "store", "rule", "id")
    fields = {name: getattr(args, name, None) for name in names}
    fields |= scheduling_admin.asked(args)
    if fields["rule"] is not None:
        fields["rule"] = " ".join(fields["rule"])
    if isinstance(fields["store"], str) and Path(fields["store"]).exists():
        fields["store"] = str(Path(fields["store"]).absolute())  # the target may run in another folder
    answer: dict[str, Any] = connection.request("admin", **fields)
    until = time.monotonic() + args.timeout
    ticket = answer.get("ticket")
    while "error" not in answer and "result" not in answer:
        if time.monotonic() > until:
            raise CliError("no answer in time; the target goes on with it", ExitStatus.TIMEOUT)
        time.sleep(0.01)
        answer = connection.request("admin-result", ticket=ticket)
    if "error" in answer:
        raise CliError(str(answer["error"]), ExitStatus.ILLEGAL_REQUEST)
    result: dict[str, Any] = answer["result"]
    if not isinstance(result, dict):
        raise CliError("the target's answer makes no sense", ExitStatus.MALFORMED)
    return result


def _unit_words(unit: dict[str, Any]) -> str:
    nbytes = unit["blocks"] * unit["block_nbytes"]
    return f"lun {unit['lun']}: {unit['blocks']} blocks of {unit['block_nbytes']} bytes ({format_size(nbytes)})"


def _words(action: str, answer: dict[str, Any]) -> str:
    if "faults" in answer:
        return in_words(answer)
    if "schedule" in answer:
        return scheduling_admin.in_words(answer)
    if action != "status":
        changed = answer.get("changed")
        return _unit_words(answer) + ("" if changed is None else ", changed" if changed else ", as before")
    lines = [f"{answer['name']} {answer['version']}, pid {answer['pid']}, {answer['engine']}"]
    lines += [_unit_words(unit) for unit in answer["luns"]]
    lines += [
        f"initiator {one['domid']}: {one['name']} {one['version']}, pid {one['pid']}, {' '.join(one['devices'])}"
        for one in answer["initiators"]
        if one["devices"]  # our own connection has none
    ]
    return "\n".join(lines)
