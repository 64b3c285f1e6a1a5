# SPDX-License-Identifier: BSD-2-Clause
"""READ, WRITE and SYNCHRONIZE CACHE over a raw ring: data, residuals, descriptors, errors of all kinds."""

import os
import random
import struct

import pytest
from raw_initiator import PAGE
from raw_wire import DIOVER, DIUNDER, DOOVER, DOUNDER, RSPVALID, code, direct, indirect, read10, srp_cmd, write10

from target.native import ffi, lib
from vscsi.native import lib as vlib

DATA_BUFFER_ERROR = 0x0B4B00


@pytest.mark.parametrize("engine", [1, 2])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("spin_ns", [0, 50000])
def test_write_then_read(make_rig, engine, persistent, spin_ns):
    rig = make_rig(engine=engine, spin_ns=spin_ns)
    fd = rig.file()
    rig.lu(fd=fd)
    memory = rig.memory()
    channel = rig.srp(memory, persistent=persistent)
    frame = memory.alloc(4)
    data = os.urandom(8192)
    memory.write(frame, data)
    rsp = channel.command(write10(3, 16), out=direct(frame + 8, 8192))
    assert (rsp.status, rsp.flags) == (0, 0)
    assert os.pread(fd, 8192, 3 * 512) == data
    rsp = channel.command(read10(3, 16), in_=direct(frame + 2 + 8, 8192))
    assert (rsp.status, rsp.flags) == (0, 0)
    assert memory.read(frame + 2, 8192) == data
    # In use for as long as it lasts, or for good.
    assert memory.flags(frame) & 24 == (8 if persistent else 0)
    assert memory.flags(frame + 2) & 24 == (24 if persistent else 0)


@pytest.fixture
def disk(rig):
    rig.fd = rig.file()
    assert rig.lu(fd=rig.fd) == 0
    rig.mem = rig.memory()
    rig.ch = rig.srp(rig.mem)
    rig.buf = rig.mem.alloc(64)
    return rig


def test_residuals(disk):
    os.pwrite(disk.fd, b"A" * 4096, 0)
    disk.mem.write(disk.buf, b"z" * 8192)
    rsp = disk.ch.command(read10(0, 2), in_=direct(disk.buf + 8, 4096))
    assert (rsp.status, rsp.flags, rsp.in_residual) == (0, DIUNDER, 3072)
    assert disk.mem.read(disk.buf, 1025) == b"A" * 1024 + b"z"
    rsp = disk.ch.command(read10(0, 8), in_=direct(disk.buf + 8, 2000))
    assert (rsp.status, rsp.flags, rsp.in_residual) == (0, DIOVER, 2096)
    assert disk.mem.read(disk.buf, 2001) == b"A" * 2000 + b"z"
    rsp = disk.ch.command(write10(0, 1), out=direct(disk.buf + 8, 700))
    assert (rsp.status, rsp.flags, rsp.out_residual) == (0, DOUNDER, 188)
    rsp = disk.ch.command(read10(0, 0), in_=direct(disk.buf + 8, 512))
    assert (rsp.status, rsp.flags, rsp.in_residual) == (0, DIUNDER, 512)
    rsp = disk.ch.command(read10(0, 1))
    assert (rsp.status, rsp.flags, rsp.in_residual) == (0, DIOVER, 512)


def test_short_write_buffer_writes_nothing(disk):
    disk.mem.write(disk.buf, b"x" * 4096)
    rsp = disk.ch.command(write10(4, 4), out=direct(disk.buf + 8, 2047))
    assert code(rsp) == 0x0B0E03 and rsp.flags & DOOVER and rsp.out_residual == 1
    assert os.pread(disk.fd, 2048, 2048) == bytes(2048)


def test_check_condition_leaves_whole_buffer_as_residual(disk):
    rsp = disk.ch.command(read10(0xFFFFFF, 16), in_=direct(disk.buf + 8, 8192))
    assert code(rsp) == 0x052100 and rsp.flags & DIUNDER and rsp.in_residual == 8192


