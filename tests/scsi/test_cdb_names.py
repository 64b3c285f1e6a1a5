# SPDX-License-Identifier: BSD-2-Clause
"""Opcodes and service actions of the table against two witnesses: sg3_utils' library and Linux' scsi_proto.h."""

import re

import pytest
from sgutils import library

from vscsi.scsi import cdb
from vscsi.scsi.cdb import Cdb

WORDED_OTHERWISE = {
    "WRITE ATOMIC(32)": "ATOMIC WRITE(32)",
    "EXTENDED COPY(LID4)": "EXTENDED COPY",
    "RECEIVE COPY STATUS(LID4)": "RECEIVE COPY STATUS",
    "RECEIVE COPY DATA(LID4)": "RECEIVE COPY DATA",
    "WRITE BUFFER, ECHO": "WRITE BUFFER, WRITE DATA TO ECHO BUFFER",
    "READ BUFFER(10), ECHO": "READ BUFFER(10), READ DATA FROM ECHO BUFFER",
    "READ BUFFER(10), ECHO DESCRIPTOR": "READ BUFFER(10), ECHO BUFFER DESCRIPTOR",
    "READ BUFFER(16), ECHO": "READ BUFFER(16), READ DATA FROM ECHO BUFFER",
    "READ BUFFER(16), ECHO DESCRIPTOR": "READ BUFFER(16), ECHO BUFFER DESCRIPTOR",
    "GET LBA STATUS": "GET LBA STATUS(16)",
}
"""What sg3_utils calls differently; the code is still asked for, by its number."""

LINUX = {
    "TEST_UNIT_READY": 0x00, "REQUEST_SENSE": 0x03, "FORMAT_UNIT": 0x04, "READ_6": 0x08, "WRITE_6": 0x0A,
    "INQUIRY": 0x12, "MODE_SELECT": 0x15, "RESERVE": 0x16, "RELEASE": 0x17, "MODE_SENSE": 0x1A, "START_STOP": 0x1B,
    "RECEIVE_DIAGNOSTIC": 0x1C, "SEND_DIAGNOSTIC": 0x1D, "ALLOW_MEDIUM_REMOVAL": 0x1E, "READ_CAPACITY": 0x25,
    "READ_10": 0x28, "WRITE_10": 0x2A, "WRITE_VERIFY": 0x2E, "VERIFY": 0x2F, "PRE_FETCH": 0x34,
    "SYNCHRONIZE_CACHE": 0x35, "READ_DEFECT_DATA": 0x37, "WRITE_BUFFER": 0x3B, "READ_BUFFER": 0x3C,
    "WRITE_SAME": 0x41, "UNMAP": 0x42, "LOG_SELECT": 0x4C, "LOG_SENSE": 0x4D, "MODE_SELECT_10": 0x55,
    "RESERVE_10": 0x56, "RELEASE_10": 0x57, "MODE_SENSE_10": 0x5A, "PERSISTENT_RESERVE_IN": 0x5E,
    "PERSISTENT_RESERVE_OUT": 0x5F, "VARIABLE_LENGTH_CMD": 0x7F, "EXTENDED_COPY": 0x83, "RECEIVE_COPY_RESULTS": 0x84,
    "READ_16": 0x88, "COMPARE_AND_WRITE": 0x89, "WRITE_16": 0x8A, "WRITE_VERIFY_16": 0x8E, "VERIFY_16": 0x8F,
    "SYNCHRONIZE_CACHE_16": 0x91, "WRITE_SAME_16": 0x93, "SERVICE_ACTION_IN_16": 0x9E, "REPORT_LUNS": 0xA0,
    "MAINTENANCE_IN": 0xA3, "MAINTENANCE_OUT": 0xA4, "READ_12": 0xA8, "WRITE_12": 0xAA, "WRITE_VERIFY_12": 0xAE,
    "VERIFY_12": 0xAF,
}  # fmt: skip
"""Numbers of the header that Linux builds its initiator and its target with."""

LINUX_SA = {
    (0x9E, 0x10): "READ_CAPACITY_16", (0x9E, 0x12): "GET_LBA_STATUS", (0x9E, 0x13): "REPORT_REFERRALS",
    (0xA3, 0x05): "REPORT_IDENTIFYING_INFORMATION", (0xA3, 0x0A): "REPORT_TARGET_PGS",
    (0xA3, 0x0C): "REPORT_SUPPORTED_OPERATION_CODES", (0xA3, 0x0D): "REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS",
    (0xA3, 0x0F): "REPORT_TIMESTAMP", (0xA4, 0x06): "SET_IDENTIFYING_INFORMATION", (0xA4, 0x0A): "SET_TARGET_PGS",
    (0xA4, 0x0F): "SET_TIMESTAMP", (0x7F, 0x09): "READ_32", (0x7F, 0x0A): "VERIFY_32", (0x7F, 0x0B): "WRITE_32",
    (0x7F, 0x0C): "WRITE_VERIFY_32", (0x7F, 0x0D): "WRITE_SAME_32",
}  # fmt: skip


def _plain(name: str) -> set[str]:
    """Words of a name that both sides use."""
    short = {"SYNCHRONIZE": "SYNC", "START": "START", "PGS": "GROUPS", "MEDIUM": "MEDIUM"}
    words = re.findall(r"[A-Z]+|\d+", name)
    return {short.get(word, word) for word in words} - {"AND", "PORT", "UNIT", "RESULTS", "DIAGNOSTIC"}


