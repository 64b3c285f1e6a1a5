# SPDX-License-Identifier: BSD-2-Clause
"""Two loops, several threads: logical units that come and go under load, and unit attentions that meet an abort."""

import os
import threading

import pytest
from raw_wire import CLEAR_TASK_SET, RSPVALID, code, direct, parse_rsp, read10, srp_cmd, tsk_mgmt

from target.native import ffi, lib

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0"))
NOT_SUPPORTED = 0x052500


@pytest.fixture
def disk(make_rig):
    """Two nexuses on two loops."""
    rig = make_rig(loops=2)
    rig.lu(flags=4)
    rig.a, rig.b = rig.srp(loop=0), rig.srp(loop=1)
    return rig


def test_no_unit_attention_is_lost_to_an_abort(disk):
    """A command that takes one and is aborted before it is answered has told nobody."""
    codes = set(range(0x2A00, 0x2A0E))
    for _ in range(300 + int(SECONDS * 1000)):
        for ua in codes:
            lib.vt_ua_establish(disk.t, disk.a.nexus, lib.VT_ALL, 0, ua)
        disk.a.send(*(srp_cmd(tag, read10(0, 0)) for tag in range(len(codes))))
        disk.b.send(*(tsk_mgmt(100 + i, CLEAR_TASK_SET) for i in range(8)))
        told = set()
        for _ in codes:
            rsp = disk.a.answer()
            if not rsp.flags & RSPVALID and rsp.status:
                told.add(code(rsp) & 0xFFFF)
        for _ in range(8):
            disk.b.answer()
        while left := lib.vt_ua_take(disk.t, disk.a.nexus, 0):
            told.add(left)
        assert told - {0x2F00} == codes


def test_units_come_and_go_under_load(disk):
    """Whoever meets one sees it whole or not at all; its index and its LUN may be used again at once."""
    vbd = disk.blkif(loop=1)
    gref = vbd.memory.alloc(1) + 8
    buffers = {c: direct(c.memory.alloc(1) + 8, 4096) for c in (disk.a, disk.b)}
    stop, cycles, refused = threading.Event(), 0, []

    def plug():
        nonlocal cycles
        while not stop.is_set():
            lu = disk.lu(lun=7, flags=4)
            channel_lu = lib.vt_range_lock(disk.t, 0, lu, 0, 100, 1000)
            if lu != 1 or channel_lu < 0 or lib.vt_range_unlock(disk.t, lu, channel_lu) < 0:
                refused.append((lu, channel_lu))
            if lib.vt_lu_remove(disk.t, lu) < 0:
                refused.append(lu)
            cycles += 1

    thread = threading.Thread(target=plug)
    thread.start()
    outcomes = set()
    try:
        rounds = 0
        while rounds < 200 + SECONDS * 500 or cycles < 20:
            rounds += 1
            for channel, buffer in buffers.items():
                channel.send(*(srp_cmd(tag, read10(tag, 8), lun=7, in_=buffer) for tag in range(16)))
            assert vbd.run(0, 0, [(gref, 0, 7)]) == 0, "another unit's channel notices nothing"
            for channel in buffers:
                for _ in range(16):
                    rsp = parse_rsp(channel.receive())
                    outcomes.add("aborted" if rsp.flags & RSPVALID else code(rsp) if rsp.status else 0)
    finally:
        stop.set()
        thread.join()
    assert not refused and outcomes <= {0, "aborted", NOT_SUPPORTED}


def test_blkif_channel_of_a_removed_unit_answers_with_errors(disk):
    assert disk.lu(lun=7, flags=4) == 1
    vbd = disk.blkif(lu=1)
    gref = vbd.memory.alloc(1) + 8
    assert vbd.run(0, 0, [(gref, 0, 7)]) == 0
    assert lib.vt_lu_remove(disk.t, 1) == 0
    assert vbd.run(0, 0, [(gref, 0, 7)]) == -1
    assert disk.lu(lun=7, flags=4) == 1
    assert vbd.run(0, 0, [(gref, 0, 7)]) == -1, "it served the one that is gone"
    stats = ffi.new("struct vt_channel_stats *")
    assert lib.vt_channel_stats(disk.t, vbd.id, stats) == 0 and stats.outstanding == 0


def test_what_a_channel_has_seen_of_a_lun_is_not_all_there_is_to_know(disk):
    """Another unit under the same LUN, one that is hidden now, two in turn: each command finds what is there."""
    channel, beyond = disk.a, 0x052100
    for blocks in (8, 100):
        assert disk.lu(lun=7, flags=4, blocks=blocks) == 1
        for _ in range(2):
            assert channel.command(read10(blocks - 1, 1), lun=7).status == 0
            assert code(channel.command(read10(blocks, 1), lun=7)) == beyond
            assert channel.command(read10(blocks, 1)).status == 0, "the unit beside it"
        assert lib.vt_lu_access(disk.t, 1, channel.nexus, lib.VT_ACCESS_HIDDEN) == 0
        assert code(channel.command(read10(0, 1), lun=7)) == NOT_SUPPORTED
        assert disk.b.command(read10(0, 1), lun=7).status == 0
        assert lib.vt_lu_access(disk.t, 1, channel.nexus, 0) == 0
        assert channel.command(read10(0, 1), lun=7).status == 0
        assert lib.vt_lu_remove(disk.t, 1) == 0
        assert code(channel.command(read10(0, 1), lun=7)) == NOT_SUPPORTED
