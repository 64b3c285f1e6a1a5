# SPDX-License-Identifier: BSD-2-Clause
"""MODE SENSE: header, block descriptor and the pages asked for. Must not know what any page holds.

Layouts are in `vscsi.scsi.mode`, values in `target.modes`.
"""

from target import mode_pages  # noqa: F401  (the pages register themselves)
from target.commands.table import AS_READ, handles
from target.commands.task import Task
from target.lu import LogicalUnit
from target.modes import Modes
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.mode import PageControl


@handles(cdb.MODE_SENSE_6, AS_READ)
def mode_sense_6(task: Task) -> bytes:
    """SPC-4 6.13. The length of what is too long for the header's byte is given as 255."""
    pages, descriptor = _selected(task), _asked_descriptor(task, long=False)
    header = mode.HEADER_6.build(
        mode_data_length=min(0xFF, 3 + len(descriptor) + len(pages)),
        wp=task.write_protection is not None,
        dpofua=1,
        block_descriptor_length=len(descriptor),
    )
    return header + descriptor + pages


@handles(cdb.MODE_SENSE_10, AS_READ)
def mode_sense_10(task: Task) -> bytes:
    """SPC-4 6.14."""
    long = bool(task.fields["llbaa"])
    pages, descriptor = _selected(task), _asked_descriptor(task, long=long)
    header = mode.HEADER_10.build(
        mode_data_length=6 + len(descriptor) + len(pages),
        wp=task.write_protection is not None,
        dpofua=1,
        longlba=long and bool(descriptor),
        block_descriptor_length=len(descriptor),
    )
    return header + descriptor + pages


def block_descriptor(unit: LogicalUnit, *, long: bool) -> bytes:
    """The unit's only mode parameter block descriptor (SBC-3 6.5.2)."""
    layout = mode.LONG_DESCRIPTOR if long else mode.SHORT_DESCRIPTOR
    most = layout.fields["number_of_logical_blocks"].mask
    return layout.build(number_of_logical_blocks=min(unit.blocks, most), logical_block_length=unit.block_nbytes)


def _asked_descriptor(task: Task, *, long: bool) -> bytes:
    if task.fields["dbd"]:
        return b""
    descriptor = block_descriptor(task.unit, long=long)
    return bytes(len(descriptor)) if task.fields["pc"] == PageControl.CHANGEABLE else descriptor


def _selected(task: Task) -> bytes:
    modes = task.unit.part(Modes)
    control, code, subpage = (task.fields[name] for name in ("pc", "page_code", "subpage_code"))
    if control == PageControl.SAVED and not modes.savable:
        raise sense.SAVING_PARAMETERS_NOT_SUPPORTED.error()
    every, every_subpage = code == mode.ALL_PAGES, subpage == mode.ALL_SUBPAGES
    if every and subpage and not every_subpage:
        raise task.invalid("subpage_code")
    chosen = [
        key for key in modes.listed() if (every or key[0] == code) and (every_subpage or key[1] == subpage)
    ]  # fmt: skip
    if not chosen:
        known = any(key[0] == code for key in modes.listed())
        raise task.invalid("subpage_code" if known else "page_code")
    return b"".join(modes.data(key, control) for key in chosen)
