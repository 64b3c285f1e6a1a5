# SPDX-License-Identifier: BSD-2-Clause
"""SANITIZE: what it refuses before anything is touched, what is on the medium afterwards, who is told what."""

import threading
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import BLOCKS, SIZE, Memory

from target.operation import Operation
from target.stores import Can
from vscsi.scsi import cdb, medium, sense
from vscsi.scsi.status import Status

BLOCK_ERASE = cdb.SANITIZE_BLOCK_ERASE.build()
EXIT = cdb.SANITIZE_EXIT_FAILURE_MODE.build()
INVALID, WRONG_LIST = sense.INVALID_FIELD_IN_CDB, sense.INVALID_FIELD_IN_PARAMETER_LIST
WRITE_ERROR = OSError(5, "Input/output error")


def overwrite(pattern: bytes = b"\0", count: int = 1, *, invert: bool = False, **bits: int) -> tuple[bytes, bytes]:
    data = medium.encode_overwrite(pattern, count, invert=invert)
    return cdb.SANITIZE_OVERWRITE.build(parameter_list_length=len(data), **bits), data


def raw_overwrite(data: bytes) -> tuple[bytes, bytes]:
    return cdb.SANITIZE_OVERWRITE.build(parameter_list_length=len(data)), data


class Passes(Memory):
    """Remembers the first byte of every write at block 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[int] = []

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        if offset == 0:
            self.first.append(buffer[0])
        super().write(buffer, offset, fua)


@pytest.fixture
def store() -> Passes:
    return Passes()


@pytest.fixture
def device(store: Passes) -> FakeDevice:
    return FakeDevice(store=store)


# ---- what it does ----


def test_overwrite_fills_every_block(device: FakeDevice, store: Passes) -> None:
    port = do_command(device, *overwrite(b"\x5a\xa5\x01"))
    assert port.fetched == [(0, 7)]
    assert store.data == (b"\x5a\xa5\x01" * SIZE)[:SIZE] * BLOCKS
    assert store.calls[-1] == "flush"
    assert device.operations[0] == (0, 0)
    assert device.lock_log[:2] == [(0, 0, BLOCKS)] * 2, "waits for everything that was let in before"


@pytest.mark.parametrize(
    ("count", "invert", "passes"),
    [(1, False, [3]), (3, False, [3, 3, 3]), (1, True, [3]), (2, True, [0xFC, 3]), (3, True, [3, 0xFC, 3])],
)
def test_passes(device: FakeDevice, store: Passes, count: int, invert: bool, passes: list[int]) -> None:
    do_command(device, *overwrite(b"\3", count, invert=invert))
    assert store.first == passes
    assert store.data == b"\3" * SIZE * BLOCKS
    assert store.calls.count("flush") >= count, "each pass reaches the medium"


def test_block_erase_gives_everything_back(device: FakeDevice, store: Passes) -> None:
    do_command(device, BLOCK_ERASE)
    assert not any(store.data)
    assert sum(int(call.split()[2]) for call in store.calls if call.startswith("trim")) == BLOCKS


def test_every_part_forgets(device: FakeDevice) -> None:
    told: list[str] = []
    device.units[0].part(Operation).sanitized = lambda: told.append("sanitized")  # type: ignore[method-assign]
    do_command(device, BLOCK_ERASE)
    assert told == ["sanitized"]


@settings(max_examples=25, deadline=None)
@given(pattern=st.binary(min_size=1, max_size=512), invert=st.booleans(), count=st.integers(1, 4))
def test_any_pattern(pattern: bytes, invert: bool, count: int) -> None:
    device = FakeDevice("0=mem:64K")
    do_command(device, *overwrite(pattern, count, invert=invert))
    block = (pattern * 512)[:512]
    do_command_in(device, cdb.READ_10.build(transfer_length=128), expected=block * 128)
    device.close()


# ---- what it refuses ----


@pytest.mark.parametrize("length", [0, 1, 3, 4, 4 + SIZE + 1, 0xFFFF])
def test_parameter_list_length(device: FakeDevice, store: Passes, length: int) -> None:
    raw = cdb.SANITIZE_OVERWRITE.build(parameter_list_length=length)
    do_command_fail(device, raw, INVALID, (7, None), data_out=bytes(0x10000))
    assert not store.calls


@pytest.mark.parametrize("raw", [BLOCK_ERASE, EXIT])
def test_a_list_where_there_is_none(device: FakeDevice, raw: bytes) -> None:
    do_command_fail(device, raw[:8] + b"\1" + raw[9:], INVALID, (8, 0))


@pytest.mark.parametrize("row", [cdb.SANITIZE_OVERWRITE, cdb.SANITIZE_BLOCK_ERASE, cdb.SANITIZE_EXIT_FAILURE_MODE])
def test_znr_and_reserved_bytes(device: FakeDevice, store: Passes, row: cdb.Cdb) -> None:
    do_command_fail(device, row.build(znr=1), INVALID, (1, 6))
    for byte in range(2, 7):
        raw = bytearray(row.build())
        raw[byte] = 0x80
        do_command_fail(device, bytes(raw), INVALID, (byte, 7))
    assert not store.calls


@pytest.mark.parametrize("sa", [0, 3, 4, 0x1E])
def test_other_service_actions(device: FakeDevice, sa: int) -> None:
    do_command_fail(device, bytes((0x48, sa)) + bytes(8), INVALID, (1, 4))


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b"\x00\0\0\1Z", (0, 4)),
        (b"\x01\0\0\0Z", (2, None)),
        (b"\x01\0\0\2Z", (2, None)),
        (b"\x01\0\2\1" + bytes(512), (2, None)),
    ],
)
def test_parameter_list(device: FakeDevice, store: Passes, data: bytes, at: tuple[int, int | None]) -> None:
    raw, data = raw_overwrite(data)
    got = do_command_fail(device, raw, WRONG_LIST, at, data_out=data)
    assert got.field_pointer is not None and not got.field_pointer.in_cdb
    assert not store.calls and not device.operations


def test_list_cut_by_the_buffer(device: FakeDevice, store: Passes) -> None:
    raw, data = overwrite(b"abcd")
    do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=data[:-1])
    assert not store.calls


def test_write_protected() -> None:
    device = FakeDevice("0=mem:1M,ro")
    raw, data = overwrite()
    do_command_fail(device, raw, sense.WRITE_PROTECTED, data_out=data)


def test_stopped_unit(device: FakeDevice, store: Passes) -> None:
    do_command(device, cdb.START_STOP_UNIT.build())
    do_command_fail(device, BLOCK_ERASE, sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)
    assert not [call for call in store.calls if call != "flush"]


def test_thick_unit_has_no_block_erase() -> None:
    device = FakeDevice(store=Memory(Can.WRITE | Can.FLUSH))
    do_command_fail(device, BLOCK_ERASE, INVALID, (1, 4))
    raw = cdb.REPORT_SUPPORTED_OPERATION_CODES.build(
        reporting_options=3, requested_operation_code=0x48, requested_service_action=2, allocation_length=64
    )
    assert do_command_in(device, raw)[1] & 7 == 1
    do_command(device, *overwrite())


@pytest.mark.parametrize(("can", "wabereq"), [(Memory.can, 1), (Can.WRITE | Can.FLUSH, 0)])
def test_the_characteristics_page_agrees(can: Can, wabereq: int) -> None:
    device = FakeDevice(store=Memory(can))
    data = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0xB1, allocation_length=64))
    assert (data[7] >> 6) == wabereq


# ---- meanwhile ----


class Held(FakeDevice):
    """A unit whose sanitize has begun and waits in its first write; `go` lets it through."""

    def __init__(self, **keywords: object) -> None:
        self.memory = Memory()
        super().__init__(store=self.memory, **keywords)  # type: ignore[arg-type]
        self.memory.gate = threading.Event()
        do_command(self, *overwrite(b"Z", immed=1))
        assert self.memory.waiting.wait(10)
        self.run_ = self.units[0].part(Operation)._run

    def go(self) -> None:
        assert self.memory.gate is not None and self.run_ is not None
        self.memory.gate.set()
        assert self.run_.ended.wait(10)
        self.memory.gate = None


def test_immed_answers_at_once_and_others_are_told() -> None:
    device = Held()
    assert device.operations[0][0] == sense.NOT_READY_SANITIZE_IN_PROGRESS.code
    got = sense.decode(do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=252)))
    assert got.matches(sense.NOT_READY_SANITIZE_IN_PROGRESS) and got.progress == 0
    do_command(device, cdb.INQUIRY.build(allocation_length=96))
    again = do_command_fail(device, BLOCK_ERASE, sense.NOT_READY_SANITIZE_IN_PROGRESS)
    assert again.progress is not None
    do_command_fail(device, EXIT, sense.NOT_READY_SANITIZE_IN_PROGRESS)
    device.go()
    assert device.memory.data == b"Z" * SIZE * BLOCKS
    assert device.operations[0] == (0, 0)
    assert sense.decode(do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=252))).code == 0


def test_a_command_that_was_let_in_before_writes_nothing_after() -> None:
    """It has passed the native core's checks and now asks for its blocks."""
    device = Held()
    write = cdb.WRITE_10.build(lba=7, transfer_length=1)
    do_command_fail(device, write, sense.NOT_READY_SANITIZE_IN_PROGRESS, data_out=b"W" * SIZE)
    device.go()
    assert device.memory.data == b"Z" * SIZE * BLOCKS


