# SPDX-License-Identifier: BSD-2-Clause
"""Standard INQUIRY data (SPC-5 6.6.2) as sg_inq prints it, letter for letter, and as a dictionary for JSON.

Knows sg_inq's words. Must not know how the data was fetched; data of any length is shown as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vscsi.scsi.fields import Layout, bit, bits
from vscsi.scsi.inquiry import STANDARD, VERSION_DESCRIPTORS, decode

# Bits that sg_inq shows although SPC-4 has made them obsolete or reserved.
_OBSOLETE = Layout(
    58,
    hot_pluggable=bits(1, 5, 4), aerc=bit(3, 7), trmtsk=bit(3, 6), bque=bit(6, 7), mchngr=bit(6, 3), ackreqq=bit(6, 2),
    reladr=bit(7, 7), linked=bit(7, 3), trandis=bit(7, 2), clocking=bits(56, 3, 2), qas=bit(56, 1), ius=bit(56, 0),
)  # fmt: skip

_QUALIFIERS = {
    0: "",
    1: " [PQ indicates LU temporarily unavailable]",
    3: " [PQ indicates LU not accessible via this port]",
}
_VERSIONS = ("no conformance claimed", "SCSI-1", "SCSI-2", "SPC", "SPC-2", "SPC-3", "SPC-4", "SPC-5")
DEVICE_TYPES = {
    0x00: "disk",
    0x01: "tape",
    0x02: "printer",
    0x03: "processor",
    0x04: "write once optical disk",
    0x05: "cd/dvd",
    0x06: "scanner",
    0x07: "optical memory device",
    0x08: "medium changer",
    0x09: "communications",
    0x0C: "storage array controller",
    0x0D: "enclosure services device",
    0x0E: "simplified direct access device",
    0x0F: "optical card reader/writer device",
    0x10: "bridge controller commands",
    0x11: "object based storage",
    0x12: "automation/driver interface",
    0x14: "host managed zoned block",
    0x1E: "well known logical unit",
    0x1F: "unknown or no device type",
}
# The lines of flags: as they stand in sg_inq's output, obsolete ones in brackets.
_FLAG_LINES = (
    "  PQual={peripheral_qualifier}  PDT={peripheral_device_type}  RMB={rmb}  LU_CONG={lu_cong}  "
    "hot_pluggable={hot_pluggable}  version=0x{version:02x}  [{standard}]",
    "  [AERC={aerc}]  [TrmTsk={trmtsk}]  NormACA={normaca}  HiSUP={hisup}  Resp_data_format={response_data_format}",
    "  SCCS={sccs}  ACC={acc}  TPGS={tpgs}  3PC={third_party_copy}  Protect={protect}  [BQue={bque}]",
    "  EncServ={encserv}  MultiP={multiport}  [MChngr={mchngr}]  [ACKREQQ={ackreqq}]  Addr16={addr16}",
    "  [RelAdr={reladr}]  WBus16={wbus16}  Sync={sync}  [Linked={linked}]  [TranDis={trandis}]  CmdQue={cmdque}",
)
_SPI_LINE = "  [SPI: Clocking=0x{clocking:x}  QAS={qas}  IUS={ius}]"
SHORTEST = 36


def _text(data: bytes, first: int, nbytes: int) -> str | None:
    """A text field, cut where the data ends; None if not a byte of it came."""
    if len(data) <= first:
        return None
    return data[first : first + nbytes].split(b"\0")[0].decode("latin-1").replace("\t", " ")


def _printable(text: str | None) -> str:
    """What a device says must not steer the terminal."""
    return "<none>" if text is None else "".join(c if c.isprintable() else "?" for c in text)


def lines(data: bytes) -> Iterator[str]:
    """What `sg_inq` prints for this data."""
    whole = data.ljust(STANDARD.nbytes, b"\0")
    fields: dict[str, Any] = {**STANDARD.numbers(whole), **_OBSOLETE.numbers(whole)}
    qualifier = fields["peripheral_qualifier"]
    unknown = f" [reserved or vendor specific qualifier [{qualifier}]]"
    fields["standard"] = _VERSIONS[fields["version"] & 7]
    fields["multiport"] = f"1 (VS={fields['vs']})" if fields["multip"] else "0"
    yield "standard INQUIRY:" + _QUALIFIERS.get(qualifier, unknown)
    for line in _FLAG_LINES:
        yield line.format_map(fields)
    if len(data) > 56:
        yield _SPI_LINE.format_map(fields)
    length = fields["additional_length"] + 5
    short = "" if len(data) >= length else f", but only fetched {len(data)} bytes"
    if fields["version"] & 7 >= 2 and length < SHORTEST:
        short += f"\n  [for SCSI>=2, len>={SHORTEST} is expected]"
    kind = fields["peripheral_device_type"]
    yield f"    length={length} ({length:#x}){short}   Peripheral device type: {DEVICE_TYPES.get(kind, f'{kind:#x}')}"
    if len(data) <= 8:
        yield f" Inquiry response length={len(data)}, no vendor, product or revision data"
        return
    yield f" Vendor identification: {_printable(_text(data, 8, 8))}"
    yield f" Product identification: {_printable(_text(data, 16, 16))}"
    yield f" Product revision level: {_printable(_text(data, 32, 4))}"


def to_json(data: bytes) -> dict[str, Any]:
    """Every field that came, by its name in the standard."""
    fields: dict[str, Any] = dict(decode(data))
    codes = [fields.pop(name) for name in list(fields) if name.startswith("version_descriptor_")]
    fields["version_descriptors"] = [{"code": f"0x{code:04x}", "name": VERSION_DESCRIPTORS.get(code)} for code in codes]
    return fields


def names(data: bytes) -> tuple[str, str, str, str]:
    """Device type, vendor, product and revision: what a list of devices shows of each."""
    kind = data[0] & 0x1F if data else 0x1F
    vendor, product, revision = (_printable(_text(data, *place) or "") for place in ((8, 8), (16, 16), (32, 4)))
    return DEVICE_TYPES.get(kind, f"{kind:#x}").split()[0], vendor, product, revision
