# SPDX-License-Identifier: BSD-2-Clause
"""Every command that Python runs, by its bytes; field pointers; allocation lengths."""

import dataclasses
from collections.abc import Iterator

import pytest
from fake_device import (
    FakeDevice,
    FakePort,
    do_command,
    do_command_fail,
    do_command_in,
    fresh,
    is_service_action,
    spec_with,
)

from target import commands
from target.commands import table
from target.native import lib
from vscsi.scsi import cdb, lun, parameters, sense
from vscsi.scsi.status import Status

ABSENT = 9


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M,serial=SER0", "3=mem:64k,bs=4096,ro,cache=wt,discard=off")
    yield made
    made.close()


# ---- the table ----


def test_every_handler_has_its_row() -> None:
    assert all(cdb.ROWS[key] is handler.row for key, handler in commands.handlers().items())


def test_a_command_has_one_handler() -> None:
    with pytest.raises(ValueError, match="has a handler already"):
        table.handles(cdb.INQUIRY, table.Conflict.NONE)(lambda task: None)


def test_native_rows_say_what_the_table_says() -> None:
    rows = {(r.opcode, r.service_action if r.flags & lib.VT_CMD_HAS_SA else None): r for r in commands.command_rows()}
    assert set(rows) == set(commands.handlers())
    read = rows[0x28, None]
    assert (read.op, read.lba_offset, read.lba_nbytes, read.length_offset, read.length_nbytes) == (1, 2, 4, 7, 2)
    assert (read.fua_mask, read.flags) == (0x08, lib.VT_CMD_NEEDS_READY)
    assert bytes(read.usage)[:10].hex() == "28faffffffff1fffff04"  # FUA_NV is accepted, RDPROTECT is for Python
    write = rows[0x8A, None]
    assert write.flags == lib.VT_CMD_NEEDS_READY | lib.VT_CMD_WRITES
    assert write.conflict == lib.VT_CONFLICT_WRITE | lib.VT_CONFLICT_SPC2
    assert rows[0x08, None].flags & lib.VT_CMD_ZERO_IS_256
    assert (rows[0x08, None].lba_nbytes, rows[0x08, None].fua_mask) == (3, 0)
    assert rows[0x35, None].flags & lib.VT_CMD_IMMED_BIT
    assert (rows[0x35, None].op, rows[0x35, None].length_nbytes) == (lib.VT_OP_SYNC, 2)
    inquiry = lib.VT_CMD_SKIPS_UA | lib.VT_CMD_ANY_LUN | lib.VT_CMD_DURING_OPERATION
    assert rows[0x12, None].flags == inquiry
    assert (rows[0x12, None].op, rows[0x12, None].conflict) == (lib.VT_OP_SLOW, 0)
    assert rows[0x9E, 0x10].flags & lib.VT_CMD_HAS_SA


def test_escape_fields_are_accepted_and_sent_to_python() -> None:
    handler = commands.find(cdb.READ_10.build())
    assert handler
    row = commands.native_row(handler)
    assert (row.escape_mask, row.usage[1]) == (0xE0, 0xFA), "RDPROTECT means something where a unit is formatted so"
    row = commands.native_row(dataclasses.replace(handler, escape=("rarc",)))
    assert (row.escape_mask, row.usage[1]) == (0xE4, 0xFE)
    with pytest.raises(ValueError, match="not in byte 1"):
        commands.native_row(dataclasses.replace(handler, escape=("group_number",)))


def test_sense_codes_of_the_native_core_are_those_of_the_table() -> None:
    from target.native import ffi

    names = {code.code: name for name, code in sense.NAMED.items()}
    for value, name in ffi.typeof("enum vt_sense").elements.items():
        if value:
            words = name.removeprefix("VT_SENSE_")
            assert value in names
            assert names[value].startswith(words) or words in ("DATA_BUFFER_ERROR", "LOGICAL_UNIT_NOT_READY"), name


# ---- checks that every command shares ----


def test_unknown_commands(device: FakeDevice) -> None:
    do_command_fail(device, bytes.fromhex("ff 00 00 00 00 00"), sense.INVALID_COMMAND_OPERATION_CODE)
    do_command_fail(device, bytes.fromhex("9e 1f") + bytes(14), sense.INVALID_FIELD_IN_CDB, (1, 4))
    do_command_fail(device, b"", sense.INVALID_COMMAND_OPERATION_CODE)


