# SPDX-License-Identifier: BSD-2-Clause
"""Commands that Python runs, over real rings: the same answers as without, and what only a running target can show."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_device import SETUPS, FakeDevice, fresh, is_service_action, spec_with
from memory_store import BLOCKS, SIZE, Memory, block

from initiator import Initiator, ScsiError
from initiator.vbd import Vbd
from target import commands, worker
from target.commands.table import Handler
from target.lu import LogicalUnit, open_lu
from target.lunspec import parse
from target.server import Server, ServerOptions
from vscsi.bus.local import Listener
from vscsi.native import lib as abi
from vscsi.scsi import cdb, inquiry, sense
from vscsi.scsi.status import Status

Serve = Callable[..., Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves logical units in this process and returns the socket."""
    running: list[tuple[Server, threading.Thread]] = []

    def make(*units: LogicalUnit) -> Path:
        path = tmp_path / f"s{len(running)}"
        server = Server(Listener(path), units, ServerOptions())
        ready = threading.Event()
        server.on_ready = ready.set
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        assert ready.wait(30)
        return path

    yield make
    for server, thread in running:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def memory() -> Memory:
    return Memory()


def memory_unit(memory: Memory, keys: str = "") -> LogicalUnit:
    return LogicalUnit(parse(f"0=x{keys}"), memory)


def test_the_native_core_and_python_reject_the_same_bits_alike(serve: Serve) -> None:
    """Every reserved bit of every command, over the ring and in Python: byte for byte the same sense data."""
    asked = 0
    for setup in SETUPS:
        device = FakeDevice(fresh(setup))
        rows = [handler for handler in commands.handlers().values() if spec_with(handler) == setup]
        with Initiator(serve(open_lu(parse(fresh(setup))))) as initiator:
            initiator.execute(0, cdb.TEST_UNIT_READY.build())  # takes the power-on attention away
            for handler in rows:
                asked += _reject_alike(initiator, device, handler)
        device.close()
    assert asked > 500


def _reject_alike(initiator: Initiator, device: FakeDevice, handler: Handler) -> int:
    row, asked = handler.row, 0
    accept = row.accept_map(handler.unsupported_everywhere())
    for place in range(8, 8 * row.nbytes):
        byte, bit = place // 8, 7 - place % 8
        if accept[byte] & 1 << bit or is_service_action(row, byte, bit):
            continue
        raw = bytearray(row.build())
        raw[byte] |= 1 << bit
        done = initiator.execute(0, bytes(raw))
        theirs, ours = sense.decode(done.sense), sense.decode(device.run(bytes(raw)).sense)
        assert done.status == Status.CHECK_CONDITION
        assert (theirs.code, theirs.field_pointer and theirs.field_pointer.byte) == (
            ours.code,
            ours.field_pointer and ours.field_pointer.byte,
        ), (row.name, byte, bit)
        asked += 1
    return asked


def test_answers_over_the_ring_are_those_of_the_functions(serve: Serve) -> None:
    device = FakeDevice("0=mem:1M,serial=S")
    path = serve(open_lu(parse("0=mem:1M,serial=S")))
    with Initiator(path) as initiator:
        initiator.execute(0, cdb.TEST_UNIT_READY.build())
        for raw in (
            cdb.INQUIRY.build(allocation_length=96),
            cdb.INQUIRY.build(evpd=1, page_code=0xB0, allocation_length=255),
            cdb.MODE_SENSE_10.build(page_code=0x3F, subpage_code=0xFF, allocation_length=255),
            cdb.READ_CAPACITY_16.build(allocation_length=20),
            cdb.REPORT_SUPPORTED_OPERATION_CODES.build(rctd=1, allocation_length=255),
            cdb.REPORT_LUNS.build(select_report=2, allocation_length=255),
        ):
            from fake_device import do_command_in

            expected = do_command_in(device, raw)
            done = initiator.execute(0, raw, data_in=255).raise_for_status()
            assert bytes(done.data_in) == expected
            assert done.in_residual == 255 - len(expected)
    device.close()


def test_port_name_is_that_of_the_login(serve: Serve) -> None:
    path = serve(open_lu(parse("0=mem:1M")))
    with Initiator(path) as initiator:
        raw = cdb.INQUIRY.build(evpd=1, page_code=0x83, allocation_length=252)
        data = bytes(initiator.execute(0, raw, data_in=252).data_in)
        assert initiator.target_info.target_port_id.hex().upper().encode() in data


def test_an_absent_unit(serve: Serve) -> None:
    path = serve(open_lu(parse("3=mem:1M")))
    with Initiator(path) as initiator:
        assert initiator.luns() == [3]
        done = initiator.execute(0, cdb.INQUIRY.build(allocation_length=96), data_in=96)
        assert done.data_in[0] == inquiry.NO_LOGICAL_UNIT
        done = initiator.execute(0, cdb.READ_10.build(transfer_length=1), data_in=512)
        assert sense.decode(done.sense).matches(sense.LOGICAL_UNIT_NOT_SUPPORTED)


