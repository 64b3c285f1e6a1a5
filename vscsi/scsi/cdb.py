# SPDX-License-Identifier: BSD-2-Clause
"""Command descriptor blocks: one row per command, for both ends.

From a row follow builder, parser, usage map, reserved-bit check, direction and size of the transfer. A new command is
a new row. Knows the standards' facts (SPC-4, SBC-3); must not know which of them a target supports, nor its policy.
"""

from collections.abc import Iterable, Mapping
from enum import Enum

from vscsi.scsi.fields import Field, Layout, be, be8, be16, be32, be64, bit, bits

_GROUP_NBYTES = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
VARIABLE_LENGTH = 0x7F


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

    BLOCK_COUNTS = ("transfer_length", "verification_length", "number_of_logical_blocks")

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
        nbytes = 32 if opcode == VARIABLE_LENGTH else _GROUP_NBYTES[opcode >> 5]
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
        return self.name.replace(")", "").replace("(", "_").replace(" ", "_")

    @property
    def block_count(self) -> Field | None:
        """The field that counts logical blocks."""
        return next((self.fields[name] for name in self.BLOCK_COUNTS if name in self.fields), None)

    def build(self, **values: int | str) -> bytes:
        """The CDB with these fields. TypeError: unknown field; ValueError: a value does not fit."""
        cdb = bytearray(self.fixed)
        self.put(cdb, values)
        return bytes(cdb)

    def parse(self, cdb: bytes | bytearray | memoryview) -> dict[str, int]:
        """Every field by name. ValueError if these bytes are not this command."""
        if len(cdb) < self.nbytes or lookup(cdb) is not self:
            raise ValueError(f"not a CDB of {self.name}: {bytes(cdb).hex(' ')}")
        return self.numbers(cdb)

    def usage_map(self, without: Iterable[str] = ()) -> bytes:
        """CDB usage data (SPC-4 6.35.3): opcode and service action in place, ones where a field is evaluated.

        `without` names fields that the device server does not support. CONTROL is never included: NACA, its one bit
        that is not obsolete, needs ACA.
        """
        usage = bytearray(self.usage())
        for name in (*without, "control"):
            self.fields[name].put(usage, 0)
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


_GROUP_10 = bits(6, 4, 0)
_GROUP_16 = bits(14, 4, 0)
_FUA_NV = bit(1, 1)
"""Obsolete; initiators still set it."""
_SYNC_NV = bit(1, 2)

TEST_UNIT_READY = Cdb(0x00, "TEST UNIT READY")
REQUEST_SENSE = Cdb(0x03, "REQUEST SENSE", Data.IN, desc=bit(1, 0), allocation_length=be8(4))
READ_6 = Cdb(0x08, "READ(6)", Data.IN, zero_is_256=True, lba=Field(1, 3, 0, 21), transfer_length=be8(4))
WRITE_6 = Cdb(0x0A, "WRITE(6)", Data.OUT, zero_is_256=True, lba=Field(1, 3, 0, 21), transfer_length=be8(4))
INQUIRY = Cdb(0x12, "INQUIRY", Data.IN, evpd=bit(1, 0), page_code=be8(2), allocation_length=be16(3))
MODE_SENSE_6 = Cdb(
    0x1A, "MODE SENSE(6)", Data.IN,
    dbd=bit(1, 3), pc=bits(2, 7, 6), page_code=bits(2, 5, 0), subpage_code=be8(3), allocation_length=be8(4),
)  # fmt: skip
START_STOP_UNIT = Cdb(
    0x1B, "START STOP UNIT",
    immed=bit(1, 0), power_condition_modifier=bits(3, 3, 0), power_condition=bits(4, 7, 4),
    no_flush=bit(4, 2), loej=bit(4, 1), start=bit(4, 0),
)  # fmt: skip
READ_CAPACITY_10 = Cdb(0x25, "READ CAPACITY(10)", Data.IN, lba=be32(2), pmi=bit(8, 0))
READ_10 = Cdb(
    0x28, "READ(10)", Data.IN, ignored=(_FUA_NV,),
    rdprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3), rarc=bit(1, 2),
    lba=be32(2), group_number=_GROUP_10, transfer_length=be16(7),
)  # fmt: skip
WRITE_10 = Cdb(
    0x2A, "WRITE(10)", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be32(2), group_number=_GROUP_10, transfer_length=be16(7),
)  # fmt: skip
VERIFY_10 = Cdb(
    0x2F, "VERIFY(10)", Data.OUT,
    vrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be32(2), group_number=_GROUP_10, verification_length=be16(7),
)  # fmt: skip
SYNCHRONIZE_CACHE_10 = Cdb(
    0x35, "SYNCHRONIZE CACHE(10)", ignored=(_SYNC_NV,),
    immed=bit(1, 1), lba=be32(2), group_number=_GROUP_10, number_of_logical_blocks=be16(7),
)  # fmt: skip
WRITE_SAME_10 = Cdb(
    0x41, "WRITE SAME(10)", Data.OUT,
    wrprotect=bits(1, 7, 5), anchor=bit(1, 4), unmap=bit(1, 3),
    lba=be32(2), group_number=_GROUP_10, number_of_logical_blocks=be16(7),
)  # fmt: skip
UNMAP = Cdb(0x42, "UNMAP", Data.OUT, anchor=bit(1, 0), group_number=_GROUP_10, parameter_list_length=be16(7))
MODE_SENSE_10 = Cdb(
    0x5A, "MODE SENSE(10)", Data.IN,
    llbaa=bit(1, 4), dbd=bit(1, 3), pc=bits(2, 7, 6), page_code=bits(2, 5, 0), subpage_code=be8(3),
    allocation_length=be16(7),
)  # fmt: skip
READ_16 = Cdb(
    0x88, "READ(16)", Data.IN, ignored=(_FUA_NV,),
    rdprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3), rarc=bit(1, 2),
    lba=be64(2), transfer_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