@pytest.mark.parametrize("handler", commands.handlers().values(), ids=lambda h: h.row.symbol)
def test_every_reserved_bit_is_pointed_at(handler: table.Handler) -> None:
    device, row = FakeDevice(fresh(spec_with(handler))), handler.row
    accept = row.accept_map(handler.unsupported_everywhere())
    for place in range(8, 8 * row.nbytes):
        byte, bit = place // 8, 7 - place % 8
        if accept[byte] & 1 << bit or is_service_action(row, byte, bit):
            continue
        raw = bytearray(row.build())
        raw[byte] |= 1 << bit
        got = do_command_fail(device, bytes(raw), sense.INVALID_FIELD_IN_CDB)
        assert got.field_pointer is not None
        assert got.field_pointer.in_cdb
        assert got.field_pointer.byte == byte
        # an unsupported field is pointed at by its first bit, a reserved bit by itself
        assert got.field_pointer.bit is None or got.field_pointer.bit >= bit


@pytest.mark.parametrize(
    "raw",
    [
        cdb.INQUIRY.build(allocation_length=512),
        cdb.INQUIRY.build(evpd=1, page_code=0x83, allocation_length=512),
        cdb.INQUIRY.build(evpd=1, page_code=0xB0, allocation_length=512),
        cdb.REQUEST_SENSE.build(allocation_length=255),
        cdb.REPORT_LUNS.build(allocation_length=512),
        cdb.MODE_SENSE_6.build(page_code=0x3F, allocation_length=255),
        cdb.MODE_SENSE_10.build(page_code=0x3F, subpage_code=0xFF, allocation_length=512),
        cdb.READ_CAPACITY_16.build(allocation_length=512),
        cdb.REPORT_SUPPORTED_OPERATION_CODES.build(allocation_length=4096),
        cdb.REPORT_SUPPORTED_OPERATION_CODES.build(
            reporting_options=1, requested_operation_code=0x88, allocation_length=512
        ),
    ],
    ids=cdb.name_of,
)
def test_allocation_length_truncates_and_never_fails(device: FakeDevice, raw: bytes) -> None:
    whole = do_command_in(device, raw)
    row = cdb.lookup(raw)
    assert row is not None
    fields = row.parse(raw)
    for nbytes in range(256):
        shorter = row.build(**{**fields, "allocation_length": nbytes})
        assert do_command_in(device, shorter) == whole[:nbytes]


def test_a_buffer_smaller_than_the_allocation_length_gets_what_fits(device: FakeDevice) -> None:
    port = FakePort(data_in_nbytes=10)
    result = device.run(cdb.INQUIRY.build(allocation_length=96), port)
    assert (len(port.data_in), result.in_nbytes) == (10, 96), "the residual must tell of an overflow"


def test_our_bugs_are_internal_target_failures(device: FakeDevice, caplog: pytest.LogCaptureFixture) -> None:
    device.units[0].serial = None  # type: ignore[assignment]
    raw = cdb.INQUIRY.build(evpd=1, page_code=0x80, allocation_length=255)
    do_command_fail(device, raw, sense.INTERNAL_TARGET_FAILURE)
    assert "Traceback" in caplog.text
    assert "INQUIRY" in caplog.text


def test_descriptor_sense_where_the_unit_says_so(device: FakeDevice) -> None:
    device.units[0].descriptor_sense = True
    result = device.run(b"\xff" + bytes(5))
    assert result.sense[0] == 0x72


# ---- no unit there ----


def test_absent_units(device: FakeDevice) -> None:
    data = do_command_in(device, cdb.INQUIRY.build(allocation_length=96), lun=ABSENT)
    assert data[0] == 0x7F
    data = do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=18), lun=ABSENT)
    assert sense.decode(data).matches(sense.LOGICAL_UNIT_NOT_SUPPORTED)
    do_command_in(device, cdb.REPORT_LUNS.build(allocation_length=16), lun=ABSENT)
    do_command_fail(device, cdb.TEST_UNIT_READY.build(), sense.LOGICAL_UNIT_NOT_SUPPORTED, lun=ABSENT)
    do_command_fail(device, cdb.READ_CAPACITY_10.build(), sense.LOGICAL_UNIT_NOT_SUPPORTED, lun=ABSENT)
    do_command_in(
        device, cdb.INQUIRY.build(evpd=1, allocation_length=9), expected=bytes.fromhex("7f 00 00 01 00"), lun=ABSENT
    )
    raw = cdb.INQUIRY.build(evpd=1, page_code=0x83, allocation_length=9)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None), lun=ABSENT)


def test_the_well_known_unit(device: FakeDevice) -> None:
    data = do_command_in(device, cdb.INQUIRY.build(allocation_length=96), lun=lun.WLUN_REPORT_LUNS)
    assert data[0] == 0x1E
    do_command(device, cdb.TEST_UNIT_READY.build(), lun=lun.WLUN_REPORT_LUNS)
    data = do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=18), lun=lun.WLUN_REPORT_LUNS)
    assert sense.decode(data).key == 0
    do_command_fail(device, cdb.READ_CAPACITY_10.build(), sense.LOGICAL_UNIT_NOT_SUPPORTED, lun=lun.WLUN_REPORT_LUNS)


