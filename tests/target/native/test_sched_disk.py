# SPDX-License-Identifier: BSD-2-Clause
"""The simulated disk: its arithmetic, and commands through real rings that have to wait for it."""

import itertools
import random

import pytest
from raw_wire import ABORT_TASK, LUN_RESET, RSPVALID, direct, read10, srp_cmd, tsk_mgmt, write10
from schedulers import MiB, add, read, stats, until

from target.native import ffi, lib

REVOLUTION = 8_000_000
RATE = 100_000_000


def disk(nbytes=1 << 30, **kw):
    values = {"nbytes": nbytes, "bytes_per_s": RATE, "revolution_us": 8000, "seek_us": 8000, "step_us": 1000} | kw
    return ffi.gc(lib.vt_disk_new(ffi.new("struct vt_disk_config *", values)), lib.vt_disk_free)


# ---- arithmetic ----


def test_numbers_that_make_no_disk():
    for name in ("nbytes", "bytes_per_s", "revolution_us"):
        assert (
            lib.vt_disk_new(ffi.new("struct vt_disk_config *", {"nbytes": 1, "revolution_us": 1, name: 0})) == ffi.NULL
        )


def test_a_run_is_only_transferred():
    d, now = disk(), 0
    for i in range(50):
        begin, now = now, int(lib.vt_disk_serve(d, i * 65536, 65536, now))
        assert now - begin == 65536 * 1e9 / RATE


def test_requests_that_continue_each_other_take_as_long_as_one_of_their_size():
    """So merging them into one call would gain nothing here."""
    merged, apart = disk(), disk()
    whole, now = int(lib.vt_disk_serve(merged, MiB, 131072, 0)), 0
    for part in range(8):
        now = int(lib.vt_disk_serve(apart, MiB + part * 16384, 16384, 0))
    assert abs(whole - now) <= 8, "but for rounding to nanoseconds"