def scattered(memory, frame, rng, nbytes):
    """Descriptors with odd offsets and lengths, not in order, and the bytes they select."""
    entries, where = [], []
    pages = list(range(64))
    rng.shuffle(pages)
    while nbytes:
        page = pages.pop()
        offset = rng.randrange(0, 512)
        take = min(nbytes, rng.randrange(1, PAGE - offset + 1))
        entries.append(direct(frame + page + 8, take, offset))
        where.append((frame + page, take, offset))
        nbytes -= take
    return entries, where


@pytest.mark.parametrize("inline", [None, 0, 3, 8])
@pytest.mark.parametrize("persistent", [False, True])
def test_indirect(disk, inline, persistent):
    rng = random.Random(f"{inline}")
    channel = disk.srp(disk.mem, persistent=persistent)
    data = os.urandom(16384)
    os.pwrite(disk.fd, data, 512)
    entries, where = scattered(disk.mem, disk.buf, rng, 8192 if inline is None else 16384)
    table = disk.mem.alloc(2)
    # The table crosses a page: the entry in the middle does, too.
    offset = PAGE - 24
    disk.mem.write(table, b"".join(entries), offset)
    head = struct.pack(">QII", offset, table + 8, 16 * len(entries))
    if inline is None:
        entries, where = entries[:8], where[:8]
        head, inline = None, len(entries)
    total = sum(n for _, n, _ in where) // 512
    rsp = channel.command(read10(1, total), in_=indirect(entries, inline=min(inline, len(entries)), table=head))
    assert rsp.status == 0, rsp
    got = b"".join(disk.mem.read(f, n, o) for f, n, o in where)
    assert got[: total * 512] == data[: total * 512]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("op", ["read", "write"])
def test_eight_mebibytes(rig, persistent, op):
    fd = rig.file(9 << 20)
    rig.lu(fd=fd, blocks=18432)
    memory = rig.memory()
    channel = rig.srp(memory, persistent=persistent)
    data = random.Random(1).randbytes(8 << 20)
    frames = [memory.alloc(1) for _ in range(2048)]
    random.Random(2).shuffle(frames)
    entries = [direct(f + 8, PAGE) for f in frames]
    table = memory.alloc(8)
    memory.write(table, b"".join(entries))
    descriptor = indirect(entries, inline=0, table=struct.pack(">QII", 0, table + 8, 16 * 2048))
    if op == "read":
        os.pwrite(fd, data, 512)
        rsp = channel.command(read10(1, 16384), in_=descriptor)
        assert (rsp.status, rsp.flags) == (0, 0), rsp
        assert b"".join(memory.read(f, PAGE) for f in frames) == data
    else:
        for i, f in enumerate(frames):
            memory.write(f, data[i * PAGE : (i + 1) * PAGE])
        rsp = channel.command(write10(1, 16384), out=descriptor)
        assert (rsp.status, rsp.flags) == (0, 0), rsp
        assert os.pread(fd, 8 << 20, 512) == data


def test_many_big_commands_share_the_scratch_pool(disk):
    """More commands that need scratch than the pool has: all of them end."""
    os.pwrite(disk.fd, os.urandom(65536), 0)
    entries = [direct(disk.buf + 2 * (i % 32) + 8, 2048) for i in range(32)]
    table = disk.mem.alloc(1)
    disk.mem.write(table, b"".join(entries))
    descriptor = indirect(entries, inline=0, table=struct.pack(">QII", 0, table + 8, 16 * 32))
    slow = b"\x41" + bytes(9)
    disk.ch.send(*(srp_cmd(i, slow, in_=descriptor) for i in range(200)))
    disk.ch.send(srp_cmd(500, read10(0, 128), in_=descriptor))
    done = set()
    for _ in range(200):
        request = disk.request()
        assert disk.complete(request) == 0
        done.add(disk.ch.answer().tag)
    done.add(disk.ch.answer().tag)
    assert done == {*range(200), 500}


