# SPDX-License-Identifier: BSD-2-Clause
"""VPD pages as sg_vpd prints them, and as dictionaries for JSON: the registry of pages and those that are plain fields.

A page is one row in SHOWN; one with a structure of its own has a file beside this one. Knows sg_vpd's words; where
fields stand is in `vscsi/scsi/vpd.py`. Must not know how a page was fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from initiator.text import copy_page, designators
from vscsi.cli import hex_dump
from vscsi.scsi import vpd as standard
from vscsi.scsi.fields import Field, Layout, be16, be32, bit

HEADER_NBYTES = 4
UNBOUNDED = 0xFFFFFFFF


@dataclass(frozen=True)
class Shown:
    """How one VPD page is shown. `lines` and `fields` get the whole page, header included."""

    title: str
    lines: Callable[[bytes], Iterator[str]]
    fields: Callable[[bytes], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One line of a page: label, which field of the page, its unit, what a zero means, how a number is written."""

    label: str
    key: str
    unit: str = ""
    zero: str = ""
    style: Callable[[int], str] = str
    words: Mapping[int, str] | None = None

    def line(self, value: int) -> str:
        if self.words is not None:
            return f"  {self.label}{self.words.get(value, '')}"
        note = f" [{self.zero}" if self.zero and not value else ""
        if note and self.key != "atomic_transfer_length_granularity":  # sg_vpd forgets this one bracket
            note += "]"
        return f"  {self.label}: {'0' if not value else self.style(value)}{self.unit}{note}"


def _count(value: int) -> str:
    return "-1 [unbounded]" if value == UNBOUNDED else str(value)


def _rows(layout: Layout, rows: tuple[Row, ...], page: bytes) -> Iterator[str]:
    """A line for each row whose field the page is long enough to hold: newer standards have longer pages."""
    fields = layout.numbers(page)
    return (row.line(fields[row.key]) for row in rows if row.key in fields)


def _layout(page: standard.Page, **more: Field) -> Layout:
    """The layout of a page, with fields of newer or older standards that sg_vpd shows besides."""
    assert page.layout is not None
    return Layout(page.layout.nbytes, **{**more, **page.layout.fields})


def _fields(layout: Layout) -> Callable[[bytes], dict[str, Any]]:
    return lambda page: dict(layout.numbers(page))


# ---- 00h, 80h ----


def _supported_lines(page: bytes) -> Iterator[str]:
    for code in page[HEADER_NBYTES:]:
        known = NAMES.get(code)
        yield f"  {known[1]} [{known[0]}]" if known else f"  {code:#x}"


def _supported_fields(page: bytes) -> dict[str, Any]:
    return {"supported_vpd_pages": [f"0x{code:02x}" for code in page[HEADER_NBYTES:]]}


def _ascii(data: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data.rstrip(b"\0"))


def _serial_lines(page: bytes) -> Iterator[str]:
    yield f"  Unit serial number: {_ascii(page[HEADER_NBYTES:])}"


def _serial_fields(page: bytes) -> dict[str, Any]:
    return {"unit_serial_number": _ascii(page[HEADER_NBYTES:]).strip()}


# ---- 86h: lines of flags ----

