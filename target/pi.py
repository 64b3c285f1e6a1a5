# SPDX-License-Identifier: BSD-2-Clause
"""Protection information of blocks: made, checked, and put between blocks as it travels (SBC-3 4.22).

Knows 8-byte tuples of guard, application tag and reference tag. Must not know where they are kept, nor any command.
"""

from dataclasses import dataclass, replace
from typing import Any

from target.native import ffi, lib
from vscsi.scsi import sense
from vscsi.scsi.sense import Sense

PI_NBYTES = 8
ESCAPE = b"\xff" * PI_NBYTES
"""What blocks have that were never written: not checked under any type."""
NO_APP, NO_REF = 0xFFFF, 0xFFFFFFFF
_COUNTING, _CONSTANT = 1, 3
"""Types, as far as reference tags differ between them."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Which of the three are checked."""

    guard: bool
    app: bool
    ref: bool


ALL, NO_GUARD = Checks(True, True, True), Checks(False, True, True)
GUARD_ONLY, NONE = Checks(True, False, False), Checks(False, False, False)


@dataclass(frozen=True, slots=True)
class Tags:
    """What is expected: the first block's reference tag (None: nobody knows) and the application tag, under `mask`."""

    ref: int | None = None
    app: int = 0
    mask: int = 0

    def after(self, blocks: int) -> "Tags":
        """The same, so many blocks further on."""
        return self if self.ref is None else replace(self, ref=(self.ref + blocks) & NO_REF)


class Fault(Exception):
    """The first block, counted from 0, whose protection information is wrong, and what to call that."""

    def __init__(self, index: int, sense: Sense) -> None:
        super().__init__(f"block {index}: {sense.name}")
        self.index, self.sense = index, sense


_FAULTS = {
    lib.VT_PI_GUARD: sense.LOGICAL_BLOCK_GUARD_CHECK_FAILED,
    lib.VT_PI_APP: sense.LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED,
    lib.VT_PI_REF: sense.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED,
}
Data = bytes | bytearray | memoryview


def _at(data: Data) -> Any:
    return ffi.from_buffer("uint8_t[]", data)


def generate(data: Data, block_nbytes: int, *, app: int, ref: int, count: bool) -> bytearray:
    """Protection information for whole blocks. With `count` each reference tag is one more than the one before."""
    blocks = len(data) // block_nbytes
    made = bytearray(blocks * PI_NBYTES)
    type_ = _COUNTING if count else _CONSTANT
    lib.vt_pi_generate(_at(data), _at(made), blocks, block_nbytes, type_, ref, app)
    return made


def check(data: Data, info: Data, block_nbytes: int, type_: int, checks: Checks, tags: Tags, *, escape: bool) -> None:
    """Looks at each block; within one, at guard, application tag, reference tag. Raises Fault for the first that is
    wrong. With `escape`, blocks whose tags say so are not checked."""
    blocks, ref = len(info) // PI_NBYTES, tags.ref
    wanted = {
        lib.VT_PI_GUARD: checks.guard,
        lib.VT_PI_APP: checks.app,
        lib.VT_PI_REF: checks.ref and ref is not None,
        lib.VT_PI_NO_ESCAPE: not escape,
    }
    bits = sum(bit for bit, on in wanted.items() if on)
    rc = int(
        lib.vt_pi_check(
            _at(data),
            _at(info),
            blocks,
            block_nbytes,
            type_,
            ref or 0,
            tags.app,
            tags.mask,
            bits,
        )
    )
    if rc:
        raise Fault(rc >> lib.VT_PI_INDEX_SHIFT, _FAULTS[rc & (1 << lib.VT_PI_INDEX_SHIFT) - 1])


def join(data: Data, info: Data, block_nbytes: int) -> bytearray:
    """As on the wire: each block, then its protection information."""
    wire, blocks = bytearray(len(data) + len(info)), len(info) // PI_NBYTES
    lib.vt_pi_join(
        _at(wire),
        _at(data),
        _at(info),
        blocks,
        block_nbytes,
    )
    return wire


def split(wire: Data, block_nbytes: int) -> tuple[bytearray, bytearray]:
    """Data and protection information of what `join` gives."""
    blocks = len(wire) // (block_nbytes + PI_NBYTES)
    data, info = bytearray(blocks * block_nbytes), bytearray(blocks * PI_NBYTES)
    lib.vt_pi_split(
        _at(wire),
        _at(data),
        _at(info),
        blocks,
        block_nbytes,
    )
    return data, info


def with_guards(data: Data, info: Data, block_nbytes: int) -> bytearray:
    """The same tags with the guards of these blocks."""
    made, guards = bytearray(info), generate(data, block_nbytes, app=0, ref=0, count=False)
    made[0::PI_NBYTES], made[1::PI_NBYTES] = guards[0::PI_NBYTES], guards[1::PI_NBYTES]
    return made
