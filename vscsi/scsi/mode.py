# SPDX-License-Identifier: BSD-2-Clause
"""Mode parameters (SPC-4 7.5, SBC-3 6.5): headers, block descriptors, pages; both ways.

Knows where fields stand. A new page is a new row of `PAGES`. Must not know a target's values, nor which may be changed.
"""

from collections.abc import Iterator
from enum import IntEnum

from vscsi.scsi.fields import Field, Layout, Value, be8, be16, be24, be32, be64, bit, bits

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
SUBPAGE_FORMAT = 0x40


class PageControl(IntEnum):
    """PC: which values MODE SENSE returns."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


HEADER_6 = Layout(
    4, mode_data_length=be8(0), medium_type=be8(1), wp=bit(2, 7), dpofua=bit(2, 4), block_descriptor_length=be8(3)
)
HEADER_10 = Layout(
    8, mode_data_length=be16(0), medium_type=be8(2), wp=bit(3, 7), dpofua=bit(3, 4), longlba=bit(4, 0),
    block_descriptor_length=be16(6),
)  # fmt: skip
SHORT_DESCRIPTOR = Layout(8, number_of_logical_blocks=be32(0), logical_block_length=be24(5))
LONG_DESCRIPTOR = Layout(16, number_of_logical_blocks=be64(0), logical_block_length=be32(12))


class Page:
    """One mode page or subpage; offsets in `fields` are those of the standard, header included."""

    def __init__(self, code: int, name: str, nbytes: int, *, subpage: int = 0, **fields: Field) -> None:
        self.code, self.subpage, self.name = code, subpage, name
        self.layout = Layout(nbytes, **fields)

    @property
    def key(self) -> tuple[int, int]:
        return self.code, self.subpage

    def build(self, **values: Value) -> bytes:
        """The whole page, header included."""
        body = self.layout.build(**values)
        if self.subpage:
            return bytes([SUBPAGE_FORMAT | self.code, self.subpage]) + (len(body) - 4).to_bytes(2) + body[4:]
        return bytes([self.code, len(body) - 2]) + body[2:]


ERROR_RECOVERY = Page(
    0x01, "Read-write error recovery", 12,
    awre=bit(2, 7), arre=bit(2, 6), tb=bit(2, 5), rc=bit(2, 4), eer=bit(2, 3), per=bit(2, 2), dte=bit(2, 1),
    dcr=bit(2, 0), read_retry_count=be8(3), write_retry_count=be8(8), recovery_time_limit=be16(10),
)  # fmt: skip
CACHING = Page(
    0x08, "Caching", 20,
    ic=bit(2, 7), abpf=bit(2, 6), cap=bit(2, 5), disc=bit(2, 4), size=bit(2, 3), wce=bit(2, 2), mf=bit(2, 1),
    rcd=bit(2, 0), demand_read_retention_priority=bits(3, 7, 4), write_retention_priority=bits(3, 3, 0),
    disable_prefetch_transfer_length=be16(4), minimum_prefetch=be16(6), maximum_prefetch=be16(8),
    maximum_prefetch_ceiling=be16(10), fsw=bit(12, 7), lbcss=bit(12, 6), dra=bit(12, 5), sync_prog=bits(12, 2, 1),
    nv_dis=bit(12, 0),
    number_of_cache_segments=be8(13), cache_segment_size=be16(14),
)  # fmt: skip
CONTROL = Page(
    0x0A, "Control", 12,
    tst=bits(2, 7, 5), tmf_only=bit(2, 4), dpicz=bit(2, 3), d_sense=bit(2, 2), gltsd=bit(2, 1), rlec=bit(2, 0),
    queue_algorithm_modifier=bits(3, 7, 4), nuar=bit(3, 3), qerr=bits(3, 2, 1), rac=bit(4, 6),
    ua_intlck_ctrl=bits(4, 5, 4), swp=bit(4, 3), ato=bit(5, 7), tas=bit(5, 6), atmpe=bit(5, 5), rwwp=bit(5, 4),
    autoload_mode=bits(5, 2, 0), busy_timeout_period=be16(8), extended_self_test_completion_time=be16(10),
)  # fmt: skip
CONTROL_EXTENSION = Page(
    0x0A, "Control extension", 32, subpage=0x01,
    dlc=bit(4, 3), tcmos=bit(4, 2), scsip=bit(4, 1), ialuae=bit(4, 0), initial_command_priority=bits(5, 3, 0),
    maximum_sense_data_length=be8(6),
)  # fmt: skip
INFORMATIONAL_EXCEPTIONS = Page(
    0x1C, "Informational exceptions control", 12,
    perf=bit(2, 7), ebf=bit(2, 5), ewasc=bit(2, 4), dexcpt=bit(2, 3), test=bit(2, 2), ebackerr=bit(2, 1),
    logerr=bit(2, 0), mrie=bits(3, 3, 0), interval_timer=be32(4), report_count=be32(8),
)  # fmt: skip
LOGICAL_BLOCK_PROVISIONING = Page(0x1C, "Logical block provisioning", 16, subpage=0x02, situa=bit(4, 0))
"""Threshold descriptors follow."""
THRESHOLD_DESCRIPTOR = Layout(
    8, enabled=bit(0, 7), threshold_type=bits(0, 5, 3), threshold_arming=bits(0, 2, 0), threshold_resource=be8(1),
    threshold_count=be32(4),
)  # fmt: skip

PAGES = {page.key: page for page in list(globals().values()) if isinstance(page, Page)}
"""Every page by (code, subpage)."""


def split(data: bytes, *, ten: bool) -> tuple[dict[str, int], bytes, bytes]:
    """Header fields, block descriptors and pages of MODE SENSE data, as far as the data goes; never raises."""
    header = HEADER_10 if ten else HEADER_6
    fields = header.numbers(data)
    if "mode_data_length" in fields:
        data = data[: fields["mode_data_length"] + (2 if ten else 1)]
    end = header.nbytes + fields.get("block_descriptor_length", 0)
    return fields, bytes(data[header.nbytes : end]), bytes(data[end:])


def pages_of(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(code, subpage, whole page) of each complete page in the pages part of mode data; never raises."""
    while len(data) >= 2:
        long = bool(data[0] & SUBPAGE_FORMAT)
        if long and len(data) < 4:
            return
        nbytes = 4 + int.from_bytes(data[2:4]) if long else 2 + data[1]
        if len(data) < nbytes:
            return
        yield data[0] & 0x3F, data[1] if long else 0, data[:nbytes]
        data = data[nbytes:]