WRITE_16 = Cdb(
    0x8A, "WRITE(16)", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be64(2), transfer_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
VERIFY_16 = Cdb(
    0x8F, "VERIFY(16)", Data.OUT,
    vrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be64(2), verification_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
SYNCHRONIZE_CACHE_16 = Cdb(
    0x91, "SYNCHRONIZE CACHE(16)", ignored=(_SYNC_NV,),
    immed=bit(1, 1), lba=be64(2), number_of_logical_blocks=be32(10), group_number=_GROUP_16,
)  # fmt: skip
WRITE_SAME_16 = Cdb(
    0x93, "WRITE SAME(16)", Data.OUT,
    wrprotect=bits(1, 7, 5), anchor=bit(1, 4), unmap=bit(1, 3), ndob=bit(1, 0),
    lba=be64(2), number_of_logical_blocks=be32(10), group_number=_GROUP_16,
)  # fmt: skip
READ_CAPACITY_16 = Cdb(
    0x9E, "READ CAPACITY(16)", Data.IN, sa=0x10, lba=be64(2), allocation_length=be32(10), pmi=bit(14, 0)
)
REPORT_LUNS = Cdb(0xA0, "REPORT LUNS", Data.IN, select_report=be8(2), allocation_length=be32(6))
REPORT_SUPPORTED_OPERATION_CODES = Cdb(
    0xA3, "REPORT SUPPORTED OPERATION CODES", Data.IN, sa=0x0C,
    rctd=bit(2, 7), reporting_options=bits(2, 2, 0), requested_operation_code=be8(3),
    requested_service_action=be16(4), allocation_length=be32(6),
)  # fmt: skip
READ_12 = Cdb(
    0xA8, "READ(12)", Data.IN, ignored=(_FUA_NV,),
    rdprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3), rarc=bit(1, 2),
    lba=be32(2), transfer_length=be32(6), group_number=bits(10, 4, 0),
)  # fmt: skip
WRITE_12 = Cdb(
    0xAA, "WRITE(12)", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be32(2), transfer_length=be32(6), group_number=bits(10, 4, 0),
)  # fmt: skip

ROWS: Mapping[tuple[int, int | None], Cdb] = {row.key: row for row in list(globals().values()) if isinstance(row, Cdb)}
"""Every row by (opcode, service action)."""

_OPCODES_WITH_SA = {opcode for opcode, sa in ROWS if sa is not None}


def has_service_actions(opcode: int) -> bool:
    """Whether rows of this opcode are told apart by a service action."""
    return opcode in _OPCODES_WITH_SA


def lookup(cdb: bytes | bytearray | memoryview) -> Cdb | None:
    """The row of a CDB: first step of the parse, by opcode and service action alone. None: no such command here."""
    if len(cdb) < 2:
        return None
    opcode = cdb[0]
    if opcode not in _OPCODES_WITH_SA:
        return ROWS.get((opcode, None))
    place = be(8, 2) if opcode == VARIABLE_LENGTH else bits(1, 4, 0)
    return ROWS.get((opcode, place.get(cdb))) if len(cdb) >= place.end else None


def name_of(cdb: bytes | bytearray | memoryview) -> str:
    """What to call these bytes in a log line."""
    row = lookup(cdb)
    return row.name if row else f"opcode {cdb[0]:02X}h" if len(cdb) else "empty CDB"


def nbytes_of(opcode: int) -> int | None:
    """Length of a CDB by its opcode's group (SPC-4 4.2.5.1), None where the group does not tell."""
    return None if opcode == VARIABLE_LENGTH else _GROUP_NBYTES.get(opcode >> 5)
