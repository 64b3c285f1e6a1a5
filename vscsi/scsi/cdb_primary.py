# SPDX-License-Identifier: BSD-2-Clause
"""CDBs of every device type (SPC-4 6): inquiry, mode, log, diagnostics, buffers, reservations, reports.

Knows where fields stand. Must not know what a target supports.
"""

from vscsi.scsi.cdb_row import Cdb, Data
from vscsi.scsi.fields import be8, be16, be24, be32, be64, bit, bits

TEST_UNIT_READY = Cdb(0x00, "TEST UNIT READY")
REQUEST_SENSE = Cdb(0x03, "REQUEST SENSE", Data.IN, desc=bit(1, 0), allocation_length=be8(4))
INQUIRY = Cdb(0x12, "INQUIRY", Data.IN, evpd=bit(1, 0), page_code=be8(2), allocation_length=be16(3))
RECEIVE_DIAGNOSTIC_RESULTS = Cdb(
    0x1C, "RECEIVE DIAGNOSTIC RESULTS", Data.IN, pcv=bit(1, 0), page_code=be8(2), allocation_length=be16(3)
)
SEND_DIAGNOSTIC = Cdb(
    0x1D, "SEND DIAGNOSTIC", Data.OUT,
    self_test_code=bits(1, 7, 5), pf=bit(1, 4), selftest=bit(1, 2), devoffl=bit(1, 1), unitoffl=bit(1, 0),
    parameter_list_length=be16(3),
)  # fmt: skip
REPORT_LUNS = Cdb(0xA0, "REPORT LUNS", Data.IN, select_report=be8(2), allocation_length=be32(6))

# Mode and log parameters

MODE_SELECT_6 = Cdb(
    0x15, "MODE SELECT(6)", Data.OUT, pf=bit(1, 4), rtd=bit(1, 1), sp=bit(1, 0), parameter_list_length=be8(4)
)
MODE_SENSE_6 = Cdb(
    0x1A, "MODE SENSE(6)", Data.IN,
    dbd=bit(1, 3), pc=bits(2, 7, 6), page_code=bits(2, 5, 0), subpage_code=be8(3), allocation_length=be8(4),
)  # fmt: skip
MODE_SELECT_10 = Cdb(
    0x55, "MODE SELECT(10)", Data.OUT, pf=bit(1, 4), rtd=bit(1, 1), sp=bit(1, 0), parameter_list_length=be16(7)
)
MODE_SENSE_10 = Cdb(
    0x5A, "MODE SENSE(10)", Data.IN,
    llbaa=bit(1, 4), dbd=bit(1, 3), pc=bits(2, 7, 6), page_code=bits(2, 5, 0), subpage_code=be8(3),
    allocation_length=be16(7),
)  # fmt: skip
LOG_SELECT = Cdb(
    0x4C, "LOG SELECT", Data.OUT,
    pcr=bit(1, 1), sp=bit(1, 0), pc=bits(2, 7, 6), page_code=bits(2, 5, 0), subpage_code=be8(3),
    parameter_list_length=be16(7),
)  # fmt: skip
LOG_SENSE = Cdb(
    0x4D, "LOG SENSE", Data.IN,
    sp=bit(1, 0), pc=bits(2, 7, 6), page_code=bits(2, 5, 0), subpage_code=be8(3), parameter_pointer=be16(5),
    allocation_length=be16(7),
)  # fmt: skip

# Buffers: MODE, in the place of a service action, makes a command of its own of each


def _write_buffer(mode: int, what: str) -> Cdb:
    return Cdb(
        0x3B, f"WRITE BUFFER, {what}", Data.OUT, sa=mode,
        mode_specific=bits(1, 7, 5), buffer_id=be8(2), buffer_offset=be24(3), parameter_list_length=be24(6),
    )  # fmt: skip


def _read_buffer_10(mode: int, what: str) -> Cdb:
    return Cdb(
        0x3C, f"READ BUFFER(10), {what}", Data.IN, sa=mode,
        mode_specific=bits(1, 7, 5), buffer_id=be8(2), buffer_offset=be24(3), allocation_length=be24(6),
    )  # fmt: skip


def _read_buffer_16(mode: int, what: str) -> Cdb:
    return Cdb(
        0x9B, f"READ BUFFER(16), {what}", Data.IN, sa=mode,
        mode_specific=bits(1, 7, 5), buffer_offset=be64(2), allocation_length=be32(10), buffer_id=be8(14),
    )  # fmt: skip


WRITE_BUFFER_DATA = _write_buffer(0x02, "DATA")
WRITE_BUFFER_ECHO = _write_buffer(0x0A, "ECHO")
READ_BUFFER_10_DATA = _read_buffer_10(0x02, "DATA")
READ_BUFFER_10_DESCRIPTOR = _read_buffer_10(0x03, "DESCRIPTOR")
READ_BUFFER_10_ECHO = _read_buffer_10(0x0A, "ECHO")
READ_BUFFER_10_ECHO_DESCRIPTOR = _read_buffer_10(0x0B, "ECHO DESCRIPTOR")
READ_BUFFER_16_DATA = _read_buffer_16(0x02, "DATA")
READ_BUFFER_16_DESCRIPTOR = _read_buffer_16(0x03, "DESCRIPTOR")
READ_BUFFER_16_ECHO = _read_buffer_16(0x0A, "ECHO")
READ_BUFFER_16_ECHO_DESCRIPTOR = _read_buffer_16(0x0B, "ECHO DESCRIPTOR")

