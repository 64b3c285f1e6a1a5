# SPDX-License-Identifier: BSD-2-Clause
"""Bad input to every command of the table over a real ring: right sense, and not a byte of the medium changed.

CDBs longer and shorter than their command, ranges that end beyond the medium or beyond 64 bits, data-out buffers of
another size than the command means. Allocation lengths have tests of their own; so have parameter lists.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import oracle_srp as oracle
import pytest
from real_server import Target, absorb_attention
from served import absorb, served

from initiator import Initiator
from initiator.done import Done
from target import commands
from vscsi.scsi import cdb, sense
from vscsi.scsi.cdb import Cdb, Data

BLOCK, BLOCKS, PAGE = 512, 2048, 4096
CONTENT = random.Random(3).randbytes(BLOCK * BLOCKS)
RANGED = [handler.row for handler in commands.handlers().values() if "lba" in handler.row.fields]
RANGED = [row for row in RANGED if row.block_count is not None]
LONG = [row for row in RANGED if row.nbytes == 32]
LONGEST = 200
"""The longest CDB that an IU of ours carries."""


@contextmanager
def disk(folder: Path, protection: int = 0) -> Iterator[tuple[Initiator, Path]]:
    image = folder / "disk.img"
    image.write_bytes(CONTENT)
    with served(folder, f"0={image},protection={protection}") as (_, (initiator,)):
        if protection:  # a new format empties it
            image.write_bytes(CONTENT)
        yield initiator, image


def count_of(row: Cdb) -> str:
    return next(name for name in row.BLOCK_COUNTS if name in row.fields)


def out_nbytes(row: Cdb, blocks: int) -> int:
    """What the data-out buffer of a command on so many blocks has to hold."""
    if "WRITE SAME" in row.name:
        return BLOCK
    return blocks * BLOCK * (2 if row is cdb.COMPARE_AND_WRITE else 1)


def send(initiator: Initiator, row: Cdb, lba: int, blocks: int, nbytes: int, **fields: int) -> Done:
    raw = row.build(lba=lba, **{count_of(row): blocks}, **fields)
    out, room = (bytes([0x5A]) * nbytes, 0) if row.data is Data.OUT else (b"", nbytes)
    return initiator.execute(0, raw, data_out=out, data_in=room if row.data is Data.IN else 0)


def told(done: Done) -> str:
    return sense.decode(done.sense).describe() if done.sense else f"status {done.status:#x}"


@pytest.mark.parametrize("protection", [0, 2])
def test_ranges_beyond_the_medium_and_beyond_64_bits(tmp_path: Path, protection: int) -> None:
    rows = LONG if protection else [row for row in RANGED if row.nbytes < 32]
    asked = 0
    with disk(tmp_path, protection) as (initiator, image):
        for row in rows:
            most_lba, most = row.fields["lba"].mask, row.fields[count_of(row)].mask
            cases = {(most_lba, 1), (most_lba, most), (BLOCKS, 1), (BLOCKS - 1, 2), (BLOCKS + 1, 0), (most_lba, 0)}
            if most >= BLOCKS:
                cases |= {(1, most), (0, BLOCKS + 1)}
            for lba, blocks in sorted(cases):
                # As much data as the command means, or as one buffer holds.
                nbytes = min(out_nbytes(row, blocks or (256 if row.zero_is_256 else 0)), 1 << 20)
                done = send(initiator, row, lba, blocks, nbytes)
                what = (row.name, lba, blocks, told(done))
                assert done.status == 2, what
                assert sense.decode(done.sense).matches(sense.LBA_OUT_OF_RANGE), what
                assert (done.out_residual, done.in_residual) == (
                    (nbytes, 0) if row.data is Data.OUT else (0, nbytes if row.data is Data.IN else 0)
                ), what
                asked += 1
        assert image.read_bytes() == CONTENT
    assert asked > 5 * len(rows)


@pytest.mark.parametrize("protection", [0, 2])
def test_data_out_of_another_size(tmp_path: Path, protection: int) -> None:
    """Too little never writes. Too much does not either, but with WRITE: there the residual tells of the rest."""
    rows = LONG if protection else [row for row in RANGED if row.nbytes < 32]
    with disk(tmp_path, protection) as (initiator, image):
        for row in rows:
            if row.data is not Data.OUT:
                continue
            fields = {"bytchk": 1} if "bytchk" in row.fields else {}
            right = out_nbytes(row, 4)
            for nbytes in {0, 1, BLOCK - 1, right - BLOCK, right - 1, right + 1, right + BLOCK, right + 5000} - {right}:
                done = send(initiator, row, 8, 4, nbytes, **fields)
                what = (row.name, nbytes, told(done))
                if row.name.startswith("WRITE(") and nbytes > right:
                    assert (done.status, done.out_residual) == (0, nbytes - right), what
                    assert image.read_bytes() == CONTENT[: 8 * BLOCK] + bytes([0x5A]) * right + CONTENT[12 * BLOCK :]
                    image.write_bytes(CONTENT)
                    continue
                found = sense.decode(done.sense)
                assert done.status == 2, what
                if row.name.startswith("WRITE("):
                    assert found.matches(sense.INVALID_FIELD_IN_COMMAND_IU), what
                    assert done.out_residual == nbytes - right, what
                else:
                    assert found.matches(sense.INVALID_FIELD_IN_CDB), what
                    assert found.field_pointer is not None, what
                    assert found.field_pointer.byte == row.fields[count_of(row)].pointer[0], what
                    assert done.out_residual == nbytes, what
                assert image.read_bytes() == CONTENT, what


def test_cdbs_longer_than_their_command(tmp_path: Path) -> None:
    """What follows a CDB in the IU is not the command's: the answer is the same, whatever stands there."""
    changing = {"FORMAT UNIT", "START STOP UNIT"}
    # Both take the unit away for a time, so that the second answer would differ.
    with served(tmp_path, "0=mem:1M,serial=S") as (_, (initiator,)):
        for handler in commands.handlers().values():
            row = handler.row
            if row.name in changing or row.name.startswith("SANITIZE") or row is cdb.REPORT_TIMESTAMP:
                continue
            raw = row.build(**{name: 64 for name in ("allocation_length",) if name in row.fields})
            answers = []
            for nbytes in (row.nbytes, 16, 20, LONGEST):
                if nbytes >= row.nbytes:
                    done = initiator.execute(0, raw + bytes([0xFF]) * (nbytes - row.nbytes), data_in=64)
                    answers.append((done.status, done.sense, bytes(done.data_in), done.in_residual))
            assert answers == answers[:1] * len(answers), row.name
            absorb(initiator)


