# SPDX-License-Identifier: BSD-2-Clause
"""Range locks: who waits for whom, who is parked, and what becomes of those who wait when something else happens.

A pipe for an image keeps a READ in the kernel for as long as one likes.
"""

import os
import struct

import pytest
from range_locks import (
    BLKIF_READ,
    BLKIF_WRITE,
    CANCELED,
    INVALID,
    LONG,
    NO_ENTRY,
    SLOW,
    SYNC,
    TIMED_OUT,
    elsewhere,
    lock,
    none_queued,
    unlock,
    waits,
)
from raw_initiator import PAGE
from raw_wire import (
    HEAD_OF_QUEUE,
    ORDERED,
    code,
    direct,
    indirect,
    read10,
    srp_cmd,
    write10,
)

from target.native import ffi, lib

# ---- locks among themselves ----


def test_overlapping_locks_exclude_each_other(disk, pool):
    first = lock(disk, 10, 10)
    assert first > 0
    assert [elsewhere(pool, disk, lba, n) for lba, n in ((10, 1), (19, 5), (0, 11), (0, 2**64 - 1))] == [TIMED_OUT] * 4
    others = [elsewhere(pool, disk, lba, n) for lba, n in ((0, 10), (20, 2**63), (15, 0))]
    assert all(other > 0 for other in others)
    unlock(disk, first, *others)
    assert lib.vt_range_unlock(disk.t, 0, first) == NO_ENTRY
    assert elsewhere(pool, disk, 0, 2**64 - 1) > 0


def test_bad_arguments(disk):
    assert lock(disk, 0, 1, lu=5) == NO_ENTRY and lock(disk, 0, 1, lu=10**6) == NO_ENTRY
    assert lock(disk, 2**64 - 1, 2) == INVALID
    assert lock(disk, 0, 1, task=123456789) == CANCELED, "no such task"
    assert lib.vt_range_unlock(disk.t, 5, 1) == lib.vt_range_unlock(disk.t, 0, 0) == NO_ENTRY


def test_first_come_first_served(disk, pool):
    """A lock that overlaps an earlier wish waits for it, even if its blocks are free."""
    held = lock(disk, 0, 10)
    early = pool.submit(lock, disk, 5, 10, LONG)
    assert waits(early)
    late = pool.submit(lock, disk, 12, 10, LONG)
    assert waits(late) and elsewhere(pool, disk, 20, 10) == TIMED_OUT
    unlock(disk, held)
    unlock(disk, early.result())
    unlock(disk, late.result())


def test_wish_given_up_lets_the_next_go_on(disk, pool):
    held = lock(disk, 0, 10)
    early = pool.submit(lock, disk, 5, 10, 150)
    assert waits(early)
    late = pool.submit(lock, disk, 12, 10, LONG)
    assert early.result() == TIMED_OUT
    unlock(disk, late.result(), held)


def test_holder_of_blocks_waits_for_no_wish(disk, pool):
    """Two locks in the order of LBAs, and somebody between them who wants both: no dead end."""
    low = lock(disk, 0, 10)
    both = pool.submit(lock, disk, 0, 100, LONG)
    assert waits(both)
    disk.a.send(srp_cmd(1, read10(0, 8), in_=disk.buffer))
    disk.a.taken()
    high = lock(disk, 5, 10, LONG)
    assert high > 0, "its own ranges may even overlap"
    unlock(disk, low)
    assert waits(both) and disk.a.silent(0)
    unlock(disk, high)
    unlock(disk, both.result())
    assert disk.a.answer().status == 0


# ---- fast commands ----


def test_commands_on_locked_blocks_wait_and_others_do_not(disk):
    held = lock(disk, 8, 8)
    parked = [read10(8, 1), write10(15, 1), read10(0, 9), write10(0, 2048)]
    big = indirect([direct(disk.mem.alloc(256) + 8, 1 << 20)])
    for channel in (disk.a, disk.b):
        buffer = disk.buffer if channel is disk.a else direct(channel.memory.alloc(2) + 8, PAGE)
        channel.big = big if channel is disk.a else indirect([direct(channel.memory.alloc(256) + 8, 1 << 20)])
        for tag, cdb in enumerate(parked):
            whole = channel.big if cdb == parked[-1] else buffer
            channel.send(srp_cmd(tag, cdb, **{"in_" if cdb[0] == 0x28 else "out": whole}))
        for cdb in (read10(0, 8), read10(16, 8)):
            assert channel.command(cdb, in_=buffer).status == 0
        assert channel.command(write10(16, 8), out=buffer).status == 0
        assert channel.command(SYNC).status == channel.command(read10(8, 0)).status == 0
        assert channel.silent(0.05)
    unlock(disk, held)
    for channel in (disk.a, disk.b):
        assert {(channel.answer().tag, 0) for _ in parked} == {(tag, 0) for tag in range(len(parked))}