# Reservations. Of RESERVE and RELEASE (SPC-2 7.21 to 7.24) only reserving the whole unit for oneself is left.

_RESERVATION_ID = be8(2)
"""Means something only with the obsolete EXTENT bit."""

RESERVE_6 = Cdb(0x16, "RESERVE(6)", ignored=(_RESERVATION_ID,))
RELEASE_6 = Cdb(0x17, "RELEASE(6)", ignored=(_RESERVATION_ID,))
RESERVE_10 = Cdb(0x56, "RESERVE(10)", ignored=(_RESERVATION_ID,))
RELEASE_10 = Cdb(0x57, "RELEASE(10)", ignored=(_RESERVATION_ID,))


def _persistent_reserve_in(sa: int, what: str) -> Cdb:
    return Cdb(0x5E, f"PERSISTENT RESERVE IN, {what}", Data.IN, sa=sa, allocation_length=be16(7))


def _persistent_reserve_out(sa: int, what: str) -> Cdb:
    return Cdb(
        0x5F, f"PERSISTENT RESERVE OUT, {what}", Data.OUT, sa=sa,
        scope=bits(2, 7, 4), type=bits(2, 3, 0), parameter_list_length=be32(5),
    )  # fmt: skip


PERSISTENT_RESERVE_IN_READ_KEYS = _persistent_reserve_in(0x00, "READ KEYS")
PERSISTENT_RESERVE_IN_READ_RESERVATION = _persistent_reserve_in(0x01, "READ RESERVATION")
PERSISTENT_RESERVE_IN_REPORT_CAPABILITIES = _persistent_reserve_in(0x02, "REPORT CAPABILITIES")
PERSISTENT_RESERVE_IN_READ_FULL_STATUS = _persistent_reserve_in(0x03, "READ FULL STATUS")
PERSISTENT_RESERVE_OUT_REGISTER = _persistent_reserve_out(0x00, "REGISTER")
PERSISTENT_RESERVE_OUT_RESERVE = _persistent_reserve_out(0x01, "RESERVE")
PERSISTENT_RESERVE_OUT_RELEASE = _persistent_reserve_out(0x02, "RELEASE")
PERSISTENT_RESERVE_OUT_CLEAR = _persistent_reserve_out(0x03, "CLEAR")
PERSISTENT_RESERVE_OUT_PREEMPT = _persistent_reserve_out(0x04, "PREEMPT")
PERSISTENT_RESERVE_OUT_PREEMPT_AND_ABORT = _persistent_reserve_out(0x05, "PREEMPT AND ABORT")
PERSISTENT_RESERVE_OUT_REGISTER_AND_IGNORE_EXISTING_KEY = _persistent_reserve_out(
    0x06, "REGISTER AND IGNORE EXISTING KEY"
)
PERSISTENT_RESERVE_OUT_REGISTER_AND_MOVE = _persistent_reserve_out(0x07, "REGISTER AND MOVE")
PERSISTENT_RESERVE_OUT_REPLACE_LOST_RESERVATION = _persistent_reserve_out(0x08, "REPLACE LOST RESERVATION")

# Maintenance: reports, and what sets the things reported

REPORT_IDENTIFYING_INFORMATION = Cdb(
    0xA3, "REPORT IDENTIFYING INFORMATION", Data.IN, sa=0x05,
    allocation_length=be32(6), identifying_information_type=bits(10, 7, 1),
)  # fmt: skip
REPORT_TARGET_PORT_GROUPS = Cdb(
    0xA3, "REPORT TARGET PORT GROUPS", Data.IN, sa=0x0A,
    parameter_data_format=bits(1, 7, 5), allocation_length=be32(6),
)  # fmt: skip
REPORT_SUPPORTED_OPERATION_CODES = Cdb(
    0xA3, "REPORT SUPPORTED OPERATION CODES", Data.IN, sa=0x0C,
    rctd=bit(2, 7), reporting_options=bits(2, 2, 0), requested_operation_code=be8(3),
    requested_service_action=be16(4), allocation_length=be32(6),
)  # fmt: skip
REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS = Cdb(
    0xA3, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", Data.IN, sa=0x0D, repd=bit(2, 7), allocation_length=be32(6)
)
REPORT_TIMESTAMP = Cdb(0xA3, "REPORT TIMESTAMP", Data.IN, sa=0x0F, allocation_length=be32(6))
SET_IDENTIFYING_INFORMATION = Cdb(
    0xA4, "SET IDENTIFYING INFORMATION", Data.OUT, sa=0x06,
    parameter_list_length=be32(6), identifying_information_type=bits(10, 7, 1),
)  # fmt: skip
SET_TARGET_PORT_GROUPS = Cdb(0xA4, "SET TARGET PORT GROUPS", Data.OUT, sa=0x0A, parameter_list_length=be32(6))
SET_TIMESTAMP = Cdb(0xA4, "SET TIMESTAMP", Data.OUT, sa=0x0F, parameter_list_length=be32(6))
