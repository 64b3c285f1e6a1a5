# SPDX-License-Identifier: BSD-2-Clause
"""SCSI commands of the target that are not plain media access: one function per command, found through one table.

A new command is a row in `vscsi.scsi.cdb` and a function with `@handles` in a module of this package; every module is
imported. Must not know rings, sockets, threads or clocks.
"""

import importlib
import pkgutil
from typing import Any

from target.commands.execute import Background, Result, discard, execute
from target.commands.table import Conflict, Handler, Op, find, handlers
from target.native import ffi, lib


def command_rows() -> list[Any]:
    """A new `struct vt_command` for every command of the table."""
    return [native_row(handler) for handler in handlers().values()]


def install(t: Any) -> None:
    """Fills the native core's command table (`struct vt_target *`). OSError if it refuses a row."""
    for row in command_rows():
        error = lib.vt_command_add(t, row)
        if error < 0:
            raise OSError(-error, f"the native core refuses command {row.opcode:02X}h")


def native_row(handler: Handler) -> Any:
    """What the native core has to know of a handler: a new `struct vt_command`."""
    row, command = handler.row, ffi.new("struct vt_command *")
    command.opcode, command.cdb_nbytes, command.service_action = row.opcode, row.nbytes, row.sa or 0
    command.op = getattr(lib, f"VT_OP_{handler.op.name}")
    command.conflict = _bits(handler.conflict)
    command.otherwise = _bits(handler.otherwise)
    for name, value in handler.harmless:
        field = row.fields[name]
        if field.nbytes != 1 or command.harmless_byte not in (0, field.byte):
            raise ValueError(f"{row.name}: {name} is not in the same byte as the others")
        command.harmless_byte = field.byte
        command.harmless_mask |= field.mask << field.shift
        command.harmless_value |= value << field.shift
    flags = {
        lib.VT_CMD_HAS_SA: row.sa is not None,
        lib.VT_CMD_SKIPS_UA: handler.skips_ua,
        lib.VT_CMD_OPTIONAL: handler.op is Op.SLOW and not handler.everywhere,
        lib.VT_CMD_NEEDS_READY: handler.needs_ready,
        lib.VT_CMD_WRITES: handler.writes,
        lib.VT_CMD_ANY_LUN: handler.any_lun,
        lib.VT_CMD_ZERO_IS_256: row.zero_is_256,
        lib.VT_CMD_IMMED_BIT: handler.op is Op.SYNC and "immed" in row.fields,
        lib.VT_CMD_DURING_OPERATION: handler.during_operation,
    }
    command.flags = sum(flag for flag, on in flags.items() if on)
    if handler.op is not Op.SLOW:
        lba, count = row.fields["lba"], row.block_count
        assert count is not None
        command.lba_offset, command.lba_nbytes = lba.byte, lba.nbytes
        command.length_offset, command.length_nbytes = count.byte, count.nbytes
        if fua := row.fields.get("fua"):
            command.fua_mask = fua.mask << fua.shift
        command.escape_mask = _escape_mask(handler)
    without = tuple(name for name in handler.unsupported_everywhere() if name not in handler.escape)
    for i, byte in enumerate(row.accept_map(without)):
        command.usage[i] = byte
    return command


def _bits(classes: Conflict) -> int:
    """enum vt_conflict."""
    return sum(getattr(lib, f"VT_CONFLICT_{c.name}") for c in Conflict if c in classes)


def _escape_mask(handler: Handler) -> int:
    """The bits of CDB byte 1 that the escape fields cover. ValueError if one of them lies elsewhere."""
    mask = 0
    for name in (*handler.escape, *((handler.protect_field,) if handler.protect_field else ())):
        field = handler.row.fields[name]
        if (field.byte, field.nbytes) != (1, 1):
            raise ValueError(f"{handler.row.name}: {name} is not in byte 1")
        mask |= field.mask << field.shift
    return mask


for _module in pkgutil.iter_modules(__path__):  # they fill the table
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Background", "Result", "command_rows", "discard", "execute", "find", "handlers", "install", "native_row"]
