# SPDX-License-Identifier: BSD-2-Clause
"""CDBs that read, write, verify, cache or unmap logical blocks (SBC-3 5, SBC-4 5); those of 32 bytes are elsewhere.

Knows where fields stand, and which obsolete bits initiators still set. Must not know what a target supports.
"""

from vscsi.scsi.cdb_row import Cdb, Data
from vscsi.scsi.fields import Field, be8, be16, be32, be64, bit, bits

_GROUP_10 = bits(6, 4, 0)
_GROUP_12 = bits(10, 4, 0)
_GROUP_16 = bits(14, 4, 0)
_FUA_NV = bit(1, 1)
"""Obsolete; initiators still set it."""
_SYNC_NV = bit(1, 2)

READ_6 = Cdb(0x08, "READ(6)", Data.IN, zero_is_256=True, lba=Field(1, 3, 0, 21), transfer_length=be8(4))
WRITE_6 = Cdb(0x0A, "WRITE(6)", Data.OUT, zero_is_256=True, lba=Field(1, 3, 0, 21), transfer_length=be8(4))
READ_10 = Cdb(
    0x28, "READ(10)", Data.IN, ignored=(_FUA_NV,),
    rdprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3), rarc=bit(1, 2),
    lba=be32(2), group_number=_GROUP_10, transfer_length=be16(7),
)  # fmt: skip
READ_12 = Cdb(
    0xA8, "READ(12)", Data.IN, ignored=(_FUA_NV,),
    rdprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3), rarc=bit(1, 2),
    lba=be32(2), transfer_length=be32(6), group_number=_GROUP_12,
)  # fmt: skip
READ_16 = Cdb(
    0x88, "READ(16)", Data.IN, ignored=(_FUA_NV,),
    rdprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3), rarc=bit(1, 2),
    lba=be64(2), transfer_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
WRITE_10 = Cdb(
    0x2A, "WRITE(10)", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be32(2), group_number=_GROUP_10, transfer_length=be16(7),
)  # fmt: skip
WRITE_12 = Cdb(
    0xAA, "WRITE(12)", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be32(2), transfer_length=be32(6), group_number=_GROUP_12,
)  # fmt: skip
WRITE_16 = Cdb(
    0x8A, "WRITE(16)", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be64(2), transfer_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
WRITE_AND_VERIFY_10 = Cdb(
    0x2E, "WRITE AND VERIFY(10)", Data.OUT,
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be32(2), group_number=_GROUP_10, transfer_length=be16(7),
)  # fmt: skip
WRITE_AND_VERIFY_12 = Cdb(
    0xAE, "WRITE AND VERIFY(12)", Data.OUT,
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be32(2), transfer_length=be32(6), group_number=_GROUP_12,
)  # fmt: skip
WRITE_AND_VERIFY_16 = Cdb(
    0x8E, "WRITE AND VERIFY(16)", Data.OUT,
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be64(2), transfer_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
VERIFY_10 = Cdb(
    0x2F, "VERIFY(10)", Data.OUT,
    vrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be32(2), group_number=_GROUP_10, verification_length=be16(7),
)  # fmt: skip
VERIFY_12 = Cdb(
    0xAF, "VERIFY(12)", Data.OUT,
    vrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be32(2), verification_length=be32(6), group_number=_GROUP_12,
)  # fmt: skip
VERIFY_16 = Cdb(
    0x8F, "VERIFY(16)", Data.OUT,
    vrprotect=bits(1, 7, 5), dpo=bit(1, 4), bytchk=bits(1, 2, 1),
    lba=be64(2), verification_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
PRE_FETCH_10 = Cdb(0x34, "PRE-FETCH(10)", immed=bit(1, 1), lba=be32(2), group_number=_GROUP_10, prefetch_length=be16(7))
PRE_FETCH_16 = Cdb(
    0x90, "PRE-FETCH(16)", immed=bit(1, 1), lba=be64(2), prefetch_length=be32(10), group_number=_GROUP_16
)
SYNCHRONIZE_CACHE_10 = Cdb(
    0x35, "SYNCHRONIZE CACHE(10)", ignored=(_SYNC_NV,),
    immed=bit(1, 1), lba=be32(2), group_number=_GROUP_10, number_of_logical_blocks=be16(7),
)  # fmt: skip
SYNCHRONIZE_CACHE_16 = Cdb(
    0x91, "SYNCHRONIZE CACHE(16)", ignored=(_SYNC_NV,),
    immed=bit(1, 1), lba=be64(2), number_of_logical_blocks=be32(10), group_number=_GROUP_16,
)  # fmt: skip
WRITE_SAME_10 = Cdb(
    0x41, "WRITE SAME(10)", Data.OUT,
    wrprotect=bits(1, 7, 5), anchor=bit(1, 4), unmap=bit(1, 3),
    lba=be32(2), group_number=_GROUP_10, number_of_logical_blocks=be16(7),
)  # fmt: skip
WRITE_SAME_16 = Cdb(
    0x93, "WRITE SAME(16)", Data.OUT,
    wrprotect=bits(1, 7, 5), anchor=bit(1, 4), unmap=bit(1, 3), ndob=bit(1, 0),
    lba=be64(2), number_of_logical_blocks=be32(10), group_number=_GROUP_16,
)  # fmt: skip
UNMAP = Cdb(0x42, "UNMAP", Data.OUT, anchor=bit(1, 0), group_number=_GROUP_10, parameter_list_length=be16(7))
COMPARE_AND_WRITE = Cdb(
    0x89, "COMPARE AND WRITE", Data.OUT, ignored=(_FUA_NV,),
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be64(2), number_of_logical_blocks=be8(13), group_number=_GROUP_16,
)  # fmt: skip
ORWRITE_16 = Cdb(
    0x8B, "ORWRITE(16)", Data.OUT, ignored=(_FUA_NV,),
    orprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be64(2), transfer_length=be32(10), group_number=_GROUP_16,
)  # fmt: skip
WRITE_ATOMIC_16 = Cdb(
    0x9C, "WRITE ATOMIC(16)", Data.OUT,
    wrprotect=bits(1, 7, 5), dpo=bit(1, 4), fua=bit(1, 3),
    lba=be64(2), atomic_boundary=be16(10), transfer_length=be16(12), group_number=_GROUP_16,
)  # fmt: skip
