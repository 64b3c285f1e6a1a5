# SPDX-License-Identifier: BSD-2-Clause
"""Many threads on one channel, data verified, against a target played in Python."""

import errno
import threading
import time

import pytest
from fake_target import ARENA, PAGE, disk_handler, rsp, tag_of

from initiator.native import ffi, lib

READ, WRITE = 0x28, 0x2A
THREADS = 8


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
