# SPDX-License-Identifier: BSD-2-Clause
"""Vital product data pages (SPC-4 7.8, SBC-3 6.6): codes, names, layouts, designators; both ways.

Knows where fields stand. A new page is a new row of `PAGES`; target and initiator find it by code or abbreviation.
Must not know what a particular target answers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from vscsi.scsi.fields import Field, Layout, Value, be8, be16, be32, be64, bit, bits


class Page:
    """One page. `abbreviation` is sg_vpd's; `layout` (header included) is None for pages that are lists or text."""

    def __init__(self, code: int, name: str, abbreviation: str, nbytes: int = 0, **fields: Field) -> None:
        self.code, self.name, self.abbreviation = code, name, abbreviation
        self.layout = Layout(nbytes, **fields) if fields else None

    def build(self, device: int = 0, **values: Value) -> bytes:
        """The page with these fields. `device` is byte 0: peripheral qualifier and device type."""
        if self.layout is None:
            raise TypeError(f"page {self.code:02X}h has no fixed layout")
        return with_header(self.code, self.layout.build(**values)[4:], device)

    def decode(self, data: bytes) -> dict[str, Value]:
        """Fields of the page as far as the data goes."""
        return self.layout.decode(body_of(data, header=True)) if self.layout else {}


def with_header(code: int, body: bytes, device: int = 0) -> bytes:
    """A whole page: header and body."""
    return bytes([device, code]) + len(body).to_bytes(2) + body


def body_of(data: bytes, *, header: bool = False) -> bytes:
    """What the PAGE LENGTH of `data` covers, as far as the data goes."""
    if len(data) < 4:
        return b""
    return bytes(data[0 if header else 4 : 4 + int.from_bytes(data[2:4])])


SUPPORTED = Page(0x00, "Supported VPD pages", "sv")
SERIAL_NUMBER = Page(0x80, "Unit serial number", "sn")
IDENTIFICATION = Page(0x83, "Device identification", "di")
EXTENDED_INQUIRY = Page(
    0x86, "Extended INQUIRY data", "ei", 64,
    activate_microcode=bits(4, 7, 6), spt=bits(4, 5, 3), grd_chk=bit(4, 2), app_chk=bit(4, 1), ref_chk=bit(4, 0),
    uask_sup=bit(5, 5), group_sup=bit(5, 4), prior_sup=bit(5, 3), headsup=bit(5, 2), ordsup=bit(5, 1),
    simpsup=bit(5, 0), wu_sup=bit(6, 3), crd_sup=bit(6, 2), nv_sup=bit(6, 1), v_sup=bit(6, 0),
    no_pi_chk=bit(7, 5), p_i_i_sup=bit(7, 4), luiclr=bit(7, 0), lu_coll_type=bits(8, 7, 5), r_sup=bit(8, 4),
    rtd_sup=bit(8, 3), hssrelef=bit(8, 1), multi_i_t_nexus_microcode_download=bits(9, 3, 0),
    extended_self_test_completion_minutes=be16(10), poa_sup=bit(12, 7), hra_sup=bit(12, 6), vsa_sup=bit(12, 5),
    dms_valid=bit(12, 4), maximum_supported_sense_data_length=be8(13),
)  # fmt: skip
MODE_PAGE_POLICY = Page(0x87, "Mode page policy", "mpp")
THIRD_PARTY_COPY = Page(0x8F, "Third party copy", "tpc")
BLOCK_LIMITS = Page(
    0xB0, "Block limits", "bl", 64,
    wsnz=bit(4, 0), maximum_compare_and_write_length=be8(5), optimal_transfer_length_granularity=be16(6),
    maximum_transfer_length=be32(8), optimal_transfer_length=be32(12), maximum_prefetch_length=be32(16),
    maximum_unmap_lba_count=be32(20), maximum_unmap_block_descriptor_count=be32(24), optimal_unmap_granularity=be32(28),
    ugavalid=bit(32, 7), unmap_granularity_alignment=Field(32, 4, 0, 31), maximum_write_same_length=be64(36),
    maximum_atomic_transfer_length=be32(44), atomic_alignment=be32(48), atomic_transfer_length_granularity=be32(52),
    maximum_atomic_transfer_length_with_atomic_boundary=be32(56), maximum_atomic_boundary_size=be32(60),
)  # fmt: skip
BLOCK_DEVICE_CHARACTERISTICS = Page(
    0xB1, "Block device characteristics", "bdc", 64,
    medium_rotation_rate=be16(4), product_type=be8(6), wabereq=bits(7, 7, 6), wacereq=bits(7, 5, 4),
    nominal_form_factor=bits(7, 3, 0), mact=bit(8, 6), zoned=bits(8, 5, 4), bocs=bit(8, 2), fuab=bit(8, 1),
    vbuls=bit(8, 0),
)  # fmt: skip
LOGICAL_BLOCK_PROVISIONING = Page(
    0xB2, "Logical block provisioning", "lbpv", 8,
    threshold_exponent=be8(4), lbpu=bit(5, 7), lbpws=bit(5, 6), lbpws10=bit(5, 5), lbprz=bits(5, 4, 2),
    anc_sup=bit(5, 1), dp=bit(5, 0), minimum_percentage=bits(6, 7, 3), provisioning_type=bits(6, 2, 0),
    threshold_percentage=be8(7),
)  # fmt: skip

