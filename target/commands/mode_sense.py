# SPDX-License-Identifier: BSD-2-Clause
"""MODE SENSE, and the target's mode pages: one function per page, which gives its values by PAGE CONTROL.

Layouts are in `vscsi.scsi.mode`. A new page is a new function.
"""

from collections.abc import Callable

from target.commands.table import AS_READ, handles
from target.commands.task import Task
from target.lu import LogicalUnit
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.mode import PageControl

Function = Callable[[LogicalUnit], dict[str, int]]
"""Current values of a page's fields; none of them can be changed yet, and the defaults are the same."""

_PAGES: dict[tuple[int, int], tuple[mode.Page, Function]] = {}
_UNLIMITED = 0xFFFF


def page(row: mode.Page) -> Callable[[Function], Function]:
    """Makes a function the source of a page's values."""

    def register(function: Function) -> Function:
        _PAGES[row.key] = row, function
        return function

    return register


@page(mode.ERROR_RECOVERY)
def error_recovery(_: LogicalUnit) -> dict[str, int]:
    return {"awre": 1, "arre": 1}


@page(mode.CACHING)
def caching(lu: LogicalUnit) -> dict[str, int]:
    return {"wce": int(lu.write_cache)}


@page(mode.CONTROL)
def control(lu: LogicalUnit) -> dict[str, int]:
    return {
        "d_sense": int(lu.descriptor_sense),
        "queue_algorithm_modifier": 1,  # SIMPLE tasks run in any order
        "busy_timeout_period": _UNLIMITED,
    }


@page(mode.CONTROL_EXTENSION)
def control_extension(_: LogicalUnit) -> dict[str, int]:
    return {}


@page(mode.INFORMATIONAL_EXCEPTIONS)
def informational_exceptions(_: LogicalUnit) -> dict[str, int]:
    return {"dexcpt": 1}


@handles(cdb.MODE_SENSE_6, AS_READ)
def mode_sense_6(task: Task) -> bytes:
    """SPC-4 6.13."""
    pages, descriptor = _selected(task), _descriptor(task, long=False)
    header = mode.HEADER_6.build(
        mode_data_length=min(0xFF, 3 + len(descriptor) + len(pages)),
        wp=task.unit.readonly,
        dpofua=1,
        block_descriptor_length=len(descriptor),
    )
    return header + descriptor + pages


@handles(cdb.MODE_SENSE_10, AS_READ)
def mode_sense_10(task: Task) -> bytes:
    """SPC-4 6.14."""
    long = bool(task.fields["llbaa"])
    pages, descriptor = _selected(task), _descriptor(task, long=long)
    header = mode.HEADER_10.build(
        mode_data_length=6 + len(descriptor) + len(pages),
        wp=task.unit.readonly,
        dpofua=1,
        longlba=long and bool(descriptor),
        block_descriptor_length=len(descriptor),
    )
    return header + descriptor + pages


def _descriptor(task: Task, *, long: bool) -> bytes:
    unit = task.unit
    if task.fields["dbd"]:
        return b""
    if task.fields["pc"] == PageControl.CHANGEABLE:
        return bytes(16 if long else 8)
    layout = mode.LONG_DESCRIPTOR if long else mode.SHORT_DESCRIPTOR
    most = layout.fields["number_of_logical_blocks"].mask
    return layout.build(number_of_logical_blocks=min(unit.blocks, most), logical_block_length=unit.block_nbytes)


def _selected(task: Task) -> bytes:
    pc, code, subpage = (task.fields[name] for name in ("pc", "page_code", "subpage_code"))
    if pc == PageControl.SAVED:
        raise sense.SAVING_PARAMETERS_NOT_SUPPORTED.error()
    every, every_subpage = code == mode.ALL_PAGES, subpage == mode.ALL_SUBPAGES
    if every and subpage and not every_subpage:
        raise task.invalid("subpage_code")
    chosen = [
        entry
        for (page_code, page_subpage), entry in sorted(_PAGES.items())
        if (every or page_code == code) and (every_subpage or page_subpage == subpage)
    ]
    if not chosen:
        known = any(page_code == code for page_code, _ in _PAGES)
        raise task.invalid("subpage_code" if known else "page_code")
    changeable = pc == PageControl.CHANGEABLE
    return b"".join(row.build(**({} if changeable else function(task.unit))) for row, function in chosen)
