# SPDX-License-Identifier: BSD-2-Clause
"""Native blkif over a raw ring: every operation, every check, beside SCSI on the same logical unit."""

import os
import random
import struct

import pytest
from raw_initiator import PAGE
from raw_wire import code, read10, srp_cmd, tsk_mgmt

from target.native import lib

OKAY, ERROR, EOPNOTSUPP = 0, -1, -2
READ, WRITE, BARRIER, FLUSH, RESERVED, DISCARD = range(6)
ALL = {"barrier": 1, "flush": 1, "discard": 1, "max_indirect_segments": 256}


@pytest.fixture(params=[False, True], ids=["mapped", "persistent"])
def disk(request, rig):
    rig.fd = rig.file()
    rig.lu(fd=rig.fd, flags=1 | 32)
    rig.mem = rig.memory()
    rig.vbd = rig.blkif(rig.mem, persistent=request.param, **ALL)
    rig.buf = rig.mem.alloc(64)
    return rig


def segments(disk, count, first=0, last=7):
    return [(disk.buf + i + 8, first, last) for i in range(count)]


def test_write_and_read(disk):
    data = os.urandom(11 * PAGE)
    disk.mem.write(disk.buf, data)
    assert disk.vbd.run(WRITE, 8, segments(disk, 11)) == OKAY
    assert os.pread(disk.fd, len(data), 4096) == data
    disk.mem.write(disk.buf, bytes(len(data)))
    assert disk.vbd.run(READ, 8, segments(disk, 11)) == OKAY
    assert disk.mem.read(disk.buf, len(data)) == data
    assert disk.vbd.run(READ, 9, [(disk.buf + 40, 3, 5), (disk.buf + 42, 0, 0)]) == OKAY
    assert disk.mem.read(disk.buf + 32, 1536, 3 * 512) == data[512:2048]
    assert disk.mem.read(disk.buf + 34, 512) == data[2048:2560]


def test_barrier_flush_discard(disk):
    disk.mem.write(disk.buf, b"b" * PAGE)
    assert disk.vbd.run(BARRIER, 0, segments(disk, 1)) == OKAY
    assert os.pread(disk.fd, PAGE, 0) == b"b" * PAGE
    assert disk.vbd.run(BARRIER) == OKAY
    assert disk.vbd.run(FLUSH) == OKAY
    assert disk.vbd.run(FLUSH, 8, segments(disk, 1)) == OKAY
    assert os.pread(disk.fd, PAGE, PAGE) == b"b" * PAGE
    status = disk.vbd.discard(0, 8)
    assert status in (OKAY, EOPNOTSUPP)
    if status == OKAY:
        assert os.pread(disk.fd, PAGE, 0) == bytes(PAGE)
    assert disk.vbd.discard(2048, 1) == ERROR
    assert disk.vbd.discard(0, 1 << 60) == ERROR
    assert disk.vbd.discard(0, 8, flag=1) == EOPNOTSUPP


@pytest.mark.parametrize("count", [1, 11, 200, 256])
def test_indirect(disk, count):
    rng = random.Random(count)
    pages = [rng.randrange(64) for _ in range(count)]
    table = disk.mem.alloc(1)
    disk.mem.write(table, b"".join(struct.pack("<IBBH", disk.buf + p + 8, 1, 6, 0) for p in pages))
    data = os.urandom(6 * 512 * count)
    os.pwrite(disk.fd, data, 512)
    assert disk.vbd.indirect(READ, 1, count, [table + 8]) == OKAY
    for i, page in enumerate(pages):
        if page not in pages[i + 1 :]:
            assert disk.mem.read(disk.buf + page, 3072, 512) == data[i * 3072 : (i + 1) * 3072]
    assert disk.vbd.indirect(WRITE, 1, count, [table + 8]) == OKAY


def test_indirect_refusals(disk):
    table = disk.mem.alloc(1)
    disk.mem.write(table, struct.pack("<IBBH", disk.buf + 8, 0, 7, 0) * 512)
    assert disk.vbd.indirect(READ, 0, 0, [table + 8]) == ERROR
    assert disk.vbd.indirect(READ, 0, 257, [table + 8]) == ERROR
    assert disk.vbd.indirect(READ, 0, 65535, [table + 8]) == ERROR
    assert disk.vbd.indirect(FLUSH, 0, 1, [table + 8]) == ERROR
    assert disk.vbd.indirect(6, 0, 1, [table + 8]) == ERROR
    assert disk.vbd.indirect(READ, 0, 1, [0]) == ERROR
    assert disk.vbd.indirect(READ, 0, 1, [table + 8]) == OKAY


