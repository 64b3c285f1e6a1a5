# SPDX-License-Identifier: BSD-2-Clause
"""The load generator over both protocols, against a target played in Python: what it sends, counts and refuses."""

import errno
import threading
import time

import pytest
from fake_target import ARENA, LUN0, disk_handler, rsp, tag_of

from initiator.native import ffi, lib
from vscsi.native import lib as shared


def load(t, protocol_lun=LUN0, *, count=1, logical=512, **fields):
    spec = ffi.new("struct vscsi_load_spec *", {
        "block_nbytes": 4096, "queue_depth": 8, "read_percent": 50, "random": 1, "span_nbytes": 1 << 20,
        "duration_ns": 5_000_000_000, "max_ios": 300, "seed": 1, **fields,
    })  # fmt: skip
    result = ffi.new("struct vscsi_load_result *")
    rc = lib.vi_load(
        ffi.new("struct vi_channel *[]", [t.c] * count), count, protocol_lun * count, logical, ARENA, spec, result
    )
    return rc, result


@pytest.mark.parametrize("spin_ns", [0, 50_000])
def test_srp_load(fake, spin_ns):
    t = fake(spin_ns=spin_ns)
    t.serve(disk_handler(t, bytearray(1 << 20)))
    rc, result = load(t)
    assert rc == 0
    assert (result.ios, result.errors) == (300, 0)
    assert sum(result.histogram) == 300
    assert result.elapsed_ns > 0 and result.max_ns > 0
    assert lib.vi_outstanding(t.c) == 0


@pytest.mark.parametrize("depth", [1, 32, 200])
def test_load_keeps_its_depth(fake, depth):
    t = fake()
    seen, held = 0, []
    worst = [0]

    def handler(iu: bytes) -> None:
        nonlocal seen
        seen += 1
        held.append(tag_of(iu))
        worst[0] = max(worst[0], len(held))
        if len(held) == min(depth, 1000 - seen + len(held)):
            for tag in held:
                t.good(tag)
            held.clear()

    t.serve(handler)
    rc, result = load(t, queue_depth=depth, max_ios=1000)
    assert (rc, result.ios, worst[0]) == (0, 1000, depth)


def test_load_counts_errors(fake):
    t = fake()
    t.serve(lambda iu: t.good(tag_of(iu), status=8))
    rc, result = load(t, max_ios=20)
    assert (rc, result.ios, result.errors) == (0, 20, 20)


def test_load_scatters(fake):
    t = fake()
    formats = set()

    def handler(iu: bytes) -> None:
        formats.add((iu[5], iu[6], iu[7]))
        t.good(tag_of(iu))

    t.serve(handler)
    rc, _ = load(t, block_nbytes=8 * 4096, scatter=1, read_percent=100, max_ios=10)
    assert rc == 0 and formats == {(2, 0, 8)}


def test_answers_to_a_load_that_gave_up_are_not_the_next_ones(fake):
    """They came for buffers that the next load does not have: with fewer of them, memory was overwritten."""
    t = fake(timeout_ms=20)
    rc, result = load(t, queue_depth=8, max_ios=8)
    assert (rc, result.ios) == (-errno.ETIMEDOUT, 0)
    late = [tag_of(t.expect()) for _ in range(8)]

    def handler(iu: bytes) -> None:
        while late:
            t.good(late.pop(), status=8)
        t.good(tag_of(iu))

    t.serve(handler)
    rc, result = load(t, queue_depth=1, max_ios=20)
    assert (rc, result.ios, result.errors) == (0, 20, 0)
    assert sum(result.histogram) == 20
    assert lib.vi_outstanding(t.c) == 0


def test_load_ends_with_its_time(fake):
    t = fake()
    t.serve(lambda iu: t.good(tag_of(iu)))
    start = time.monotonic()
    rc, result = load(t, duration_ns=100_000_000, max_ios=0)
    assert rc == 0 and result.ios > 0 and 0.09 < time.monotonic() - start < 3


def test_load_on_large_units_uses_read_16(fake):
    t = fake()
    opcodes = set()

    def handler(iu: bytes) -> None:
        opcodes.add(iu[32])
        t.good(tag_of(iu))

    t.serve(handler)
    assert load(t, span_nbytes=1 << 46, read_percent=100)[0] == 0
    assert 0x88 in opcodes


def test_load_gives_up_on_a_silent_target(fake):
    t = fake(timeout_ms=50)
    assert load(t)[0] == -errno.ETIMEDOUT


def test_load_on_a_dying_channel(fake):
    t = fake()
    results = []
    thread = threading.Thread(target=lambda: results.append(load(t)[0]))
    thread.start()
    t.expect()
    time.sleep(0.05)
    lib.vi_channel_fail(t.c, -errno.ECONNRESET)  # from beside it
    thread.join(5)
    assert results == [-errno.ECONNRESET]


@pytest.mark.parametrize(
    "fields", [{"queue_depth": 0}, {"queue_depth": 257}, {"block_nbytes": 100}, {"span_nbytes": 512}, {"logical": 0},
               {"count": 0}, {"count": 65}, {"logical": 8192}, {"scatter": 3}, {"scatter": 2, "block_nbytes": 512}]
)  # fmt: skip
def test_load_refuses_nonsense(fake, fields):
    assert load(fake(), **fields)[0] == -errno.EINVAL


def test_load_wants_the_channel_for_itself(fake):
    t = fake()
    thread = threading.Thread(target=lambda: t.execute(bytes(6), timeout_ms=400))
    thread.start()
    t.expect()
    time.sleep(0.05)
    assert load(t)[0] == -errno.EBUSY
    thread.join()


