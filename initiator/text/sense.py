# SPDX-License-Identifier: BSD-2-Clause
"""Sense data as sg_decode_sense prints it, and as a dictionary for JSON.

Knows sg3_utils' words; formats stand in `vscsi/scsi/sense_data.py`. Must not know which command failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initiator.text import sense_codes
from vscsi.scsi import sense

KEYS = (
    "No Sense", "Recovered Error", "Not Ready", "Medium Error", "Hardware Error", "Illegal Request", "Unit Attention",
    "Data Protect", "Blank Check", "Vendor specific(9)", "Copy Aborted", "Aborted Command", "Equal", "Volume Overflow",
    "Miscompare", "Completed",
)  # fmt: skip
SENSE_KEY_SPECIFIC, FIELD_REPLACEABLE_UNIT, STREAM, BLOCK = 0x02, 0x03, 0x04, 0x05
TOO_SHORT = ">> descriptor too short"


def additional(asc: int, ascq: int) -> str | None:
    """The standard's words for a code, first letter large; None if nobody knows any."""
    known = sense.lookup(asc, ascq)
    if known:
        return known.name.capitalize()
    newer = sense_codes.words(asc, ascq)
    if newer:
        return newer
    from pyscsi.pyscsi.scsi_sense import sense_ascq_dict

    words = sense_ascq_dict.get(asc << 8 | ascq)
    return str(words).capitalize() if words else None


def _additional_line(asc: int, ascq: int) -> str:
    words = additional(asc, ascq)
    if words:
        return f"Additional sense: {words}"
    if asc >= 0x80:
        return f"vendor specific ASC={asc:02x}, ASCQ={ascq:02x} (hex)"
    if ascq >= 0x80:
        return f"ASC={asc:02x}, vendor specific qualification ASCQ={ascq:02x} (hex)"
    return f"ASC={asc:02x}, ASCQ={ascq:02x} (hex)"


def _percent(value: int) -> str:
    return f"{value * 100 // 65536}.{value * 100 % 65536 // 656:02d}%"


def _specific(key: int, raw: bytes) -> tuple[str, str]:
    """What the sense-key specific field is called, and what it says."""
    value = int.from_bytes(raw[1:3])
    place = f"byte {value}" + (f" bit {raw[0] & 0x07}" if raw[0] & 0x08 else "")
    if key == sense.Key.ILLEGAL_REQUEST:
        return "Field pointer", f"Error in {'Command' if raw[0] & 0x40 else 'Data parameters'}: {place}"
    if key in (sense.Key.NO_SENSE, sense.Key.NOT_READY):
        return "Progress indication", _percent(value)
    if key in (sense.Key.HARDWARE_ERROR, sense.Key.MEDIUM_ERROR, sense.Key.RECOVERED_ERROR):
        return "Actual retry count", str(value)
    if key == sense.Key.COPY_ABORTED:
        start = "segment descriptor" if raw[0] & 0x20 else "parameter list"
        return "Segment pointer", f"Relative to start of {start}, {place}"
    if key == sense.Key.UNIT_ATTENTION:
        return "Unit attention condition queue", f"overflow flag is {raw[0] & 1}"
    return "", f"Sense_key: {key:#x} unexpected"


def _specific_fixed(key: int, raw: bytes) -> str:
    label, words = _specific(key, raw)
    if label == "Field pointer":
        label = "Sense Key Specific"
    elif label == "Actual retry count":
        words = f"0x{raw[1:3].hex()}"
    return f"  {label}: {words}" if label else f"  {words}"


def _specific_descriptor(key: int, raw: bytes) -> str:
    label, words = _specific(key, raw)
    apart = label in ("Field pointer", "Segment pointer", "Unit attention condition queue")
    return f"Sense key specific: {label}:\n        {words}" if apart else f"Sense key specific: {label}: {words}"


