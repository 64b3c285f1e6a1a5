# SPDX-License-Identifier: BSD-2-Clause
"""Log pages (SPC-4 7.3, SBC-3 6.4): codes, names, parameters; both ways.

Knows where fields stand. A new page is a new row of `PAGES`. Must not know what a target counts, nor when.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from vscsi.scsi.fields import Field, Layout, Value, be8, be16, be32, be64, bit, bits, text

ALL_SUBPAGES = 0xFF


class PageControl(IntEnum):
    """PC: which values LOG SENSE returns."""

    THRESHOLD = 0
    CUMULATIVE = 1
    DEFAULT_THRESHOLD = 2
    DEFAULT_CUMULATIVE = 3


HEADER = Layout(4, ds=bit(0, 7), spf=bit(0, 6), page_code=bits(0, 5, 0), subpage_code=be8(1), page_length=be16(2))
PARAMETER_HEADER = Layout(
    4, parameter_code=be16(0), du=bit(2, 7), tsd=bit(2, 5), etc=bit(2, 4), tmc=bits(2, 3, 2),
    format_and_linking=bits(2, 1, 0), parameter_length=be8(3),
)  # fmt: skip
COUNTER, ASCII_LIST, COUNTER_UNBOUNDED, BINARY_LIST = 0, 1, 2, 3
"""FORMAT AND LINKING (SPC-4 table 355): a counter that stops at its greatest value, a list of text or of binary data.
2 is a counter that wraps (bounded and unbounded in the standard's words)."""


class Parameter:
    """One parameter of a page. `values` has offsets from the parameter's first byte, header included; a counter has
    none: it is a number of whatever length the sender chose, and we send 8 bytes."""

    def __init__(self, code: int, name: str, nbytes: int = 12, **values: Field) -> None:
        self.code, self.name, self.counter = code, name, not values
        self.layout = Layout(nbytes, **(values or {"value": be64(4)}))

    def build(self, **values: Value) -> bytes:
        """The whole parameter, header included; a counter's only field is `value`."""
        head = PARAMETER_HEADER.build(
            parameter_code=self.code, format_and_linking=COUNTER if self.counter else BINARY_LIST,
            parameter_length=self.layout.nbytes - 4,
        )  # fmt: skip
        return head + self.layout.build(**values)[4:]

    def decode(self, data: bytes) -> dict[str, Value]:
        """Fields of the whole parameter, as far as the data goes; never raises."""
        return {"value": int.from_bytes(data[4:])} if self.counter else self.layout.decode(data)


class Page:
    """One page; `abbreviation` is sg_logs'. Pages without parameters are lists of codes."""

    def __init__(self, code: int, name: str, abbreviation: str, *parameters: Parameter, subpage: int = 0) -> None:
        self.code, self.subpage, self.name, self.abbreviation = code, subpage, name, abbreviation
        self.parameters: Mapping[int, Parameter] = {p.code: p for p in parameters}

    @property
    def key(self) -> tuple[int, int]:
        return self.code, self.subpage

    def parameter(self, code: int) -> Parameter | None:
        return self.parameters.get(code)


_ERROR_COUNTERS = (
    Parameter(0x0000, "Errors corrected without substantial delay"),
    Parameter(0x0001, "Errors corrected with possible delays"),
    Parameter(0x0002, "Total rewrites or rereads"),
    Parameter(0x0003, "Total errors corrected"),
    Parameter(0x0004, "Total times correction algorithm processed"),
    Parameter(0x0005, "Total bytes processed"),
    Parameter(0x0006, "Total uncorrected errors"),
)
_RESOURCE_COUNT = {"resource_count": be32(4), "scope": bits(8, 1, 0)}

SUPPORTED = Page(0x00, "Supported log pages", "sp")
SUPPORTED_SUBPAGES = Page(0x00, "Supported log pages and subpages", "ssp", subpage=ALL_SUBPAGES)
WRITE_ERRORS = Page(0x02, "Write error", "we", *_ERROR_COUNTERS)
READ_ERRORS = Page(0x03, "Read error", "re", *_ERROR_COUNTERS)
VERIFY_ERRORS = Page(0x05, "Verify error", "ve", *_ERROR_COUNTERS)
NON_MEDIUM_ERRORS = Page(0x06, "Non medium", "nm", Parameter(0x0000, "Non-medium error count"))
BLOCK_PROVISIONING = Page(
    0x0C, "Logical block provisioning", "lbp",
    Parameter(0x0001, "Available LBA mapping threshold", 12, **_RESOURCE_COUNT),
    Parameter(0x0002, "Used LBA mapping threshold", 12, **_RESOURCE_COUNT),
    Parameter(0x0003, "Available provisioning resource percentage", 12, percentage=be16(4), scope=bits(8, 1, 0)),
    Parameter(0x0100, "De-duplicated LBA", 12, **_RESOURCE_COUNT),
    Parameter(0x0101, "Compressed LBA", 12, **_RESOURCE_COUNT),
    Parameter(0x0102, "Total efficiency LBA", 12, **_RESOURCE_COUNT),
)  # fmt: skip
SCOPE_NOT_REPORTED, SCOPE_LOGICAL_UNIT, SCOPE_SHARED = 0, 1, 2
"""SCOPE of a provisioning resource: unknown, this logical unit's own, or shared with others."""
TEMPERATURE = Page(
    0x0D, "Temperature", "temp",
    Parameter(0x0000, "Current temperature", 6, temperature=be8(5)),
    Parameter(0x0001, "Reference temperature", 6, temperature=be8(5)),
)  # fmt: skip
TEMPERATURE_UNKNOWN = 0xFF
START_STOP = Page(
    0x0E, "Start-stop cycle counter", "sscc",
    Parameter(0x0001, "Date of manufacture", 10, year=text(4, 4), week=text(8, 2)),
    Parameter(0x0002, "Accounting date", 10, year=text(4, 4), week=text(8, 2)),
    Parameter(0x0003, "Specified cycle count over device lifetime", 8, count=be32(4)),
    Parameter(0x0004, "Accumulated start-stop cycles", 8, count=be32(4)),
    Parameter(0x0005, "Specified load-unload count over device lifetime", 8, count=be32(4)),
    Parameter(0x0006, "Accumulated load-unload cycles", 8, count=be32(4)),
)  # fmt: skip
_SELF_TEST = {
    "self_test_code": bits(4, 7, 5), "self_test_results": bits(4, 3, 0), "self_test_number": be8(5),
    "accumulated_power_on_hours": be16(6), "address_of_first_failure": be64(8), "sense_key": bits(16, 3, 0),
    "additional_sense_code": be8(17), "additional_sense_code_qualifier": be8(18),
}  # fmt: skip
SELF_TEST_RESULTS = Page(
    0x10, "Self test results", "str", *(Parameter(code, "Self-test", 20, **_SELF_TEST) for code in range(1, 21))
)
STATISTICS = Page(
    0x19, "General Statistics and Performance", "gsp",
    Parameter(
        0x0001, "General access statistics and performance", 68,
        number_of_read_commands=be64(4), number_of_write_commands=be64(12),
        number_of_logical_blocks_received=be64(20), number_of_logical_blocks_transmitted=be64(28),
        read_command_processing_intervals=be64(36), write_command_processing_intervals=be64(44),
        weighted_number_of_read_and_write_commands=be64(52), weighted_read_and_write_command_processing=be64(60),
    ),
    Parameter(0x0002, "Idle time", 12, idle_time_intervals=be64(4)),
    Parameter(0x0003, "Time interval", 12, time_interval_descriptor_exponent=be32(4), time_interval_integer=be32(8)),
    Parameter(
        0x0004, "Force Unit Access statistics and performance", 68,
        number_of_read_fua_commands=be64(4), number_of_write_fua_commands=be64(12),
        number_of_read_fua_nv_commands=be64(20), number_of_write_fua_nv_commands=be64(28),
        read_fua_command_processing_intervals=be64(36), write_fua_command_processing_intervals=be64(44),
        read_fua_nv_command_processing_intervals=be64(52), write_fua_nv_command_processing_intervals=be64(60),
    ),
)  # fmt: skip
"""A time interval is INTEGER times ten to the power of minus EXPONENT seconds."""
INFORMATIONAL_EXCEPTIONS = Page(
    0x2F, "Informational exceptions", "ie",
    Parameter(
        0x0000, "Informational exceptions general", 8,
        additional_sense_code=be8(4), additional_sense_code_qualifier=be8(5), most_recent_temperature=be8(6),
    ),
)  # fmt: skip

PAGES: Mapping[tuple[int, int], Page] = {page.key: page for page in list(globals().values()) if isinstance(page, Page)}
"""Every page by (code, subpage)."""


def find(name: str) -> Page | None:
    """The page with this abbreviation ("lbp"), in any case."""
    return next((page for page in PAGES.values() if page.abbreviation == name.lower()), None)


def encode(code: int, subpage: int, body: bytes, *, ds: bool = True) -> bytes:
    """A whole page. `body` is parameters or a list of codes; `ds`: the values are not saved."""
    head = HEADER.build(ds=ds, spf=subpage != 0, page_code=code, subpage_code=subpage, page_length=len(body))
    return head + body


def encode_supported(keys: Iterable[tuple[int, int]], *, subpages: bool = False) -> bytes:
    """Page 00h, or 00h/FFh with the subpages, of these (code, subpage) pairs; ascending."""
    ordered = sorted(set(keys))
    if subpages:
        return encode(0x00, ALL_SUBPAGES, b"".join(bytes(key) for key in ordered), ds=False)
    return encode(0x00, 0x00, bytes(sorted({code for code, _ in ordered})), ds=False)


def decode_supported(data: bytes) -> list[tuple[int, int]]:
    """(code, subpage) pairs of page 00h or 00h/FFh, as far as the data goes; never raises."""
    body = bytes(data[4 : 4 + int.from_bytes(data[2:4])])
    if data[:1] and data[0] & 0x40:
        return [(body[i] & 0x3F, body[i + 1]) for i in range(0, len(body) - 1, 2)]
    return [(code & 0x3F, 0) for code in body]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One parameter as received, header included in `raw`."""

    code: int
    control: int
    raw: bytes


def decode(data: bytes) -> tuple[dict[str, int], list[Decoded]]:
    """Header fields and whole parameters of a page, as far as the data goes; never raises."""
    head = HEADER.numbers(data)
    rest = bytes(data[4 : 4 + head.get("page_length", 0)])
    found = []
    while len(rest) >= 4 and len(rest) >= 4 + rest[3]:
        found.append(Decoded(int.from_bytes(rest[:2]), rest[2], rest[: 4 + rest[3]]))
        rest = rest[4 + rest[3] :]
    return head, found