# ---- TEST UNIT READY, REQUEST SENSE, START STOP UNIT ----


def test_stop_and_start(device: FakeDevice) -> None:
    required = sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED
    do_command(device, cdb.TEST_UNIT_READY.build())
    do_command(device, cdb.START_STOP_UNIT.build(start=0))
    assert device.states[0] == required.code == 0x020402
    do_command_fail(device, cdb.TEST_UNIT_READY.build(), required)
    got = sense.decode(do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=18)))
    assert got.matches(required)
    do_command(device, cdb.START_STOP_UNIT.build(start=1))
    assert device.states[0] == 0
    do_command(device, cdb.TEST_UNIT_READY.build())
    do_command(device, cdb.START_STOP_UNIT.build(power_condition=3))
    do_command(device, cdb.TEST_UNIT_READY.build())
    do_command_fail(device, cdb.START_STOP_UNIT.build(power_condition=4), sense.INVALID_FIELD_IN_CDB, (4, None))
    do_command_fail(device, cdb.START_STOP_UNIT.build(loej=1), sense.INVALID_FIELD_IN_CDB, (4, 1))


def test_stop_flushes_and_a_failed_flush_is_never_followed_by_success(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken() -> None:
        calls.append(1)
        raise OSError(5, "no")

    monkeypatch.setattr(device.units[0].store, "flush", broken)
    do_command(device, cdb.START_STOP_UNIT.build(start=0, no_flush=1))
    assert not calls
    do_command_fail(device, cdb.START_STOP_UNIT.build(start=0), sense.WRITE_ERROR)
    assert len(calls) == 1
    monkeypatch.undo()
    do_command_fail(device, cdb.START_STOP_UNIT.build(start=0), sense.WRITE_ERROR)
    assert device.states[0] == sense.WRITE_ERROR.code


def test_a_flush_that_failed_in_the_native_core_counts_too(device: FakeDevice) -> None:
    device.sync_failures.add(0)
    do_command_fail(device, cdb.START_STOP_UNIT.build(start=0), sense.WRITE_ERROR)


@pytest.mark.parametrize("desc", [0, 1])
def test_request_sense_takes_one_unit_attention(device: FakeDevice, desc: int) -> None:
    device.attentions[7, 0] = [0x2900, 0x3F0E]
    raw = cdb.REQUEST_SENSE.build(desc=desc, allocation_length=252)
    codes = []
    for _ in range(3):
        data = do_command_in(device, raw)
        assert data[0] == (0x72 if desc else 0x70)
        codes.append(sense.decode(data).code)
    assert codes == [0x062900, 0x063F0E, 0]


# ---- REPORT LUNS ----


def test_report_luns(device: FakeDevice) -> None:
    raw = {n: cdb.REPORT_LUNS.build(select_report=n, allocation_length=512) for n in range(4)}
    assert parameters.decode_luns(do_command_in(device, raw[0])) == [0, 3]
    assert parameters.decode_luns(do_command_in(device, raw[1])) == [lun.WLUN_REPORT_LUNS]
    assert parameters.decode_luns(do_command_in(device, raw[2])) == [0, 3, lun.WLUN_REPORT_LUNS]
    do_command_fail(device, raw[3], sense.INVALID_FIELD_IN_CDB, (2, None))
    do_command_in(
        device, cdb.REPORT_LUNS.build(allocation_length=16), expected=bytes.fromhex("00000010 00000000") + bytes(8)
    )


def test_report_luns_takes_the_inventory_attention_away_everywhere(device: FakeDevice) -> None:
    device.attentions = {(7, 0): [0x2900, 0x3F0E], (7, 1): [0x3F0E], (8, 0): [0x3F0E]}
    do_command(device, cdb.REPORT_LUNS.build(select_report=1, allocation_length=512))
    assert device.attentions[7, 1] == [0x3F0E]
    do_command(device, cdb.REPORT_LUNS.build(allocation_length=512))
    assert device.attentions == {(7, 0): [0x2900], (7, 1): [], (8, 0): [0x3F0E]}


# ---- READ CAPACITY ----


def test_read_capacity(device: FakeDevice) -> None:
    do_command_in(device, cdb.READ_CAPACITY_10.build(), expected=bytes.fromhex("000007ff 00000200"))
    do_command_in(device, cdb.READ_CAPACITY_10.build(), expected=bytes.fromhex("0000000f 00001000"), lun=3)
    raw = cdb.READ_CAPACITY_16.build(allocation_length=32)
    do_command_in(device, raw, expected=bytes.fromhex("00000000000007ff 00000200 00 03 c000") + bytes(16))
    do_command_in(device, raw, expected=bytes.fromhex("000000000000000f 00001000 00 00 0000") + bytes(16), lun=3)
    do_command_fail(device, cdb.READ_CAPACITY_10.build(lba=1), sense.INVALID_FIELD_IN_CDB, (2, None))
    do_command(device, cdb.READ_CAPACITY_10.build(lba=1, pmi=1))


def test_read_capacity_of_what_ten_bytes_cannot_say() -> None:
    device = FakeDevice("0=null:8T")
    assert do_command_in(device, cdb.READ_CAPACITY_10.build())[:4] == b"\xff\xff\xff\xff"
    data = do_command_in(device, cdb.READ_CAPACITY_16.build(allocation_length=32))
    assert int.from_bytes(data[:8]) == (8 << 40) // 512 - 1
    assert device.units[0].descriptor_sense


# ---- REPORT SUPPORTED OPERATION CODES ----


def rsoc(device: FakeDevice, *, unit: int = 0, **fields: int) -> bytes:
    raw = cdb.REPORT_SUPPORTED_OPERATION_CODES.build(allocation_length=8192, **fields)
    return do_command_in(device, raw, lun=unit)


def test_all_operation_codes(device: FakeDevice) -> None:
    listed = parameters.decode_opcodes(rsoc(device))
    unit = device.units[0]
    assert [(c.opcode, c.service_action) for c in listed] == [
        key for key, handler in commands.handlers().items() if handler.supported(unit)
    ]
    assert all(c.cdb_nbytes == cdb.ROWS[c.opcode, c.service_action].nbytes for c in listed)
    assert all(c.timeouts is None for c in listed)
    timed = parameters.decode_opcodes(rsoc(device, rctd=1))
    assert [c.opcode for c in timed] == [c.opcode for c in listed]
    assert all(c.timeouts and c.timeouts[1] >= 30 for c in timed)
    assert 0x42 not in [c.opcode for c in parameters.decode_opcodes(rsoc(device, unit=3))], "UNMAP on a thick unit"


def test_one_operation_code(device: FakeDevice) -> None:
    data = rsoc(device, reporting_options=1, requested_operation_code=0x28)
    assert data.hex(" ") == "00 03 00 0a 28 18 ff ff ff ff 1f ff ff 04"
    data = rsoc(device, reporting_options=3, requested_operation_code=0x28, rctd=1)
    assert data[:4].hex() == "0083000a"
    assert data[14:].hex() == "000a0000000000010000001e"
    data = rsoc(device, reporting_options=2, requested_operation_code=0x9E, requested_service_action=0x10)
    assert data[:6].hex() == "000300109e10"
    for option, opcode, sa in ((1, 0xFF, 0), (2, 0xFF, 1), (3, 0xFF, 0), (2, 0x9E, 0x1F), (3, 0x28, 1), (3, 0x9E, 0)):
        data = rsoc(device, reporting_options=option, requested_operation_code=opcode, requested_service_action=sa)
        assert data.hex() == "00010000"


def test_operation_code_usage_depends_on_the_unit(device: FakeDevice) -> None:
    ask = {"reporting_options": 1, "requested_operation_code": 0x93}
    assert rsoc(device, **ask)[5] == 0x09
    assert rsoc(device, unit=3, **ask)[5] == 0x01
    assert rsoc(device, unit=3, reporting_options=1, requested_operation_code=0x42).hex() == "00010000"


def test_bad_reporting_options(device: FakeDevice) -> None:
    for fields in (
        {"reporting_options": 1, "requested_operation_code": 0x9E},
        {"reporting_options": 2, "requested_operation_code": 0x28},
        {"reporting_options": 4},
        {"reporting_options": 7},
    ):
        raw = cdb.REPORT_SUPPORTED_OPERATION_CODES.build(allocation_length=64, **fields)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, 2))


@pytest.mark.parametrize("handler", commands.handlers().values(), ids=lambda h: h.row.symbol)
def test_usage_maps_are_what_the_target_accepts(handler: table.Handler) -> None:
    device, row = FakeDevice(fresh(spec_with(handler))), handler.row
    fields = {"requested_operation_code": row.opcode, "requested_service_action": row.sa or 0}
    data = rsoc(device, reporting_options=3, **fields)
    assert data[1] & 7 == 3
    native = next(r for r in commands.command_rows() if (r.opcode, r.service_action) == (row.opcode, row.sa or 0))
    for usage, accepted in zip(data[4:], bytes(native.usage), strict=False):
        assert usage & ~accepted == 0


def test_aborted_commands_end_without_status(device: FakeDevice) -> None:
    raw = cdb.WRITE_SAME_16.build(ndob=1, number_of_logical_blocks=64)
    assert device.run(raw, FakePort(abort_after=0)).status is Status.TASK_ABORTED
