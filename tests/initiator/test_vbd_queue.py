# SPDX-License-Identifier: BSD-2-Clause
"""blkif requests submitted and reaped: depth, order, and what becomes of 32 of them when the connection is lost, the
target killed and started anew, replaced in order, or the device suspended. Each ends exactly once.
"""

import socket
import threading
import time

import pytest
from programs import Restarting

from initiator import Backoff, BlkifError, CacheLost, CommandTimeout, TransportError
from initiator.vbd import BARRIER, DISCARD, FLUSH, READ, WRITE, Vbd

SECONDS = 30.0
DEPTH = 32
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.1, seconds=SECONDS)


def until(predicate, what):
    end = time.monotonic() + SECONDS
    while not predicate():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def stamp(block, version):
    return (block << 16 | version).to_bytes(8, "big") * 64


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    made = Restarting(tmp_path_factory.mktemp("target"))
    yield made
    made.kill()


@pytest.fixture
def replaceable(program):
    """Running, whatever the test before has done to it. Every test writes first what it reads."""
    if not program.is_running:
        program.start()
    return program


@pytest.fixture
def vbd(replaceable):
    with Vbd(replaceable.socket, reconnect=QUICK, timeout=SECONDS) as made:
        yield made


def reaped(vbd, count):
    """So many ends, by cookie, and no more."""
    found = []
    while len(found) < count:
        more = vbd.reap(timeout=SECONDS)
        assert more, f"{len(found)} of {count} have ended"
        found += more
    assert not vbd.reap(timeout=0) and not vbd.reap(min=0)
    by_cookie = {done.cookie: done for done in found}
    assert len(by_cookie) == count
    return by_cookie


def write_many(vbd, version, count=DEPTH, first=0):
    for k in range(first, first + count):
        vbd.submit(WRITE, k, data_out=stamp(k, version), cookie=k)


def is_there(vbd, version, count=DEPTH):
    return vbd.read(0, count) == b"".join(stamp(k, version) for k in range(count))


# ---- nothing is lost ----


@pytest.mark.parametrize("options", [{}, {"queues": 4, "persistent": False}, {"ring_pages": 1}])
def test_depth(replaceable, options):
    """More than a ring of one page has room for: `submit` waits, and whoever waits makes room."""
    with Vbd(replaceable.socket, timeout=SECONDS, **options) as vbd:
        write_many(vbd, 1, 100)
        assert all(done.error is None for done in reaped(vbd, 100).values())
        into = bytearray(512)
        vbd.submit(READ, 7, data_in=into, cookie="into")
        for k in range(100):
            vbd.submit(READ, k, data_in=512, cookie=k)
        vbd.submit(FLUSH, cookie="flush")
        found = reaped(vbd, 102)
        assert [found[k].data_in for k in range(100)] == [stamp(k, 1) for k in range(100)]
        assert into == stamp(7, 1) and found["flush"].error is None
        assert vbd.stats()["outstanding"] == 0


def test_what_the_target_refuses_and_what_cannot_be_sent(vbd):
    vbd.submit(READ, 1 << 40, data_in=512, cookie="beyond")
    vbd.submit(DISCARD, 0, blocks=8, cookie="discard")
    found = reaped(vbd, 2)
    assert isinstance(found["beyond"].error, BlkifError)
    with pytest.raises(ValueError, match="whole number of blocks"):
        vbd.submit(WRITE, 0, data_out=b"short")
    vbd.submit(WRITE, 0, data_out=bytes((vbd.max_blocks + 1) * 512), cookie="too long")
    assert "too many buffers" in str(reaped(vbd, 1)["too long"].error)


# ---- sent again ----


LOSSES = ("kill", "frozen and killed", "stop", "cut", "suspend")


@pytest.mark.parametrize(
    ("how", "options"),
    [
        *((how, {}) for how in LOSSES),
        ("frozen and killed", {"queues": 2, "persistent": False}),
        ("suspend", {"queues": 2}),
        ("suspend", {"persistent": False}),
    ],
)
def test_each_of_32_ends_once(replaceable, how, options):
    with Vbd(replaceable.socket, reconnect=QUICK, timeout=SECONDS, **options) as vbd:
        write_many(vbd, 1)
        reaped(vbd, DEPTH)
        vbd.submit(FLUSH)
        vbd.reap()
        if how in ("frozen and killed", "suspend"):
            replaceable.freeze()
        write_many(vbd, 2)
        if how == "suspend":
            vbd.suspend()
            replaceable.thaw()
            assert not vbd.reap(timeout=0.01)
            vbd.resume()
        elif how == "cut":
            vbd.connection._sock.shutdown(socket.SHUT_RDWR)
        elif how == "stop":
            assert replaceable.target.stop() == 0
            replaceable.start()
        else:
            replaceable.kill()
            replaceable.start()
        found = reaped(vbd, DEPTH)
        assert sorted(found) == list(range(DEPTH))
        assert [done.error for done in found.values()] == [None] * DEPTH
        assert is_there(vbd, 2)
        # Nothing of the old memory is in use: twice as many at once would meet in it.
        write_many(vbd, 3, 2 * DEPTH)
        reaped(vbd, 2 * DEPTH)
        for k in range(2 * DEPTH):
            vbd.submit(READ, k, data_in=512, cookie=k)
        found = reaped(vbd, 2 * DEPTH)
        assert [found[k].data_in for k in range(2 * DEPTH)] == [stamp(k, 3) for k in range(2 * DEPTH)]
        assert vbd.stats()["outstanding"] == 0


