# SPDX-License-Identifier: BSD-2-Clause
"""Small reports and tests: defects, task management functions, target port groups, diagnostics."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in

from vscsi.scsi import cdb, inquiry, reports, sense, vpd
from vscsi.scsi.medium import DefectFormat


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M,serial=SER0")
    yield made
    made.close()


# ---- READ DEFECT DATA ----


def test_there_are_no_defects(device: FakeDevice) -> None:
    for kind in DefectFormat:
        for lists in range(4):
            fields = {
                "req_plist": lists >> 1, "req_glist": lists & 1, "defect_list_format": kind, "allocation_length": 64
            }  # fmt: skip
            ten, twelve = cdb.READ_DEFECT_DATA_10.build(**fields), cdb.READ_DEFECT_DATA_12.build(**fields)
            if kind is DefectFormat.VENDOR_SPECIFIC:
                do_command_fail(device, ten, sense.INVALID_FIELD_IN_CDB, (2, 2))
                do_command_fail(device, twelve, sense.INVALID_FIELD_IN_CDB, (1, 2))
                continue
            assert do_command_in(device, ten) == bytes([0, lists << 3 | kind, 0, 0])
            assert do_command_in(device, twelve) == bytes([0, lists << 3 | kind]) + bytes(6)
    do_command_fail(device, cdb.READ_DEFECT_DATA_10.build(defect_list_format=7), sense.INVALID_FIELD_IN_CDB, (2, 2))
    raw = cdb.READ_DEFECT_DATA_12.build(address_descriptor_index=99, allocation_length=8)
    assert do_command_in(device, raw) == bytes(8)


# ---- REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS ----


def test_task_management_functions(device: FakeDevice) -> None:
    raw = cdb.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS
    assert do_command_in(device, raw.build(allocation_length=64)).hex() == "f8000000"
    data = do_command_in(device, raw.build(repd=1, allocation_length=64))
    assert data.hex(" ", 4) == "f800000c 00000000 00000000 00000000"


# ---- REPORT TARGET PORT GROUPS ----


def test_target_port_groups(device: FakeDevice) -> None:
    row = cdb.REPORT_TARGET_PORT_GROUPS
    group = "00010001 00000001 00000001"
    assert do_command_in(device, row.build(allocation_length=64)).hex(" ", 4) == "0000000c " + group
    data = do_command_in(device, row.build(parameter_data_format=1, allocation_length=64))
    assert data.hex(" ", 4) == "00000010 10000000 " + group
    for data_format in range(2, 8):
        raw = row.build(parameter_data_format=data_format, allocation_length=64)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (1, None))
    assert reports.decode_port_groups(data)[0].ports == (1,)


def test_what_else_tells_of_port_groups_agrees(device: FakeDevice) -> None:
    standard = inquiry.decode(do_command_in(device, cdb.INQUIRY.build(allocation_length=96)))
    assert standard["tpgs"] == 1, "implicit: SET TARGET PORT GROUPS is not there"
    raw = cdb.SET_TARGET_PORT_GROUPS.build()
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (1, 4))
    page = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0x83, allocation_length=4096))
    found = {d.kind: d for d in vpd.decode_identification(page)}
    group = found[vpd.DesignatorType.TARGET_PORT_GROUP]
    assert (group.value, group.association) == (bytes((0, 0, 0, 1)), vpd.Association.TARGET_PORT)
    assert found[vpd.DesignatorType.RELATIVE_TARGET_PORT].value == bytes((0, 0, 0, 1))


# ---- pages that go with them ----


def test_extended_inquiry_and_mode_page_policy(device: FakeDevice) -> None:
    page = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0x86, allocation_length=4096))
    assert len(page) == 64
    assert page[5:14].hex(" ") == "17 01 01 08 00 00 00 00 d0"
    fields = vpd.EXTENDED_INQUIRY.decode(page)
    assert fields["rtd_sup"] == fields["v_sup"] == fields["luiclr"] == fields["group_sup"] == 1
    assert fields["maximum_supported_sense_data_length"] == 208
    page = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0x87, allocation_length=4096))
    assert page.hex(" ") == "00 87 00 04 3f ff 00 00"


# ---- SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS ----


def test_the_default_self_test_reads(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = cdb.SEND_DIAGNOSTIC.build(selftest=1)
    do_command(device, raw)
    assert [lock[1:] for lock in device.lock_log] == [(0, 1), (2047, 1)]

    def broken(*_: object) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(device.units[0].store, "readinto", broken)
    do_command_fail(device, raw, sense.LOGICAL_UNIT_FAILED_SELF_TEST)
    monkeypatch.undo()
    device.units[0].not_ready = sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED
    do_command_fail(device, raw, sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)


def test_send_diagnostic_lists(device: FakeDevice) -> None:
    invalid, row = sense.INVALID_FIELD_IN_CDB, cdb.SEND_DIAGNOSTIC
    do_command(device, row.build())
    do_command(device, row.build(pf=1, parameter_list_length=4), bytes(4))
    do_command_fail(device, row.build(self_test_code=1), invalid, (1, None))
    do_command_fail(device, row.build(selftest=1, parameter_list_length=4), invalid, (3, None), data_out=bytes(4))
    do_command_fail(device, row.build(parameter_list_length=4), invalid, (1, 4), data_out=bytes(4))
    for nbytes in range(1, 4):
        raw = row.build(pf=1, parameter_list_length=nbytes)
        do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=bytes(nbytes))
    for data, at in ((b"\x40\0\0\0", 0), (b"\0\0\0\4aaaa", 2)):
        raw = row.build(pf=1, parameter_list_length=len(data))
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, (at, None), data_out=data)


def test_receive_diagnostic_results(device: FakeDevice) -> None:
    row = cdb.RECEIVE_DIAGNOSTIC_RESULTS
    for pcv in (0, 1):
        assert do_command_in(device, row.build(pcv=pcv, allocation_length=64)) == b"\0\0\0\1\0"
    do_command_fail(device, row.build(pcv=1, page_code=0x40), sense.INVALID_FIELD_IN_CDB, (2, None))