def test_blkif_requests_wait_too(disk):
    memory = disk.memory()
    vbd = disk.blkif(memory, discard=1, flush=1, barrier=1, max_indirect_segments=32)
    gref = memory.alloc(1) + 8
    held = lock(disk, 8, 8)
    for op in (BLKIF_READ, BLKIF_WRITE, 2):
        vbd.send(vbd.request(op, 77, 15, [(gref, 0, 7)]))
        assert vbd.silent(0.03)
        unlock(disk, held)
        assert vbd.status(op) == 0
        held = lock(disk, 8, 8)
    vbd.send(struct.pack("<BBHIQQQ", 5, 0, 0, 0, 77, 15, 1))
    assert vbd.silent(0.03) and not memory.flags(gref - 8) & 24, "who waits holds no grant"
    assert lib.vt_range_unlock(disk.t, 0, held) == 0
    assert vbd.status(5) == 0
    assert vbd.run(3) == 0


def test_initiator_that_changes_its_mind_while_parked_is_parked_again(disk):
    """The segments of an indirect request lie in the initiator's memory: the second look may find other blocks."""
    memory = disk.memory()
    vbd = disk.blkif(memory, max_indirect_segments=32)
    table, page = memory.alloc(1), memory.alloc(1)
    memory.write(table, struct.pack("<IBBH", page + 8, 0, 0, 0))
    first, second = lock(disk, 0, 1), lock(disk, 4, 1)
    vbd.send(struct.pack("<BBHIQQHH8II", 6, BLKIF_WRITE, 1, 0, 77, 0, 0, 0, table + 8, *[0] * 7, 0))
    assert vbd.silent(0.05)
    memory.write(table, struct.pack("<IBBH", page + 8, 0, 7, 0))
    unlock(disk, first)
    assert vbd.silent(0.05)
    unlock(disk, second)
    assert vbd.status(BLKIF_WRITE) == 0


def test_lock_waits_for_a_command_that_has_begun(stuck, pool):
    stuck.a.send(srp_cmd(1, read10(3, 1), in_=stuck.buffer))
    stuck.a.taken()
    unlock(stuck, lock(stuck, 0, 3), lock(stuck, 4, 9))
    assert lock(stuck, 0, 10) == TIMED_OUT
    waiting = pool.submit(lock, stuck, 0, 10, LONG)
    assert waits(waiting)
    # Whoever comes now waits for the lock, or a stream of commands could hold it off for ever.
    stuck.b.send(srp_cmd(2, read10(5, 1), in_=direct(stuck.b.memory.alloc(1) + 8, 512)))
    stuck.b.taken()
    os.write(stuck.pipe, b"1" * 512)
    assert stuck.a.answer().status == 0
    held = waiting.result()
    assert held > 0 and stuck.b.silent(0.05)
    os.write(stuck.pipe, b"2" * 512)
    assert stuck.b.silent(0.05)
    unlock(stuck, held)
    assert stuck.b.answer().status == 0


def test_parked_command_comes_before_a_later_lock(stuck, pool):
    first = lock(stuck, 0, 6)
    two = direct(stuck.a.memory.alloc(1) + 8, 1024)
    stuck.a.send(srp_cmd(1, read10(5, 2), in_=two))
    stuck.a.taken()
    assert stuck.a.silent(0.03) and elsewhere(pool, stuck, 6, 1) == TIMED_OUT, "free, but wanted by the command"
    unlock(stuck, elsewhere(pool, stuck, 7, 1))
    later = pool.submit(lock, stuck, 0, 10, LONG)
    assert waits(later)
    unlock(stuck, first)
    assert waits(later), "the command reads now"
    os.write(stuck.pipe, b"1" * 1024)
    assert stuck.a.answer().status == 0
    unlock(stuck, later.result())