_EXTENDED = _layout(
    standard.EXTENDED_INQUIRY,
    crd_sup=bit(6, 2), cbcs=bit(8, 0),
    ibs=bit(14, 7), ias=bit(14, 6), sac=bit(14, 2), nrd1=bit(14, 1), nrd0=bit(14, 0),
    maximum_inquiry_change_logs=be16(15), maximum_mode_page_change_logs=be16(17),
    dm_md_4=bit(19, 7), dm_md_5=bit(19, 6), dm_md_6=bit(19, 5), dm_md_7=bit(19, 4),
    dm_md_d=bit(19, 3), dm_md_e=bit(19, 2), dm_md_f=bit(19, 1),
)  # fmt: skip
_EXTENDED_LINES = (
    "  ACTIVATE_MICROCODE={activate_microcode} SPT={spt} GRD_CHK={grd_chk} APP_CHK={app_chk} REF_CHK={ref_chk}",
    "  UASK_SUP={uask_sup} GROUP_SUP={group_sup} PRIOR_SUP={prior_sup} HEADSUP={headsup} ORDSUP={ordsup} "
    "SIMPSUP={simpsup}",
    "  WU_SUP={wu_sup} [CRD_SUP={crd_sup}] NV_SUP={nv_sup} V_SUP={v_sup}",
    "  NO_PI_CHK={no_pi_chk} P_I_I_SUP={p_i_i_sup} LUICLR={luiclr}",
    "  LU_COLL_TYPE={lu_coll_type} R_SUP={r_sup} RTD_SUP={rtd_sup} HSSRELEF={hssrelef} [CBCS={cbcs}]",
    "  Multi I_T nexus microcode download={multi_i_t_nexus_microcode_download}",
    "  Extended self-test completion minutes={extended_self_test_completion_minutes}",
    "  POA_SUP={poa_sup} HRA_SUP={hra_sup} VSA_SUP={vsa_sup} DMS_VALID={dms_valid}",
    "  Maximum supported sense data length={maximum_supported_sense_data_length}",
    "  IBS={ibs} IAS={ias} SAC={sac} NRD1={nrd1} NRD0={nrd0}",
    "  Maximum inquiry change logs={maximum_inquiry_change_logs}",
    "  Maximum mode page change logs={maximum_mode_page_change_logs}",
    "  DM_MD_4={dm_md_4} DM_MD_5={dm_md_5} DM_MD_6={dm_md_6} DM_MD_7={dm_md_7}",
    "  DM_MD_D={dm_md_d} DM_MD_E={dm_md_e} DM_MD_F={dm_md_f}",
)


def _extended_lines(page: bytes) -> Iterator[str]:
    fields = _EXTENDED.numbers(page.ljust(_EXTENDED.nbytes, b"\0"))
    return (line.format_map(fields) for line in _EXTENDED_LINES)


# ---- 87h ----

_POLICIES = ("shared", "per target port", "per initiator port", "per I_T nexus")


def _policy_lines(page: bytes) -> Iterator[str]:
    for k, row in enumerate(standard.decode_mode_policies(page)):
        code, subpage = row["policy_page_code"], row["policy_subpage_code"]
        yield f"  Policy page code: {code:#x}" + (f",  subpage code: {subpage:#x}" if subpage else "")
        if k == 0 and (code, subpage) == (0x3F, 0xFF):
            yield "  therefore the policy applies to all modes pages and subpages"
        yield f"    MLUS={row['mlus']},  Policy: {_POLICIES[row['mode_page_policy']]}"


def _policy_fields(page: bytes) -> dict[str, Any]:
    return {"mode_page_policy_descriptors": standard.decode_mode_policies(page)}


# ---- B0h, B1h, B2h: one field a line ----

_LIMITS_LAYOUT = _layout(standard.BLOCK_LIMITS)
_ALIGNMENT = "Unmap granularity alignment"
_LIMITS = (
    Row("Write same non-zero (WSNZ)", "wsnz"),
    Row("Maximum compare and write length", "maximum_compare_and_write_length", " blocks",
        "Command not implemented"),
    Row("Optimal transfer length granularity", "optimal_transfer_length_granularity", " blocks",
        "not reported"),
    Row("Maximum transfer length", "maximum_transfer_length", " blocks", "not reported"),
    Row("Optimal transfer length", "optimal_transfer_length", " blocks", "not reported"),
    Row("Maximum prefetch transfer length", "maximum_prefetch_length", " blocks", "ignored"),
    Row("Maximum unmap LBA count", "maximum_unmap_lba_count", "", "Unmap command not implemented", _count),
    Row("Maximum unmap block descriptor count", "maximum_unmap_block_descriptor_count", "",
        "Unmap command not implemented", _count),
    Row("Optimal unmap granularity", "optimal_unmap_granularity", " blocks", "not reported"),
    Row("Unmap granularity alignment valid: ", "ugavalid", words={0: "false", 1: "true"}),
    Row(_ALIGNMENT, "unmap_granularity_alignment"),
    Row("Maximum write same length", "maximum_write_same_length", " blocks", "not reported", hex),
    Row("Maximum atomic transfer length", "maximum_atomic_transfer_length", " blocks", "not reported"),
    Row("Atomic alignment", "atomic_alignment", "", "unaligned atomic writes permitted"),
    Row("Atomic transfer length granularity", "atomic_transfer_length_granularity", "",
        "no granularity requirement"),
    Row("Maximum atomic transfer length with atomic boundary",
        "maximum_atomic_transfer_length_with_atomic_boundary", " blocks", "not reported"),
    Row("Maximum atomic boundary size", "maximum_atomic_boundary_size", " blocks",
        "can only write atomic 1 block"),
)  # fmt: skip