def test_grant_errors_end_the_command_not_the_channel(disk):
    other = disk.mem.alloc(1, domid=3)
    readonly = disk.mem.alloc(1, readonly=True)
    none = disk.mem.alloc(1, grant=False)
    outside = disk.mem.alloc(1, grant=False)
    assert vlib.vscsi_granter_grant(disk.mem.granter, outside + 8, 0, 0xFFFFFF, False) == 0
    for gref, nbytes in (
        (other + 8, 512),
        (readonly + 8, 512),
        (none + 8, 512),
        (outside + 8, 512),
        (0xFFFFFFFF, 512),
        (1 << 20, 512),
        (0xFFFFFFFF, 8192),
        (readonly + 7, 8192),
    ):
        rsp = disk.ch.command(read10(0, nbytes // 512), in_=direct(gref, nbytes))
        assert code(rsp) == DATA_BUFFER_ERROR, gref
        if gref != readonly + 8:
            rsp = disk.ch.command(write10(0, nbytes // 512), out=direct(gref, nbytes))
            assert code(rsp) == DATA_BUFFER_ERROR, gref
    assert disk.ch.command(write10(0, 1), out=direct(readonly + 8, 512)).status == 0
    rsp = disk.ch.command(read10(0, 1), in_=direct(disk.buf + 8, 512, va=1 << 40))
    assert code(rsp) == DATA_BUFFER_ERROR
    assert disk.ch.command(read10(0, 1), in_=direct(disk.buf + 8, 512, va=5 * PAGE)).status == 0
    for frame in (other, readonly, none, outside, disk.buf):
        assert disk.mem.flags(frame) & 24 == 0


@pytest.mark.parametrize(
    "descriptor",
    [
        direct(9, 512, va=(1 << 64) - 100),
        indirect([direct(30, 100)], total=512),
        indirect([direct(30, 100)] * 3, inline=1, total=1 << 31),
        indirect([direct(30, 100)], inline=0, table=struct.pack(">QII", (1 << 64) - 8, 30, 16), total=512),
        indirect([], inline=0, table=struct.pack(">QII", 0, 30, 0xFFFFFFF0), total=512),
    ],
)
def test_malformed_fields_are_named_so(disk, descriptor):
    rsp = disk.ch.command(read10(0, 1), in_=descriptor)
    assert (rsp.flags, rsp.response) == (RSPVALID, b"\0\0\0\2") or code(rsp) == DATA_BUFFER_ERROR
    assert disk.ch.command(read10(0, 1), in_=direct(disk.buf + 8, 512)).status == 0


def test_range_and_length(disk):
    buffer = direct(disk.buf + 8, 512)
    assert disk.ch.command(read10(2047, 1), in_=buffer).status == 0
    assert code(disk.ch.command(read10(2048, 1), in_=buffer)) == 0x052100
    assert disk.ch.command(read10(2048, 0)).status == 0
    assert code(disk.ch.command(read10(2049, 0))) == 0x052100
    read16 = struct.pack(">BBQIBB", 0x88, 0, (1 << 64) - 1, 2, 0, 0)
    assert code(disk.ch.command(read16, in_=buffer)) == 0x052100
    config = disk.lu_config(fd=disk.fd, max_transfer=4)
    assert lib.vt_lu_update(disk.t, 0, config) == 0
    rsp = disk.ch.command(read10(0, 5), in_=direct(disk.buf + 8, 2560))
    assert code(rsp) == 0x052400 and rsp.sense[15:18] == b"\xcf\x00\x07"
    # READ(6): 21 bits of LBA, 0 blocks mean 256.
    rsp = disk.ch.command(b"\x08\x00\x00\x00\x00\x00", in_=buffer)
    assert code(rsp) == 0x052400
    assert lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd)) == 0
    rsp = disk.ch.command(b"\x08\x00\x00\x00\x00\x00", in_=buffer)
    assert (rsp.status, rsp.in_residual) == (0, 256 * 512 - 512)


def test_truncated_image_is_a_medium_error_with_lba(disk):
    os.ftruncate(disk.fd, 100 * 512)
    rsp = disk.ch.command(read10(96, 8), in_=direct(disk.buf + 8, 4096))
    assert code(rsp) == 0x031100 and rsp.sense[0] == 0xF0
    assert int.from_bytes(rsp.sense[3:7], "big") == 100
    assert rsp.flags & DIUNDER and rsp.in_residual == 2048


def test_descriptor_sense(disk):
    assert lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd, flags=1 | 2)) == 0
    os.ftruncate(disk.fd, 0)
    rsp = disk.ch.command(read10(7, 1), in_=direct(disk.buf + 8, 512))
    assert rsp.sense == bytes.fromhex("72031100 0000000c 000a8000 0000000000000007")
    rsp = disk.ch.command(b"\x28\x01" + bytes(8))
    assert rsp.sense == bytes.fromhex("72052400 00000008 02060000 c8000100")