def test_reset_does_not_stop_it() -> None:
    device = Held()
    device.units[0].reset()
    device.go()
    assert device.memory.data == b"Z" * SIZE * BLOCKS


def test_an_aborted_command_leaves_the_operation_running() -> None:
    device = FakeDevice(store=(store := Memory()))
    store.gate = threading.Event()
    raw, data = overwrite(b"Z")
    assert device.run(raw, FakePort(data, abort_after=0)).status is Status.TASK_ABORTED
    run = device.units[0].part(Operation)._run
    assert run is not None
    store.gate.set()
    assert run.ended.wait(10) and run.succeeded
    assert store.data == b"Z" * SIZE * BLOCKS


# ---- failure ----


def failed(ause: int, state: Path | None = None) -> tuple[FakeDevice, Passes]:
    device = FakeDevice(store=(store := Passes()), state=state)
    store.error = WRITE_ERROR
    raw, data = overwrite(b"Z", ause=ause)
    do_command_fail(device, raw, sense.SANITIZE_COMMAND_FAILED, data_out=data)
    assert device.states[0] == sense.SANITIZE_COMMAND_FAILED.code
    assert device.operations[0] == (0, 0)
    store.error = None
    return device, store


@pytest.mark.parametrize("ause", [0, 1])
def test_failure_lasts_until_a_sanitize_succeeds(ause: int) -> None:
    device, store = failed(ause)
    do_command_fail(device, cdb.TEST_UNIT_READY.build(), sense.SANITIZE_COMMAND_FAILED)
    do_command(device, *overwrite(b"Y"))
    assert device.states[0] == 0 and store.data == b"Y" * SIZE * BLOCKS
    do_command(device, cdb.TEST_UNIT_READY.build())


