# SPDX-License-Identifier: BSD-2-Clause
"""CDBs about the medium and the unit as a whole: capacity, format, sanitize, defects, start and stop (SBC-3 5).

Knows where fields stand. Must not know what a target supports.
"""

from vscsi.scsi.cdb_row import Cdb, Data
from vscsi.scsi.fields import be8, be16, be32, be64, bit, bits

FORMAT_UNIT = Cdb(
    0x04, "FORMAT UNIT", Data.OUT, ignored=(be8(3),),  # most significant byte of the obsolete INTERLEAVE
    fmtpinfo=bits(1, 7, 6), longlist=bit(1, 5), fmtdata=bit(1, 4), cmplst=bit(1, 3), defect_list_format=bits(1, 2, 0),
    vendor_specific=be8(2), ffmt=bits(4, 1, 0),
)  # fmt: skip
START_STOP_UNIT = Cdb(
    0x1B, "START STOP UNIT",
    immed=bit(1, 0), power_condition_modifier=bits(3, 3, 0), power_condition=bits(4, 7, 4),
    no_flush=bit(4, 2), loej=bit(4, 1), start=bit(4, 0),
)  # fmt: skip
PREVENT_ALLOW_MEDIUM_REMOVAL = Cdb(0x1E, "PREVENT ALLOW MEDIUM REMOVAL", prevent=bits(4, 1, 0))
READ_CAPACITY_10 = Cdb(0x25, "READ CAPACITY(10)", Data.IN, lba=be32(2), pmi=bit(8, 0))
READ_CAPACITY_16 = Cdb(
    0x9E, "READ CAPACITY(16)", Data.IN, sa=0x10, lba=be64(2), allocation_length=be32(10), pmi=bit(14, 0)
)
GET_LBA_STATUS = Cdb(
    0x9E, "GET LBA STATUS", Data.IN, sa=0x12, lba=be64(2), allocation_length=be32(10), report_type=be8(14)
)
REPORT_REFERRALS = Cdb(
    0x9E, "REPORT REFERRALS", Data.IN, sa=0x13, lba=be64(2), allocation_length=be32(10), one_seg=bit(14, 0)
)
READ_DEFECT_DATA_10 = Cdb(
    0x37, "READ DEFECT DATA(10)", Data.IN,
    req_plist=bit(2, 4), req_glist=bit(2, 3), defect_list_format=bits(2, 2, 0), allocation_length=be16(7),
)  # fmt: skip
READ_DEFECT_DATA_12 = Cdb(
    0xB7, "READ DEFECT DATA(12)", Data.IN,
    req_plist=bit(1, 4), req_glist=bit(1, 3), defect_list_format=bits(1, 2, 0), address_descriptor_index=be32(2),
    allocation_length=be32(6),
)  # fmt: skip


def _sanitize(sa: int, what: str) -> Cdb:
    return Cdb(0x48, f"SANITIZE, {what}", sa=sa, immed=bit(1, 7), znr=bit(1, 6), ause=bit(1, 5))


SANITIZE_OVERWRITE = Cdb(
    0x48, "SANITIZE, OVERWRITE", Data.OUT, sa=0x01,
    immed=bit(1, 7), znr=bit(1, 6), ause=bit(1, 5), parameter_list_length=be16(7),
)  # fmt: skip
# The others have no parameter list: a length that is not zero is as wrong as a reserved bit.
SANITIZE_BLOCK_ERASE = _sanitize(0x02, "BLOCK ERASE")
SANITIZE_CRYPTOGRAPHIC_ERASE = _sanitize(0x03, "CRYPTOGRAPHIC ERASE")
SANITIZE_EXIT_FAILURE_MODE = _sanitize(0x1F, "EXIT FAILURE MODE")