def test_blkif_load(fake):
    t = fake(lib.VI_PROTOCOL_BLKIF, ring_pages=8, indirect_per_slot=1)
    operations = set()

    def handler(iu: bytes) -> None:
        operations.add(iu[0])
        operation = iu[1] if iu[0] == lib.BLKIF_OP_INDIRECT else iu[0]
        t.respond(iu[8:16] + bytes([operation]) + bytes(7))

    t.serve(handler)
    rc, result = load(t)
    assert (rc, result.ios, result.errors) == (0, 300, 0)
    assert operations == {lib.BLKIF_OP_READ, lib.BLKIF_OP_WRITE}
    operations.clear()
    rc, result = load(t, block_nbytes=128 << 10, queue_depth=4, max_ios=20)
    assert (rc, result.ios, operations) == (0, 20, {lib.BLKIF_OP_INDIRECT})


def test_load_scatters_apart(fake):
    """Pages of one request are not neighbours, and no two requests under way share a page."""
    t = fake()
    held: dict[int, list[int]] = {}

    def handler(iu: bytes) -> None:
        assert (iu[5], iu[7]) == (2, 3)
        frames = [int.from_bytes(iu[at + 8 : at + 12], "big") - 8 for at in range(68, 68 + 3 * 16, 16)]
        assert [frames[1] - frames[0], frames[2] - frames[1]] == [4, 4]
        held[tag_of(iu)] = frames
        if len(held) == 4:
            assert len({frame for each in held.values() for frame in each}) == 12
            assert all(ARENA // 4096 <= frame < ARENA // 4096 + 12 for each in held.values() for frame in each)
            for tag in held:
                t.good(tag)
            held.clear()

    t.serve(handler)
    fields = {"block_nbytes": 3 * 4096, "queue_depth": 4, "read_percent": 100, "max_ios": 40}
    rc, result = load(t, scatter=lib.VSCSI_SCATTER_APART, **fields)
    assert (rc, result.ios, result.errors) == (0, 40, 0)


# ---- open loop ----

STALL_NS = 200_000_000


def above(result, ns):
    """How many latencies are in buckets that lie above `ns`, give or take a bucket."""
    return sum(n for k, n in enumerate(result.histogram) if n and shared.vscsi_hist_value(k) >= ns * 63 // 64)


def stalling(t):
    """Answers the first request after STALL_NS, all others at once."""
    first = True

    def handler(iu: bytes) -> None:
        nonlocal first
        if first:
            first = False
            time.sleep(STALL_NS / 1e9)
        t.good(tag_of(iu))

    return handler


@pytest.mark.parametrize("spin_ns", [0, 50_000])
def test_open_loop_counts_from_when_a_request_was_due(fake, spin_ns):
    """100 requests are due in 100 ms while the target stalls for 200 ms: every one of them has waited 100 ms."""
    t = fake(spin_ns=spin_ns)
    t.serve(stalling(t))
    rc, result = load(t, queue_depth=1, max_ios=100, rate_per_s=1000)
    assert (rc, result.ios, result.errors, result.unsent) == (0, 100, 0, 0)
    assert above(result, STALL_NS // 2) == 100
    assert result.max_ns >= STALL_NS


def test_open_loop_sends_no_sooner_than_due(fake):
    t = fake()
    times = []

    def handler(iu: bytes) -> None:
        times.append(time.monotonic())
        t.good(tag_of(iu))

    t.serve(handler)
    start = time.monotonic()
    rc, result = load(t, max_ios=30, rate_per_s=300)
    assert (rc, result.ios) == (0, 30)
    assert all(at - start >= k / 300 for k, at in enumerate(times))
    assert result.sleeps >= 1


def test_open_loop_tells_what_it_could_not_send(fake):
    """The time is over before the first answer: the other 49 that were due are not forgotten."""
    t = fake()
    t.serve(stalling(t))
    rc, result = load(t, queue_depth=1, max_ios=0, duration_ns=50_000_000, rate_per_s=1000)
    assert (rc, result.ios, result.unsent) == (0, 1, 49)


def test_open_loop_ends_with_its_time(fake):
    """The next request is due after the end."""
    t = fake()
    t.serve(lambda iu: t.good(tag_of(iu)))
    rc, result = load(t, max_ios=0, duration_ns=50_000_000, rate_per_s=1)
    assert (rc, result.ios, result.unsent) == (0, 1, 0)


def test_open_loop_gives_up_on_a_silent_target(fake):
    t = fake(timeout_ms=50)
    assert load(t, queue_depth=1, rate_per_s=1000)[0] == -errno.ETIMEDOUT


# ---- without event suppression ----


@pytest.mark.parametrize("eager", [False, True])
def test_eager_events_are_sent_and_asked_for(fake, eager):
    """The target is busy and asks for no second event, nor do we: without suppression there is one all the same."""
    t = fake()
    if eager:
        lib.vi_channel_eager_events(t.c)
    tags = []
    for _ in range(2):
        tags.append(t.submit(bytes(6)))
        lib.vi_flush(t.c)
    stats = ffi.new("struct vi_stats *")
    lib.vi_channel_stats(t.c, stats)
    wanted = []
    for tag in tags:
        t.take()
        wanted.append(shared.vscsi_ring_respond(t.back, rsp(tag), len(rsp(tag))))
        assert t.reap(min_=0, timeout_ms=0)[0] == 1
    assert (stats.kicks_sent, wanted) == ((2, [1, 1]) if eager else (1, [1, 0]))