def _limits_lines(page: bytes) -> Iterator[str]:
    unaligned = f"  {_ALIGNMENT}:"
    valid = page[32:33] and page[32] & 0x80
    for line in _rows(_LIMITS_LAYOUT, _LIMITS, page):
        yield line + (" [invalid]" if line.startswith(unaligned) and not valid else "")


def _rotation(rate: int) -> str:
    if rate == 0:
        return "  Medium rotation rate is not reported"
    if rate == 1:
        return "  Non-rotating medium (e.g. solid state)"
    if rate < 0x401 or rate == 0xFFFF:
        return f"  Reserved [{rate:#x}]"
    return f"  Nominal rotation rate: {rate} rpm"


_PRODUCT_TYPES = {
    0: "Not specified", 1: "CFast", 2: "CompactFlash", 3: "MemoryStick", 4: "MultiMediaCard",
    5: "Secure Digital Card (SD)", 6: "XQD", 7: "Universal Flash Storage Card (UFS)",
} | {code: f"Reserved [{code:#x}]" for code in range(8, 0xF0)} | {
    code: f"Vendor specific [{code:#x}]" for code in range(0xF0, 0x100)
}  # fmt: skip
_FORM_FACTORS = {0: " not reported", 1: ": 5.25 inch", 2: ": 3.5 inch", 3: ": 2.5 inch", 4: ": 1.8 inch",
                 5: ": less then 1.8 inch"} | dict.fromkeys(range(6, 16), ": reserved")  # fmt: skip
_CHARACTERISTICS = (
    Row("Product type: ", "product_type", words=_PRODUCT_TYPES),
    Row("WABEREQ=", "wabereq", words={n: str(n) for n in range(4)}),
    Row("WACEREQ=", "wacereq", words={n: str(n) for n in range(4)}),
    Row("Nominal form factor", "nominal_form_factor", words=_FORM_FACTORS),
    Row("ZONED=", "zoned", words={0: "0", 1: "1  [host-aware]", 2: "2  [host-managed]", 3: "3"}),
    *(Row(f"{name}=", name.lower(), words={0: "0", 1: "1"}) for name in ("RBWZ", "BOCS", "FUAB", "VBULS")),
)  # fmt: skip
_CHARACTERISTICS_LAYOUT = _layout(standard.BLOCK_DEVICE_CHARACTERISTICS, rbwz=bit(8, 3), depopulation_time=be32(12))


def _characteristics_lines(page: bytes) -> Iterator[str]:
    page = page.ljust(_CHARACTERISTICS_LAYOUT.nbytes, b"\0")
    fields = _CHARACTERISTICS_LAYOUT.numbers(page)
    yield _rotation(fields["medium_rotation_rate"])
    yield from _rows(_CHARACTERISTICS_LAYOUT, _CHARACTERISTICS, page)
    yield f"  DEPOPULATION_TIME={fields['depopulation_time']} (seconds)"


_PROVISIONING_TYPES = {
    0: "0 (not known or fully provisioned)",
    1: "1 (resource provisioned)",
    2: "2 (thin provisioned)",
} | {code: f"{code} (reserved [{code:#x}])" for code in range(3, 8)}
_PROVISIONING = (
    Row("Unmap command supported (LBPU)", "lbpu"),
    Row("Write same (16) with unmap bit supported (LBPWS)", "lbpws"),
    Row("Write same (10) with unmap bit supported (LBPWS10)", "lbpws10"),
    Row("Logical block provisioning read zeros (LBPRZ)", "lbprz"),
    Row("Anchored LBAs supported (ANC_SUP)", "anc_sup"),
    Row("Threshold exponent", "threshold_exponent", "", "threshold sets not supported"),
    Row("Descriptor present (DP)", "dp"),
    Row("Minimum percentage", "minimum_percentage", "", "not reported"),
    Row("Provisioning type: ", "provisioning_type", words=_PROVISIONING_TYPES),
    Row("Threshold percentage", "threshold_percentage", "", "percentages not supported"),
)


