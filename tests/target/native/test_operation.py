# SPDX-License-Identifier: BSD-2-Clause
"""What Python may set on a live logical unit: denied classes, a long operation, protection, write cache, escapes."""

import os
import threading

import pytest
from raw_initiator import row
from raw_wire import LUN_RESET, code, direct, read10, srp_cmd, tsk_mgmt, write10

from target.native import ffi, lib

CONFLICT = 0x18
WRITE_CACHE, DESCRIPTOR_SENSE, DISCARD, PROTECTED = 1, 2, 32, 64
TEST_UNIT_READY, INQUIRY = bytes(6), b"\x12" + bytes(5)
BLKIF_READ, BLKIF_WRITE, BLKIF_FLUSH = 0, 1, 3
EOPNOTSUPP, ERROR = -2, -1


@pytest.fixture
def disk(rig):
    rig.fd = rig.file()
    rig.lu(fd=rig.fd, flags=WRITE_CACHE | DISCARD)
    rig.mem = rig.memory()
    rig.ch = rig.srp(rig.mem)
    rig.frame = rig.mem.alloc(2)
    rig.buffer = direct(rig.frame + 8, 512)
    return rig


def update(disk, flags, **kw) -> None:
    assert lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd, flags=flags, **kw)) == 0


# ---- reservations ----


def deny_many(disk, others, listed) -> int:
    nexuses, classes = ffi.new("uint32_t[]", list(listed)), ffi.new("uint32_t[]", list(listed.values()))
    return lib.vt_lu_deny_many(disk.t, 0, others, nexuses, classes, len(listed))


def test_deny_many_sets_everybody(disk):
    b, c = disk.srp(), disk.srp()
    assert deny_many(disk, 3, {disk.ch.nexus: 0, b.nexus: 2}) == 0
    assert disk.ch.command(write10(0, 0)).status == 0
    assert (b.command(read10(0, 0)).status, b.command(write10(0, 0)).status) == (0, CONFLICT)
    assert c.command(read10(0, 0)).status == CONFLICT
    late = disk.srp()
    assert late.command(read10(0, 0)).status == CONFLICT, "nexuses to come are others too"
    assert deny_many(disk, 0, {}) == 0
    assert {x.command(write10(0, 0)).status for x in (disk.ch, b, c, late)} == {0}


def test_deny_many_refuses_all_or_nothing(disk):
    assert deny_many(disk, 3, {disk.ch.nexus: 3, 1024: 0}) == -22
    assert disk.ch.command(write10(0, 0)).status == 0
    nothing = ffi.new("uint32_t[1]")
    assert lib.vt_lu_deny_many(disk.t, 7, 3, nothing, nothing, 0) == -2


def test_holder_never_sees_a_conflict_while_the_table_is_set_anew(disk):
    """Nobody is denied for a moment what both the old and the new table allow."""
    stop = threading.Event()

    def toggle():
        while not stop.is_set():
            deny_many(disk, 3, {disk.ch.nexus: 0})
            deny_many(disk, 2, {disk.ch.nexus: 0})

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        for _ in range(300):
            assert disk.ch.command(write10(0, 0)).status == 0
    finally:
        stop.set()
        thread.join()


# ---- long operations ----


@pytest.mark.parametrize("descriptor", [False, True], ids=["fixed", "descriptor"])
def test_operation_shows_progress_and_stops_commands(disk, descriptor):
    update(disk, WRITE_CACHE | (DESCRIPTOR_SENSE if descriptor else 0))
    assert lib.vt_command_add(disk.t, row(0x04, 6, flags=128)) == 0
    assert lib.vt_lu_operation(disk.t, 0, 0x02041B, 0x1234) == 0
    for cdb in (read10(0, 1), TEST_UNIT_READY, b"\x35" + bytes(9), INQUIRY):
        rsp = disk.ch.command(cdb)
        assert code(rsp) == 0x02041B
        specific = rsp.sense[12:15] if descriptor else rsp.sense[15:18]
        assert specific == b"\x80\x12\x34"
        assert not descriptor or rsp.sense[8:12] == b"\x02\x06\0\0"
    disk.ch.send(srp_cmd(1, b"\x04" + bytes(5)))
    disk.complete(disk.request())
    assert disk.ch.answer().status == 0, "one that may run during an operation"
    assert lib.vt_lu_operation(disk.t, 0, 0x02041B, 70000) == 0
    assert disk.ch.command(TEST_UNIT_READY).sense[13 if descriptor else 16 :][:2] == b"\xff\xff"
    assert lib.vt_lu_operation(disk.t, 0, 0, 0) == 0
    assert disk.ch.command(read10(0, 1), in_=disk.buffer).status == 0
    assert lib.vt_lu_operation(disk.t, 9, 0, 0) == -2


def test_unit_attention_and_conflict_come_before_an_operation(disk):
    lib.vt_lu_operation(disk.t, 0, 0x020404, 0)
    lib.vt_ua_establish(disk.t, disk.ch.nexus, lib.VT_ALL, 0, 0x2A09)
    lib.vt_lu_deny(disk.t, 0, disk.ch.nexus, 2)
    assert disk.ch.command(write10(0, 0)).status == CONFLICT
    assert code(disk.ch.command(read10(0, 0))) == 0x062A09
    assert code(disk.ch.command(read10(0, 0))) == 0x020404
    assert code(disk.ch.command(b"\x01" + bytes(5))) == 0x052000