def test_write_errors(rig):
    fd = os.open(rig.folder / "ro", os.O_RDONLY | os.O_CREAT)
    rig.fds.append(fd)
    full = os.open("/dev/full", os.O_RDWR)
    rig.fds.append(full)
    rig.lu(lun=0, fd=fd)
    rig.lu(lun=1, fd=full)
    memory = rig.memory()
    channel = rig.srp(memory)
    frame = memory.alloc(1)
    assert code(channel.command(write10(0, 1), lun=1, out=direct(frame + 8, 512))) == 0x072707
    rsp = channel.command(write10(5, 1), out=direct(frame + 8, 512))
    assert code(rsp) in (0x030C00, 0x072700)


def test_write_protect_and_not_ready(disk):
    buffer = direct(disk.buf + 8, 512)
    lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd, write_protect=0x072700))
    assert code(disk.ch.command(write10(0, 1), out=buffer)) == 0x072700
    assert disk.ch.command(read10(0, 1), in_=buffer).status == 0
    lib.vt_lu_state(disk.t, 0, 0x023A00)
    assert code(disk.ch.command(read10(0, 1), in_=buffer)) == 0x023A00
    assert code(disk.ch.command(write10(0, 1), out=buffer)) == 0x023A00
    lib.vt_lu_state(disk.t, 0, 0)
    assert disk.ch.command(read10(0, 1), in_=buffer).status == 0


@pytest.mark.parametrize("flags", [0, 1])
def test_sync_and_fua(rig, flags):
    rig.lu(fd=rig.file(), flags=flags)
    memory = rig.memory()
    channel = rig.srp(memory)
    buffer = direct(memory.alloc(1) + 8, 512)
    assert channel.command(write10(0, 1, 8), out=buffer).status == 0
    assert channel.command(write10(0, 1), out=buffer).status == 0
    assert channel.command(read10(0, 1, 8), in_=buffer).status == 0
    assert channel.command(b"\x35" + bytes(9)).status == 0
    assert channel.command(b"\x35\x02" + bytes(8)).status == 0
    assert code(channel.command(struct.pack(">BBIBHB", 0x35, 0, 2048, 0, 1, 0))) == 0x052100
    assert lib.vt_lu_sync_failed(rig.t, 0) == 0


def test_failed_sync_is_remembered(rig):
    """fdatasync of a pipe's end fails: after that no sync and no durable write succeeds."""
    reader, writer = os.pipe()
    rig.fds += [reader, writer]
    rig.lu(fd=writer)
    memory = rig.memory()
    channel = rig.srp(memory)
    buffer = direct(memory.alloc(1) + 8, 512)
    assert code(channel.command(b"\x35" + bytes(9))) == 0x030C00
    assert lib.vt_lu_sync_failed(rig.t, 0) == 1
    assert code(channel.command(b"\x35" + bytes(9))) == 0x030C00
    assert code(channel.command(b"\x35\x02" + bytes(8))) == 0x030C00
    assert code(channel.command(write10(0, 1, 8), out=buffer)) == 0x030C00


def test_refused_durable_write_moves_nothing(rig):
    """Whatever the same slot moved before."""
    reader, writer = os.pipe()
    rig.fds += [reader, writer]
    rig.lu(fd=writer)
    rig.lu(lun=1, fd=rig.file())
    memory = rig.memory()
    channel = rig.srp(memory)
    buffer = direct(memory.alloc(2) + 8, 8192)
    assert code(channel.command(b"\x35" + bytes(9))) == 0x030C00
    assert channel.command(write10(0, 16), out=buffer, lun=1).status == 0
    rsp = channel.command(write10(5, 16, 8), out=buffer)
    assert code(rsp) == 0x030C00
    assert (rsp.flags & DOUNDER, rsp.out_residual) == (DOUNDER, 8192)
    assert int.from_bytes(rsp.sense[3:7], "big") == 5, "the first block that was not written"