def test_in_order_and_before_anything_newer(replaceable, vbd):
    """Ever newer contents of one block, each behind a barrier: none is overtaken by an older one."""
    replaceable.freeze()
    for version in range(1, 11):
        vbd.submit(WRITE, 5, data_out=stamp(5, version), cookie=version)
        vbd.submit(BARRIER, 6, data_out=stamp(6, version), cookie=-version)
    replaceable.kill()
    replaceable.start()
    vbd.submit(WRITE, 5, data_out=stamp(5, 11), cookie=11)
    vbd.submit(BARRIER, cookie="last")
    vbd.submit(READ, 5, data_in=512, cookie="read")
    order = []
    while "last" not in order or "read" not in order:
        for done in vbd.reap(timeout=SECONDS):
            assert done.error is None
            order.append(done.cookie)
            if done.cookie == "read":
                assert done.data_in == stamp(5, 11)
    numbers = [cookie for cookie in order if isinstance(cookie, int)]
    assert numbers == [sign * n for n in range(1, 11) for sign in (1, -1)] + [11]
    assert len(order) == 23 and vbd.read(6, 1) == stamp(6, 10)


def test_with_several_rings_a_barrier_travels_alone(replaceable):
    with Vbd(replaceable.socket, queues=4, reconnect=QUICK, timeout=SECONDS) as vbd:
        for version in range(1, 6):
            write_many(vbd, version, 8)
            vbd.submit(BARRIER, 100, data_out=stamp(100, version), cookie=-version)
            if version == 3:
                vbd.connection._sock.shutdown(socket.SHUT_RDWR)
        done = []
        while len(done) < 45:
            done += vbd.reap(timeout=SECONDS)
        assert all(one.error is None for one in done)
        order = [one.cookie for one in done]
        for version in range(1, 6):
            assert order.index(-version) == 9 * version - 1
        assert is_there(vbd, 5, 8)


def test_submitters_wait_for_the_next_connection(replaceable, vbd):
    replaceable.kill()
    threads = [threading.Thread(target=write_many, args=(vbd, 3, 8, 8 * k)) for k in range(4)]
    for thread in threads:
        thread.start()
    replaceable.start()
    for thread in threads:
        thread.join(SECONDS)
    found = reaped(vbd, 32)
    assert sorted(found) == list(range(32)) and is_there(vbd, 3)


# ---- the end ----


def test_a_flush_tells_of_a_cache_that_may_be_lost(replaceable, vbd):
    write_many(vbd, 1, 2)
    reaped(vbd, 2)
    replaceable.kill()
    replaceable.start()
    until(lambda: vbd.recovery.recovered == 1, "back")
    vbd.submit(FLUSH, cookie="tells")
    vbd.submit(FLUSH, cookie="quiet")
    found = reaped(vbd, 2)
    assert isinstance(found["tells"].error, CacheLost) and found["quiet"].error is None


def test_without_a_policy_all_end_with_the_loss(replaceable):
    with Vbd(replaceable.socket, timeout=SECONDS) as vbd:
        replaceable.freeze()
        write_many(vbd, 1)
        replaceable.kill()
        found = reaped(vbd, DEPTH)
        assert all(isinstance(done.error, TransportError) for done in found.values())
        with pytest.raises(TransportError):
            vbd.submit(READ, 0, data_in=512)


def test_given_up_or_closed_each_ends_too(replaceable):
    few = Backoff(first_seconds=0.01, longest_seconds=0.01, attempts=2)
    with Vbd(replaceable.socket, timeout=SECONDS, reconnect=few) as vbd:
        replaceable.freeze()
        write_many(vbd, 1)
        replaceable.kill()
        found = reaped(vbd, DEPTH)
        assert all("given up after 2 attempts" in str(done.error) for done in found.values())
    replaceable.start()
    with Vbd(replaceable.socket, timeout=SECONDS) as vbd:
        replaceable.freeze()
        write_many(vbd, 1)
        replaceable.thaw()
    found = reaped(vbd, DEPTH)
    assert all(done.error is None or isinstance(done.error, TransportError) for done in found.values())


def test_a_late_one_costs_the_connection_and_nothing_else(tmp_path, caplog):
    caplog.set_level("WARNING", "vscsi.initiator")
    stuck = Restarting(tmp_path, "--fault", "0:read,drop,count=1,lba=9")
    try:
        with Vbd(stuck.socket, reconnect=QUICK, timeout=SECONDS) as vbd:
            write_many(vbd, 1)
            reaped(vbd, DEPTH)
            vbd.submit(READ, 9, data_in=512, timeout=0.2, cookie="late")
            assert isinstance(reaped(vbd, 1)["late"].error, CommandTimeout)
            assert "the device is given up" in caplog.text
            assert is_there(vbd, 1)
            assert vbd.recovery.recovered == 1
    finally:
        stuck.kill()
