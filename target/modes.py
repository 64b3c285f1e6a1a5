# SPDX-License-Identifier: BSD-2-Clause
"""Mode pages of a logical unit: current, changeable, default and saved values, and how they are changed.

The pages themselves are rows of `mode_pages.py`. Knows no CDB and no parameter list header; must not know what any
page means: its row says what it takes to obey it.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as data_field
from typing import TYPE_CHECKING

from target.part import Part, part
from vscsi.scsi import mode, sense
from vscsi.scsi.mode import PageControl

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger(__name__)

Key = tuple[int, int]
Values = dict[str, int]
Defaults = Callable[["LogicalUnit"], Values]
Obey = Callable[["LogicalUnit", Values], bool]

_STATE = "modes"
_PS = 0x80
"""Parameters savable, in byte 0; reserved in a MODE SELECT list, and ignored there: some programs send it back."""


def _nothing(_unit: "LogicalUnit", _values: Values) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ModePage:
    """One mode page of the target."""

    page: mode.Page
    defaults: Defaults
    changeable: tuple[str, ...] = ()
    """Fields that MODE SELECT may change; each of them is obeyed."""
    values: Mapping[str, tuple[int, ...]] = data_field(default_factory=dict)
    """What a changeable field may be, where that is not every number."""
    obey: Obey = _nothing
    """Puts changed values into force. True: what has been written must reach the medium before the command ends."""
    supported: "Callable[[LogicalUnit], bool]" = lambda _: True

    def mask(self) -> bytes:
        """Ones where a bit may be changed; header as in the page."""
        fields = self.page.layout.fields
        return self.page.build(**{name: fields[name].mask for name in self.changeable})

    def refused(self, data: bytes) -> str | None:
        """The first field of a page whose value is none that it may have."""
        fields = self.page.layout.fields
        return next((name for name, may in self.values.items() if fields[name].get(data) not in may), None)


PAGES: dict[Key, ModePage] = {}


def mode_page(
    page: mode.Page,
    *,
    changeable: tuple[str, ...] = (),
    values: Mapping[str, tuple[int, ...]] | None = None,
    obey: Obey = _nothing,
    supported: "Callable[[LogicalUnit], bool]" = lambda _: True,
) -> Callable[[Defaults], Defaults]:
    """Makes a function the source of a page's default values."""

    def register(defaults: Defaults) -> Defaults:
        if page.key in PAGES:
            raise ValueError(f"{page.name} mode page is there already")
        PAGES[page.key] = ModePage(page, defaults, changeable, values or {}, obey, supported)
        return defaults

    return register


@dataclass(frozen=True, slots=True)
class Sent:
    """A whole page of a MODE SELECT list; `offset` is where in the list it begins."""

    offset: int
    key: Key
    data: bytes


