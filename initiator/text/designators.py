# SPDX-License-Identifier: BSD-2-Clause
"""The Device Identification VPD page (SPC-5 7.7.6) as sg_vpd prints it: designation descriptors, one kind a row.

Knows sg_vpd's words for them. Must not know which of them a device has, nor any other page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vscsi.scsi.vpd import ASCII, BINARY, UTF8, Designator, decode_identification, with_header

ASSOCIATIONS = ("Addressed logical unit", "Target port", "Target device that contains addressed lu", "Reserved [0x3]")
CODE_SETS = ("Reserved [0x0]", "Binary", "ASCII", "UTF-8")
PROTOCOLS = (
    "Fibre Channel Protocol for SCSI (FCP-5)",
    "SCSI Parallel Interface (SPI-5)",
    "Serial Storage Architecture SCSI-3 Protocol (SSA-S3P)",
    "Serial Bus Protocol for IEEE 1394 (SBP-3)",
    "SCSI RDMA Protocol (SRP)",
    "Internet SCSI (iSCSI)",
    "Serial Attached SCSI Protocol (SPL-4)",
    "Automation/Drive Interface Transport (ADT-2)",
    "AT Attachment Interface (ACS-2)",
    "USB Attached SCSI (UAS-2)",
    "SCSI over PCI Express (SOP)",
    "PCIe",
    "Oxc",
    "Oxd",
    "Oxe",
    "No specific protocol",
)


def _text(value: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in value.rstrip(b"\0").decode("utf-8", "replace"))


def _vendor_specific(value: bytes, code_set: int) -> list[str]:
    return [f"vendor specific: {_text(value) if code_set in (ASCII, UTF8) else '0x' + value.hex()}"]


def _t10(value: bytes, code_set: int) -> list[str]:
    out = [f"vendor id: {_text(value[:8])}"]
    if len(value) > 8:
        out += _vendor_specific(value[8:], code_set)
    return out


def _eui(value: bytes, code_set: int) -> list[str]:
    if len(value) not in (8, 12, 16):
        return [f"<< expect 8, 12 and 16 byte EUI, got {len(value)} >>", value.hex(" ")]
    return ["0x" + value.hex()]


def _naa(value: bytes, code_set: int) -> list[str]:
    lengths = {2: 8, 3: 8, 5: 8, 6: 16}
    naa = value[0] >> 4 if value else 0
    if code_set != BINARY:
        return [f"<< unexpected code set {code_set} for NAA >>", value.hex(" ")]
    if naa not in lengths:
        return [f"<< unexpected NAA [{naa:#x}] >>", value.hex(" ")]
    if len(value) != lengths[naa]:
        return [f"<< unexpected NAA {naa} identifier length: {len(value):#x} >>", value.hex(" ")]
    return ["0x" + value.hex()]


def _number(label: str) -> Callable[[bytes, int], list[str]]:
    def show(value: bytes, code_set: int) -> list[str]:
        if code_set != BINARY or len(value) != 4:
            return ["<< expected binary code_set, length 4 >>", value.hex(" ")]
        return [f"{label}: {int.from_bytes(value[2:4]):#x}"]

    return show


def _md5(value: bytes, code_set: int) -> list[str]:
    return ["MD5 logical unit identifier:", value.hex(" ")]


def _name(value: bytes, code_set: int) -> list[str]:
    return ["SCSI name string:", _text(value)]


def _uuid(value: bytes, code_set: int) -> list[str]:
    if code_set != BINARY or len(value) != 18 or value[0] >> 4 != 1:
        return ["<< expected binary code_set, length 18 >>", value.hex(" ")]
    digits = value[2:].hex()
    return ["Locally assigned UUID: " + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))]


TYPES: dict[int, tuple[str, Callable[[bytes, int], list[str]]]] = {
    0x0: ("vendor specific [0x0]", _vendor_specific),
    0x1: ("T10 vendor identification", _t10),
    0x2: ("EUI-64 based", _eui),
    0x3: ("NAA", _naa),
    0x4: ("Relative target port", _number("Relative target port")),
    0x5: ("Target port group", _number("Target port group")),
    0x6: ("Logical unit group", _number("Logical unit group")),
    0x7: ("MD5 logical unit identifier", _md5),
    0x8: ("SCSI name string", _name),
    0xA: ("UUID identifier", _uuid),
}


def _reserved(kind: int) -> tuple[str, Callable[[bytes, int], list[str]]]:
    return f"Reserved [{kind:#x}]", lambda value, code_set: [f"reserved designator={kind:#x}", value.hex(" ")]


def _lines(one: Designator, indent: str = "") -> Iterator[str]:
    name, show = TYPES.get(one.kind) or _reserved(one.kind)
    code_set = CODE_SETS[one.code_set] if one.code_set < len(CODE_SETS) else f"Reserved [{one.code_set:#x}]"
    yield f"{indent}    designator type: {name},  code set: {code_set}"
    if one.protocol is not None and one.association in (1, 2):
        yield f"{indent}     transport: {PROTOCOLS[one.protocol]}"
    for line in show(one.value, one.code_set):
        yield f"{indent}      {line}"


def lines_of(descriptors: bytes, indent: str = "") -> Iterator[str]:
    """The lines of designation descriptors that stand in another page."""
    for one in decode_identification(with_header(0x83, descriptors)):
        yield from _lines(one, indent)


def page_lines(page: bytes) -> Iterator[str]:
    """The page, its descriptors sorted by what they are associated with."""
    designators = list(decode_identification(page))
    for association in range(3):
        own = [one for one in designators if one.association == association]
        if own:
            yield f"  {ASSOCIATIONS[association]}:"
        for one in own:
            yield from _lines(one)


def page_fields(page: bytes) -> dict[str, Any]:
    """The descriptors in the order they came."""
    return {
        "designation_descriptors": [
            {
                "association": one.association,
                "designator_type": one.kind,
                "code_set": one.code_set,
                "protocol_identifier": one.protocol,
                "designator": _text(one.value) if one.code_set in (ASCII, UTF8) else "0x" + one.value.hex(),
            }
            for one in decode_identification(page)
        ]
    }
