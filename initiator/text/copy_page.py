# SPDX-License-Identifier: BSD-2-Clause
"""The third-party copy VPD page (8Fh) as sg_vpd prints it, and for JSON: one kind of descriptor a row.

Knows sg_vpd's words for them; layouts are in `vscsi/scsi/vpd_copy.py`. Must not know what a copy manager can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from initiator.text.opcodes import name_of
from vscsi.scsi import vpd_copy
from vscsi.scsi.vpd_copy import Descriptor

UNBOUNDED_32, UNBOUNDED_64 = (1 << 32) - 1, (1 << 64) - 1
DESCRIPTORS = {
    0x00: "block -> stream", 0x01: "stream -> block", 0x02: "block -> block", 0x03: "stream -> stream",
    0x04: "inline -> stream", 0x05: "embedded -> stream", 0x06: "stream -> discard", 0x07: "verify CSCD",
    0x0A: "block<o> -> block<o>", 0x0D: "block -> block & application_client",
    0x14: "register persistent reservation key", 0x15: "third party persistent reservation source I_T nexus",
    0xBE: "ROD <- block range(n)", 0xBF: "ROD <- block range(1)", 0xE0: "CSCD: FC N_Port_Name",
    0xE4: "CSCD: Identification Descriptor", 0xE5: "CSCD: IPv4", 0xE6: "CSCD: Alias", 0xE7: "CSCD: RDMA",
    0xE9: "CSCD: SAS SSP", 0xEA: "CSCD: IPv6", 0xEB: "CSCD: IP copy service", 0xFE: "CSCD: ROD",
    0xFF: "CSCD: extension",
}  # fmt: skip
ROD_TYPES = {
    0x0: "copy manager internal", 0x10000: "access upon reference", 0x800000: "point in time copy - default",
    0x800001: "point in time copy - change vulnerable", 0x800002: "point in time copy - persistent",
    0x80FFFF: "point in time copy - any", 0xFFFF0001: "block device zero",
}  # fmt: skip
CSCD_IDS = {
    0xC000: "copy src or dst null LU, pdt=0", 0xC001: "copy src or dst null LU, pdt=1",
    0xF800: "copy src or dst in ROD token", 0xFFFF: "copy src or dst is copy manager LU",
}  # fmt: skip


def _or_none(value: int, unit: str = "") -> str:
    return f"{value}{unit}" if value else "0 [not reported]"


def _limit(value: int) -> str:
    return "-1 [no limit]" if value == UNBOUNDED_64 else str(value)


def _power(exponent: int) -> str:
    return str(1 << exponent) if exponent < 64 else f"too large [2^{exponent}]"


def _named(words: str | None, code: str) -> str:
    return f"  {words} [{code}]" if words else f"  {code}"


def commands_of(raw: bytes) -> Iterator[tuple[int, int | None]]:
    """(opcode, service action) of the descriptor of supported commands; never raises."""
    rest = raw[5 : 5 + raw[4]] if len(raw) > 4 else b""
    while len(rest) >= 2:
        opcode, count = rest[0], rest[1]
        yield from ((opcode, sa) for sa in rest[2 : 2 + count])
        if not count:
            yield opcode, None
        rest = rest[2 + count :]


def _limits(raw: bytes) -> Iterator[str]:
    f = vpd_copy.BLOCK_ROD_LIMITS.numbers(raw)
    longest = f["maximum_inactivity_timeout"]
    yield " Block Device ROD Token Limits:"
    yield f"  Maximum range descriptors: {_or_none(f['maximum_range_descriptors'])}"
    none = longest == UNBOUNDED_32
    yield f"  Maximum inactivity timeout: {'-1 [no maximum given]' if none else _or_none(longest, ' seconds')}"
    yield f"  Default inactivity timeout: {_or_none(f['default_inactivity_timeout'], ' seconds')}"
    yield f"  Maximum token transfer size: {_or_none(f['maximum_token_transfer_size'])}"
    yield f"  Optimal transfer count: {_or_none(f['optimal_transfer_count'])}"


def _commands(raw: bytes) -> Iterator[str]:
    yield " Supported commands:"
    yield from (f"  {name_of(opcode, sa)}" for opcode, sa in commands_of(raw))


def _parameters(raw: bytes) -> Iterator[str]:
    f = vpd_copy.PARAMETER_DATA.numbers(raw)
    yield " Parameter data:"
    yield f"  Maximum CSCD descriptor count: {f['maximum_cscd_descriptor_count']}"
    yield f"  Maximum segment descriptor count: {f['maximum_segment_descriptor_count']}"
    yield f"  Maximum descriptor list length: {f['maximum_descriptor_list_length']}"
    yield f"  Maximum inline data length: {f['maximum_inline_data_length']}"


def _descriptors(raw: bytes) -> Iterator[str]:
    yield " Supported descriptors:"
    yield from (_named(DESCRIPTORS.get(code), f"{code:#x}") for code in raw[5 : 5 + raw[4]])


def _ids(raw: bytes) -> list[int]:
    body = raw[6 : 6 + int.from_bytes(raw[4:6])]
    return [int.from_bytes(body[i : i + 2]) for i in range(0, len(body) - 1, 2)]


def _cscd_ids(raw: bytes) -> Iterator[str]:
    yield " Supported CSCD IDs (above 0x7ff):"
    yield from (_named(CSCD_IDS.get(number), f"0x{number:04x}") for number in _ids(raw))


def _features(raw: bytes) -> Iterator[str]:
    f = vpd_copy.ROD_TOKEN_FEATURES.numbers(raw)
    yield " ROD token features:"
    yield f"  Remote tokens: {f['remote_tokens']}"
    yield f"  Minimum token lifetime: {f['minimum_token_lifetime']} seconds"
    yield f"  Maximum token lifetime: {f['maximum_token_lifetime']} seconds"
    yield f"  Maximum token inactivity timeout: {f['maximum_token_inactivity_timeout']}"
    for device in _devices(raw):
        yield f"  Optimal block ROD length granularity: {device['optimal_rod_length_granularity']}"
        yield f"  Maximum Bytes in block ROD: {device['maximum_rod_length']}"
        yield f"  Optimal Bytes in block ROD transfer: {_limit(device['optimal_rod_length'])}"
        yield f"  Optimal Bytes to token per segment: {_limit(device['optimal_length_to_rod'])}"
        yield f"  Optimal Bytes from token per segment: {_limit(device['optimal_length_from_rod'])}"


def _devices(raw: bytes) -> list[dict[str, int]]:
    """Features of block devices; other kinds are left out."""
    layout = vpd_copy.DEVICE_ROD_FEATURES
    rest, found = raw[vpd_copy.ROD_TOKEN_FEATURES.nbytes :], []
    while len(rest) >= 4:
        end = 4 + int.from_bytes(rest[2:4])
        if rest[0] == 0 and layout.nbytes <= end <= len(rest):
            found.append(layout.numbers(rest[:end]))
        rest = rest[end:]
    return found


def _types(raw: bytes) -> list[dict[str, int]]:
    body = raw[8 : 8 + int.from_bytes(raw[6:8])]
    return [vpd_copy.ROD_TYPE.numbers(body[i : i + 64]) for i in range(0, len(body) - 63, 64)]


def _rod_types(raw: bytes) -> Iterator[str]:
    yield " Supported ROD token and ROD types:"
    for f in _types(raw):
        yield "  ROD type: " + _named(ROD_TYPES.get(f["rod_type"]), f"{f['rod_type']:#x}").strip()
        yield f"    Internal: {'yes' if f['ecpy_int'] else 'no'}"
        yield f"    Token in: {'yes' if f['token_in'] else 'no'}"
        yield f"    Token out: {'yes' if f['token_out'] else 'no'}"
        yield f"    Preference: {f['preference_indicator']}"


def _general(raw: bytes) -> Iterator[str]:
    f = vpd_copy.GENERAL_OPERATIONS.numbers(raw)
    yield " General copy operations:"
    yield f"  Total concurrent copies: {f['total_concurrent_copies']}"
    yield f"  Maximum identified concurrent copies: {f['maximum_identified_concurrent_copies']}"
    yield f"  Maximum segment length: {f['maximum_segment_length']}"
    yield f"  Data segment granularity: {_power(f['data_segment_granularity'])}"
    yield f"  Inline data granularity: {_power(f['inline_data_granularity'])}"


_LINES: dict[int, tuple[int, Callable[[bytes], Iterator[str]]]] = {
    Descriptor.BLOCK_ROD_LIMITS: (36, _limits),
    Descriptor.SUPPORTED_COMMANDS: (5, _commands),
    Descriptor.PARAMETER_DATA: (32, _parameters),
    Descriptor.SUPPORTED_DESCRIPTORS: (5, _descriptors),
    Descriptor.SUPPORTED_CSCD_IDS: (6, _cscd_ids),
    Descriptor.ROD_TOKEN_FEATURES: (48, _features),
    Descriptor.SUPPORTED_ROD_TYPES: (8, _rod_types),
    Descriptor.GENERAL_OPERATIONS: (36, _general),
}
"""Least length of each kind of descriptor, and its lines."""


def lines(page: bytes) -> Iterator[str]:
    """The page."""
    for kind, raw in vpd_copy.decode(page):
        least, show = _LINES.get(kind, (1 << 16, _general))
        if len(raw) >= least:
            yield from show(raw)
        else:
            yield f" Unexpected type={kind}: {raw.hex(' ')}"


def _fields_of(kind: int, raw: bytes) -> dict[str, Any]:
    fixed = {
        Descriptor.BLOCK_ROD_LIMITS: vpd_copy.BLOCK_ROD_LIMITS,
        Descriptor.PARAMETER_DATA: vpd_copy.PARAMETER_DATA,
        Descriptor.ROD_TOKEN_FEATURES: vpd_copy.ROD_TOKEN_FEATURES,
        Descriptor.GENERAL_OPERATIONS: vpd_copy.GENERAL_OPERATIONS,
    }
    if kind in fixed:
        more = {"device_features": _devices(raw)} if kind == Descriptor.ROD_TOKEN_FEATURES else {}
        fields = fixed[Descriptor(kind)].numbers(raw)
        return {name: value for name, value in fields.items() if not name.startswith("descriptor_")} | more
    if kind == Descriptor.SUPPORTED_COMMANDS:
        rows = [{"operation_code": o, "service_action": s, "name": name_of(o, s)} for o, s in commands_of(raw)]
        return {"commands": rows}
    if kind == Descriptor.SUPPORTED_DESCRIPTORS and len(raw) > 4:
        return {"descriptor_type_codes": list(raw[5 : 5 + raw[4]])}
    if kind == Descriptor.SUPPORTED_CSCD_IDS:
        return {"cscd_descriptor_ids": _ids(raw)}
    if kind == Descriptor.SUPPORTED_ROD_TYPES:
        return {"rod_types": _types(raw)}
    return {"hex": raw[4:].hex()}


def fields(page: bytes) -> dict[str, Any]:
    """The page for JSON."""
    return {
        "third_party_copy_descriptors": [
            {
                "descriptor_type": kind,
                "descriptor_name": Descriptor(kind).name.lower() if kind in list(Descriptor) else None,
                **_fields_of(kind, raw),
            }
            for kind, raw in vpd_copy.decode(page)
        ]
    }
