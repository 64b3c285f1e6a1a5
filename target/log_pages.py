# SPDX-License-Identifier: BSD-2-Clause
"""The target's log pages: one function a page, which gives what is known now; nothing is invented.

Layouts are in `vscsi.scsi.log`. A new page is a new function, here or elsewhere. Must not know CDBs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from target.lu import LogicalUnit
from vscsi.scsi import log
from vscsi.scsi.fields import Value

Key = tuple[int, int]
Function = Callable[[LogicalUnit], Mapping[int, Mapping[str, Value]]]
"""Fields of each parameter, by parameter code."""
Reset = Callable[[LogicalUnit], None]


@dataclass(frozen=True, slots=True)
class LogPage:
    """One log page of the target."""

    page: log.Page
    function: Function
    reset: Reset | None = None
    """Sets what is counted back to zero; None: nothing is."""
    supported: Callable[[LogicalUnit], bool] = lambda _: True

    @property
    def counts(self) -> bool:
        """Whether its parameters are counters, and no lists."""
        return any(parameter.counter for parameter in self.page.parameters.values())

    def parameters(self, unit: LogicalUnit, *, default: bool = False) -> dict[int, bytes]:
        """Every parameter of the page, header included, by its code and ascending; `default`: counters at zero."""
        values = self.function(unit)
        if default and self.counts:
            values = {code: {"value": 0} for code in values}
        return {code: self.page.parameters[code].build(**values[code]) for code in sorted(values)}


PAGES: dict[Key, LogPage] = {}


def log_page(
    page: log.Page, *, reset: Reset | None = None, supported: Callable[[LogicalUnit], bool] = lambda _: True
) -> Callable[[Function], Function]:
    """Makes a function the source of a page's parameters."""

    def register(function: Function) -> Function:
        if page.key in PAGES:
            raise ValueError(f"{page.name} log page is there already")
        PAGES[page.key] = LogPage(page, function, reset, supported)
        return function

    return register


def pages_of(unit: LogicalUnit) -> dict[Key, LogPage]:
    """The pages that a unit has, besides the lists of them; ascending."""
    return {key: row for key, row in sorted(PAGES.items()) if row.supported(unit)}


@log_page(log.TEMPERATURE)
def temperature(_unit: LogicalUnit) -> Mapping[int, Mapping[str, Value]]:
    """An image has none."""
    return {0x0000: {"temperature": log.TEMPERATURE_UNKNOWN}, 0x0001: {"temperature": log.TEMPERATURE_UNKNOWN}}


@log_page(log.INFORMATIONAL_EXCEPTIONS)
def informational_exceptions(_unit: LogicalUnit) -> Mapping[int, Mapping[str, Value]]:
    """No failure is ever predicted."""
    return {0x0000: {"most_recent_temperature": log.TEMPERATURE_UNKNOWN}}
