# SPDX-License-Identifier: BSD-2-Clause
"""The target's recorder and the initiator's tap on one conversation: they see the same, and stand in nobody's way."""

import os
import threading
from collections import Counter

import pcap_reader
import pytest
from real_server import Target

import target.pcap
from initiator import Initiator, ScsiError
from initiator.pcap import Tap
from vscsi.native import lib
from vscsi.pcapfile import PcapFile

COMMAND, MANAGE, DATA_OUT, RESPONSE, MANAGED, DATA_IN = 0x01, 0x02, 0x05, 0x21, 0x22, 0x25
BLOCK = 512


@pytest.fixture
def both(tmp_path):
    """A target and an initiator, both with a capture; `stop` ends both and reads the two files."""
    made = []

    class Both:
        def __init__(self, **options):
            self.files = tmp_path / "target.pcap", tmp_path / "initiator.pcap"
            file = PcapFile(str(self.files[0]))
            self.target = Target(tmp_path / "s", "0=mem:16M", "5=mem:1M,ro", pcap=file, loops=2)
            made.append(self)
            self.tap = Tap(str(self.files[1]))
            self.initiator = Initiator(tmp_path / "s", tap=self.tap, memory_nbytes=32 << 20, **options)

        def stop(self):
            self.initiator.close()
            self.tap.close()
            self.target.stop()
            return [pcap_reader.read(path.read_bytes()) for path in self.files]

    yield Both
    for one in made:
        one.initiator.close()
        if one.target.thread.is_alive():
            one.target.stop()


def exchanges(found):
    """Every command with its data and answer, whatever its tag and whenever it came."""
    tasks, seen = {}, Counter()
    for pdu in found.pdus:
        key = (pdu.stream, pdu.tag)
        if pdu.opcode in (COMMAND, MANAGE):
            tasks[key] = [pdu.head[1], pdu.head[8:16], pdu.head[32:48] if pdu.opcode == COMMAND else b"", b"", b""]
        elif pdu.opcode in (DATA_OUT, DATA_IN):
            tasks[key][3 if pdu.opcode == DATA_OUT else 4] += pdu.data
        elif pdu.opcode in (RESPONSE, MANAGED):
            flags, lun, cdb, data_out, data_in = tasks.pop(key)
            if pdu.head[3]:
                data_out = b""  # a target that refuses a command does not look at its data
            seen[(flags, lun, cdb, data_out, data_in, pdu.head[1:4], pdu.data, pdu.head[40:48])] += 1
    assert tasks == {}, "nothing is left without an answer"
    return seen


def test_both_see_the_same(both):
    conversation = both(channels=2)
    initiator = conversation.initiator
    disk, locked = initiator.lun(0), initiator.lun(5)
    data = os.urandom(300 * BLOCK)
    disk.write(7, data)
    assert disk.read(7, 300) == data
    disk.unmap(8, 16)
    disk.flush()
    with pytest.raises(ScsiError):
        locked.write(0, bytes(BLOCK))
    with pytest.raises(ScsiError):
        disk.read(1 << 20, 1)
    assert initiator.luns() == [0, 5]
    for number in range(8):
        initiator.submit(0, b"\x28\0" + bytes(4) + b"\0\0\1\0", data_in=BLOCK, cookie=number)
    assert len(initiator.reap(8, 8)) == 8
    assert initiator.task_management(lib.SRP_TMF_LUN_RESET, 0) == lib.SRP_RESP_COMPLETE
    assert initiator.task_management(lib.SRP_TMF_ABORT_TASK, 0, 1234) == lib.SRP_RESP_COMPLETE
    at_target, at_initiator = conversation.stop()
    seen = exchanges(at_target)
    assert seen == exchanges(at_initiator)
    assert sum(seen.values()) > 20
    assert {pdu.opcode for pdu in at_target.pdus} == {pdu.opcode for pdu in at_initiator.pdus}
    for found in (at_target, at_initiator):
        assert len({pdu.stream for pdu in found.pdus}) == 2
        times = [pdu.ns for pdu in found.pdus]
        assert times == sorted(times)


def test_command_that_waits_for_a_range_shows_its_data_once(both):
    conversation = both()
    disk, device = conversation.initiator.lun(0), conversation.target.server.device
    disk.flush()
    data = os.urandom(3 * BLOCK)
    with device.locked(device.units[0], 0, 8):
        writer = threading.Thread(target=disk.write, args=(5, data))
        writer.start()
        writer.join(0.1)
        assert writer.is_alive()
    writer.join()
    at_target, at_initiator = conversation.stop()
    assert exchanges(at_target) == exchanges(at_initiator)
    assert [pdu.data for pdu in at_target.pdus if pdu.opcode == DATA_OUT] == [data]


def test_from_many_threads(both):
    conversation = both()
    disk = conversation.initiator.lun(0)

    def work(seed):
        for turn in range(20):
            disk.write(seed * 64, bytes((seed, turn)) * 4096)
            assert disk.read(seed * 64, 16) == bytes((seed, turn)) * 4096

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at_target, at_initiator = conversation.stop()
    assert exchanges(at_target) == exchanges(at_initiator)


def test_the_largest_command(both):
    conversation = both()
    data = os.urandom(8 << 20)
    conversation.initiator.lun(0).write(0, data)
    at_target, _ = conversation.stop()
    assert b"".join(pdu.data for pdu in at_target.pdus if pdu.opcode == DATA_OUT) == data


def test_who_comes_again_is_another_stream(both):
    """Numbers of channels are used again; the streams of the capture are not."""
    conversation = both()
    for _ in range(3):
        conversation.initiator.reconnect()
        conversation.initiator.lun(0).flush()
    at_target, at_initiator = conversation.stop()
    for found in (at_target, at_initiator):
        assert len({pdu.stream for pdu in found.pdus}) == 4
        assert len({pdu.stream[0][0] for pdu in found.pdus}) == 1, "one initiator port, one address"


def test_a_target_that_stops_first(both):
    conversation = both()
    conversation.initiator.lun(0).flush()
    conversation.target.stop()
    at_target, at_initiator = conversation.stop()
    for found in (at_target, at_initiator):
        assert [pdu.head[36] for pdu in found.pdus if pdu.opcode == 0x32] == [1], "it asks for a logout"


def test_what_the_recorder_is_too_slow_for_is_lost_and_said(tmp_path, monkeypatch, caplog):
    """A reader that sleeps: commands go on, the target stops in time, and says what is missing."""
    monkeypatch.setattr(target.pcap, "RING_NBYTES", 1 << 16)
    monkeypatch.setattr(target.pcap, "LAST_SECONDS", 0.1)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    served = Target(tmp_path / "s", "0=mem:1M", pcap=PcapFile(str(path)))
    try:
        with Initiator(tmp_path / "s") as initiator:
            disk = initiator.lun(0)
            for turn in range(600):
                disk.write(0, bytes((turn & 0xFF,)) * 16 * BLOCK)
                assert disk.read(0, 16) == bytes((turn & 0xFF,)) * 16 * BLOCK
    finally:
        served.stop()
    assert "the capture ends here: its reader is too slow" in caplog.text
    assert "records are missing" in caplog.text
    os.set_blocking(reader, False)
    head = os.read(reader, 1 << 16)
    assert pcap_reader.read(head).pdus
    os.close(reader)