def test_bad_requests(disk):
    ok = segments(disk, 1)
    vbd = disk.vbd
    assert vbd.run(READ, 0, []) == ERROR
    assert vbd.run(WRITE, 0, []) == ERROR
    assert vbd.run(READ, 0, ok, nr=12) == ERROR
    assert vbd.run(READ, 0, ok, nr=255) == ERROR
    assert vbd.run(READ, 0, [(disk.buf + 8, 5, 4)]) == ERROR
    assert vbd.run(READ, 0, [(disk.buf + 8, 0, 8)]) == ERROR
    assert vbd.run(READ, 0, [(disk.buf + 8, 0, 255)]) == ERROR
    assert vbd.run(READ, 2048, ok) == ERROR
    assert vbd.run(READ, 2041, ok) == ERROR
    assert vbd.run(READ, (1 << 64) - 1, ok) == ERROR
    assert vbd.run(READ, 1 << 55, ok) == ERROR
    assert vbd.run(READ, 0, [(1, 0, 7)]) == ERROR
    assert vbd.run(READ, 0, [(0xFFFFFFFF, 0, 7)]) == ERROR
    assert vbd.run(READ, 0, [*ok, (disk.mem.alloc(1, readonly=True) + 8, 0, 7)]) == ERROR
    assert vbd.run(RESERVED, 0, ok) == ERROR
    assert vbd.run(7, 0, ok) == ERROR
    assert vbd.run(255, 0, ok) == ERROR
    assert vbd.run(READ, 2040, ok) == OKAY


def test_unadvertised_operations(rig):
    rig.lu(fd=rig.file(), flags=1 | 32)
    vbd = rig.blkif()
    assert vbd.run(BARRIER) == EOPNOTSUPP
    assert vbd.run(FLUSH) == EOPNOTSUPP
    assert vbd.discard(0, 8) == EOPNOTSUPP
    assert vbd.indirect(READ, 0, 1, [9]) == EOPNOTSUPP


def test_state_of_the_unit(disk):
    ok = segments(disk, 1)
    lib.vt_lu_deny(disk.t, 0, disk.vbd.nexus, 2)
    assert (disk.vbd.run(READ, 0, ok), disk.vbd.run(WRITE, 0, ok), disk.vbd.run(BARRIER)) == (OKAY, ERROR, ERROR)
    lib.vt_lu_deny(disk.t, 0, disk.vbd.nexus, 0)
    lib.vt_lu_state(disk.t, 0, 0x020402)
    assert disk.vbd.run(READ, 0, ok) == ERROR
    lib.vt_lu_state(disk.t, 0, 0)
    lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd, flags=1 | 32, write_protect=0x072700))
    assert (disk.vbd.run(READ, 0, ok), disk.vbd.run(WRITE, 0, ok), disk.vbd.run(FLUSH)) == (OKAY, ERROR, OKAY)
    reader = disk.blkif(disk.mem, readonly=1, **ALL)
    lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd, flags=1 | 32))
    assert (reader.run(READ, 0, ok), reader.run(WRITE, 0, ok), reader.discard(0, 8)) == (OKAY, ERROR, ERROR)
    assert disk.vbd.run(WRITE, 0, ok) == OKAY


def test_blocks_of_4096_refuse_parts(rig):
    rig.lu(fd=rig.file(), flags=1, block=4096, blocks=256)
    memory = rig.memory()
    vbd = rig.blkif(memory)
    frame = memory.alloc(1)
    assert vbd.run(READ, 8, [(frame + 8, 0, 7)]) == OKAY
    assert vbd.run(READ, 1, [(frame + 8, 0, 7)]) == ERROR
    assert vbd.run(READ, 8, [(frame + 8, 0, 3)]) == ERROR


def test_barrier_waits_and_is_waited_for(rig):
    """Barriers are ORDERED commands of the LU's one task set."""
    rig.lu(fd=rig.file(), flags=1)
    vbd, srp = rig.blkif(**ALL), rig.srp()
    frame = vbd.memory.alloc(1)
    srp.send(srp_cmd(1, b"\x41" + bytes(9)))
    request = rig.request()
    vbd.send(vbd.request(BARRIER, 77, 0, [(frame + 8, 0, 7)]), vbd.request(READ, 77, 0, [(frame + 8, 0, 7)]))
    assert vbd.silent()
    rig.complete(request)
    assert (vbd.status(BARRIER), vbd.status(READ)) == (OKAY, OKAY)
    assert srp.answer().status == 0


def test_reset_by_a_scsi_nexus_ends_blkif_requests(rig):
    rig.lu(flags=8)
    vbd, srp = rig.blkif(**ALL), rig.srp()
    frame = vbd.memory.alloc(1)
    vbd.send(vbd.request(READ, 77, 8, [(frame + 8, 0, 7)]))
    request = rig.request()
    assert (request.op, request.lba, request.blocks, request.data_in_nbytes) == (1, 8, 8, 4096)
    srp.send(tsk_mgmt(1, 8))
    assert srp.silent(0.05)
    rig.complete(request)
    rig.complete(rig.request())
    assert vbd.status() == ERROR
    assert srp.answer().response == b"\0\0\0\0"
    assert code(srp.command(read10(0, 0))) == 0x062903


def test_slow_store(rig):
    rig.lu(flags=8 | 1)
    vbd = rig.blkif(**ALL)
    frame = vbd.memory.alloc(1)
    vbd.send(vbd.request(BARRIER, 77, 0, [(frame + 8, 0, 7)]))
    seen = []
    for _ in range(2):
        request = rig.request()
        seen.append((request.op, request.fua))
        rig.complete(request)
    assert seen == [(3, 1), (2, 1)] and vbd.status() == OKAY
    vbd.send(vbd.request(FLUSH, 77, 0))
    rig.complete(rig.request(), status=2)
    assert vbd.status() == ERROR
