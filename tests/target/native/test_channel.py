# SPDX-License-Identifier: BSD-2-Clause
"""Channels: login hand-over, protocol errors, hostile rings and slots, stopping with work in flight, kicks."""

import os
import socket
import struct
import threading
import time

import pytest
from raw_initiator import PAGE
from raw_wire import LUN_RESET, ORDERED, RSPVALID, code, direct, indirect, parse_rsp, read10, srp_cmd, tsk_mgmt, write10

from target.native import ffi, lib
from vscsi.native import lib as vlib

SLOW = b"\x41" + bytes(9)
EVENT_IU, EVENT_ERROR, EVENT_STOPPED = 1, 2, 3


@pytest.fixture
def disk(rig):
    rig.lu(fd=rig.file())
    return rig


def test_everything_before_login_is_an_event(disk):
    channel = disk.srp(login=False)
    login = bytes(8) + b"LOGINTAG" + bytes(48)
    channel.send(login)
    event = disk.event(EVENT_IU, channel.id)
    assert event.iu_nbytes == 248 and bytes(ffi.buffer(event.iu, 64)) == login
    nexus = lib.vt_nexus_add(disk.t)
    answer = b"\xc0" + bytes(51)
    assert lib.vt_channel_login(disk.t, channel.id, nexus, 10) == 0
    assert lib.vt_channel_login(disk.t, channel.id, nexus, 10) < 0
    assert lib.vt_channel_respond(disk.t, channel.id, answer, 52) == 0
    assert lib.vt_channel_respond(disk.t, channel.id, answer, 52) < 0, "nothing is left to be answered"
    assert channel.receive()[:52] == answer
    assert channel.command(read10(0, 0)).status == 0
    assert lib.vt_nexus_remove(disk.t, nexus) < 0


def test_logout_is_the_last_iu_and_gets_no_answer(disk):
    channel = disk.srp()
    channel.send(b"\x03" + bytes(15), srp_cmd(1, read10(0, 0)))
    event = disk.event(EVENT_IU, channel.id)
    assert event.iu[0] == 3
    assert channel.silent()
    channel.stop()


@pytest.mark.parametrize(
    "iu,error",
    [
        (b"\x42" + bytes(15), 4),
        (b"\x00" + bytes(63), 4),
        (b"\xff" + bytes(63), 4),
        (srp_cmd(1, read10(0, 0), out_format=3), 6),
        (srp_cmd(1, read10(0, 0), in_format=4), 7),
        (srp_cmd(1, read10(0, 0), out=indirect([direct(9, 1)] * 2, table=struct.pack(">QII", 0, 0, 16))), 8),
        (srp_cmd(1, read10(0, 0), in_=indirect([direct(9, 1)], table=struct.pack(">QII", 0, 0, 17))), 9),
        (srp_cmd(1, read10(0, 0), in_=indirect([direct(9, 1)]), in_count=12), 10),
        (srp_cmd(1, read10(0, 0), in_format=2, in_count=255), 10),
        (srp_cmd(1, read10(0, 0), add_cdb=0xFC), 10),
        (srp_cmd(1, read10(0, 0), add_cdb=188), 10),
    ],
)
def test_protocol_errors_end_that_channel_only(disk, iu, error):
    bad, good = disk.srp(), disk.srp()
    bad.send(srp_cmd(7, read10(0, 0)), iu, srp_cmd(8, read10(0, 0)))
    event = disk.event(EVENT_ERROR, bad.id)
    assert event.error == error
    assert bad.answer().tag == 7 and bad.silent(0.05)
    assert good.command(read10(0, 0)).status == 0
    bad.stop()
    bad.remove()
    assert good.command(read10(0, 0)).status == 0


def test_request_limit_is_enforced_and_can_be_raised(disk):
    channel = disk.srp(limit=4)
    channel.send(*(srp_cmd(i, SLOW) for i in range(4)))
    requests = [disk.request() for _ in range(4)]
    assert lib.vt_channel_credit(disk.t, channel.id, 1) == 0
    channel.send(srp_cmd(4, SLOW))
    requests.append(disk.request())
    channel.send(tsk_mgmt(5, 1, task_tag=99))
    assert disk.event(EVENT_ERROR, channel.id).error == 3
    for r in requests:
        disk.complete(r)
    assert {channel.answer().tag for _ in range(5)} == set(range(5)), "commands in flight end"
    channel.stop()