@pytest.mark.parametrize("row", cdb.ROWS.values(), ids=lambda row: row.symbol)
def test_names_are_those_of_sg3_utils(row: Cdb) -> None:
    assert library().command_name(row.opcode, row.sa or 0).upper() == WORDED_OTHERWISE.get(row.name, row.name)


def test_opcodes_of_linux_are_in_the_table() -> None:
    ours = {row.opcode for row in cdb.ROWS.values()}
    assert {name: code for name, code in LINUX.items() if code not in ours} == {}
    several = {opcode for opcode in ours if cdb.has_service_actions(opcode)}
    for name, code in LINUX.items():
        if code not in several:
            assert _plain(name) <= _plain(cdb.ROWS[code, None].symbol) | {"VERIFY"}, (name, cdb.ROWS[code, None].symbol)


def test_service_actions_of_linux_are_in_the_table() -> None:
    for key, name in LINUX_SA.items():
        assert _plain(name) <= _plain(cdb.ROWS[key].symbol), (name, cdb.ROWS[key].symbol)


CTL = {
    (0x3B, 0x02): "00 ff ff ff ff ff ff", (0x3C, 0x02): "00 ff ff ff ff ff ff", (0x5E, 0x00): "00 00 00 00 00 ff ff",
    (0x5F, 0x00): "ff 00 00 ff ff ff ff", (0x83, 0x00): "00 00 00 00 00 00 00 00 ff ff ff ff",
    (0x83, 0x10): "00 00 00 00 ff ff ff ff ff ff ff ff", (0x83, 0x11): "00 00 00 00 ff ff ff ff ff ff ff ff",
    (0x83, 0x1C): "ff ff ff ff", (0x84, 0x00): "ff 00 00 00 00 00 00 00 ff ff ff ff",
    (0x84, 0x03): "00 00 00 00 00 00 00 00 ff ff ff ff", (0x84, 0x04): "ff 00 00 00 00 00 00 00 ff ff ff ff",
    (0x84, 0x05): "ff ff ff ff 00 00 00 00 ff ff ff ff", (0x84, 0x07): "ff ff ff ff 00 00 00 00 ff ff ff ff",
    (0x84, 0x08): "00 00 00 00 00 00 00 00 ff ff ff ff", (0x9B, 0x02): "ff ff ff ff ff ff ff ff ff ff ff ff",
    (0x9E, 0x12): "ff ff ff ff ff ff ff ff ff ff ff ff", (0xA3, 0x0D): "80 00 00 00 ff ff ff ff",
    (0xA3, 0x0F): "00 00 00 00 ff ff ff ff", (0x37, None): "1f 00 00 00 00 ff ff", (0x15, None): "00 00 ff",
    (0x55, None): "00 00 00 00 00 ff ff", (0x1B, None): "00 0f f7", (0x1E, None): "00 00 03",
    (0x2E, None): "ff ff ff ff 00 ff ff", (0xAE, None): "ff ff ff ff ff ff ff ff",
    (0x8E, None): "ff ff ff ff ff ff ff ff ff ff ff ff", (0xAF, None): "ff ff ff ff ff ff ff ff",
    (0xB7, None): "ff ff ff ff ff ff ff ff", (0x89, None): "ff ff ff ff ff ff ff ff 00 00 00 ff",
    (0x9C, None): "ff ff ff ff ff ff ff ff 00 00 ff ff", (0x4D, None): "ff ff 00 ff ff ff ff",
    (0x41, None): "ff ff ff ff 00 ff ff", (0x93, None): "ff ff ff ff ff ff ff ff ff ff ff ff",
    (0x42, None): "00 00 00 00 00 ff ff",
}  # fmt: skip
"""From byte 2 on, what FreeBSD's target takes for fields (ctl_cmd_table.c)."""
CTL_BYTE_1 = {
    0x15: 0x13, 0x55: 0x13, 0x1B: 0x01, 0x2E: 0x12, 0xAE: 0x12, 0x8E: 0x12, 0x2F: 0x16, 0xAF: 0x16, 0x8F: 0x16,
    0xB7: 0x1F, 0x89: 0x18, 0x9C: 0x18, 0x42: 0x01, 0x88: 0x1A, 0x8A: 0x1A, 0x91: 0x06,
}  # fmt: skip
"""Its byte 1, which has fields that only some targets have: ours has to accept at least these bits."""
NOT_THERE = ("buffer_id", "group_number", "report_type", "atomic_boundary")
"""Fields that it does not have."""


@pytest.mark.parametrize("key", CTL, ids=lambda key: cdb.ROWS[key].symbol)
def test_fields_stand_where_freebsd_has_them(key: tuple[int, int | None]) -> None:
    row = cdb.ROWS[key]
    theirs = bytes.fromhex(CTL[key]).ljust(row.nbytes - 3, b"\0")
    ours = row.accept_map()[2:-1]
    assert [mine & byte for mine, byte in zip(ours, theirs, strict=True)] == list(theirs)
    extra = sum(mine.bit_count() - byte.bit_count() for mine, byte in zip(ours, theirs, strict=True))
    assert extra == sum(row.fields[name].width for name in NOT_THERE if name in row.fields)


def test_bits_of_byte_1_that_freebsd_accepts() -> None:
    for opcode, mask in CTL_BYTE_1.items():
        row = cdb.ROWS[opcode, None]
        assert row.accept_map()[1] & mask == mask, row