def test_stop_and_start(serve: Serve) -> None:
    path = serve(open_lu(parse("0=mem:1M")))
    read = cdb.READ_10.build(transfer_length=1)
    with Initiator(path) as initiator:
        initiator.execute(0, cdb.TEST_UNIT_READY.build())
        initiator.execute(0, cdb.START_STOP_UNIT.build()).raise_for_status()
        done = initiator.execute(0, read, data_in=512)
        assert sense.decode(done.sense).matches(sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)
        done = initiator.execute(0, cdb.REQUEST_SENSE.build(allocation_length=18), data_in=18)
        assert sense.decode(done.data_in).matches(sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)
        initiator.execute(0, cdb.START_STOP_UNIT.build(start=1)).raise_for_status()
        initiator.execute(0, read, data_in=512).raise_for_status()


def test_request_sense_takes_the_attention_of_its_nexus(serve: Serve) -> None:
    path = serve(open_lu(parse("0=mem:1M")), open_lu(parse("1=mem:1M")))
    with Initiator(path) as initiator:
        raw = cdb.REQUEST_SENSE.build(allocation_length=18)
        codes = [sense.decode(initiator.execute(0, raw, data_in=18).data_in).code for _ in range(2)]
        assert codes == [0x062900, 0]
        initiator.execute(0, cdb.TEST_UNIT_READY.build()).raise_for_status()
        done = initiator.execute(1, cdb.TEST_UNIT_READY.build())
        assert sense.decode(done.sense).code == 0x062900


# ---- stores without a descriptor ----


def test_a_store_in_python_over_srp(serve: Serve, memory: Memory) -> None:
    path = serve(memory_unit(memory))
    with Initiator(path) as initiator:
        lun = initiator.lun(0)
        assert lun.read(5, 2) == block(5) + block(6)
        assert lun.read(0, BLOCKS) == bytes(memory.data)
        lun.write(5, b"q" * 1024, fua=True)
        lun.write(6, b"r" * 512)
        lun.flush()
        assert memory.calls == ["write fua", "write", "flush"]
        assert memory.data[5 * SIZE : 8 * SIZE] == b"q" * 512 + b"r" * 512 + block(7)
        memory.bad = {100}
        with pytest.raises(ScsiError) as caught:
            lun.read(90, 20)
        assert caught.value.sense.matches(sense.UNRECOVERED_READ_ERROR)
        assert caught.value.sense.information == 100


def test_a_store_in_python_over_blkif(serve: Serve, memory: Memory) -> None:
    path = serve(memory_unit(memory))
    with Vbd(path, lun=0) as vbd:
        assert vbd.read(5, 2) == block(5) + block(6)
        vbd.write(7, b"w" * 512)
        vbd.flush()
        assert memory.calls == ["write", "flush"]
        assert memory.data[7 * SIZE : 8 * SIZE] == b"w" * 512
        memory.bad = {100}
        with pytest.raises(Exception, match=r"(?i)read|error"):
            vbd.read(90, 20)


def test_write_through_in_python(serve: Serve, memory: Memory) -> None:
    path = serve(memory_unit(memory, ",cache=wt"))
    with Initiator(path) as initiator:
        initiator.lun(0).write(5, b"q" * 512)
    assert memory.calls[:1] == ["write fua"]


# ---- our bugs, aborts ----


def test_a_bug_costs_one_command_and_is_logged(
    serve: Serve, memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = serve(memory_unit(memory))
    monkeypatch.setattr(memory, "readinto", lambda buffer, offset: 1 // 0)
    with Initiator(path) as initiator:
        initiator.execute(0, cdb.TEST_UNIT_READY.build())
        done = initiator.execute(0, cdb.READ_10.build(transfer_length=1), data_in=512)
        assert sense.decode(done.sense).matches(sense.INTERNAL_TARGET_FAILURE)
        initiator.execute(0, cdb.TEST_UNIT_READY.build()).raise_for_status()
    assert "ZeroDivisionError" in caplog.text


def test_an_aborted_command_stops_between_chunks(serve: Serve, memory: Memory) -> None:
    path = serve(memory_unit(memory))
    memory.gate = threading.Event()
    with Initiator(path) as initiator:
        initiator.execute(0, cdb.TEST_UNIT_READY.build())
        initiator.submit(0, cdb.WRITE_SAME_16.build(number_of_logical_blocks=BLOCKS, ndob=1))
        assert memory.waiting.wait(30)
        answers: list[int] = []
        manage = threading.Thread(target=lambda: answers.append(initiator.task_management(abi.SRP_TMF_LUN_RESET, 0)))
        manage.start()
        manage.join(0.3)
        assert manage.is_alive(), "complete must wait until nothing can be written any more"
        memory.gate.set()
        manage.join(30)
        assert answers == [abi.SRP_RESP_COMPLETE]
        assert memory.calls == ["write"], "one chunk of two"
        done = initiator.reap(timeout=30)
        assert len(done) == 1
        assert done[0].error is not None


def test_trace(serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.TRACE, "value", 1)
    path = serve(open_lu(parse("0=mem:1M")))
    with caplog.at_level(logging.INFO), Initiator(path) as initiator:
        initiator.execute(0, cdb.INQUIRY.build(allocation_length=36), data_in=36)
        initiator.execute(0, cdb.INQUIRY.build(page_code=1), data_in=36)
    assert "lun 0: INQUIRY [12 00 00 00 24 00]: GOOD" in caplog.text
    assert "lun 0: INQUIRY [12 00 01 00 00 00]: illegal request: invalid field in cdb" in caplog.text