@pytest.mark.parametrize("attribute", [ORDERED, HEAD_OF_QUEUE])
def test_order_of_commands_and_locks_do_not_wait_for_each_other(disk, attribute):
    """A slow ORDERED or HEAD OF QUEUE command locks while fast commands behind it are dormant."""
    disk.a.send(srp_cmd(1, SLOW, attribute=attribute))
    request = disk.request()
    disk.b.send(srp_cmd(2, read10(0, 8), in_=direct(disk.b.memory.alloc(1) + 8, PAGE)))
    disk.b.taken()
    held = lock(disk, 0, 2**32, LONG, request.task)
    assert held > 0
    disk.complete(request)
    assert disk.a.answer().tag == 1
    assert disk.b.silent(0.05), "enabled now, and parked"
    disk.a.send(srp_cmd(3, SLOW, attribute=ORDERED))
    assert none_queued(disk), "what is parked keeps its place"
    unlock(disk, held)
    assert disk.b.answer().tag == 2
    disk.complete(disk.request())
    assert disk.a.answer().tag == 3


def test_commands_that_python_runs_are_neither_parked_nor_waited_for(rig):
    rig.lu(flags=8)
    rig.lu(lun=1, fd=rig.file(), flags=64)
    memory = rig.memory()
    channel, vbd = rig.srp(memory), rig.blkif(memory, lu=1)
    buffer = direct(memory.alloc(1) + 8, 512)
    for lu in (0, 1):
        held = lock(rig, 0, 100, lu=lu)
        channel.send(srp_cmd(1, write10(0, 1), out=buffer, lun=lu))
        request = rig.request()
        unlock(rig, held, lu=lu)
        unlock(rig, lock(rig, 0, 100, LONG, request.task, lu=lu), lu=lu)
        rig.complete(request, out=512)
        assert channel.answer().status == 0
    held = lock(rig, 0, 100, lu=1)
    vbd.send(vbd.request(BLKIF_READ, 77, 0, [(memory.alloc(1) + 8, 0, 0)]))
    rig.complete(rig.request())
    assert vbd.status() == 0
    unlock(rig, held, lu=1)


def test_what_a_lock_changed_is_seen_by_those_who_waited(disk):
    """A parked command begins anew: it meets the sense, the capacity and the protection of that moment."""
    held = lock(disk, 0, 2048)
    disk.a.send(srp_cmd(1, read10(2000, 1), in_=disk.buffer), srp_cmd(2, read10(3, 1), in_=disk.buffer))
    disk.a.taken()
    disk.b.send(srp_cmd(3, write10(0, 1), out=direct(disk.b.memory.alloc(1) + 8, 512)))
    disk.b.taken()
    lib.vt_lu_update(disk.t, 0, disk.lu_config(fd=disk.fd, blocks=1000, flags=1 | 64))
    lib.vt_lu_deny(disk.t, 0, disk.b.nexus, 2)
    unlock(disk, held)
    rsp = disk.a.answer()
    assert rsp.tag == 1 and code(rsp) == 0x052100
    request = disk.request()
    assert bytes(ffi.buffer(request.cdb, 10)) == read10(3, 1)
    unlock(disk, lock(disk, 3, 1, LONG, request.task))
    disk.complete(request, in_=512)
    assert (disk.a.answer().status, disk.b.answer().status) == (0, 0x18)


def test_scratch_that_waiting_commands_hold_blocks_no_lock(disk):
    """The pool of scratch is empty; a READ waits for it; a slow command that holds some wants the READ's blocks."""
    frames = [disk.mem.alloc(1) for _ in range(64)]
    entries = [direct(f + 8, 2048) for f in frames[::2]]
    table = disk.mem.alloc(1)
    disk.mem.write(table, b"".join(entries))
    scattered = indirect(entries, inline=0, table=struct.pack(">QII", 0, table + 8, 16 * len(entries)))
    disk.a.send(*(srp_cmd(i, SLOW, in_=scattered) for i in range(64)))
    requests = [disk.request() for _ in range(64)]
    disk.a.send(srp_cmd(100, read10(0, 128), in_=scattered))
    disk.a.taken()
    assert disk.a.silent(0.03)
    held = lock(disk, 0, 128, LONG, requests[0].task)
    assert held > 0
    for request in requests:
        disk.complete(request)
    assert {disk.a.answer().tag for _ in requests} == set(range(64))
    assert disk.a.silent(0.05)
    unlock(disk, held)
    assert disk.a.answer().tag == 100
