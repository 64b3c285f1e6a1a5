# SPDX-License-Identifier: BSD-2-Clause
"""CDBs of third-party copy, 83h out and 84h in (SPC-4 6.4 and 6.17 to 6.24, SBC-3 5.8 and 5.49).

Knows where fields stand. Must not know segments, tokens, nor what a target supports.
"""

from vscsi.scsi.cdb_row import Cdb, Data
from vscsi.scsi.fields import be8, be32, bits

EXTENDED_COPY_LID1 = Cdb(0x83, "EXTENDED COPY(LID1)", Data.OUT, sa=0x00, parameter_list_length=be32(10))
EXTENDED_COPY_LID4 = Cdb(0x83, "EXTENDED COPY(LID4)", Data.OUT, sa=0x01, parameter_list_length=be32(10))
POPULATE_TOKEN = Cdb(
    0x83, "POPULATE TOKEN", Data.OUT, sa=0x10,
    list_identifier=be32(6), parameter_list_length=be32(10), group_number=bits(14, 4, 0),
)  # fmt: skip
WRITE_USING_TOKEN = Cdb(
    0x83, "WRITE USING TOKEN", Data.OUT, sa=0x11,
    list_identifier=be32(6), parameter_list_length=be32(10), group_number=bits(14, 4, 0),
)  # fmt: skip
COPY_OPERATION_ABORT = Cdb(0x83, "COPY OPERATION ABORT", sa=0x1C, list_identifier=be32(2))

RECEIVE_COPY_STATUS_LID1 = Cdb(
    0x84, "RECEIVE COPY STATUS(LID1)", Data.IN, sa=0x00, list_identifier=be8(2), allocation_length=be32(10)
)
RECEIVE_COPY_DATA_LID1 = Cdb(
    0x84, "RECEIVE COPY DATA(LID1)", Data.IN, sa=0x01, list_identifier=be8(2), allocation_length=be32(10)
)
RECEIVE_COPY_OPERATING_PARAMETERS = Cdb(
    0x84, "RECEIVE COPY OPERATING PARAMETERS", Data.IN, sa=0x03, allocation_length=be32(10)
)
RECEIVE_COPY_FAILURE_DETAILS_LID1 = Cdb(
    0x84, "RECEIVE COPY FAILURE DETAILS(LID1)", Data.IN, sa=0x04, list_identifier=be8(2), allocation_length=be32(10)
)
RECEIVE_COPY_STATUS_LID4 = Cdb(
    0x84, "RECEIVE COPY STATUS(LID4)", Data.IN, sa=0x05, list_identifier=be32(2), allocation_length=be32(10)
)
RECEIVE_COPY_DATA_LID4 = Cdb(
    0x84, "RECEIVE COPY DATA(LID4)", Data.IN, sa=0x06, list_identifier=be32(2), allocation_length=be32(10)
)
RECEIVE_ROD_TOKEN_INFORMATION = Cdb(
    0x84, "RECEIVE ROD TOKEN INFORMATION", Data.IN, sa=0x07, list_identifier=be32(2), allocation_length=be32(10)
)
REPORT_ALL_ROD_TOKENS = Cdb(0x84, "REPORT ALL ROD TOKENS", Data.IN, sa=0x08, allocation_length=be32(10))