@pytest.mark.parametrize("jump", [257, 1 << 31, 0xFFFFFFFF])
def test_ring_index_out_of_bounds(disk, jump):
    bad, good = disk.srp(), disk.srp()
    bad.command(read10(0, 0))
    struct.pack_into("<I", bad.memory.map, bad.frame * PAGE, (1 + jump) & 0xFFFFFFFF)
    vlib.vscsi_event_send_fd(bad.fd)
    assert disk.event(EVENT_ERROR, bad.id).error == 1
    assert good.command(read10(0, 0)).status == 0
    bad.stop()


def test_shared_index_and_event_fields_scribbled_on(disk):
    """Whatever the peer writes into the fields that are the target's own changes nothing but its own wake-ups."""
    channel = disk.srp()
    for i in range(50):
        struct.pack_into("<III", channel.memory.map, channel.frame * PAGE + 4, i * 77777, i * 33, 0)
        channel.send(srp_cmd(i, read10(0, 0)), kick=False)
        vlib.vscsi_event_send_fd(channel.fd)
        time.sleep(0.001)
    good = disk.srp()
    assert good.command(read10(0, 0)).status == 0


def test_closed_event_channel(disk):
    channel = disk.srp()
    os.close(channel.fd)
    channel.fd = os.open("/dev/null", os.O_RDONLY)
    assert disk.event(EVENT_ERROR, channel.id).error == 2
    channel.stop()


@pytest.mark.parametrize("engine", [1, 2])
def test_signals_beyond_one_portion_are_taken_too(make_rig, engine):
    """A peer that makes its own socket buffer larger may leave more signals behind than one look takes."""
    rig = make_rig(engine=engine)
    channel = rig.srp(login=False)
    channel.stop()
    assert lib.vt_channel_remove(rig.t, channel.id) == 0
    ends = ffi.new("int[2]")
    assert vlib.vscsi_event_pair(ends) == 0
    ours = socket.socket(fileno=ends[0])
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for _ in range(200):
        ours.send(b"\0", socket.MSG_DONTWAIT)
    config = {"protocol": 0, "event_fd": ends[1], "mapper": channel.memory.mapper, "ring": channel.mapped[0]}
    config |= {"ring_pages": channel.pages, "loop": -1}
    channel.id, channel.stopped = lib.vt_channel_add(rig.t, ffi.new("struct vt_channel_config *", config)), False
    os.close(ends[1])
    stats = ffi.new("struct vt_channel_stats *")
    until = time.monotonic() + 5
    while stats.kicks_received < 200:
        assert time.monotonic() < until, stats.kicks_received
        time.sleep(0.01)
        assert lib.vt_channel_stats(rig.t, channel.id, stats) == 0
    ours.close()
    assert rig.event(EVENT_ERROR, channel.id).error == 2


@pytest.mark.parametrize("engine", [1, 2])
def test_what_was_sent_before_the_event_channel_closed_is_served(make_rig, engine):
    """More than one batch, too: the logout at its end is heard before the hang-up."""
    rig = make_rig(engine=engine, batch=4)
    channel = rig.srp(login=False)
    time.sleep(0.05)
    channel.send(*(b"\x42" for _ in range(20)), kick=False)
    os.close(channel.fd)
    channel.fd = os.open("/dev/null", os.O_RDONLY)
    assert [rig.event(EVENT_IU, channel.id).iu[0] for _ in range(20)] == [0x42] * 20
    assert rig.event(EVENT_ERROR, channel.id).error == 2


def test_slots_that_change_while_they_are_read(rig):
    """One thread flips the slots of a live ring; every command is answered, or the channel ends with a reason."""
    rig.lu(fd=rig.file())
    bad, good = rig.srp(), rig.srp()
    frame = bad.memory.alloc(4)
    one = srp_cmd(1, read10(0, 8), in_=direct(frame + 8, 4096)).ljust(248, b"\0")
    two = srp_cmd(1, write10(0, 8), out=indirect([direct(frame + 8, 512)] * 8)).ljust(248, b"\0")
    stop = threading.Event()
    slots = bad.frame * PAGE + 64

    def flip():
        while not stop.is_set():
            for slot in range(16):
                for byte in range(0, 248, 31):
                    at = slots + slot * 248 + byte
                    bad.memory.map[at] = (two if bad.memory.map[at] == one[byte] else one)[byte]

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for i in range(300):
            bad.send(one if i % 2 else two)
            time.sleep(0.0005)
            bad.poll()
            assert good.command(read10(0, 0)).status == 0
            while lib.vt_request_next(rig.t, (r := ffi.new("struct vt_request *")), 0) == 1:
                rig.complete(r)
            event = ffi.new("struct vt_event *")
            if lib.vt_event_next(rig.t, event) == 1:
                assert (event.type, event.channel) in ((EVENT_ERROR, bad.id), (EVENT_IU, bad.id))
                break
    finally:
        stop.set()
        thread.join()
    assert good.command(read10(0, 0)).status == 0


