# SPDX-License-Identifier: BSD-2-Clause
"""Mode pages as sdparm prints them, and for JSON: acronyms of fields and of pages.

Knows sdparm's words; layouts are in `vscsi/scsi/mode.py`. Must not know how pages were fetched, nor who may set them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vscsi.cli import hex_dump
from vscsi.scsi import mode
from vscsi.scsi.mode import Page, PageControl

PAGES: dict[str, tuple[int, int]] = {
    "rw": (0x01, 0), "ca": (0x08, 0), "co": (0x0A, 0), "coe": (0x0A, 1), "ie": (0x1C, 0), "lbp": (0x1C, 2),
}  # fmt: skip
"""sdparm's abbreviations."""
_TITLES = {
    (0x01, 0): "Read write error recovery", (0x08, 0): "Caching (SBC)", (0x0A, 0): "Control",
    (0x0A, 1): "Control extension", (0x1C, 0): "Informational exceptions control",
    (0x1C, 2): "Logical block provisioning (SBC)",
}  # fmt: skip
_ACRONYMS = {
    "read_retry_count": "RRC", "write_retry_count": "WRC", "recovery_time_limit": "RTL",
    "demand_read_retention_priority": "DRRP", "write_retention_priority": "WRP",
    "disable_prefetch_transfer_length": "DPTL", "minimum_prefetch": "MIPF", "maximum_prefetch": "MAPF",
    "maximum_prefetch_ceiling": "MAPFC", "number_of_cache_segments": "NCS", "cache_segment_size": "CSS",
    "queue_algorithm_modifier": "QAM", "ua_intlck_ctrl": "UA_INT", "autoload_mode": "AUTOLOAD",
    "busy_timeout_period": "BTP", "extended_self_test_completion_time": "ESTCT", "interval_timer": "INTT",
    "report_count": "REPC", "initial_command_priority": "INIT_PR", "maximum_sense_data_length": "MSDL",
}  # fmt: skip
_USUAL = {
    (0x01, 0): ("AWRE", "ARRE", "PER"),
    (0x08, 0): ("IC", "WCE", "RCD"),
    (0x0A, 0): ("TST", "SWP"),
    (0x0A, 1): ("DLC",),
    (0x1C, 0): ("PERF", "EWASC", "DEXCPT", "MRIE"),
}
"""What sdparm shows of a page unless it is asked for more."""


def acronym(name: str) -> str:
    """sdparm's acronym of a field."""
    return _ACRONYMS.get(name, name.upper())


def find_field(name: str) -> tuple[Page, str] | None:
    """The page and field that an acronym or a field's whole name means, in any case."""
    for page in mode.PAGES.values():
        for field_name in page.layout.fields:
            if name.lower() == field_name or name.upper() == acronym(field_name):
                return page, field_name
    return None


def title(key: tuple[int, int]) -> str:
    """What sdparm calls a page."""
    known = mode.PAGES.get(key)
    return _TITLES.get(key) or (known.name if known else f"[{key[0]:#x}" + (f",{key[1]:#x}]" if key[1] else "]"))


@dataclass
class Values:
    """One page: its bytes for each page control that the target has."""

    key: tuple[int, int]
    raw: dict[PageControl, bytes] = field(default_factory=dict)

    def numbers(self, control: PageControl) -> Mapping[str, int]:
        """The fields for one page control; empty if the target has no such values."""
        known = mode.PAGES.get(self.key)
        return known.layout.numbers(self.raw[control]) if known and control in self.raw else {}

    @property
    def savable(self) -> bool:
        """PS of the current values."""
        return self.raw.get(PageControl.CURRENT, b"") >= b"\x80"


def field_line(values: Values, name: str) -> str:
    """One field: its value, whether it may be changed, its default and saved value."""
    current = values.numbers(PageControl.CURRENT).get(name, 0)
    notes = []
    for control, label in ((PageControl.CHANGEABLE, "cha"), (PageControl.DEFAULT, "def"), (PageControl.SAVED, "sav")):
        numbers = values.numbers(control)
        if name in numbers and control is PageControl.CHANGEABLE:
            notes.append(f"{label}: {'y' if numbers[name] else 'n'}")
        elif name in numbers:
            notes.append(f"{label}:{numbers[name]:3}")
    return f"  {acronym(name):<13} {current}" + (f"  [{', '.join(notes)}]" if notes else "")


def lines(values: Values, *, every: bool) -> Iterator[str]:
    """A page; only its usual fields unless `every`."""
    known = mode.PAGES.get(values.key)
    yield f"{title(values.key)} mode page:"
    if known is None:
        yield from hex_dump(values.raw.get(PageControl.CURRENT, b""))
        return
    usual = _USUAL.get(values.key)
    for name in values.numbers(PageControl.CURRENT):
        if every or usual is None or acronym(name) in usual:
            yield field_line(values, name)


def to_json(values: Values) -> dict[str, Any]:
    """Every field of a page by its name, for every page control."""
    names = {
        PageControl.CURRENT: "current",
        PageControl.CHANGEABLE: "changeable",
        PageControl.DEFAULT: "default",
        PageControl.SAVED: "saved",
    }
    shown: dict[str, Any] = {
        "page_code": values.key[0],
        "subpage_code": values.key[1],
        "page_name": title(values.key),
        "ps": values.savable,
    }
    for control, label in names.items():
        if control in values.raw:
            known = values.key in mode.PAGES
            shown[label] = dict(values.numbers(control)) if known else {"hex": values.raw[control].hex()}
    return shown