def test_requests_are_served_one_after_the_other_whenever_they_come():
    one, other = disk(), disk()
    places = [random.Random(i).randrange(1 << 30) // 512 * 512 for i in range(50)]
    ends = [int(lib.vt_disk_serve(one, place, 4096, 1000)) for place in places]
    now, again = 1000, []
    for place in places:
        now = int(lib.vt_disk_serve(other, place, 4096, now))
        again.append(now)
    assert ends == again == sorted(set(ends))


def test_random_requests_cost_a_seek_and_half_a_revolution():
    d, now, rng = disk(), 0, random.Random(1)
    for _ in range(4000):
        now = int(lib.vt_disk_serve(d, rng.randrange(1 << 18) * 4096, 4096, now))
    assert now / 4000 == pytest.approx(8e6 + REVOLUTION / 2 + 4096e9 / RATE, rel=0.03)


def test_near_is_sooner_than_far():
    def seek(distance):
        d = disk(revolution_us=1)  # no rotation to speak of
        return int(lib.vt_disk_serve(d, distance, 0, 0))

    far = [seek(1 << shift) for shift in range(12, 30)]
    assert far == sorted(far) and far[0] >= 1_000_000
    assert far[-1] == pytest.approx(1e6 + 7e6 * 15 / 8 * 0.5**0.5, rel=0.01)  # half the disk


def test_the_platter_has_to_come_round():
    d = disk()
    track = RATE * 8 // 1000
    assert int(lib.vt_disk_serve(d, track // 4, 0, 0)) == REVOLUTION // 4
    assert int(lib.vt_disk_serve(d, 0, 0, REVOLUTION // 4)) == REVOLUTION


# ---- through rings ----


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def rig(request, make_rig):
    rig = make_rig(loops=request.param)
    rig.fd = rig.file(64 * MiB)
    rig.lu(fd=rig.fd, blocks=64 * 2048)
    rig.a = rig.srp(loop=0)
    rig.b = rig.srp(loop=request.param - 1)
    return rig


def lay(rig, lu=0, base=0, **kw):
    """The LU lies on a simulated disk from now on."""
    rig.disk = disk(64 * MiB, **kw)
    rig.held_disks = [*getattr(rig, "held_disks", []), rig.disk]
    assert lib.vt_lu_disk(rig.t, lu, rig.disk, base) == 0


def test_commands_come_in_the_order_of_the_disk(rig):
    lay(rig, bytes_per_s=1_000_000, seek_us=0, step_us=0)
    for tag in range(1, 9):
        read(rig.a, tag, tag * 7919 % 1000, blocks=8)
    assert [rig.a.answer().tag for _ in range(8)] == list(range(1, 9))
    assert lib.vt_lu_disk(rig.t, 9, rig.disk, 0) == -2


def test_data_is_what_was_written(rig):
    lay(rig, seek_us=100, step_us=100, revolution_us=100)
    frame = rig.a.memory.alloc(2)
    rig.a.memory.write(frame, bytes(range(256)) * 16)
    for lba in (0, 5000, 100000):
        assert rig.a.command(write10(lba, 8), out=direct(frame + 8, 4096)).status == 0
        rig.a.memory.write(frame + 1, bytes(4096))
        assert rig.a.command(read10(lba, 8), in_=direct(frame + 9, 4096)).status == 0
        assert rig.a.memory.read(frame + 1, 4096) == bytes(range(256)) * 16


@pytest.mark.parametrize("function", [ABORT_TASK, LUN_RESET])
def test_a_command_that_the_disk_has_is_answered_when_it_is_aborted(rig, function):
    lay(rig, bytes_per_s=1)  # an hour for a block
    frame = rig.a.memory.alloc(1)
    rig.a.memory.write(frame, b"x" * 512)
    rig.a.send(srp_cmd(1, write10(3, 1), out=direct(frame + 8, 512)))
    rig.a.taken()
    rig.b.send(tsk_mgmt(8, ABORT_TASK, task_tag=5))
    assert rig.b.answer().tag == 8
    rig.a.send(tsk_mgmt(9, function, task_tag=1))
    rsp = rig.a.answer()
    assert (rsp.tag, rsp.flags, rsp.response) == (1, RSPVALID, b"\0\0\0\0")
    if function == LUN_RESET:
        rig.complete(rig.request())
    assert rig.a.answer().tag == 9
    with open(rig.fd, "rb", closefd=False) as image:
        image.seek(3 * 512)
        assert image.read(512) == bytes(512)


def test_a_channel_stops_and_a_unit_goes_while_the_disk_is_busy(rig):
    lay(rig, bytes_per_s=1)
    for tag in range(1, 20):
        read(rig.a, tag, tag)
        read(rig.b, tag, tag)
    rig.a.stop()
    assert lib.vt_lu_remove(rig.t, 0) == 0
    assert {rig.b.answer().tag for _ in range(19)} == set(range(1, 20))


def test_the_greedy_wait_for_the_disk_the_polite_for_their_turn(rig):
    """All of it together: a run of commands at the disk, in order of position, and one place there."""
    lay(rig, seek_us=500, step_us=500, revolution_us=500)
    sched = add(rig)
    rng = random.Random(2)
    lbas = [rng.randrange(100000) for _ in range(60)]
    for tag, lba in enumerate(lbas):
        read(rig.a, tag, lba)
    order = [rig.a.answer().tag for _ in range(60)]
    places = [lbas[tag] for tag in order]
    assert sum(one > other for one, other in itertools.pairwise(places)) < 10
    until(lambda: stats(rig, sched, rig.a.nexus).running == 0)
    assert stats(rig, sched, rig.a.nexus).requests == 60


def test_two_units_on_one_disk(rig):
    lay(rig, bytes_per_s=1)
    for lun, device in ((1, rig.disk), (2, disk())):
        rig.lu(lun=lun, fd=rig.fd, blocks=64 * 2048)
        rig.held_disks.append(device)
        assert lib.vt_lu_disk(rig.t, lun, device, 32 * MiB) == 0
    read(rig.a, 1, 0)  # an hour
    read(rig.b, 2, 0, lun=1)
    read(rig.b, 3, 0, lun=2)
    assert rig.b.answer().tag == 3
    assert rig.a.silent(0.02) and rig.b.silent(0.02)
