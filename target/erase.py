# SPDX-License-Identifier: BSD-2-Clause
"""What SANITIZE and FORMAT UNIT do to the blocks of a unit: patterns written over all of them, or holes punched.

Each is a `Work`, so that it survives a restart. Knows units and stores. Must not know CDBs or parameter lists.
"""

from typing import Any

from target.lu import LogicalUnit
from target.operation import Work, work
from target.protection import Protection
from target.stores import Can
from vscsi.scsi import sense

ERASE_BLOCKS_AT_ONCE = 1 << 17
MAX_PASSES = 31
"""OVERWRITE COUNT has 5 bits (SBC-3 5.30.2.2)."""
_CAPACITY_CHANGED = sense.CAPACITY_DATA_HAS_CHANGED.asc << 8 | sense.CAPACITY_DATA_HAS_CHANGED.ascq


class _Sanitize(Work):
    unit: LogicalUnit
    running = sense.NOT_READY_SANITIZE_IN_PROGRESS
    failed = sense.SANITIZE_COMMAND_FAILED

    def finish(self) -> None:
        self.unit.flush()


@work
class Overwrite(_Sanitize):
    """`passes` times the pattern over every block, or in turn its inverse and itself, so that itself comes last."""

    kind = "sanitize overwrite"

    @classmethod
    def of(cls, unit: LogicalUnit, pattern: bytes, passes: int, *, invert: bool) -> "Overwrite":
        return cls(unit, {"pattern": pattern.hex(), "passes": passes, "invert": invert})

    def __init__(self, unit: LogicalUnit, parameters: dict[str, Any]) -> None:
        super().__init__(unit, parameters)
        pattern, size = bytes.fromhex(parameters["pattern"]), unit.block_nbytes
        passes, self._invert = parameters["passes"], bool(parameters["invert"])
        if not 0 < len(pattern) <= size or type(passes) is not int or not 0 < passes <= MAX_PASSES:
            raise ValueError(f"{passes!r} times {len(pattern)} bytes over blocks of {size}")
        self._passes: int = passes
        self._block = (pattern * (size // len(pattern) + 1))[:size]
        self._buffer = unit.buffer(unit.chunk_blocks())
        self._filled: bool | None = None

    @property
    def total(self) -> int:
        return self.unit.blocks * self._passes

    def step(self, done: int) -> int:
        unit = self.unit
        turn, lba = divmod(done, unit.blocks)
        self._fill(inverse=self._invert and (self._passes - 1 - turn) % 2 == 1)
        blocks = min(unit.chunk_blocks(), unit.blocks - lba)
        unit.write_raw(self._buffer[: blocks * unit.block_nbytes], lba)
        if lba + blocks == unit.blocks:
            unit.flush()  # else only the last pass would ever reach the medium
        return done + blocks

    def _fill(self, *, inverse: bool) -> None:
        if self._filled is not inverse:
            block = bytes(b ^ 0xFF for b in self._block) if inverse else self._block
            self._buffer[:] = block * self.unit.chunk_blocks()
            self._filled = inverse


@work
class KeyErase(_Sanitize):
    """Throws the key away that everything is encrypted with; only for stores that have one."""

    kind = "sanitize cryptographic erase"

    def __init__(self, unit: LogicalUnit, parameters: dict[str, Any]) -> None:
        super().__init__(unit, parameters)
        if Can.ERASE_KEY not in unit.store.can:
            raise ValueError("nothing is encrypted")

    @property
    def total(self) -> int:
        return self.unit.blocks

    def step(self, done: int) -> int:
        self.unit.store.erase_key()
        return self.unit.blocks


@work
class BlockErase(_Sanitize):
    """Gives all blocks back; they read as zeros. Only for units where that is so (`zeroing`)."""

    kind = "sanitize block erase"

    @property
    def total(self) -> int:
        return self.unit.blocks

    def step(self, done: int) -> int:
        blocks = min(ERASE_BLOCKS_AT_ONCE, self.unit.blocks - done)
        self.unit.trim_raw(done, blocks)
        return done + blocks


@work
class Format(Overwrite):
    """One pattern over every block, then the type of protection; zeros are holes where that is the same."""

    kind = "format"
    running = sense.NOT_READY_FORMAT_IN_PROGRESS
    failed = sense.FORMAT_COMMAND_FAILED
    _nexus: int | None = None

    def __init__(self, unit: LogicalUnit, parameters: dict[str, Any]) -> None:
        super().__init__(unit, parameters)
        if parameters["protection"] not in (0, 1, 2, 3):
            raise ValueError(f"protection type {parameters['protection']!r}")

    @classmethod
    def to(cls, unit: LogicalUnit, protection: int, pattern: bytes, *, nexus: int) -> "Format":
        """`nexus` has asked for it, and need not be told."""
        made = cls(unit, {"pattern": pattern.hex(), "passes": 1, "invert": False, "protection": protection})
        made._nexus = nexus
        return made

    def step(self, done: int) -> int:
        if any(self._block) or not self.unit.zeroing:
            return super().step(done)
        blocks = min(ERASE_BLOCKS_AT_ONCE, self.unit.blocks - done)
        self.unit.trim_raw(done, blocks)
        return done + blocks

    def finish(self) -> None:
        super().finish()
        unit, type_ = self.unit, int(self.parameters["protection"])
        if type_ != unit.protection_type:
            unit.part(Protection).set_type(type_)
            assert unit.device is not None
            unit.device.attention(_CAPACITY_CHANGED, besides=self._nexus, unit=unit)
