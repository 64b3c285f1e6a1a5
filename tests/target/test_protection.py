# SPDX-License-Identifier: BSD-2-Clause
"""Protection information on a served unit: over SRP and blkif, over a kill, a resize; and a model of it."""

import threading
from pathlib import Path

import oracle_pi as oracle
import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from programs import Target
from real_server import Target as Served

from initiator import Initiator
from initiator.errors import BlkifError, InitiatorError
from initiator.vbd import Vbd
from target import resize
from target.medium import Medium
from target.protection import Protection
from target.stores import StoreError, StoreSpec, open_store
from vscsi.scsi import cdb, mode, parameters, sense
from vscsi.scsi.status import Status

SIZE = 512
A, B = b"a" * SIZE, b"b" * SIZE


def attach(path: Path) -> Initiator:
    initiator = Initiator(path)
    initiator.execute(0, cdb.TEST_UNIT_READY.build())
    return initiator


# ---- served ----


def test_over_both_protocols(tmp_path: Path) -> None:
    served = Served(tmp_path / "s", "0=mem:16M,protection=1")
    unit = served.server.units[0]
    try:
        with attach(tmp_path / "s") as initiator, Vbd(tmp_path / "s", lun=0) as vbd:
            sent = oracle.wire([A, B], 8, 7)
            initiator.execute(0, cdb.WRITE_10.build(wrprotect=1, lba=8, transfer_length=2), data_out=sent)
            done = initiator.execute(0, cdb.READ_16.build(rdprotect=1, lba=8, transfer_length=2), data_in=len(sent) + 9)
            assert (bytes(done.data_in), done.in_residual) == (sent, 9)
            assert initiator.lun(0).read(8, 2) == vbd.read(8, 2) == A + B
            vbd.write(9, A)
            vbd.flush()
            done = initiator.execute(0, cdb.READ_10.build(rdprotect=1, lba=9, transfer_length=1), data_in=520)
            assert bytes(done.data_in) == oracle.wire([A], 9)
            unit.write_raw(memoryview(B), 9)
            with pytest.raises(BlkifError):
                vbd.read(9, 1)
            done = initiator.execute(0, cdb.READ_10.build(lba=9, transfer_length=1), data_in=SIZE)
            got = sense.decode(done.sense)
            assert got.matches(sense.LOGICAL_BLOCK_GUARD_CHECK_FAILED) and got.information == 9
            most = unit.max_transfer_blocks
            same = cdb.WRITE_SAME_16.build(wrprotect=1, number_of_logical_blocks=most)
            initiator.execute(0, same, data_out=oracle.wire([B], 0)).raise_for_status()
            raw = cdb.READ_16.build(rdprotect=1, transfer_length=most)
            done = initiator.execute(0, raw, data_in=most * (SIZE + 8)).raise_for_status()
            assert bytes(done.data_in[-8:]) == oracle.info(B, most - 1)
            raw = cdb.WRITE_16.build(wrprotect=1, transfer_length=most)
            initiator.execute(0, raw, data_out=bytes(done.data_in)).raise_for_status()
    finally:
        served.stop()


def test_long_cdbs_over_the_ring(tmp_path: Path) -> None:
    served = Served(tmp_path / "s", "0=mem:1M,protection=2")
    try:
        with attach(tmp_path / "s") as initiator:
            tags = {"expected_initial_reference_tag": 0xFFFFFFFF, "lba": 3, "transfer_length": 2}
            sent = oracle.wire([A, B], 0xFFFFFFFF, 7)
            initiator.execute(0, cdb.WRITE_32.build(wrprotect=1, **tags), data_out=sent).raise_for_status()
            done = initiator.execute(0, cdb.READ_32.build(rdprotect=1, **tags), data_in=len(sent)).raise_for_status()
            assert bytes(done.data_in) == sent
            done = initiator.execute(0, cdb.READ_32.build(rdprotect=1, lba=3, transfer_length=1), data_in=520)
            assert sense.decode(done.sense).matches(sense.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED)
            done = initiator.execute(0, cdb.READ_10.build(rdprotect=1, transfer_length=1), data_in=520)
            assert sense.decode(done.sense).matches(sense.INVALID_COMMAND_OPERATION_CODE)
    finally:
        served.stop()


