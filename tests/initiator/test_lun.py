# SPDX-License-Identifier: BSD-2-Clause
"""The disk layer: splitting, patience where it is safe, and none where it is not."""

import oracle_srp as oracle
import pytest
from fake_server import POWER_ON, Disk

from initiator import CacheLost, CommandAborted, InitiatorError, ScsiError
from vscsi.scsi import sense

NEXUS_LOSS = sense.I_T_NEXUS_LOSS_OCCURRED.encode()


@pytest.fixture
def disk(server, connect):
    """(what the target does, the LU)."""
    made = Disk()
    server.command = made
    return made, connect().lun(0)


def test_facts(disk):
    _, lun = disk
    assert (lun.blocks, lun.block_nbytes, lun.max_blocks) == (4096, 512, 2048)  # the peer says 1 MiB


def test_block_limits_count(server, connect):
    made = Disk(max_blocks=16)
    server.command = made
    lun = connect().lun(0)
    data = bytes(range(256)) * 2 * 40
    lun.write(100, data)
    assert lun.read(100, 40) == data
    assert made.log == [
        (0x2A, 100, 16),
        (0x2A, 116, 16),
        (0x2A, 132, 8),
        (0x28, 100, 16),
        (0x28, 116, 16),
        (0x28, 132, 8),
    ]
    buffer = bytearray(20 * 512)
    lun.readinto(110, memoryview(buffer))
    assert buffer == data[10 * 512 : 30 * 512]


def test_four_kilobyte_blocks(server, connect):
    made = Disk(blocks=64, block_nbytes=4096)
    server.command = made
    lun = connect().lun(0)
    lun.write(63, b"z" * 4096)
    assert lun.read(62, 2) == bytes(4096) + b"z" * 4096
    with pytest.raises(ValueError, match="whole number"):
        lun.write(0, b"z" * 512)


def test_far_blocks_use_16_byte_cdbs(server, connect):
    made = Disk()
    made.blocks = 1 << 40
    server.command = made
    with pytest.raises(ScsiError):
        connect().lun(0).read(1 << 33, 1)
    assert made.log[-1] == (0x88, 1 << 33, 1)


def test_flush_fua_and_unmap(disk):
    made, lun = disk
    lun.write(0, bytes(512), fua=True)
    lun.flush()
    lun.unmap(0, 3000)
    assert [entry[0] for entry in made.log] == [0x2A, 0x35, 0x42, 0x42]
    assert [entry[2] for entry in made.log[2:]] == [8 + 32, 8 + 16]  # 1000 blocks an extent, two extents a command


@pytest.mark.parametrize("answer", [{"sense": NEXUS_LOSS}, {"status": 8}, {"status": 0x28}, {"status": 0x40}])
def test_what_is_safe_is_repeated(disk, answer):
    made, lun = disk
    assert lun.blocks
    for call in (lambda: lun.read(1, 1), lambda: lun.write(1, bytes(512)), lun.flush, lambda: lun.unmap(0, 1)):
        made.first = [answer] * 3
        call()
        assert made.first == []


def test_patience_ends(disk):
    made, lun = disk
    assert lun.blocks
    made.first = [{"status": 8}] * 50
    with pytest.raises(ScsiError, match="BUSY"):
        lun.read(0, 1)
    assert 30 < len(made.first) < 50


def test_what_is_not_safe_is_not_repeated(disk):
    made, lun = disk
    assert lun.blocks
    made.first = [{"status": 0x40}, {}]
    with pytest.raises(ScsiError, match="TASK ABORTED"):
        lun.execute(bytes([0x5F, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
    assert len(made.first) == 1
    made.first = [{"sense": NEXUS_LOSS}]  # was not executed: anything may be sent again
    lun.execute(bytes([0x5F, 0, 0, 0, 0, 0, 0, 0, 0, 0]))


def test_other_unit_attentions_are_for_the_user(disk):
    made, lun = disk
    assert lun.blocks
    made.first = [{"sense": sense.CAPACITY_DATA_HAS_CHANGED.encode()}]
    with pytest.raises(ScsiError) as caught:
        lun.read(0, 1)
    assert caught.value.sense.matches(sense.CAPACITY_DATA_HAS_CHANGED)
    made.blocks = 100
    lun.refresh()
    assert lun.blocks == 100


def test_a_flush_does_not_succeed_after_power_was_lost(disk):
    made, lun = disk
    lun.write(0, bytes(512))
    made.first = [{"sense": POWER_ON}]
    with pytest.raises(CacheLost, match="may be lost"):
        lun.flush()
    lun.flush()  # told once
    made.first = [{"sense": NEXUS_LOSS}]
    lun.write(0, bytes(512))
    lun.flush()


def test_after_a_flush_a_reset_loses_nothing(disk):
    made, lun = disk
    lun.write(0, bytes(512))
    lun.flush()
    made.first = [{"sense": POWER_ON}]
    lun.flush()


def test_reads_survive_an_abort_from_beside(server, connect):
    made = Disk(attentions=0)
    aborted = [True]
    initiator = connect()
    lun = initiator.lun(0)

    def command(cmd, out):
        if cmd.cdb[0] in (0x28, 0x5F) and aborted:
            aborted.pop()
            device = next(iter(server.devices.values()))
            server._jobs.append(lambda: device.respond(cmd.tag, flags=1, response=bytes(4)))
            device.held.clear()
            return None
        return made(cmd, out)

    server.command = command
    assert lun.read(0, 1) == bytes(512)
    aborted.append(True)
    with pytest.raises(CommandAborted):
        lun.execute(bytes([0x5F]) + bytes(9))


def test_a_target_that_sends_too_little(disk):
    made, lun = disk
    assert lun.blocks
    made.first = [{"data": bytes(511)}]
    with pytest.raises(InitiatorError, match="511"):
        lun.read(0, 1)


@pytest.mark.parametrize(
    "capacity",
    [
        b"", bytes(32), bytes(8) + b"\0\0\0\1" + bytes(20), bytes(11),
        b"\xff" * 8 + b"\x80\0\0\0" + bytes(20), bytes(8) + b"\0\x10\2\0" + bytes(20),
    ],
)  # fmt: skip
def test_a_capacity_that_makes_no_sense(server, connect, capacity):
    server.command = lambda cmd, out: {"data": capacity}
    with pytest.raises(InitiatorError, match="block length"):
        _ = connect().lun(0).blocks


def test_a_disk_without_end_takes_no_memory_to_unmap(server, connect):
    """The target says how many blocks there are and how few a command may name; the first that fails ends it."""
    made = Disk()
    made.blocks = 1 << 60
    told = made(oracle.Cmd(1, bytes(8), bytes.fromhex("1201b0003c00") + bytes(10)), b"")["data"]

    def command(cmd, out):
        if cmd.cdb[0] == 0x42:
            return {"status": 0x18}
        if cmd.cdb[0] == 0x12 and cmd.cdb[1] & 1:
            return {"data": told[:20] + b"\0\0\0\1" + b"\xff\xff\xff\xff" + told[28:]}
        return made(cmd, out)

    server.command = command
    lun = connect().lun(0)
    with pytest.raises(ScsiError, match="RESERVATION CONFLICT"):
        lun.unmap(0, lun.blocks)


def test_errors_name_unit_and_command(disk):
    _, lun = disk
    with pytest.raises(ScsiError, match=r"lun 0: READ\(10\): illegal request"):
        lun.read(4096, 1)