def test_operation_stops_blkif_and_survives_a_reset(disk):
    memory = disk.memory()
    vbd = disk.blkif(memory, flush=1)
    segment = [(memory.alloc(1) + 8, 0, 7)]
    lib.vt_lu_operation(disk.t, 0, 0x020404, 0)
    assert [vbd.run(op, 0, segment) for op in (BLKIF_READ, BLKIF_WRITE)] == [ERROR, ERROR]
    assert vbd.run(BLKIF_FLUSH) == ERROR
    disk.ch.send(tsk_mgmt(9, LUN_RESET))
    disk.complete(disk.request())
    assert disk.ch.answer().tag == 9
    assert code(disk.ch.command(TEST_UNIT_READY)) == 0x062903
    assert code(disk.ch.command(TEST_UNIT_READY)) == 0x020404
    lib.vt_lu_operation(disk.t, 0, 0, 0)
    assert vbd.run(BLKIF_READ, 0, segment) == 0


# ---- commands that Python runs although the core could ----


def test_escape_bits_send_a_command_to_python_with_its_cdb(disk):
    usage = bytes.fromhex("28 f8 ffffffff 00 ffff 00")
    usage12 = b"\xa8\xf8" + b"\xff" * 10
    assert lib.vt_command_add(disk.t, row(0xA8, 12, 1, flags=4, length=(6, 4), usage=usage12, escape=0xE0)) == 0
    assert lib.vt_command_add(disk.t, row(0x2E, 10, 2, flags=12, usage=usage, fua=8, escape=0xE0)) == 0
    assert disk.ch.command(b"\xa8" + bytes(11)).status == 0, "the core's own"
    read12 = b"\xa8\x20" + (5).to_bytes(4, "big") + b"\0\0\0\1\0\0"
    disk.ch.send(srp_cmd(1, read12, in_=disk.buffer))
    request = disk.request()
    assert (request.op, bytes(ffi.buffer(request.cdb, 12))) == (0, read12)
    assert lib.vt_request_store(disk.t, request.task, 0, b"python", 6) == 6
    disk.complete(request, in_=6)
    assert disk.ch.answer().in_residual == 506
    assert disk.mem.read(disk.frame, 6) == b"python"
    assert code(disk.ch.command(b"\xa8\x20\0\0\x07\xff\0\0\0\2\0\0")) == 0x052100, "range is checked first"
    # Protection information makes the data longer than the blocks: the core does not judge its length.
    disk.ch.send(srp_cmd(2, b"\x2e\x28" + bytes(6) + b"\2\0", out=direct(disk.frame + 8, 520)))
    request = disk.request()
    assert (request.op, request.data_out_nbytes) == (0, 520)
    disk.complete(request, out=520)
    assert disk.ch.answer().status == 0


def test_protected_unit_asks_python(disk):
    update(disk, WRITE_CACHE | PROTECTED)
    for cdb, kw in ((read10(3, 1, 8), {"in_": disk.buffer}), (write10(3, 1), {"out": disk.buffer})):
        disk.ch.send(srp_cmd(1, cdb, **kw))
        request = disk.request()
        assert (request.op, bytes(ffi.buffer(request.cdb, 10))) == (0, cdb)
        disk.complete(request, in_=512 * ("in_" in kw), out=512 * ("out" in kw))
        assert disk.ch.answer().status == 0
    assert code(disk.ch.command(read10(2048, 1), in_=disk.buffer)) == 0x052100
    disk.ch.send(srp_cmd(2, sync := b"\x35" + bytes(9)))
    request = disk.request()
    assert (request.op, bytes(ffi.buffer(request.cdb, 10))) == (0, sync), "there is more to flush than the image"
    disk.complete(request)
    assert disk.ch.answer().status == 0
    update(disk, WRITE_CACHE)
    assert disk.ch.command(read10(3, 1), in_=disk.buffer).status == 0


def test_protected_unit_asks_python_for_blkif_too(disk):
    memory = disk.memory()
    vbd = disk.blkif(memory, flush=1, discard=1, barrier=1)
    gref = memory.alloc(1) + 8
    update(disk, WRITE_CACHE | DISCARD | PROTECTED)
    for op in (BLKIF_READ, BLKIF_WRITE):
        vbd.send(vbd.request(op, 77, 8, [(gref, 0, 7)]))
        request = disk.request()
        assert (request.op, request.lba, request.blocks, request.fua, request.cdb_nbytes) == (op + 1, 8, 8, 0, 0)
        disk.complete(request)
        assert vbd.status(op) == 0
    vbd.send(vbd.request(BLKIF_WRITE, 77, 8, [(gref, 0, 7)]))
    disk.complete(disk.request(), status=2)
    assert vbd.status() == ERROR
    vbd.send(vbd.request(BLKIF_FLUSH, 77, 0, []))
    request = disk.request()
    assert (request.op, request.cdb_nbytes) == (3, 0)
    disk.complete(request)
    assert vbd.status(BLKIF_FLUSH) == 0
    assert vbd.discard(0, 8) == EOPNOTSUPP, "what protects the blocks would stay behind"


# ---- the write cache ----


def test_write_cache_may_go_and_come(rig):
    """/dev/null takes every write and refuses every sync: what claims to be durable there fails."""
    fd = os.open("/dev/null", os.O_RDWR)
    rig.fds.append(fd)
    rig.lu(fd=fd, flags=WRITE_CACHE)
    memory = rig.memory()
    channel = rig.srp(memory)
    buffer = direct(memory.alloc(1) + 8, 512)
    assert channel.command(write10(0, 1), out=buffer).status == 0
    assert code(channel.command(b"\x35" + bytes(9))) == 0x030C00
    for flags, good in ((WRITE_CACHE, True), (0, False), (WRITE_CACHE, True)):
        assert lib.vt_lu_update(rig.t, 0, rig.lu_config(fd=fd, flags=flags)) == 0
        rsp = channel.command(write10(0, 1), out=buffer)
        assert rsp.status == 0 if good else code(rsp) == 0x030C00
