# SPDX-License-Identifier: BSD-2-Clause
"""What PERSISTENT RESERVE IN returns, as sg_persist prints it, and for JSON.

Knows sg_persist's words; layouts are in `vscsi/scsi/reservations.py`. Must not know how the data was fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vscsi.scsi import reservations
from vscsi.scsi.reservations import CAPABILITIES, Type

_FLAGS = {
    "rlr_c": "Replace Lost Reservation Capable(RLR_C)",
    "crh": "Compatible Reservation Handling(CRH)",
    "sip_c": "Specify Initiator Ports Capable(SIP_C)",
    "atp_c": "All Target Ports Capable(ATP_C)",
    "ptpl_c": "Persist Through Power Loss Capable(PTPL_C)",
    "tmv": "Type Mask Valid(TMV)",
    "allow_commands": "Allow Commands",
    "ptpl_a": "Persist Through Power Loss Active(PTPL_A)",
}
_MASK = {"wr_ex_ar": 7, "ex_ac_ro": 6, "wr_ex_ro": 5, "ex_ac": 3, "wr_ex": 1, "ex_ac_ar": 8}


def type_name(number: int) -> str:
    """A reservation type in sg_persist's words."""
    try:
        words = Type(number).text
    except ValueError:
        return f"obsolete [{number:#x}]" if number > 9 else f"obsolete [{number}]"
    return words.replace("write exclusive", "Write Exclusive").replace("exclusive access", "Exclusive Access")


def _scope(scope: int) -> str:
    return "scope: LU_SCOPE, " if scope == reservations.SCOPE_LOGICAL_UNIT else f"scope: {scope} "


def keys_lines(data: bytes) -> Iterator[str]:
    """READ KEYS."""
    generation, keys = reservations.decode_keys(data)
    if not keys:
        yield f"  PR generation={generation:#x}, there are NO registered reservation keys"
        return
    plural = "1 registered reservation key follows:" if len(keys) == 1 else (
        f"{len(keys)} registered reservation keys follow:"
    )  # fmt: skip
    yield f"  PR generation={generation:#x}, {plural}"
    for key in keys:
        yield f"    {key:#x}"


def keys_json(data: bytes) -> dict[str, Any]:
    """READ KEYS; keys in hex."""
    generation, keys = reservations.decode_keys(data)
    return {"prgeneration": generation, "reservation_keys": [f"{key:#x}" for key in keys]}


def reservation_lines(data: bytes) -> Iterator[str]:
    """READ RESERVATION."""
    generation, held = reservations.decode_reservation(data)
    if held is None:
        yield f"  PR generation={generation:#x}, there is NO reservation held"
        return
    yield f"  PR generation={generation:#x}, Reservation follows:"
    yield f"    Key={held['reservation_key']:#x}"
    yield f"    {_scope(held['scope'])} type: {type_name(held['type'])}"


def reservation_json(data: bytes) -> dict[str, Any]:
    """READ RESERVATION."""
    generation, held = reservations.decode_reservation(data)
    if held is None:
        return {"prgeneration": generation, "reservation": None}
    shown = {**held, "reservation_key": f"{held['reservation_key']:#x}", "type_name": type_name(held["type"])}
    return {"prgeneration": generation, "reservation": shown}


def capabilities_lines(data: bytes) -> Iterator[str]:
    """REPORT CAPABILITIES."""
    fields = CAPABILITIES.numbers(data.ljust(CAPABILITIES.nbytes, b"\0"))
    yield "Report capabilities response:"
    for key, words in _FLAGS.items():
        yield f"  {words}: {fields[key]}"
    if fields["tmv"]:
        yield "    Support indicated in Type mask:"
        for key, number in _MASK.items():
            yield f"      {type_name(number)}: {fields[key]}"


def capabilities_json(data: bytes) -> dict[str, Any]:
    """REPORT CAPABILITIES."""
    return dict(CAPABILITIES.numbers(data))


def full_status_lines(data: bytes) -> Iterator[str]:
    """READ FULL STATUS."""
    generation, found = reservations.decode_full_status(data)
    yield f"  PR generation={generation:#x}"
    if not found:
        yield "  No full status descriptors"
    for one in found:
        yield f"    Key={one.key:#x}"
        if one.all_tg_pt:
            yield "      All target ports bit set"
        else:
            yield "      All target ports bit clear"
            yield f"      Relative port address: {one.relative_target_port:#x}"
        if one.holder:
            yield "      << Reservation holder >>"
            yield f"      {_scope(one.scope)} type: {type_name(one.type)}"
        else:
            yield "      not reservation holder"
        yield from _transportid(one.transportid)


def _transportid(raw: bytes) -> Iterator[str]:
    port = reservations.decode_srp_transportid(raw)
    yield "      Transport Id of initiator:"
    if port is None:
        yield f"        {reservations.describe_transportid(raw)}"
    else:
        yield "        RDMA initiator port identifier:"
        yield f"      {port[:8].hex(' ')}  {port[8:].hex(' ')}"


def full_status_json(data: bytes) -> dict[str, Any]:
    """READ FULL STATUS."""
    generation, found = reservations.decode_full_status(data)
    rows = []
    for one in found:
        port = reservations.decode_srp_transportid(one.transportid)
        rows.append(
            {
                "reservation_key": f"{one.key:#x}",
                "all_tg_pt": one.all_tg_pt,
                "relative_target_port_identifier": one.relative_target_port,
                "r_holder": one.holder,
                "scope": one.scope if one.holder else None,
                "type": one.type if one.holder else None,
                "type_name": type_name(one.type) if one.holder else None,
                "transport_id": one.transportid.hex(),
                "initiator_port": port.hex() if port else None,
            }
        )
    return {"prgeneration": generation, "full_status_descriptors": rows}