def test_cdbs_shorter_than_their_command(tmp_path: Path) -> None:
    """An IU carries 16 bytes at least: what can be too short is a command of 32."""
    assert len(LONG) >= 5
    with disk(tmp_path, 2) as (initiator, image):
        for row in LONG:
            raw = row.build(lba=8, **{count_of(row): 1})
            for nbytes in (16, 20, 24, 28):
                done = initiator.execute(0, raw[:nbytes], data_out=bytes(BLOCK) if row.data is Data.OUT else b"")
                what = (row.name, nbytes, told(done))
                assert done.status == 2, what
                assert sense.decode(done.sense).matches(sense.INVALID_FIELD_IN_COMMAND_IU), what
            for additional in (0, 0x17, 0x19, 0xFF):
                wrong = bytearray(raw)
                wrong[7] = additional
                done = initiator.execute(0, bytes(wrong), data_out=bytes(BLOCK) if row.data is Data.OUT else b"")
                found = sense.decode(done.sense)
                assert found.matches(sense.INVALID_FIELD_IN_CDB), (row.name, additional, told(done))
                assert found.field_pointer is not None
                assert found.field_pointer.byte == 7
        assert image.read_bytes() == CONTENT


def test_memory_descriptors_that_name_the_same_bytes_more_than_once(tmp_path: Path) -> None:
    """No harm in it for a write: the bytes count as often as they are named. In a read the last of them may win, and
    nothing else is touched."""
    image = tmp_path / "disk.img"
    image.write_bytes(CONTENT)
    target = Target(tmp_path / "s", f"0={image}")
    try:
        raw = target.raw()
        channel = raw.srp()
        channel.login()
        absorb_attention(channel)
        memory = raw.connection.memory
        offset = memory.alloc(2 * PAGE)
        key, _ = memory.grant(offset, 2 * PAGE)
        memory.view[offset : offset + 2 * PAGE] = bytes([0x77]) * BLOCK + bytes([0xA5]) * (2 * PAGE - BLOCK)

        def named(count: int) -> oracle.Indirect:
            entries = (oracle.Direct(0, key, BLOCK),) * count
            return oracle.Indirect(oracle.Direct(0, 0, 16 * count), BLOCK * count, entries)

        def ask(cmd: oracle.Cmd) -> oracle.Rsp:
            channel.ring.send(oracle.encode_cmd(cmd))
            answer = channel.ring.take()
            assert answer is not None
            return oracle.decode_rsp(answer)

        lun = bytes(8)
        for tag, row in ((1, cdb.WRITE_10), (2, cdb.WRITE_AND_VERIFY_10)):
            answer = ask(oracle.Cmd(tag, lun, row.build(lba=8 * tag, transfer_length=3), data_out=named(3)))
            assert (answer.status, answer.data_out_res_cnt) == (0, 0), row.name
        same = bytes([0x77]) * 3 * BLOCK
        expected = bytearray(CONTENT)
        for lba in (8, 16):
            expected[lba * BLOCK : (lba + 3) * BLOCK] = same
        assert image.read_bytes() == expected
        answer = ask(oracle.Cmd(3, lun, cdb.READ_10.build(lba=100, transfer_length=3), data_in=named(3)))
        assert answer.status == 0
        came = bytes(memory.view[offset : offset + 2 * PAGE])
        assert came[:BLOCK] in [CONTENT[lba * BLOCK : (lba + 1) * BLOCK] for lba in (100, 101, 102)]
        assert came[BLOCK:] == bytes([0xA5]) * (2 * PAGE - BLOCK)
        # Data-out that a command has no use for, in the bytes that its data-in comes to.
        answer = ask(oracle.Cmd(4, lun, cdb.INQUIRY.build(allocation_length=96), named(1), named(1)))
        assert answer.status == 0
        assert image.read_bytes() == expected
    finally:
        target.stop()


def test_parameter_lists_of_which_only_a_part_comes(tmp_path: Path) -> None:
    with served(tmp_path, f"0={tmp_path}/disk.img,size=1M") as (_, (initiator,)):
        asked = 0
        for handler in commands.handlers().values():
            row = handler.row
            if row.data is not Data.OUT or "parameter_list_length" not in row.fields:
                continue
            fields = {name: 1 for name in ("pf",) if name in row.fields}
            nbytes = min(row.fields["parameter_list_length"].mask, 64)
            for came in (0, 1, 23, nbytes - 1):
                done = initiator.execute(0, row.build(parameter_list_length=nbytes, **fields), data_out=bytes(came))
                what = (row.name, came, told(done))
                assert done.status == 2, what
                assert sense.decode(done.sense).matches(sense.PARAMETER_LIST_LENGTH_ERROR), what
                asked += 1
        assert asked > 60
        assert (tmp_path / "disk.img").read_bytes() == bytes(1 << 20)
        assert not (tmp_path / "disk.img.vscsi").exists(), "nothing was done that one would have to remember"
