# SPDX-License-Identifier: BSD-2-Clause
"""`persist`: persistent reservations, in and out, as sg_persist does them. Knows options, not who may do what."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, hex_bytes

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "persistent reservations: show, register, reserve, preempt, ..."
DESCRIPTION = """\
Show or change persistent reservations. Without an action: the registered keys. Keys are given in hex, as sg_persist
has them. Reservations belong to the I_T nexus: give --initiator-port, or each run is another initiator."""
EXAMPLES = """\
  vscsi-initiator persist --read-keys
  vscsi-initiator persist --initiator-port 1 --register --param-sark abc
  vscsi-initiator persist --initiator-port 1 --reserve --param-rk abc --prout-type 5
  vscsi-initiator persist --read-reservation --json
  vscsi-initiator persist --initiator-port 2 --preempt --param-rk def --param-sark abc --prout-type 5
  vscsi-initiator persist --initiator-port 1 --register-move --param-rk abc --param-sark def --transport-id srp,2
"""
ALLOCATION_LENGTH = 8192
IN = {  # option: (letter, row of `cdb`, stem of the functions of text/persist.py, help)
    "read-keys": ("k", "READ_KEYS", "keys", "registered keys"),
    "read-reservation": ("r", "READ_RESERVATION", "reservation", "the reservation that is held"),
    "report-capabilities": ("c", "REPORT_CAPABILITIES", "capabilities", "what the target can do"),
    "read-full-status": ("s", "READ_FULL_STATUS", "full_status", "every registration, and who holds"),
}
OUT = {
    "register": ("G", "REGISTER"),
    "reserve": ("R", "RESERVE"),
    "release": ("L", "RELEASE"),
    "clear": ("C", "CLEAR"),
    "preempt": ("P", "PREEMPT"),
    "preempt-abort": ("A", "PREEMPT_AND_ABORT"),
    "register-ignore": ("I", "REGISTER_AND_IGNORE_EXISTING_KEY"),
    "register-move": ("M", "REGISTER_AND_MOVE"),
    "replace-lost": ("z", "REPLACE_LOST_RESERVATION"),
}


def _key(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"'{text}' is not a key: up to 16 hex digits")
    return value


def _alloc(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 8 <= value <= 0xFFFF:
        raise argparse.ArgumentTypeError(f"'{text}' is not an allocation length in hex (8 to ffff)")
    return value


def _transportid(text: str) -> bytes:
    """`srp,HEX` (32 digits, or fewer with leading zeros left out), `iqn.NAME[,i,0xISID]`, or the bytes in hex."""
    from vscsi.scsi import reservations

    kind, _, rest = text.partition(",")
    if kind.lower() == "srp":
        try:
            return reservations.encode_srp_transportid(int(rest.replace(":", ""), 16).to_bytes(16))
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"'{rest}' is not an SRP port: 32 hex digits") from None
    if kind.startswith(("iqn.", "eui.", "naa.")):
        isid = rest.removeprefix("i,")
        try:
            return reservations.encode_iscsi_transportid(kind, int(isid, 16) if isid else None)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{isid}' is not an ISID in hex") from None
    try:
        return hex_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a TransportID: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `persist`."""
    output = parser.add_mutually_exclusive_group()  # -r is --read-reservation, as in sg_persist
    output.add_argument("-H", "--hex", action="count", default=0, help="parameter data as a hex dump; twice: plain hex")
    output.add_argument("--raw", action="store_true", help="parameter data in binary to stdout")
    output.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")
    actions = parser.add_mutually_exclusive_group()
    for option, (letter, _, _, words) in IN.items():
        actions.add_argument(f"-{letter}", f"--{option}", dest="action", action="store_const", const=option, help=words)
    for option, (letter, row) in OUT.items():
        words = row.replace("_", " ")
        actions.add_argument(f"-{letter}", f"--{option}", dest="action", action="store_const", const=option, help=words)
    parser.add_argument("-i", "--in", action="store_true", help="accepted and not needed: an action says it")
    parser.add_argument("-o", "--out", action="store_true", help="accepted and not needed")
    parser.add_argument("-K", "--param-rk", type=_key, default=0, metavar="HEX", help="RESERVATION KEY")
    parser.add_argument(
        "-S", "--param-sark", type=_key, default=0, metavar="HEX", help="SERVICE ACTION RESERVATION KEY"
    )
    parser.add_argument(
        "-T", "--prout-type", type=argument(0, 15), default=0, metavar="TYPE", help="1, 3, 5, 6, 7 or 8"
    )
    parser.add_argument("-Z", "--param-aptpl", action="store_true", help="APTPL: keep it over loss of power")
    parser.add_argument("-Y", "--param-alltgpt", action="store_true", help="ALL_TG_PT: through every target port")
    parser.add_argument("-U", "--unreg", "--param-unreg", action="store_true", help="with --register-move: UNREG")
    parser.add_argument(
        "-X", "--transport-id", type=_transportid, action="append", default=[], metavar="ID",
        help="srp,HEX or iqn....: registers another initiator (SPEC_I_PT), or names where the reservation moves",
    )  # fmt: skip
    parser.add_argument(
        "-Q", "--relative-target-port", type=argument(0, 0xFFFF), default=1, metavar="N", help="with --register-move"
    )
    parser.add_argument("-l", "--alloc-length", type=_alloc, metavar="HEX", help="allocation length, in hex")
    parser.add_argument("-n", "--no-inquiry", action="store_true", help="do not show who answers")