def _fixed(raw: bytes) -> Iterator[str]:
    data = raw[: 8 + raw[7]] if len(raw) > 7 else raw
    if len(data) > 12:
        yield _additional_line(data[12], data[13] if len(data) > 13 else 0)
    information = int.from_bytes(data[3:7]) if len(data) > 6 else 0
    valid = len(data) > 6 and data[0] & 0x80
    line = f"  {'' if valid else 'Valid=0, '}Info fld={information:#x} [{information}] " if valid or information else ""
    for bit, name in ((0x80, " FMK"), (0x40, " EOM"), (0x20, " ILI")):
        line += name if data[2] & bit else ""
    if line:
        yield line
    if len(data) >= 15 and data[14]:
        yield f"  Field replaceable unit code: {data[14]}"
    if len(data) >= 18 and data[15] & 0x80:
        yield _specific_fixed(data[2] & 0xF, data[15:18])


def _descriptors(raw: bytes) -> Iterator[tuple[int, bytes]]:
    rest = raw[8 : 8 + raw[7]] if len(raw) > 7 else b""
    while len(rest) >= 2:
        yield rest[0], rest[: 2 + rest[1]]
        rest = rest[2 + rest[1] :]


def _descriptor_line(key: int, kind: int, body: bytes) -> str:
    if kind in (0x00, 0x01):
        if len(body) < 12:
            return f"{'Command specific' if kind else 'Information'}:    {TOO_SHORT}"
        note = "" if kind or body[2] & 0x80 else "Valid=0 (-> vendor specific) "
        return f"{'Command specific' if kind else 'Information'}: {note}0x{body[4:12].hex()}"
    if kind == SENSE_KEY_SPECIFIC:
        if len(body) < 7 or not body[4] & 0x80:
            return f"Sense key specific:    {TOO_SHORT}"
        return _specific_descriptor(key, body[4:7])
    if kind == FIELD_REPLACEABLE_UNIT and len(body) >= 4:
        return f"Field replaceable unit code: {body[3]:#x}"
    if kind == STREAM and len(body) >= 4:
        names = {0x80: "FILEMARK", 0x40: "End Of Medium (EOM)", 0x20: "Incorrect Length Indicator (ILI)"}
        return "Stream commands: " + "".join(name for bit, name in names.items() if body[3] & bit)
    if kind == BLOCK and len(body) >= 4:
        return f"Block commands: Incorrect Length Indicator (ILI) {'set' if body[3] & 0x20 else 'clear'}"
    return f"Unknown or vendor specific [{kind:#x}]: {body.hex(' ')}"


def lines(raw: bytes) -> Iterator[str]:
    """What sg_decode_sense prints; any bytes may come."""
    code = raw[0] & 0x7F if raw else 0
    if len(raw) < 4:
        yield f"sense buffer too short ({'empty' if not raw else '4 byte minimum'})"
        return
    if code not in (0x70, 0x71, 0x72, 0x73):
        yield f"Unknown response code: {code:#x}"
        return
    descriptor = code >= 0x72
    key = raw[1 if descriptor else 2] & 0xF
    form = "Descriptor" if descriptor else "Fixed"
    yield f"{form} format, {'<<<deferred>>>' if code & 1 else 'current'}; Sense key: {KEYS[key]}"
    if (raw[4:5] and raw[4] & 0x80) if descriptor else raw[2] & 0x10:
        yield "<<<Sense data overflow (SDAT_OVFL)>>>"
    if not descriptor:
        yield from _fixed(raw)
        return
    yield _additional_line(raw[2], raw[3])
    for kind, body in _descriptors(raw):
        yield from f"  Descriptor type: {_descriptor_line(key, kind, body)}".split("\n")


def to_json(raw: bytes) -> dict[str, Any]:
    """Every field by its name."""
    found = sense.decode(raw)
    pointer = found.field_pointer
    return {
        "response_code": found.response_code,
        "deferred": found.deferred,
        "descriptor_format": found.response_code in (0x72, 0x73),
        "sense_key": found.key,
        "sense_key_name": KEYS[found.key],
        "additional_sense_code": found.asc,
        "additional_sense_code_qualifier": found.ascq,
        "additional_sense": additional(found.asc, found.ascq),
        "information": found.information,
        "command_specific_information": found.command_specific,
        "field_pointer": None
        if pointer is None
        else {
            "byte": pointer.byte,
            "bit": pointer.bit,
            "in": "cdb" if pointer.in_cdb else "segment_descriptor" if pointer.in_segment else "parameter_list",
        },
        "progress": found.progress,
        "field_replaceable_unit_code": found.fru,
        "filemark": found.filemark,
        "eom": found.eom,
        "ili": found.ili,
    }