@part
class Modes(Part):
    """The values of one unit. Shared by all nexuses (mode page policy 00b). Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._lock = threading.RLock()
        rows = {key: row for key, row in sorted(PAGES.items()) if row.supported(unit)}
        self._rows: Mapping[Key, ModePage] = rows
        self._default = {key: row.page.build(**row.defaults(unit)) for key, row in rows.items()}
        self._current = dict(self._default)
        self._saved = dict(self._default)

    @property
    def savable(self) -> bool:
        """Whether saving keeps its promise: for as long as the blocks themselves last."""
        return self.unit.state.durable or self.unit.store.path is None

    def start(self) -> None:
        self._saved = self._loaded()
        if self._saved != self._default:
            log.info("lun %d: has saved mode pages", self.unit.lun)
        self.reset()

    def reset(self) -> None:
        with self._lock:
            try:
                self._put_into_force(self._saved)
            except sense.CheckCondition as error:
                if self.unit.device is not None:
                    self.unit.device.set_not_ready(self.unit, error.sense.code)

    def listed(self) -> Sequence[Key]:
        """Every page there is, ascending."""
        return list(self._rows)

    def page(self, key: Key) -> mode.Page:
        """The layout of a page. KeyError if the unit has none such."""
        return self._rows[key].page

    def field(self, page: mode.Page, name: str) -> int:
        """Current value of a field."""
        return page.layout.fields[name].get(self._current[page.key])

    def data(self, key: Key, control: int) -> bytes:
        """A whole page as MODE SENSE returns it. `control` is a `PageControl`; KeyError: no such page."""
        row = self._rows[key]
        if control == PageControl.CHANGEABLE:
            data = row.mask()
        else:
            data = {PageControl.CURRENT: self._current, PageControl.DEFAULT: self._default}.get(
                PageControl(control), self._saved
            )[key]
        return bytes([data[0] | (_PS if self.savable else 0)]) + data[1:]

    def select(self, pages: Sequence[Sent], *, save: bool) -> bool:
        """Takes all of these pages or none; with `save` the unit's current values are durable on return. Gives whether
        anything has changed. CheckCondition points at the first bit that may not be changed."""
        with self._lock:
            wanted = dict(self._current)
            for sent in pages:
                wanted[sent.key] = self._checked(sent, wanted[sent.key])
            return self._change(wanted, save=save)

    def revert(self, *, save: bool) -> bool:
        """Default values everywhere (RTD), as `select` otherwise."""
        with self._lock:
            return self._change(self._default, save=save)

    def _checked(self, sent: Sent, current: bytes) -> bytes:
        row = self._rows[sent.key]
        data = bytes([sent.data[0] & ~_PS]) + sent.data[1:]
        head = 4 if sent.key[1] else 2
        for at, (new, old, mask) in enumerate(zip(data, current, row.mask(), strict=True)):
            if at >= head and (wrong := (new ^ old) & ~mask):
                place = _field_at(row.page, at, wrong.bit_length() - 1)
                raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(sent.offset + place[0], place[1], in_cdb=False)
        if (name := row.refused(data)) is not None:
            byte, bit = row.page.layout.fields[name].pointer
            raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(sent.offset + byte, bit, in_cdb=False)
        return data

    def _change(self, wanted: Mapping[Key, bytes], *, save: bool) -> bool:
        before = self._current
        try:
            self._put_into_force(wanted)
            if save:
                self._save(wanted)
        except BaseException:
            self._put_into_force(before, flush=False)
            raise
        return wanted != before

    def _put_into_force(self, wanted: Mapping[Key, bytes], *, flush: bool = True) -> None:
        unit, before = self.unit, self._current
        changed = [key for key in self._rows if wanted[key] != before[key]]
        if not changed:
            return
        self._current = dict(wanted)
        settle = False
        for key in changed:
            row = self._rows[key]
            settle |= row.obey(unit, row.page.layout.numbers(wanted[key]))
        if unit.device is not None:
            unit.device.refresh(unit)
        # Only now: what ends from here on is under the new rules, so that the flush covers everything before.
        if settle and flush and not unit.readonly:
            self._flush()

    def _flush(self) -> None:
        if self.unit.device is not None and self.unit.device.sync_failed(self.unit):
            raise sense.WRITE_ERROR.error()
        self.unit.flush()

    def _save(self, values: Mapping[Key, bytes]) -> None:
        document = {f"{code:02x}/{subpage:02x}": values[code, subpage].hex() for code, subpage in values}
        try:
            self.unit.state.save(_STATE, {"pages": document})
        except OSError as error:
            log.error("lun %d: mode pages cannot be saved: %s", self.unit.lun, error)
            raise sense.INTERNAL_TARGET_FAILURE.error() from error
        self._saved = dict(values)

    def _loaded(self) -> dict[Key, bytes]:
        """What was saved, of the bits that may be changed: whatever else the document says."""
        found = (self.unit.state.load(_STATE) or {}).get("pages")
        loaded = dict(self._default)
        for key, row in self._rows.items():
            text = found.get(f"{key[0]:02x}/{key[1]:02x}") if isinstance(found, dict) else None
            try:
                data = bytes.fromhex(text or "")
            except (TypeError, ValueError):
                data = b""
            default = loaded[key]
            if len(data) == len(default):
                head = 4 if key[1] else 2
                merged = (new & m | old & ~m for new, old, m in zip(data, default, row.mask(), strict=True))
                page = default[:head] + bytes(merged)[head:]
                if (name := row.refused(page)) is None:
                    loaded[key] = page
                else:
                    log.error("lun %d: a saved mode page has a value of %s that does not exist", self.unit.lun, name)
            elif text is not None:
                log.error("lun %d: a saved mode page cannot be understood: %s", self.unit.lun, text)
        return loaded


def _field_at(page: mode.Page, byte: int, bit: int) -> tuple[int, int | None]:
    """Where sense data points for a bit of a page: at the field it belongs to, or at itself."""
    for field in page.layout.fields.values():
        place = field.byte * 8 + (8 * field.nbytes - field.shift - field.width)
        if place <= byte * 8 + 7 - bit < place + field.width:
            return field.pointer
    return byte, bit