def test_stop_with_work_in_every_state(disk):
    """Running, queued, dormant and a waiting function: everything ends, then STOPPED, then no grant is in use."""
    channel, other = disk.srp(), disk.srp()
    frame = channel.memory.alloc(1)
    buffer = direct(frame + 8, 4096)
    channel.send(srp_cmd(1, SLOW, in_=buffer))
    running = disk.request()
    channel.send(srp_cmd(2, SLOW, in_=buffer), srp_cmd(3, SLOW, attribute=ORDERED, out=buffer))
    channel.send(srp_cmd(4, read10(0, 8), in_=buffer))
    channel.send(tsk_mgmt(5, 1, task_tag=1))
    channel.taken()
    assert lib.vt_channel_stop(disk.t, channel.id) == 0
    assert lib.vt_channel_stop(disk.t, channel.id) == 0
    assert lib.vt_channel_remove(disk.t, channel.id) == -16
    assert lib.vt_request_aborted(disk.t, running.task) == 1
    assert vlib.vscsi_mapper_in_use(channel.memory.mapper) == 16 + 1
    disk.complete(running)
    disk.event(EVENT_STOPPED, channel.id)
    channel.poll()
    assert {struct.unpack_from(">Q", iu, 8)[0] for iu in channel.ready} == {1, 2, 3, 4, 5}
    assert vlib.vscsi_mapper_in_use(channel.memory.mapper) == 16
    channel.remove()
    assert other.command(read10(0, 0)).status == 0
    assert lib.vt_nexus_remove(disk.t, channel.nexus) == 0


def test_stop_under_load(disk):
    """Channels come and go while media access is in flight, many times over."""
    for round_ in range(20):
        channel = disk.srp(persistent=round_ % 2)
        frame = channel.memory.alloc(64)
        channel.send(*(srp_cmd(i, read10(i * 8, 8), in_=direct(frame + 8 + i, 4096)) for i in range(64)))
        channel.stop()
        for _ in range(round_ % 4):
            assert lib.vt_channel_stop(disk.t, channel.id) == 0
        channel.remove()


def test_a_long_queue_of_slow_commands_makes_only_its_owner_wait(disk):
    """Workers go to the connection that occupies the fewest; within one connection the order stays."""
    greedy, modest = disk.srp(), disk.srp()
    greedy.send(*(srp_cmd(k, SLOW) for k in range(50)))
    first = disk.request()
    time.sleep(0.05)
    modest.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW))
    time.sleep(0.05)
    second = disk.request()
    assert (first.channel, second.channel) == (greedy.id, modest.id)
    disk.complete(first)
    assert greedy.answer().tag == 0
    assert disk.request().channel == greedy.id
    disk.complete(second)
    assert modest.answer().tag == 1
    assert disk.request().channel == modest.id


def test_target_stops_with_slow_commands_out(make_rig):
    rig = make_rig()
    rig.lu(flags=4)
    channel = rig.srp()
    channel.send(srp_cmd(1, SLOW), srp_cmd(2, SLOW))
    rig.request()
    woken = []
    request = ffi.new("struct vt_request *")
    waiter = threading.Thread(target=lambda: woken.append(lib.vt_request_next(rig.t, request, 10000)))
    rig.complete(rig.request())
    waiter.start()
    time.sleep(0.05)
    lib.vt_stop(rig.t)
    waiter.join(5)
    assert woken == [-108]
    assert rig.complete(rig.held[0]) == 0
    channel.remove()


def test_batches_are_published_with_one_kick(make_rig):
    rig = make_rig()
    rig.lu(flags=4)
    channel = rig.srp()
    channel.send(*(srp_cmd(i, read10(0, 0)) for i in range(200)))
    assert {channel.answer().tag for _ in range(200)} == set(range(200))
    stats = ffi.new("struct vt_channel_stats *")
    lib.vt_channel_stats(rig.t, channel.id, stats)
    assert stats.kicks_sent <= 8 and stats.kicks_received == 1


