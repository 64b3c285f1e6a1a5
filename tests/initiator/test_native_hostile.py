# SPDX-License-Identifier: BSD-2-Clause
"""A target that lies: whatever it writes, the channel dies with -EPROTO, everyone waiting is told."""

import errno
import os
import threading
import time

import pytest
from fake_target import ARENA, PAGE, FakeTarget, rsp, tag_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from initiator.native import ffi, lib

TUR = bytes(6)


def dead(t: FakeTarget, error: int = -errno.EPROTO) -> bool:
    return t.submit(TUR) == error and lib.vi_flush(t.c) == error


def patched(data: bytes, offset: int, value: int, nbytes: int = 4) -> bytes:
    return data[:offset] + value.to_bytes(nbytes, "big") + data[offset + nbytes :]


LIES = {
    "tag of nobody": lambda tag: rsp(tag ^ 1 << 60),
    "slot beyond the ring": lambda tag: rsp(tag | 0x3FF),
    "old generation": lambda tag: rsp(tag - 1024),
    "free slot": lambda tag: rsp(tag ^ 4),
    "not a response": lambda tag: b"\xc0" + rsp(tag)[1:],
    "zeros": lambda tag: bytes(248),
    "sense beyond the slot": lambda tag: patched(rsp(tag, flags=2, sense=bytes(8)), 28, 213),
    "sense of 4 GiB": lambda tag: patched(rsp(tag, flags=2, sense=bytes(8)), 28, 0xFFFFFFFF),
    "response data beyond the slot": lambda tag: patched(rsp(tag, flags=1, response=bytes(4)), 32, 216),
    "lengths that overflow together": lambda tag: patched(
        patched(rsp(tag, flags=3, response=bytes(4)), 28, 0xFFFFFFFC), 32, 8
    ),
    "response data too short": lambda tag: patched(rsp(tag, flags=1, response=bytes(4)), 32, 3),
    "both under and over": lambda tag: rsp(tag, flags=lib.SRP_RSP_DIOVER | lib.SRP_RSP_DIUNDER, in_res=1),
    "both under and over, out": lambda tag: rsp(tag, flags=lib.SRP_RSP_DOOVER | lib.SRP_RSP_DOUNDER, out_res=1),
    "residual larger than the buffer": lambda tag: rsp(tag, flags=lib.SRP_RSP_DIUNDER, in_res=PAGE + 1),
    "residual of no buffer": lambda tag: rsp(tag, flags=lib.SRP_RSP_DOUNDER, out_res=1),
    "too much credit": lambda tag: rsp(tag, delta=0x7FFFFFFF),
    "too much debt": lambda tag: rsp(tag, delta=-0x80000000),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda name: name.replace(" ", "-"))
def test_a_lie_ends_the_channel(fake, lie):
    t = fake()
    tag = t.submit(TUR, into=[(ARENA, PAGE)])
    other = t.submit(TUR)
    lib.vi_flush(t.c)
    t.expect()
    t.respond(LIES[lie](tag))
    n, done = t.reap(min_=2)
    assert n == 2 and {d.tag for d in done} == {tag, other}
    assert {d.error for d in done} == {-errno.EPROTO}
    assert dead(t)
    assert t.reap()[0] == -errno.EPROTO


def test_an_answer_given_twice(fake):
    t = fake()
    first, second = t.submit(TUR), t.submit(TUR)
    lib.vi_flush(t.c)
    t.expect(), t.expect()
    t.good(first)
    t.good(first)
    _, done = t.reap(min_=2)
    assert [(d.tag, d.error) for d in done] == [(first, 0), (second, -errno.EPROTO)]
    assert dead(t)


def test_an_answer_before_the_request(fake):
    t = fake()
    first = t.submit(TUR)
    lib.vi_flush(t.c)
    t.expect()
    second = t.submit(TUR)  # in its slot, not published
    t.good(second)
    lib.vi_channel_drain(t.c, -errno.ECONNRESET)  # looks at the ring without publishing
    _, done = t.reap(min_=2)
    assert {(d.tag, d.error) for d in done} == {(first, -errno.EPROTO), (second, -errno.EPROTO)}


def test_a_task_management_function_without_a_response_code(fake):
    t = fake()
    t.serve(lambda iu: t.good(tag_of(iu)))
    done = ffi.new("struct vi_completion *")
    assert lib.vi_task_management(t.c, 1, bytes(8), 0, done, 5000) == 0
    assert done.error == -errno.EPROTO
    assert dead(t)


@pytest.mark.parametrize("index", [5, 0x80000000, 0xFFFFFFFF])
def test_an_index_that_runs_away(fake, index):
    t = fake()
    t.submit(TUR)
    lib.vi_flush(t.c)
    t.sring.rsp_prod = index
    t.kick()
    n, (done,) = t.reap()
    assert (n, done.error) == (1, -errno.EPROTO)
    assert dead(t)


