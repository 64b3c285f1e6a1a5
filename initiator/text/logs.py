# SPDX-License-Identifier: BSD-2-Clause
"""Log pages as sg_logs prints them, and for JSON: a row for each kind of page.

Knows sg_logs' words; layouts are in `vscsi/scsi/log.py`. Must not know how a page was fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from initiator.text import sense
from vscsi.cli import hex_dump
from vscsi.scsi import log
from vscsi.scsi.log import Decoded, Page

TB = 1 << 40
SCOPES = ("not reported", "dedicated to lu", "not dedicated to lu", "reserved")
SELF_TESTS = (
    "default", "background short", "background extended", "reserved", "aborted background", "foreground short",
    "foreground extended", "reserved",
)  # fmt: skip
SELF_TEST_RESULTS = (
    "completed without error", "aborted by SEND DIAGNOSTIC", "aborted other than by SEND DIAGNOSTIC",
    "unknown error, unable to complete", "self test completed with failure in test segment (which one unknown)",
    "first segment in self test failed", "second segment in self test failed", "another segment in self test failed",
    *("reserved",) * 7, "self test in progress",
)  # fmt: skip
UNLIMITED = 0xFFFFFFFF


def _value(parameter: Decoded) -> int:
    return int.from_bytes(parameter.raw[4:])


def _temperature(value: int) -> str:
    return "<not available>" if value == 0xFF else f"{value} C"


def _error_counter(page: Page, p: Decoded) -> Iterator[str]:
    known = page.parameter(p.code)
    value = _value(p)
    tb = f" [{value // 10**12} TB]" if value > TB else ""
    yield f"  {known.name if known else f'Reserved or vendor specific [{p.code:#x}]'} = {value}{tb}"


def _non_medium(page: Page, p: Decoded) -> Iterator[str]:
    other = "Reserved" if p.code <= 0x7FFF else "Vendor specific"
    yield f"  {'Non-medium error count' if p.code == 0 else f'{other} [{p.code:#x}]'} = {_value(p)}"


def _provisioning(page: Page, p: Decoded) -> Iterator[str]:
    known = page.parameter(p.code)
    if known is None:
        vendor = p.code >= 0xFFF0
        yield f"  Vendor specific [{p.code:#x}]:" if vendor else f"  Reserved [parameter_code={p.code:#x}]:"
        yield from hex_dump(p.raw)
        return
    if len(p.raw) < 8:
        yield f"  short {known.name} parameter"
        return
    if "percentage" in known.layout.fields:
        yield f"    {known.name}: {int.from_bytes(p.raw[4:6])} %"
    else:
        yield f"    {known.name} resource count: {int.from_bytes(p.raw[4:8])}"
    if len(p.raw) > 8:
        yield f"    Scope: {SCOPES[p.raw[8] & 3]}"


def _temperatures(page: Page, p: Decoded) -> Iterator[str]:
    known = page.parameter(p.code)
    if known is None:
        yield f"  unknown parameter code = {p.code:#x}, contents in hex:"
        yield from hex_dump(p.raw)
    elif len(p.raw) > 5:
        value = p.raw[5]
        yield f"  {known.name} = {'0 C (or less)' if p.code == 0 and not value else _temperature(value)}"


def _start_stop(page: Page, p: Decoded) -> Iterator[str]:
    known = page.parameter(p.code)
    if known is None:
        yield f"  unknown parameter code = {p.code:#x}, contents in hex:"
        yield from hex_dump(p.raw)
    elif "year" in known.layout.fields:
        if len(p.raw) == 10:
            year, week = (part.decode("ascii", "replace") for part in (p.raw[4:8], p.raw[8:10]))
            yield f"  {known.name}, year: {year}, week: {week}"
    elif len(p.raw) > 7:
        value = int.from_bytes(p.raw[4:8])
        yield f"  {known.name} = {-1 if value == UNLIMITED else value}"


def _self_test(page: Page, p: Decoded) -> Iterator[str]:
    known = page.parameter(p.code)
    if known is None or len(p.raw) < known.layout.nbytes:
        return
    f = known.layout.numbers(p.raw)
    if not f["accumulated_power_on_hours"] and not p.raw[4]:
        return
    yield f"  Parameter code = {p.code}, accumulated power-on hours = {f['accumulated_power_on_hours']}"
    yield f"    self-test code: {SELF_TESTS[f['self_test_code']]} [{f['self_test_code']}]"
    yield f"    self-test result: {SELF_TEST_RESULTS[f['self_test_results']]} [{f['self_test_results']}]"
    if f["self_test_number"]:
        yield f"    self-test number = {f['self_test_number']}"
    if f["address_of_first_failure"] != (1 << 64) - 1 and 0 < f["self_test_results"] < 0xF:
        yield f"    address of first error = {f['address_of_first_failure']:#x}"


_STATISTICS_TITLES = {
    1: "Statistics and performance log parameter",
    2: "Idle time log parameter",
    3: "Time interval log parameter for general stats",
    4: "Force unit access statistics and performance log parameter ",
}
_STATISTICS_WORDS = {
    "weighted_number_of_read_and_write_commands": "weighted number of read commands plus write commands",
    "weighted_read_and_write_command_processing": "weighted read command processing plus write command processing",
    "time_interval_descriptor_exponent": "time interval negative exponent",
}


def _statistics(page: Page, p: Decoded) -> Iterator[str]:
    known = page.parameter(p.code)
    if known is None:
        yield f"  unknown parameter code = {p.code:#x}, contents in hex:"
        yield from hex_dump(p.raw)
        return
    yield _STATISTICS_TITLES[p.code]
    for name, value in known.decode(p.raw).items():
        words = name.replace("_", " ").replace("fua nv", "FUA_NV").replace("fua", "FUA")
        yield f"  {_STATISTICS_WORDS.get(name, words)} = {value}"


def _exceptions(page: Page, p: Decoded) -> Iterator[str]:
    if p.code != 0 or len(p.raw) < 6:
        yield f"  parameter code = {p.code:#x}, contents in hex:"
        yield from hex_dump(p.raw)
        return
    asc, ascq = p.raw[4], p.raw[5]
    yield f"  IE asc = {asc:#x}, ascq = {ascq:#x}"
    if asc or ascq:
        words = sense.additional(asc, ascq)
        yield f"    [Additional sense: {words}]" if words else f"    [ASC={asc:02x}, ASCQ={ascq:02x} (hex)]"
    if len(p.raw) > 6:
        yield f"    Current temperature = {_temperature(p.raw[6])}"
    if len(p.raw) > 7:
        yield f"    Threshold temperature = {_temperature(p.raw[7])}  [common extension]"


_SHOWN: dict[tuple[int, int], tuple[str, Callable[[Page, Decoded], Iterator[str]]]] = {
    (0x02, 0): ("Write error counter page", _error_counter),
    (0x03, 0): ("Read error counter page", _error_counter),
    (0x05, 0): ("Verify error counter page", _error_counter),
    (0x06, 0): ("Non-medium error page", _non_medium),
    (0x0C, 0): ("Logical block provisioning page", _provisioning),
    (0x0D, 0): ("Temperature page", _temperatures),
    (0x0E, 0): ("Start-stop cycle counter page", _start_stop),
    (0x10, 0): ("Self-test results page", _self_test),
    (0x19, 0): ("General Statistics and Performance", _statistics),
    (0x2F, 0): ("Informational Exceptions page", _exceptions),
}


def _code(key: tuple[int, int]) -> str:
    return f"0x{key[0]:02x}" + (f",0x{key[1]:02x}" if key[1] else "")


def supported_lines(keys: Iterable[tuple[int, int]], *, subpages: bool) -> Iterator[str]:
    """Page 00h, or 00h/FFh."""
    yield "Supported log pages and subpages  [0x0, 0xff]:" if subpages else "Supported log pages  [0x0]:"
    for key in keys:
        known = log.PAGES.get(key)
        yield f"    {_code(key):<12}" + (f"{known.name} [{known.abbreviation}]" if known else "")


def lines(data: bytes, *, control: bool = False) -> Iterator[str]:
    """What sg_logs prints for a page; with `control` the control byte of each parameter too."""
    head, parameters = log.decode(data)
    key = head.get("page_code", 0), head.get("subpage_code", 0) if head.get("spf") else 0
    if key[0] == 0:
        yield from supported_lines(log.decode_supported(data), subpages=key[1] != 0)
        return
    page, shown = log.PAGES.get(key), _SHOWN.get(key)
    if page is None or shown is None:
        yield f"No ascii information for page = {key[0]:#x}" + (f", {key[1]:#x}" if key[1] else "") + ", here is hex:"
        yield from hex_dump(data)
        return
    yield f"{shown[0]}  [{key[0]:#x}]"
    for one in parameters:
        yield from shown[1](page, one)
        if control:
            yield f"        <{_control(one.control)}>"


def _control(byte: int) -> str:
    bits = ((0x80, "DU"), (0x40, "DS [obsolete]"), (0x20, "TSD"), (0x10, "ETC"), (0x08, "TMC"), (0x04, "TMC"))
    return f"{byte:#04x} " + " ".join(f"{name}=1" for bit, name in bits if byte & bit) + f" F+L={byte & 3}"


def to_json(data: bytes) -> dict[str, Any]:
    """Header and every parameter; a page of codes has the list instead."""
    head, parameters = log.decode(data)
    key = head.get("page_code", 0), head.get("subpage_code", 0) if head.get("spf") else 0
    page = log.PAGES.get(key)
    common = {"page_code": key[0], "subpage_code": key[1], "page_name": page.name if page else None}
    if key[0] == 0:
        names = [(found, log.PAGES.get(found)) for found in log.decode_supported(data)]
        rows = [{"page_code": k[0], "subpage_code": k[1], "page_name": p.name if p else None} for k, p in names]
        return {**common, "supported_log_pages": rows}
    shown = []
    for one in parameters:
        known = page.parameter(one.code) if page else None
        values: dict[str, Any] = dict(known.decode(one.raw)) if known else {"hex": one.raw[4:].hex()}
        name = known.name if known else None
        shown.append({"parameter_code": one.code, "parameter_name": name, "control": one.control, **values})
    return {**common, "ds": head.get("ds", 0), "parameters": shown}
