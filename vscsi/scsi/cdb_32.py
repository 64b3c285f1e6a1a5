# SPDX-License-Identifier: BSD-2-Clause
"""CDBs of 32 bytes (opcode 7Fh; SBC-3 5, SBC-4 5): they carry what protection information is checked against.

Knows where fields stand. Must not know which type of protection makes them valid.
"""

from vscsi.scsi.cdb_row import VARIABLE_LENGTH, Cdb, Data
from vscsi.scsi.fields import Field, be16, be32, be64, bit, bits

_FUA_NV = bit(10, 1)


def _cdb(sa: int, name: str, data: Data, *, fua_nv: bool = False, **fields: Field) -> Cdb:
    """What all have: LBA and GROUP NUMBER."""
    return Cdb(
        VARIABLE_LENGTH, name, data, sa=sa, zero_is_256=False, ignored=(_FUA_NV,) if fua_nv else (),
        group_number=bits(6, 4, 0), lba=be64(12), **fields,
    )  # fmt: skip


def _checked(sa: int, name: str, data: Data, *, fua_nv: bool = False, **fields: Field) -> Cdb:
    """And what protection information is to be expected."""
    return _cdb(
        sa, name, data, fua_nv=fua_nv, expected_initial_reference_tag=be32(20), expected_application_tag=be16(24),
        application_tag_mask=be16(26), **fields,
    )  # fmt: skip


READ_32 = _checked(
    0x0009, "READ(32)", Data.IN, fua_nv=True,
    rdprotect=bits(10, 7, 5), dpo=bit(10, 4), fua=bit(10, 3), rarc=bit(10, 2), transfer_length=be32(28),
)  # fmt: skip
VERIFY_32 = _checked(
    0x000A, "VERIFY(32)", Data.OUT,
    vrprotect=bits(10, 7, 5), dpo=bit(10, 4), bytchk=bits(10, 2, 1), verification_length=be32(28),
)  # fmt: skip
WRITE_32 = _checked(
    0x000B, "WRITE(32)", Data.OUT, fua_nv=True,
    wrprotect=bits(10, 7, 5), dpo=bit(10, 4), fua=bit(10, 3), transfer_length=be32(28),
)  # fmt: skip
WRITE_AND_VERIFY_32 = _checked(
    0x000C, "WRITE AND VERIFY(32)", Data.OUT,
    wrprotect=bits(10, 7, 5), dpo=bit(10, 4), bytchk=bits(10, 2, 1), transfer_length=be32(28),
)  # fmt: skip
WRITE_SAME_32 = _checked(
    0x000D, "WRITE SAME(32)", Data.OUT,
    wrprotect=bits(10, 7, 5), anchor=bit(10, 4), unmap=bit(10, 3), ndob=bit(10, 0), number_of_logical_blocks=be32(28),
)  # fmt: skip
ORWRITE_32 = _cdb(
    0x000E, "ORWRITE(32)", Data.OUT, fua_nv=True,
    bmop=bits(2, 2, 0), previous_generation_processing=bits(3, 3, 0),
    orprotect=bits(10, 7, 5), dpo=bit(10, 4), fua=bit(10, 3),
    expected_orwgeneration=be32(20), new_orwgeneration=be32(24), transfer_length=be32(28),
)  # fmt: skip
WRITE_ATOMIC_32 = _checked(
    0x000F, "WRITE ATOMIC(32)", Data.OUT, atomic_boundary=be16(4),
    wrprotect=bits(10, 7, 5), dpo=bit(10, 4), fua=bit(10, 3), transfer_length=be32(28),
)  # fmt: skip