@pytest.mark.parametrize("engine", [1, 2])
def test_idle_loop_sleeps_and_a_storm_of_kicks_is_damped(make_rig, engine):
    rig = make_rig(engine=engine)
    rig.lu(flags=4)
    storm, good = rig.srp(), rig.srp()
    good.command(read10(0, 0))
    stats = ffi.new("struct vt_loop_stats *")
    lib.vt_loop_stats(rig.t, 0, stats)
    before = stats.passes, stats.cpu_ns
    time.sleep(0.2)
    lib.vt_loop_stats(rig.t, 0, stats)
    assert stats.passes - before[0] < 10 and stats.channels == 2 and stats.sleeps > 0
    until, kicks = time.monotonic() + 0.5, 0
    cpu = stats.cpu_ns
    while time.monotonic() < until:
        vlib.vscsi_event_send_fd(storm.fd)
        kicks += 1
    lib.vt_loop_stats(rig.t, 0, stats)
    assert stats.cpu_ns - cpu < 100_000_000, "a peer without work costs a fraction of a CPU at most"
    channel_stats = ffi.new("struct vt_channel_stats *")
    lib.vt_channel_stats(rig.t, storm.id, channel_stats)
    assert channel_stats.kicks_received < kicks / 2
    assert good.command(read10(0, 0)).status == 0
    assert storm.command(read10(0, 0)).status == 0, "it is served, only later"


def test_channels_of_one_nexus_share_the_task_set(make_rig):
    rig = make_rig(loops=2)
    rig.lu(fd=rig.file())
    a = rig.srp(loop=0)
    b = rig.srp(loop=1, nexus=a.nexus)
    a.send(srp_cmd(1, SLOW))
    request = rig.request()
    b.send(srp_cmd(1, read10(0, 0)))
    assert code(b.answer()) == 0x0B4E00
    rig.complete(request)
    rsp = a.answer()
    assert (rsp.flags, rsp.tag) == (RSPVALID, 1)
    a.send(srp_cmd(2, SLOW))
    request = rig.request()
    b.send(tsk_mgmt(3, 1, task_tag=2))
    assert b.silent(0.05)
    rig.complete(request)
    assert b.answer().response == b"\0\0\0\0"
    assert a.answer().response == b"\0\0\0\0"


def test_configuration_is_checked():
    error = ffi.new("int *")
    for bad in ({"loops": 0}, {"loops": 17}, {"loops": 1, "engine": 9}):
        assert lib.vt_new(ffi.new("struct vt_config *", bad), error) == ffi.NULL and error[0] == -22


def test_reset_of_an_idle_unit_still_asks_python(disk):
    channel = disk.srp()
    channel.send(tsk_mgmt(1, LUN_RESET))
    request = disk.request()
    assert request.op == 4
    disk.complete(request)
    assert channel.answer().response == b"\0\0\0\0"


@pytest.fixture
def two_cpus():
    """What is made meanwhile knows of two CPUs at most."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("spin_ns", [0, 50_000])
def test_while_io_wants_the_cpus_the_initiator_is_advised_to_sleep(two_cpus, make_rig, spin_ns):
    rig = make_rig(nowait=0, spin_ns=spin_ns)
    if lib.vt_engine_used(rig.t) != lib.VT_ENGINE_URING:
        pytest.skip("only io_uring reads a pipe as if it were a file")
    reader, writer = os.pipe()
    rig.fds += [reader, writer]
    rig.lu(fd=reader)
    channel = rig.srp()
    sring = channel.front.sring
    assert sring.advice == 0
    for tag in (1, 2):
        channel.send(srp_cmd(tag, read10(0, 1), in_=direct(channel.memory.alloc(1) + 8, 512)))
        until = time.monotonic() + 5
        while sring.advice != lib.VSCSI_ADVICE_SLEEP:
            assert time.monotonic() < until, "no advice"
            time.sleep(0)
        os.write(writer, bytes(512))
        assert parse_rsp(channel.receive()).status == 0
        assert sring.advice == 0, "it goes before the last answer comes"


def test_many_channels_are_answered_in_the_midst_of_a_pass_while_some_go(disk):
    """More than a batch over all channels: answers go out between them, and a channel that stops leaves at the end."""
    memory = disk.memory()
    buffer = direct(memory.alloc(1) + 8, PAGE)
    for turn in range(10):
        channels = [disk.srp(memory) for _ in range(12)]
        for channel in channels:
            channel.send(*(srp_cmd(tag, read10(0, 1), in_=buffer) for tag in range(1, 9)))
        going = channels[turn]
        going.stop()
        for channel in channels:
            if channel is not going:
                assert sorted(parse_rsp(channel.receive()).tag for _ in range(8)) == list(range(1, 9))
                channel.stop()