_PROVISIONING_LAYOUT = _layout(standard.LOGICAL_BLOCK_PROVISIONING)


def _provisioning_lines(page: bytes) -> Iterator[str]:
    yield from _rows(_PROVISIONING_LAYOUT, _PROVISIONING, page)
    if page[5:6] and page[5] & 1 and len(page) > 11 and page[11]:
        yield "  Provisioning group descriptor:"
        yield from designators.lines_of(page[8:], indent="    ")


SHOWN: dict[int, Shown] = {
    0x00: Shown("Supported VPD pages VPD page", _supported_lines, _supported_fields),
    0x80: Shown("Unit serial number VPD page", _serial_lines, _serial_fields),
    0x83: Shown("Device Identification VPD page", designators.page_lines, designators.page_fields),
    0x86: Shown("extended INQUIRY data VPD page", _extended_lines, _fields(_EXTENDED)),
    0x87: Shown("Mode page policy VPD page", _policy_lines, _policy_fields),
    0x8F: Shown("Third party copy VPD page", copy_page.lines, copy_page.fields),
    0xB0: Shown("Block limits VPD page (SBC)", _limits_lines, _fields(_LIMITS_LAYOUT)),
    0xB1: Shown(
        "Block device characteristics VPD page (SBC)", _characteristics_lines, _fields(_CHARACTERISTICS_LAYOUT)
    ),
    0xB2: Shown("Logical block provisioning VPD page (SBC)", _provisioning_lines, _fields(_PROVISIONING_LAYOUT)),
}

# Abbreviation and name, as sg_vpd lists them. A page that is not in SHOWN is shown in hex only.
NAMES: dict[int, tuple[str, str]] = {
    0x00: ("sv", "Supported VPD pages"),
    0x80: ("sn", "Unit serial number"),
    0x83: ("di", "Device identification"),
    0x85: ("mna", "Management network addresses"),
    0x86: ("ei", "Extended inquiry data"),
    0x87: ("mpp", "Mode page policy"),
    0x88: ("sp", "SCSI ports"),
    0x8A: ("pc", "Power condition"),
    0x8D: ("psm", "Power consumption"),
    0x8F: ("tpc", "Third party copy"),
    0x90: ("pslu", "Protocol-specific logical unit information"),
    0x91: ("pspo", "Protocol-specific port information"),
    0x92: ("sfs", "SCSI feature sets"),
    0xB0: ("bl", "Block limits (SBC)"),
    0xB1: ("bdc", "Block device characteristics (SBC)"),
    0xB2: ("lbpv", "Logical block provisioning (SBC)"),
    0xB3: ("ref", "Referrals (SBC)"),
    0xB4: ("sbl", "Supported block lengths and protection types (SBC)"),
    0xB5: ("bdce", "Block device characteristics extension (SBC)"),
    0xB7: ("ble", "Block limits extension (SBC)"),
}
CODES: dict[str, int] = {abbreviation: code for code, (abbreviation, _) in NAMES.items()}


def lines(page: bytes) -> Iterator[str]:
    """What `sg_vpd` prints for a page; a page it has no words for is a hex dump."""
    known = SHOWN.get(page[1])
    if known is None:
        name = NAMES.get(page[1])
        yield f"{name[1]} VPD page:" if name else f"VPD page={page[1]:#x}:"
        yield from hex_dump(page)
        return
    yield f"{known.title}:"
    yield from known.lines(page)


def to_json(page: bytes) -> dict[str, Any]:
    """Every field of a page by its name in the standard."""
    known = SHOWN.get(page[1])
    head = {"peripheral_qualifier": page[0] >> 5, "peripheral_device_type": page[0] & 0x1F, "page_code": page[1]}
    return {**head, **(known.fields(page) if known else {"hex": page[HEADER_NBYTES:].hex()})}
