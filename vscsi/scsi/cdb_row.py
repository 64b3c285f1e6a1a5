# SPDX-License-Identifier: BSD-2-Clause
"""What a row of the table of CDBs is: builder, parser, usage map, reserved-bit check, direction and size.

Knows how a CDB is made up (SPC-4 4.2.5). The rows stand in cdb_*.py, by family; `cdb` gathers them. Must not know any
command, nor what a target supports.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from vscsi.scsi.fields import Field, Layout, be8, be16, bits

GROUP_NBYTES = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
VARIABLE_LENGTH = 0x7F
_NACA = 0x04


class Data(Enum):
    """Which way a command's data goes, seen from the initiator."""

    NONE = "none"
    IN = "in"
    OUT = "out"


class Cdb(Layout):
    """One command. `sa` is its service action, if the opcode has them; `ignored` are bits accepted without effect.

    Which field tells the size of the transfer follows from its name: allocation_length and parameter_list_length
    count bytes, `BLOCK_COUNTS` count logical blocks.
    """

    BLOCK_COUNTS = ("transfer_length", "verification_length", "prefetch_length", "number_of_logical_blocks")

    def __init__(
        self,
        opcode: int,
        name: str,
        data: Data = Data.NONE,
        *,
        sa: int | None = None,
        zero_is_256: bool = False,
        ignored: tuple[Field, ...] = (),
        **fields: Field,
    ) -> None:
        nbytes = 32 if opcode == VARIABLE_LENGTH else GROUP_NBYTES[opcode >> 5]
        self.control = be8(1) if opcode == VARIABLE_LENGTH else be8(nbytes - 1)
        super().__init__(nbytes, **fields, control=self.control)
        self.opcode, self.name, self.data, self.sa = opcode, name, data, sa
        self.sa_field = None if sa is None else be16(8) if opcode == VARIABLE_LENGTH else bits(1, 4, 0)
        self.zero_is_256 = zero_is_256
        self.ignored = ignored
        fixed = bytearray(nbytes)
        fixed[0] = opcode
        if opcode == VARIABLE_LENGTH:
            fixed[7] = nbytes - 8
        if self.sa_field is not None and sa is not None:
            self.sa_field.put(fixed, sa)
        self.fixed = bytes(fixed)

    def __repr__(self) -> str:
        return f"<Cdb {self.name}>"

    @property
    def key(self) -> tuple[int, int | None]:
        return self.opcode, self.sa

    @property
    def symbol(self) -> str:
        """The row's name in this module: READ(10) is READ_10."""
        return re.sub(r"[ (-]", "_", re.sub(r"[),]", "", self.name))

    @property
    def block_count(self) -> Field | None:
        """The field that counts logical blocks."""
        return next((self.fields[name] for name in self.BLOCK_COUNTS if name in self.fields), None)

    def build(self, **values: int | str) -> bytes:
        """The CDB with these fields. TypeError: unknown field; ValueError: a value does not fit."""
        cdb = bytearray(self.fixed)
        self.put(cdb, values)
        return bytes(cdb)

    def matches(self, cdb: bytes | bytearray | memoryview) -> bool:
        """Whether these bytes are this command, by length, opcode and service action."""
        if len(cdb) < self.nbytes or cdb[0] != self.opcode:
            return False
        return self.sa_field is None or self.sa_field.get(cdb) == self.sa

    def parse(self, cdb: bytes | bytearray | memoryview) -> dict[str, int]:
        """Every field by name. ValueError if these bytes are not this command."""
        if not self.matches(cdb):
            raise ValueError(f"not a CDB of {self.name}: {bytes(cdb).hex(' ')}")
        return self.numbers(cdb)

    def usage_map(self, without: Iterable[str] = ()) -> bytes:
        """CDB usage data (SPC-4 6.35.3): opcode and service action in place, ones where a field is evaluated.

        `without` names fields that the device server does not support. Of CONTROL there is NACA, its one bit that is
        not obsolete.
        """
        usage = bytearray(self.usage())
        for name in without:
            self.fields[name].put(usage, 0)
        self.fields["control"].put(usage, _NACA)
        for i, byte in enumerate(self.fixed):
            usage[i] |= byte
        return bytes(usage)

    def accept_map(self, without: Iterable[str] = ()) -> bytes:
        """The usage map and the ignored bits: a bit set outside of it is an invalid field in the CDB."""
        accept = bytearray(self.usage_map(without))
        for field in self.ignored:
            field.put(accept, field.mask)
        return bytes(accept)

    def data_nbytes(self, values: Mapping[str, int], block_nbytes: int) -> int:
        """Bytes that the command transfers by its CDB, at most; for VERIFY and WRITE SAME see their handlers."""
        for name in ("allocation_length", "parameter_list_length"):
            if name in values:
                return values[name]
        for name in self.BLOCK_COUNTS:
            if name in values:
                blocks = values[name] or (256 if self.zero_is_256 else 0)
                return 0 if self.data is Data.NONE else blocks * block_nbytes
        return 0


def reserved_bit(cdb: bytes, accept: bytes) -> tuple[int, int] | None:
    """(byte, bit) of the first bit of `cdb`, from the left, that `accept` does not cover."""
    for byte, (value, mask) in enumerate(zip(cdb, accept, strict=False)):
        if extra := value & ~mask:
            return byte, extra.bit_length() - 1
    return None