def test_an_index_that_runs_backwards(fake):
    t = fake()
    for _ in range(3):
        t.submit(TUR)
        lib.vi_flush(t.c)
        t.good(tag_of(t.expect()))
        assert t.reap()[1][0].error == 0
    t.submit(TUR)
    t.sring.rsp_prod = 2
    assert t.reap()[1][0].error == -errno.EPROTO


def test_an_answer_while_nothing_was_asked(fake):
    t = fake()
    t.sring.rsp_prod = 1
    assert t.reap()[0] == -errno.EPROTO


def test_two_answers_to_a_login(fake):
    t = fake(live=False)
    assert lib.vi_channel_send(t.c, b"a", 1) == lib.vi_channel_send(t.c, b"b", 1) == 0
    t.expect(), t.expect()
    t.respond(b"x", kick=False)
    t.respond(b"y")
    iu = ffi.new("uint8_t[248]")
    assert lib.vi_channel_receive(t.c, iu, 1000) == 1  # what came before the lie
    assert lib.vi_channel_receive(t.c, iu, 1000) == -errno.EPROTO


def test_credit_that_overflows(fake):
    t = fake()
    assert lib.vi_channel_credit(t.c, 0x7FFFFFFF) == -errno.EPROTO
    assert dead(t)


def test_a_target_that_never_answers(fake):
    t = fake(timeout_ms=40)
    start = time.monotonic()
    rc, _ = t.execute(TUR, timeout_ms=0)
    assert rc == -errno.ETIMEDOUT and time.monotonic() - start < 2


def test_a_storm_of_events_means_nothing(fake):
    t = fake()
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            t.kick()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        start = time.monotonic()
        assert t.execute(TUR, timeout_ms=100)[0] == -errno.ETIMEDOUT
        assert time.monotonic() - start < 2
    finally:
        stop.set()
        thread.join()


def test_a_target_that_dies_leaves_what_it_published(fake):
    t = fake()
    first, second = t.submit(TUR), t.submit(TUR)
    lib.vi_flush(t.c)
    t.expect()
    t.respond(rsp(first), kick=False)
    os.close(t.ours)
    _, done = t.reap(min_=2)
    t.ours = os.open("/dev/null", os.O_RDONLY)
    assert [(d.tag, d.error) for d in done] == [(first, 0), (second, -errno.EPIPE)]
    assert t.reap()[0] == -errno.EPIPE


@pytest.mark.parametrize("spin_ns", [0, 20_000])
def test_failing_the_channel_wakes_everyone(fake, spin_ns):
    t = fake(limit=3, spin_ns=spin_ns)
    results: list[int] = []

    def run(call) -> None:
        results.append(call())

    def execute() -> int:
        rc, done = t.execute(TUR, timeout_ms=-1)
        return rc or done.error

    calls = [execute] * 5 + [lambda: t.reap(timeout_ms=-1)[0]]  # two are sent, three wait for credit
    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    lib.vi_channel_fail(t.c, -errno.ECONNRESET)
    for thread in threads:
        thread.join(5)
    assert results == [-errno.ECONNRESET] * 6


def test_draining_takes_the_published_answers_first(fake):
    t = fake()
    first, second = t.submit(TUR), t.submit(TUR)
    lib.vi_flush(t.c)
    t.expect()
    t.respond(rsp(first), kick=False)
    lib.vi_channel_drain(t.c, -errno.ECONNRESET)
    _, done = t.reap(min_=2)
    assert [(d.tag, d.error) for d in done] == [(first, 0), (second, -errno.ECONNRESET)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.binary(min_size=40, max_size=248), st.booleans(), st.booleans())
def test_fuzz_responses(fake, data, with_opcode, with_tag):
    """Whatever the bytes: one completion for the request, good or -EPROTO, and nothing else happens."""
    t = fake(ring_pages=1)
    tag = t.submit(TUR, into=[(ARENA, PAGE)])
    lib.vi_flush(t.c)
    t.expect()
    if with_opcode:
        data = b"\xc1" + data[1:]
    if with_tag:
        data = data[:8] + tag.to_bytes(8, "big") + data[16:]
    t.respond(data)
    n, (done,) = t.reap()
    assert n == 1 and done.tag == tag
    assert done.error in (0, -errno.EPROTO, -errno.ECANCELED, -errno.EIO)
    assert done.sense_nbytes <= 212 and done.in_residual <= PAGE
    assert (t.submit(TUR) == -errno.EPROTO) == (done.error == -errno.EPROTO)