def _who(session: Session) -> list[str]:
    from vscsi.scsi import cdb
    from vscsi.scsi.inquiry import DEVICE_TYPES, STANDARD

    data = session.execute(cdb.INQUIRY.build(allocation_length=36), data_in=36)
    if len(data) < 36:
        raise CliError(f"persist: {len(data)} bytes of INQUIRY data", ExitStatus.MALFORMED)
    device = STANDARD.numbers(data)["peripheral_device_type"]
    vendor, product, revision = (data[a:b].decode("ascii", "replace") for a, b in ((8, 16), (16, 32), (32, 36)))
    return [f"  {vendor}  {product}  {revision}", f"  Peripheral device type: {DEVICE_TYPES.get(device, hex(device))}"]


def _in(args: argparse.Namespace, session: Session, option: str) -> int:
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw
    from initiator.text import persist
    from vscsi.scsi import cdb

    _, name, stem, _ = IN[option]
    nbytes = args.alloc_length or ALLOCATION_LENGTH
    row = getattr(cdb, f"PERSISTENT_RESERVE_IN_{name}")
    if not (args.no_inquiry or args.raw or args.hex or args.json):
        emit(_who(session))
    data = session.execute(row.build(allocation_length=nbytes), data_in=nbytes)
    if len(data) < 8:
        raise CliError(f"persist: the target sent {len(data)} bytes of at least 8", ExitStatus.MALFORMED)
    if args.raw:
        emit_raw(data)
    elif args.hex:
        emit_hex(data, args.hex)
    elif args.json:
        emit_json(getattr(persist, f"{stem}_json")(data))
    else:
        emit(getattr(persist, f"{stem}_lines")(data))
    return ExitStatus.OK


def _out(args: argparse.Namespace, session: Session, option: str) -> int:
    from initiator.cli_session import emit_json
    from vscsi.scsi import cdb, reservations

    _, name = OUT[option]
    if option == "register-move":
        if len(args.transport_id) != 1:
            raise CliError("persist: --register-move needs one --transport-id", ExitStatus.CONTRADICTING_OPTIONS)
        data = reservations.encode_move(
            args.param_rk, args.param_sark, args.relative_target_port, args.transport_id[0],
            unreg=args.unreg, aptpl=args.param_aptpl,
        )  # fmt: skip
    else:
        if args.unreg:
            raise CliError("persist: --unreg goes with --register-move only", ExitStatus.CONTRADICTING_OPTIONS)
        data = reservations.encode_out(
            args.param_rk, args.param_sark, transportids=args.transport_id, aptpl=int(args.param_aptpl),
            all_tg_pt=int(args.param_alltgpt),
        )  # fmt: skip
    row = getattr(cdb, f"PERSISTENT_RESERVE_OUT_{name}")
    session.execute(row.build(type=args.prout_type, parameter_list_length=len(data)), data_out=data)
    if args.json:
        emit_json({"action": option.replace("-", "_"), "done": True})
    return ExitStatus.OK


def run(args: argparse.Namespace, session: Session) -> int:
    """Show or change."""
    option = args.action or "read-keys"
    return _in(args, session, option) if option in IN else _out(args, session, option)
