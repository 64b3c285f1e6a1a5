# SPDX-License-Identifier: BSD-2-Clause
"""FORMAT UNIT: every rule of its parameter list, what is on the medium afterwards, and the types of protection."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from memory_store import BLOCKS, SIZE, Memory

from target.operation import Operation
from target.protection import Protection
from target.stores import Can
from vscsi.scsi import cdb, parameters, sense
from vscsi.scsi.sense import Sense

FORMAT = cdb.FORMAT_UNIT.build()
FMTDATA = cdb.FORMAT_UNIT.build(fmtdata=1)
LONG = cdb.FORMAT_UNIT.build(fmtdata=1, longlist=1)
FOV, DPRY, DCRT, STPF, IP, IMMED = 0x80, 0x40, 0x20, 0x10, 0x08, 0x02
WRONG, SHORT = sense.INVALID_FIELD_IN_PARAMETER_LIST, sense.PARAMETER_LIST_LENGTH_ERROR
IN_CDB = sense.INVALID_FIELD_IN_CDB


def short(flags: int = 0, usage: int = 0, defects: int = 0) -> bytes:
    return bytes((usage, flags)) + defects.to_bytes(2)


def long(flags: int = 0, usage: int = 0, byte_3: int = 0, defects: int = 0) -> bytes:
    return bytes((usage, flags, 0, byte_3)) + defects.to_bytes(4)


def pattern(data: bytes, kind: int = 1, length: int | None = None) -> bytes:
    return bytes((0, kind)) + (len(data) if length is None else length).to_bytes(2) + data


@pytest.fixture
def store() -> Memory:
    return Memory()


@pytest.fixture
def device(store: Memory) -> Iterator[FakeDevice]:
    made = FakeDevice(store=store)
    made.connect(7)
    made.connect(8)
    yield made
    made.close()


# ---- what it does ----


@pytest.mark.parametrize("can", [Memory.can, Can.WRITE | Can.FLUSH])
@pytest.mark.parametrize(("raw", "data"), [(FORMAT, b""), (FMTDATA, short()), (LONG, long(FOV | DCRT | DPRY | STPF))])
def test_by_default_everything_is_zero(can: Can, raw: bytes, data: bytes) -> None:
    device = FakeDevice(store=(store := Memory(can)))
    do_command(device, raw, data)
    assert not any(store.data)
    assert any(call.startswith("trim") for call in store.calls) == (Can.TRIM in can)
    assert store.calls[-1] == "flush"
    device.close()


@pytest.mark.parametrize(("raw", "head"), [(FMTDATA, short(FOV | IP)), (LONG, long(FOV | IP))])
def test_initialization_pattern(device: FakeDevice, store: Memory, raw: bytes, head: bytes) -> None:
    port = do_command(device, raw, head + pattern(b"\xca\xfe\x01"))
    assert store.data == (b"\xca\xfe\x01" * SIZE)[:SIZE] * BLOCKS
    assert port.fetched == [(0, len(head) + 7)]
    do_command(device, raw, head + pattern(b"", 0))
    assert not any(store.data)
    do_command(device, raw, head + pattern(b"p" * SIZE))
    assert store.data == b"p" * SIZE * BLOCKS


def test_what_is_left_of_the_buffer_is_a_residual(device: FakeDevice) -> None:
    assert device.run(FMTDATA, FakePort(short() + bytes(100))).out_nbytes == 4
    assert device.run(FMTDATA, FakePort(short(FOV | IP) + pattern(b"ab") + bytes(100))).out_nbytes == 10


def test_capacity_does_not_change(device: FakeDevice) -> None:
    raw = cdb.READ_CAPACITY_16.build(allocation_length=32)
    before = do_command_in(device, raw)
    do_command(device, FORMAT)
    assert do_command_in(device, raw) == before
    assert not device.attentions or not any(device.attentions.values())


def test_immed(device: FakeDevice, store: Memory) -> None:
    import threading

    store.gate = threading.Event()
    do_command(device, FMTDATA, short(FOV | IP | IMMED) + pattern(b"N"))
    assert store.waiting.wait(10)
    run = device.units[0].part(Operation)._run
    assert run is not None
    assert device.operations[0][0] == sense.NOT_READY_FORMAT_IN_PROGRESS.code
    got = sense.decode(do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=252)))
    assert got.matches(sense.NOT_READY_FORMAT_IN_PROGRESS) and got.progress == 0
    do_command_fail(device, FORMAT, sense.NOT_READY_FORMAT_IN_PROGRESS)
    store.gate.set()
    assert run.ended.wait(10) and run.succeeded
    assert store.data == b"N" * SIZE * BLOCKS


# ---- what it refuses ----


@pytest.mark.parametrize("nbytes", range(8))
def test_a_list_too_short(device: FakeDevice, store: Memory, nbytes: int) -> None:
    if nbytes < 4:
        do_command_fail(device, FMTDATA, SHORT, data_out=bytes(nbytes))
    do_command_fail(device, LONG, SHORT, data_out=bytes(nbytes))
    assert not store.calls


@pytest.mark.parametrize(
    ("raw", "data", "code", "at"),
    [
        (FMTDATA, short(DPRY), WRONG, (1, 6)),
        (FMTDATA, short(DCRT), WRONG, (1, 5)),
        (FMTDATA, short(STPF), WRONG, (1, 4)),
        (FMTDATA, short(IP), WRONG, (1, 3)),
        (FMTDATA, short(1), WRONG, (1, 0)),
        (LONG, long(byte_3=0x10), WRONG, (3, None)),
        (LONG, long(byte_3=0x01), WRONG, (3, 3)),
        (FMTDATA, short(usage=1), WRONG, (0, 2)),
        (FMTDATA, short(defects=4) + bytes(4), WRONG, (2, None)),
        (FMTDATA, short(defects=4) + bytes(3), SHORT, None),
        (LONG, long(defects=8) + bytes(8), WRONG, (4, None)),
        (LONG, long(defects=0xFFFFFFFF) + bytes(8), SHORT, None),
        (FMTDATA, short(FOV | IP), SHORT, None),
        (FMTDATA, short(FOV | IP) + bytes(3), SHORT, None),
        (FMTDATA, short(FOV | IP) + pattern(b"x", 2), WRONG, (5, None)),
        (FMTDATA, short(FOV | IP) + pattern(b"", 1), WRONG, (6, None)),
        (FMTDATA, short(FOV | IP) + pattern(b"x", 0), WRONG, (6, None)),
        (FMTDATA, short(FOV | IP) + pattern(b"x", 1, 2), SHORT, None),
        (FMTDATA, short(FOV | IP) + pattern(b"x" * (SIZE + 1)), WRONG, (6, None)),
        (LONG, long(FOV | IP) + pattern(b"x" * (SIZE + 1)), WRONG, (10, None)),
        (cdb.FORMAT_UNIT.build(fmtpinfo=1), b"", IN_CDB, (1, None)),
        (cdb.FORMAT_UNIT.build(cmplst=1), b"", IN_CDB, (1, 3)),
        (cdb.FORMAT_UNIT.build(defect_list_format=4), b"", IN_CDB, (1, 2)),
        (cdb.FORMAT_UNIT.build(ffmt=1), b"", IN_CDB, (4, 1)),
        (cdb.FORMAT_UNIT.build(vendor_specific=1), b"", IN_CDB, (2, None)),
    ],
)
def test_every_rule(
    device: FakeDevice, store: Memory, raw: bytes, data: bytes, code: Sense, at: tuple[int, int | None] | None
) -> None:
    got = do_command_fail(device, raw, code, at, data_out=data)
    if at is not None:
        assert got.field_pointer is not None and got.field_pointer.in_cdb == (code is IN_CDB)
    assert not store.calls and not device.operations


def test_write_protected_and_stopped(device: FakeDevice) -> None:
    readonly = FakeDevice("0=mem:1M,ro")
    do_command_fail(readonly, FORMAT, sense.WRITE_PROTECTED)
    readonly.close()
    do_command(device, cdb.START_STOP_UNIT.build())
    do_command_fail(device, FORMAT, sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)


def test_failure(device: FakeDevice, store: Memory) -> None:
    store.error = OSError(5, "Input/output error")
    data = short(FOV | IP) + pattern(b"x")
    do_command_fail(device, FMTDATA, sense.FORMAT_COMMAND_FAILED, data_out=data)
    do_command_fail(device, cdb.TEST_UNIT_READY.build(), sense.FORMAT_COMMAND_FAILED)
    do_command(device, cdb.SANITIZE_EXIT_FAILURE_MODE.build())  # of a sanitize, which this was not
    do_command_fail(device, cdb.TEST_UNIT_READY.build(), sense.FORMAT_COMMAND_FAILED)
    store.error = None
    do_command(device, FMTDATA, data)
    do_command(device, cdb.TEST_UNIT_READY.build())


def test_a_failed_sanitize_is_not_undone_by_a_format(device: FakeDevice, store: Memory) -> None:
    store.error = OSError(5, "Input/output error")
    data = b"\x01\0\0\x01x"
    raw = cdb.SANITIZE_OVERWRITE.build(parameter_list_length=5)
    do_command_fail(device, raw, sense.SANITIZE_COMMAND_FAILED, data_out=data)
    store.error = None
    do_command_fail(device, FORMAT, sense.SANITIZE_COMMAND_FAILED)


# ---- protection ----

TYPES = [(0, 0, 0), (2, 0, 1), (3, 0, 2), (3, 1, 3)]


def prot(device: FakeDevice) -> tuple[int, int]:
    data = do_command_in(device, cdb.READ_CAPACITY_16.build(allocation_length=32))
    fields = parameters.CAPACITY_16.numbers(data)
    return fields["prot_en"], fields["p_type"]


@pytest.mark.parametrize(("info", "usage", "type_"), TYPES)
def test_every_type(info: int, usage: int, type_: int, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    device = FakeDevice(f"0={image},protection=2" if type_ != 2 else f"0={image}")
    device.connect(7)
    device.connect(8)
    do_command(device, cdb.WRITE_10.build(lba=5, transfer_length=1), b"x" * SIZE)
    do_command(device, cdb.FORMAT_UNIT.build(fmtdata=1, fmtpinfo=info), short(usage=usage), nexus=7)
    assert prot(device) == ((1, type_ - 1) if type_ else (0, 0))
    assert device.refreshed[-1] == 0
    assert [index for index, _ in device.attentions if device.attentions[index, 0]] == [8], "the issuer knows"
    assert device.attention_take(8, device.units[0]) == 0x2A09
    if type_:
        assert device.units[0].part(Protection).load(5, 1) == b"\xff" * 8
    device.close()
    again = FakeDevice(f"0={image}")
    assert again.units[0].protection_type == type_
    assert do_command_in(again, cdb.READ_10.build(lba=5, transfer_length=1)) == bytes(SIZE)
    again.close()


def test_without_a_list_the_usage_is_0(device: FakeDevice) -> None:
    do_command(device, cdb.FORMAT_UNIT.build(fmtpinfo=2))
    assert prot(device) == (1, 0)


@pytest.mark.parametrize(("info", "usage"), [(0, 1), (2, 1), (2, 7), (3, 2), (3, 7)])
def test_combinations_that_mean_nothing(device: FakeDevice, store: Memory, info: int, usage: int) -> None:
    raw = cdb.FORMAT_UNIT.build(fmtdata=1, fmtpinfo=info)
    do_command_fail(device, raw, WRONG, (0, 2), data_out=short(usage=usage))
    assert not store.calls


def test_nothing_to_protect() -> None:
    device = FakeDevice("0=null:1M")
    do_command_fail(device, cdb.FORMAT_UNIT.build(fmtpinfo=2), IN_CDB, (1, None))
    do_command(device, FORMAT)
    device.close()


def test_the_old_information_is_gone(device: FakeDevice) -> None:
    first = cdb.FORMAT_UNIT.build(fmtpinfo=2)
    do_command(device, first)
    do_command(device, cdb.WRITE_10.build(lba=5, transfer_length=1), b"x" * SIZE)
    do_command(device, first)
    raw = cdb.READ_10.build(rdprotect=1, lba=5, transfer_length=1)
    do_command_in(device, raw, expected=bytes(SIZE) + b"\xff" * 8)