def test_failing_again(tmp_path: Path) -> None:
    device, store = failed(1)
    store.error = WRITE_ERROR
    raw, data = overwrite()
    do_command_fail(device, raw, sense.SANITIZE_COMMAND_FAILED, data_out=data)
    do_command_fail(device, EXIT, INVALID, (1, 4))  # the last one did not allow it


def test_exit_failure_mode() -> None:
    device, _ = failed(1)
    do_command(device, EXIT)
    assert device.states[0] == 0
    do_command(device, cdb.TEST_UNIT_READY.build())
    do_command(device, EXIT)  # nothing to leave


def test_no_exit_without_ause() -> None:
    device, _ = failed(0)
    do_command_fail(device, EXIT, INVALID, (1, 4))
    assert device.states[0] == sense.SANITIZE_COMMAND_FAILED.code


def test_a_failure_outlives_the_target(tmp_path: Path) -> None:
    first, _ = failed(1, tmp_path)
    first.close()
    device = FakeDevice(store=Passes(), state=tmp_path)
    unit = device.units[0]
    assert device.states[0] == sense.SANITIZE_COMMAND_FAILED.code
    do_command(device, EXIT)
    assert device.states[0] == 0 and unit.state.load("operation") is None


def test_what_cannot_be_remembered_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(store=(store := Passes()))

    def no_room(name: str, document: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(device.units[0].state, "save", no_room)
    raw, data = overwrite(b"Z")
    do_command_fail(device, raw, sense.SPACE_ALLOCATION_FAILED, data_out=data)
    assert not store.calls and not device.operations
    do_command(device, cdb.TEST_UNIT_READY.build())


def test_a_unit_that_grows_meanwhile_is_done_from_the_beginning(tmp_path: Path) -> None:
    """What is new may lie anywhere behind; what is done is simply done again."""
    device = Held()
    unit = device.units[0]
    unit.blocks //= 2
    device.go()
    assert device.memory.data[: unit.blocks * SIZE] == b"Z" * SIZE * unit.blocks
    first, _ = failed(0, tmp_path)
    document = first.units[0].state.load("operation")
    assert document is not None
    first.units[0].state.save("operation", document | {"failed": False, "done": BLOCKS - 1, "blocks": BLOCKS - 1})
    first.close()
    again = FakeDevice(store=(store := Passes()), state=tmp_path)
    run = again.units[0].part(Operation)._run
    assert run is None or run.ended.wait(10)
    assert store.data == b"Z" * SIZE * BLOCKS


def test_a_medium_that_is_kept_in_is_not_sanitized() -> None:
    device = FakeDevice("0=mem:64k,removable=on")
    do_command(device, cdb.WRITE_10.build(transfer_length=1), b"x" * 512)
    do_command(device, cdb.PREVENT_ALLOW_MEDIUM_REMOVAL.build(prevent=1))
    for raw in (cdb.SANITIZE_BLOCK_ERASE.build(), cdb.SANITIZE_BLOCK_ERASE.build(immed=1)):
        do_command_fail(device, raw, sense.MEDIUM_REMOVAL_PREVENTED)
    do_command_in(device, cdb.READ_10.build(transfer_length=1), expected=b"x" * 512)
    do_command(device, cdb.PREVENT_ALLOW_MEDIUM_REMOVAL.build())
    do_command(device, cdb.SANITIZE_BLOCK_ERASE.build())
    do_command_in(device, cdb.READ_10.build(transfer_length=1), expected=bytes(512))
    device.close()