def test_a_format_changes_a_served_unit(tmp_path: Path) -> None:
    """From the fast path to Python and back, with a vbd beside."""
    served = Served(tmp_path / "s", "0=mem:1M")
    try:
        with attach(tmp_path / "s") as initiator, Vbd(tmp_path / "s", lun=0) as vbd:
            for type_, raw in ((1, cdb.FORMAT_UNIT.build(fmtpinfo=2)), (0, cdb.FORMAT_UNIT.build())):
                vbd.write(5, A)
                initiator.execute(0, raw).raise_for_status()
                assert vbd.read(5, 1) == bytes(SIZE)
                vbd.write(6, B)
                read = cdb.READ_10.build(rdprotect=1, lba=6, transfer_length=1)
                done = initiator.execute(0, read, data_in=520)
                if type_:
                    assert bytes(done.data_in) == oracle.wire([B], 6)
                else:
                    assert sense.decode(done.sense).matches(sense.INVALID_FIELD_IN_CDB)
    finally:
        served.stop()


def test_a_kill_leaves_no_block_with_wrong_information(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    first = Target(tmp_path, f"0={image},protection=1")
    started = threading.Event()

    def write() -> None:
        with attach(first.socket) as initiator:
            try:
                for turn in range(1 << 30):
                    data = bytes([turn % 255 + 1]) * SIZE * 256
                    raw = cdb.WRITE_10.build(lba=turn * 256 % 2048, transfer_length=256)
                    initiator.execute(0, raw, data_out=data).raise_for_status()
                    if turn == 20:
                        started.set()
            except InitiatorError:
                pass

    thread = threading.Thread(target=write)
    thread.start()
    assert started.wait(30)
    first.process.kill()
    first.process.wait()
    thread.join()
    first.pidfile.unlink()
    second = Target(tmp_path, f"0={image}")
    with attach(second.socket) as initiator:
        raw = cdb.VERIFY_10.build(vrprotect=1, verification_length=2048)
        initiator.execute(0, raw).raise_for_status()
    assert second.stop() == 0


# ---- in step with what else happens to a unit ----


def test_blocks_that_come_back_are_new(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    device = FakeDevice(f"0={image},protection=1")
    unit = device.units[0]
    try:
        do_command(device, cdb.WRITE_10.build(lba=2000, transfer_length=1), A)
        for nbytes in (1 << 19, 1 << 20):
            with image.open("r+b") as file:
                file.truncate(nbytes)
            assert resize.follow(unit)
        port = do_command(device, cdb.READ_10.build(rdprotect=1, lba=2000, transfer_length=1))
        assert port.data_in == bytes(SIZE) + b"\xff" * 8
    finally:
        device.close()


def test_information_does_not_move_to_another_medium() -> None:
    device = FakeDevice("0=mem:1M,protection=1,removable=on")
    unit = device.units[0]
    other = open_store("mem:1M", StoreSpec(""))
    try:
        unit.part(Medium).eject()
        with pytest.raises(StoreError, match="protection"):
            unit.part(Medium).change(other)
    finally:
        other.close()
        device.close()


def test_the_control_page_decides(tmp_path: Path) -> None:
    device = FakeDevice("0=mem:1M,protection=1")
    protection = device.units[0].part(Protection)
    page = device.run(cdb.MODE_SENSE_10.build(page_code=0x0A, dbd=1, allocation_length=255), port := FakePort())
    assert page.status is Status.GOOD
    for ato, dpicz in ((1, 1), (0, 1), (1, 0), (0, 0)):
        data = bytearray(port.data_in[8:])
        mode.CONTROL.layout.fields["ato"].put(data, ato)
        mode.CONTROL.layout.fields["dpicz"].put(data, dpicz)
        data[0] &= 0x3F
        sent = bytes(8) + bytes(data)
        do_command(device, cdb.MODE_SELECT_10.build(pf=1, parameter_list_length=len(sent)), sent)
        assert (protection.ato, protection.dpicz) == (bool(ato), bool(dpicz))
    device.close()


def test_direct_images(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    try:
        device = FakeDevice(f"0={image},protection=1,cache=none")
    except StoreError as error:
        pytest.skip(f"no O_DIRECT here: {error}")
    do_command(device, cdb.WRITE_10.build(wrprotect=1, lba=1, transfer_length=2), oracle.wire([A, B], 1))
    do_command(device, cdb.WRITE_10.build(lba=3, transfer_length=1), A)
    port = do_command(device, cdb.READ_10.build(rdprotect=1, lba=1, transfer_length=3))
    assert port.data_in == oracle.wire([A, B, A], 1)
    device.close()


# ---- a model: every block's data and information, and what each command must therefore answer ----

MODEL_BLOCKS = 24
Lba = st.integers(0, MODEL_BLOCKS - 1)
Count = st.integers(1, 6)
Protect = st.integers(0, 5)
Fill = st.integers(0, 255)
ESCAPE = b"\xff" * 8


class Model(RuleBasedStateMachine):
    """Type 1: the reference tag is the LBA. ATO is 0, so that application tags are kept and not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.device = FakeDevice(f"0=mem:{MODEL_BLOCKS * SIZE},protection=1")
        self.data = [bytes(SIZE)] * MODEL_BLOCKS
        self.info = [ESCAPE] * MODEL_BLOCKS

    def teardown(self) -> None:
        self.device.close()

    def wrong(self, protect: int, data: bytes, info: bytes, lba: int, *, reading: bool) -> sense.Sense | None:
        if reading and info[2:4] == b"\xff\xff":
            return None
        if protect in (0, 1, 4, 5) and info[:2] != oracle.crc(data).to_bytes(2, "big"):
            return sense.LOGICAL_BLOCK_GUARD_CHECK_FAILED
        if protect in (0, 1, 2, 5) and info[4:] != lba.to_bytes(4, "big"):
            return sense.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED
        return None

    def first_wrong(
        self, protect: int, lba: int, blocks: list[tuple[bytes, bytes]], *, reading: bool
    ) -> tuple[int, sense.Sense] | None:
        for at, (data, info) in enumerate(blocks, lba):
            if code := self.wrong(protect, data, info, at, reading=reading):
                return at, code
        return None

    @rule(protect=Protect, lba=Lba, count=Count, fill=Fill, spoil=st.none() | st.integers(0, 520 * 6 - 1), app=Fill)
    def write(self, protect: int, lba: int, count: int, fill: int, spoil: int | None, app: int) -> None:
        count = min(count, MODEL_BLOCKS - lba)
        wire = bytearray(oracle.wire([bytes([fill + i & 0xFF]) * SIZE for i in range(count)], lba, app))
        if spoil is not None:
            wire[spoil % len(wire)] ^= 0x10
        blocks = [(bytes(wire[i : i + SIZE]), bytes(wire[i + SIZE : i + 520])) for i in range(0, len(wire), 520)]
        raw = cdb.WRITE_10.build(wrprotect=protect, lba=lba, transfer_length=count)
        if not protect:
            do_command(self.device, raw, b"".join(data for data, _ in blocks))
            blocks = [(data, oracle.info(data, lba + i)) for i, (data, _) in enumerate(blocks)]
        elif found := self.first_wrong(protect, lba, blocks, reading=False):
            assert do_command_fail(self.device, raw, found[1], data_out=bytes(wire)).information == found[0]
            return
        else:
            do_command(self.device, raw, bytes(wire))
        for at, (data, info) in enumerate(blocks, lba):
            self.data[at], self.info[at] = data, info

    @rule(protect=Protect, lba=Lba, count=Count)
    def read(self, protect: int, lba: int, count: int) -> None:
        count = min(count, MODEL_BLOCKS - lba)
        blocks = list(zip(self.data[lba : lba + count], self.info[lba : lba + count], strict=True))
        raw = cdb.READ_10.build(rdprotect=protect, lba=lba, transfer_length=count)
        if found := self.first_wrong(protect, lba, blocks, reading=True):
            assert do_command_fail(self.device, raw, found[1]).information == found[0]
            return
        expected = b"".join(data + (info if protect else b"") for data, info in blocks)
        assert do_command(self.device, raw).data_in == expected

    @rule(lba=Lba, count=Count)
    def unmap(self, lba: int, count: int) -> None:
        count = min(count, MODEL_BLOCKS - lba)
        data = parameters.encode_unmap([(lba, count)])
        do_command(self.device, cdb.UNMAP.build(parameter_list_length=len(data)), data)
        for at in range(lba, lba + count):
            self.data[at], self.info[at] = bytes(SIZE), ESCAPE

    @rule(protect=st.sampled_from([0, 1, 3]), lba=Lba, count=Count, fill=Fill)
    def write_same(self, protect: int, lba: int, count: int, fill: int) -> None:
        count, block = min(count, MODEL_BLOCKS - lba), bytes([fill]) * SIZE
        raw = cdb.WRITE_SAME_10.build(wrprotect=protect, lba=lba, number_of_logical_blocks=count)
        do_command(self.device, raw, oracle.wire([block], lba) if protect else block)
        for at in range(lba, lba + count):
            self.data[at], self.info[at] = block, oracle.info(block, at)

    @rule(lba=Lba, bit=st.integers(0, 8 * SIZE - 1))
    def rot(self, lba: int, bit: int) -> None:
        """A bit of the medium turns over behind everybody's back."""
        data = bytearray(self.data[lba])
        data[bit // 8] ^= 1 << bit % 8
        self.data[lba] = bytes(data)
        self.device.units[0].write_raw(memoryview(bytes(data)), lba)

    @invariant()
    def information_is_where_it_should_be(self) -> None:
        kept = bytes(self.device.units[0].part(Protection).load(0, MODEL_BLOCKS))
        assert kept == b"".join(self.info)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