PAGES = {page.code: page for page in list(globals().values()) if isinstance(page, Page)}
"""Every page by its code."""


def find(name: str) -> Page | None:
    """The page with this abbreviation ("bl"), in any case."""
    return next((page for page in PAGES.values() if page.abbreviation == name.lower()), None)


def encode_supported(codes: Iterable[int], device: int = 0) -> bytes:
    """Page 00h: the supported pages, ascending."""
    return with_header(0x00, bytes(sorted(codes)), device)


def encode_serial(serial: str, device: int = 0) -> bytes:
    """Page 80h."""
    return with_header(0x80, serial.encode("ascii", "replace"), device)


def decode_serial(data: bytes) -> str:
    """The serial number of page 80h; bytes that are not ASCII become '?'."""
    return body_of(data).decode("ascii", "replace").replace("�", "?").strip(" \0")


class Association(IntEnum):
    """What a designator names."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


class DesignatorType(IntEnum):
    """DESIGNATOR TYPE (SPC-4 table 531)."""

    VENDOR_SPECIFIC = 0x0
    T10_VENDOR_ID = 0x1
    EUI_64 = 0x2
    NAA = 0x3
    RELATIVE_TARGET_PORT = 0x4
    TARGET_PORT_GROUP = 0x5
    LOGICAL_UNIT_GROUP = 0x6
    MD5 = 0x7
    SCSI_NAME_STRING = 0x8
    PROTOCOL_SPECIFIC_PORT = 0x9
    UUID = 0xA


BINARY, ASCII, UTF8 = 1, 2, 3
PROTOCOL_SRP = 4
"""PROTOCOL IDENTIFIER of SRP (SPC-4 table 438)."""


@dataclass(frozen=True, slots=True)
class Designator:
    """One designator of page 83h. `protocol` is None unless PIV is set."""

    code_set: int
    association: int
    kind: int
    value: bytes
    protocol: int | None = None

    def encode(self) -> bytes:
        head = [(self.protocol or 0) << 4 | self.code_set, self.association << 4 | self.kind, 0, len(self.value)]
        if self.protocol is not None:
            head[1] |= 0x80
        return bytes(head) + self.value


def encode_identification(designators: Iterable[Designator], device: int = 0) -> bytes:
    """Page 83h."""
    return with_header(0x83, b"".join(d.encode() for d in designators), device)


def decode_identification(data: bytes) -> Iterator[Designator]:
    """The whole designators of page 83h; ends where the data ends, whatever the bytes are."""
    rest = body_of(data)
    while len(rest) >= 4 and len(rest) >= 4 + rest[3]:
        value, (set_, kind) = rest[4 : 4 + rest[3]], rest[:2]
        yield Designator(set_ & 0xF, kind >> 4 & 0x3, kind & 0xF, value, set_ >> 4 if kind & 0x80 else None)
        rest = rest[4 + rest[3] :]


class Policy(IntEnum):
    """MODE PAGE POLICY: whose values a mode page has."""

    SHARED = 0
    PER_TARGET_PORT = 1
    PER_I_T_NEXUS = 3


MODE_POLICY = Layout(
    4, policy_page_code=bits(0, 5, 0), policy_subpage_code=be8(1), mlus=bit(2, 7), mode_page_policy=bits(2, 1, 0)
)
"""Page 3Fh with subpage FFh: all that are not named."""


def encode_mode_policies(policies: Iterable[bytes], device: int = 0) -> bytes:
    """Page 87h of `MODE_POLICY` structures."""
    return with_header(0x87, b"".join(policies), device)


def decode_mode_policies(data: bytes) -> list[dict[str, int]]:
    """Fields of each whole structure of page 87h."""
    body = body_of(data)
    return [MODE_POLICY.numbers(body[i : i + 4]) for i in range(0, len(body) - 3, 4)]


def naa_6(company: int, vendor_id: int, extension: int) -> bytes:
    """NAA IEEE Registered Extended: 24-bit company id, 36-bit vendor specific identifier, 64-bit extension."""
    return (6 << 124 | (company & 0xFFFFFF) << 100 | (vendor_id & 0xFFFFFFFFF) << 64 | extension).to_bytes(16)