def test_slow_command_with_more_buffer_than_any_command_moves(rig):
    rig.lu(fd=rig.file())
    memory = rig.memory()
    channel = rig.srp(memory)
    frame = memory.alloc(2048 + 1)
    nbytes = (8 << 20) + 4096
    channel.send(srp_cmd(1, b"\x12" + bytes(5), in_=direct(frame + 8, nbytes)))
    request = rig.request()
    assert request.data_in_nbytes == nbytes
    assert lib.vt_request_store(rig.t, request.task, 0, b"facts", 5) == 5
    rig.complete(request, in_=5)
    rsp = channel.answer()
    assert (rsp.status, rsp.flags, rsp.in_residual) == (0, DIUNDER, nbytes - 5)
    assert memory.read(frame, 6) == b"facts\0"


def test_null_lu(rig):
    rig.lu(flags=1 | 4)
    memory = rig.memory()
    channel = rig.srp(memory, persistent=True)
    frame = memory.alloc(2)
    memory.write(frame, b"y" * 8192)
    assert channel.command(write10(0, 8), out=direct(frame + 8, 4096)).status == 0
    assert channel.command(read10(0, 8), in_=direct(frame + 8, 4096)).status == 0
    assert memory.read(frame, 4097) == bytes(4096) + b"y"
    assert channel.command(b"\x35" + bytes(9)).status == 0
    stats = ffi.new("struct vt_channel_stats *")
    assert lib.vt_channel_stats(rig.t, channel.id, stats) == 0
    assert (stats.requests, stats.responses, stats.outstanding, stats.request_limit) == (3, 3, 0, 254)
    assert (stats.bytes_read, stats.bytes_written) == (4096, 4096)


def test_slow_store_gets_checked_and_decoded_commands(rig):
    rig.lu(flags=8, blocks=100)
    memory = rig.memory()
    channel = rig.srp(memory)
    frame = memory.alloc(2)
    memory.write(frame, b"0123456789" * 200)
    assert code(channel.command(write10(100, 1), out=direct(frame + 8, 512))) == 0x052100
    assert code(channel.command(write10(7, 2), out=direct(frame + 8, 1000))) == 0x0B0E03
    channel.send(srp_cmd(1, write10(7, 2), out=direct(frame + 8, 1024, va=10)))
    request = rig.request()
    assert (request.op, request.lba, request.blocks, request.fua, request.lu) == (2, 7, 2, 1, 0)
    assert (request.data_out_nbytes, request.data_in_nbytes) == (1024, 0)
    into = bytearray(2000)
    assert lib.vt_request_fetch(rig.t, request.task, 1000, ffi.from_buffer(into), 2000) == 24
    assert bytes(into[:24]) == (b"0123456789" * 200)[1010:1034]
    assert rig.complete(request, out=1024) == 0
    assert channel.answer().flags == 0
    assert rig.complete(request) < 0, "a task ends once"
    channel.send(srp_cmd(2, read10(3, 1), in_=direct(frame + 8, 600)))
    request = rig.request()
    assert (request.op, request.lba, request.blocks, request.fua) == (1, 3, 1, 0)
    assert lib.vt_request_store(rig.t, request.task, 0, b"ab" * 512, 1024) == 600
    rig.complete(request, in_=512)
    rsp = channel.answer()
    assert (rsp.status, rsp.flags, rsp.in_residual) == (0, DIUNDER, 88)
    assert memory.read(frame, 600) == b"ab" * 300


def test_statistics_count_what_ended_well(make_rig):
    """A command that Python runs may end GOOD and have sense all the same; only MEDIUM ERROR is an error."""
    rig = make_rig()
    assert rig.lu(flags=8) == 0
    channel = rig.srp()
    recovered, medium, other = (bytes((0x72, key, 0, 0, 0, 0, 0, 0)) for key in (1, 3, 5))
    for tag, (status, sense) in enumerate([(0, b""), (0, recovered), (2, medium), (2, other), (0x18, b"")]):
        channel.send(srp_cmd(tag, read10(0, 8), in_=direct(rig.memory().alloc(1) + 8, 4096)))
        assert rig.complete(rig.request(), status, sense, in_=4096) == 0
        assert channel.answer().status == status
    stats = ffi.new("struct vt_lu_stats *")
    assert lib.vt_lu_stats(rig.t, 0, stats) == 0
    assert (stats.commands[0], stats.blocks[0], stats.errors[0]) == (5, 16, 1)
    assert (stats.commands[1], stats.blocks[1], stats.errors[1]) == (0, 0, 0)
