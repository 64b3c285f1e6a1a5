# SPDX-License-Identifier: BSD-2-Clause
"""Many threads on one channel, data verified, and the load generators, against a target played in Python."""

import errno
import threading
import time

import pytest
from fake_target import ARENA, LUN0, PAGE, rsp, tag_of

from initiator.native import ffi, lib

READ, WRITE = 0x28, 0x2A
THREADS = 8


def disk_handler(t, disk: bytearray, block_nbytes: int = 512):
    """Executes READ(10) and WRITE(10) with one direct descriptor on `disk`."""

    def handler(iu: bytes) -> None:
        cdb = iu[32:48]
        lba, blocks = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")
        va, key, n = (int.from_bytes(iu[a:b], "big") for a, b in ((48, 56), (56, 60), (60, 64)))
        at = (key - 8) * PAGE + va
        assert n == blocks * block_nbytes
        if cdb[0] == WRITE:
            disk[lba * block_nbytes : lba * block_nbytes + n] = t.map[at : at + n]
        else:
            t.map[at : at + n] = bytes(disk[lba * block_nbytes : lba * block_nbytes + n])
        t.good(tag_of(iu))

    return handler


def cdb10(opcode: int, lba: int, blocks: int) -> bytes:
    return bytes([opcode, 0]) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


@pytest.mark.parametrize("spin_ns", [0, 50_000])
@pytest.mark.parametrize("limit", [4, 254])
def test_eight_threads_share_a_channel(fake, spin_ns, limit):
    t = fake(spin_ns=spin_ns, limit=limit)
    disk = bytearray(THREADS * 8 * 512)
    t.serve(disk_handler(t, disk))
    counts = [0] * THREADS
    failures: list[object] = []
    end = time.monotonic() + 1

    def hammer(me: int) -> None:
        at = ARENA + me * 8 * PAGE
        done = ffi.new("struct vi_completion *")
        try:
            while time.monotonic() < end:
                lba = me * 8 + counts[me] % 8
                want = bytes([me, counts[me] % 256]) * 256
                t.map[at : at + 512] = want
                q = t.request(cdb10(WRITE, lba, 1), out=[(at, 512)])
                assert lib.vi_execute(t.c, q, done, 5000) == 0 and done.error == 0
                q = t.request(cdb10(READ, lba, 1), into=[(at + PAGE, 512)])
                assert lib.vi_execute(t.c, q, done, 5000) == 0 and done.error == 0
                assert t.map[at + PAGE : at + PAGE + 512] == want
                counts[me] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(me,)) for me in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert min(counts) > 0
    assert lib.vi_outstanding(t.c) == 0


def test_submitters_and_reapers_beside_executors(fake):
    t = fake(limit=20)
    t.serve(lambda iu: t.good(tag_of(iu)))
    total, reaped, failures = 400, [], []

    def submitter() -> None:
        for cookie in range(total):
            while (rc := t.submit(bytes(6), cookie=cookie)) == -errno.EAGAIN:
                time.sleep(0.001)
            if rc < 0:
                failures.append(rc)
            lib.vi_flush(t.c)

    def reaper() -> None:
        while len(reaped) < total and not failures:
            n, done = t.reap(min_=1, timeout_ms=2000)
            if n <= 0:
                failures.append(n)
            reaped.extend(d.cookie for d in done)

    def executor() -> None:
        for _ in range(200):
            rc, done = t.execute(bytes(6))
            if rc or done.error:
                failures.append(rc or done.error)

    threads = [threading.Thread(target=f) for f in (submitter, reaper, executor, executor)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert sorted(reaped) == list(range(total))


def test_a_nonblocking_reaper_does_not_strand_the_leader(fake):
    """Whoever takes responses beside a sleeping leader moves past its rsp_event; the leader must not sleep for ever."""
    t = fake()
    results = []
    thread = threading.Thread(target=lambda: results.append(t.execute(bytes(6), timeout_ms=3000)[0]))
    thread.start()
    mine = t.expect()
    time.sleep(0.05)  # the leader sleeps
    other = t.submit(bytes(6))
    lib.vi_flush(t.c)
    t.expect()
    t.respond(rsp(other), kick=False)
    n, done = t.reap(min_=0, timeout_ms=0)
    assert n == 1 and done[0].tag == other
    t.good(tag_of(mine))
    thread.join(5)
    assert results == [0]


# ---- load ----


def load(t, protocol_lun=LUN0, *, count=1, logical=512, **fields):
    spec = ffi.new("struct vscsi_load_spec *", {
        "block_nbytes": 4096, "queue_depth": 8, "read_percent": 50, "random": 1, "span_nbytes": 1 << 20,
        "duration_ns": 5_000_000_000, "max_ios": 300, "seed": 1, **fields,
    })  # fmt: skip
    result = ffi.new("struct vscsi_load_result *")
    rc = lib.vi_load(ffi.new("struct vi_channel *[]", [t.c] * count), count, protocol_lun, logical, ARENA, spec, result)
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
               {"count": 0}, {"count": 33}, {"logical": 8192}]
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
