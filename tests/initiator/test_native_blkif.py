# SPDX-License-Identifier: BSD-2-Clause
"""blkif through the native channel: requests as Xen's header lays them out, responses, and a target that lies."""

import errno
import struct

import pytest
from fake_target import ARENA, PAGE, PAGES

from initiator.native import ffi, lib

RESPONSE = struct.Struct("<QBxhI")


def make(fake, **options):
    return fake(lib.VI_PROTOCOL_BLKIF, ring_pages=8, **options)


def lib_stats(t):
    stats = ffi.new("struct vi_stats *")
    assert lib.vi_channel_stats(t.c, stats) == 0
    return stats


def segments(data: bytes, count: int) -> list[tuple[int, int, int]]:
    return [struct.unpack_from("<IBB", data, 8 * i) for i in range(count)]


def test_the_ring_has_256_slots(fake):
    assert lib.vi_channel_slots(make(fake).c) == 256


def test_read(fake):
    t = make(fake)
    tag = t.submit(b"", operation=lib.BLKIF_OP_READ, sector=77, into=[(ARENA + 3584, 1024), (ARENA + 8192, 4096)])
    lib.vi_flush(t.c)
    iu = t.expect()
    assert struct.unpack_from("<BBHIQQ", iu) == (0, 3, 0, 0, tag, 77)
    gref = ARENA // PAGE + 8
    assert segments(iu[24:], 3) == [(gref, 7, 7), (gref + 1, 0, 0), (gref + 2, 0, 7)]
    t.respond(RESPONSE.pack(tag, 0, 0, 0))
    _, (done,) = t.reap()
    assert (done.tag, done.error, done.blkif_status) == (tag, 0, 0)


def test_nothing_is_counted_against_a_request_limit(fake):
    t = make(fake)
    stats = lib_stats(t)
    before = stats.request_limit
    for _ in range(5):
        tag = t.submit(b"", operation=lib.BLKIF_OP_FLUSH_DISKCACHE)
        lib.vi_flush(t.c)
        t.expect()
        t.respond(RESPONSE.pack(tag, 3, 0, 0))
        t.reap()
    assert lib_stats(t).request_limit == before


@pytest.mark.parametrize("status", [-1, -2])
def test_status(fake, status):
    t = make(fake)
    tag = t.submit(b"", operation=lib.BLKIF_OP_WRITE, out=[(ARENA, 512)])
    lib.vi_flush(t.c)
    t.expect()
    t.respond(RESPONSE.pack(tag, 1, status, 0))
    assert t.reap()[1][0].blkif_status == status


def test_flush_barrier_and_discard(fake):
    t = make(fake)
    tags = [
        t.submit(b"", operation=lib.BLKIF_OP_FLUSH_DISKCACHE),
        t.submit(b"", operation=lib.BLKIF_OP_WRITE_BARRIER, sector=8, out=[(ARENA, PAGE)]),
        t.submit(b"", operation=lib.BLKIF_OP_DISCARD, sector=16, sectors=1 << 40, flags=1),
    ]
    lib.vi_flush(t.c)
    ius = [t.expect() for _ in tags]
    assert struct.unpack_from("<BBHIQQ", ius[0]) == (3, 0, 0, 0, tags[0], 0)
    assert struct.unpack_from("<BBHIQQ", ius[1]) == (2, 1, 0, 0, tags[1], 8)
    assert struct.unpack_from("<BBHIQQQ", ius[2]) == (5, 1, 0, 0, tags[2], 16, 1 << 40)


@pytest.mark.parametrize(("pages", "indirect"), [(11, False), (12, True), (512, True), (513, True)])
def test_more_than_eleven_segments_go_indirect(fake, pages, indirect):
    t = make(fake, indirect_per_slot=2)
    tag = t.submit(b"", operation=lib.BLKIF_OP_WRITE, sector=5, out=[(ARENA, pages * PAGE)])
    lib.vi_flush(t.c)
    iu = t.expect()
    if not indirect:
        assert iu[0] == lib.BLKIF_OP_WRITE and len(segments(iu[24:], 11)) == 11
        return
    assert struct.unpack_from("<BBHIQQH", iu) == (6, 1, pages, 0, tag, 5, 0)
    grefs = [g for g in struct.unpack_from("<8I", iu, 28) if g]
    assert len(grefs) == -(-pages // 512)
    found = []
    for gref in grefs:
        at = (gref - 8) * PAGE
        assert at >= PAGES * PAGE
        found += segments(t.map[at : at + PAGE], min(512, pages - len(found)))
    assert found == [(ARENA // PAGE + 8 + i, 0, 7) for i in range(pages)]
    t.respond(RESPONSE.pack(tag, lib.BLKIF_OP_WRITE, 0, 0))
    assert t.reap()[1][0].error == 0


def test_too_large(fake):
    t = make(fake)
    assert t.submit(b"", operation=lib.BLKIF_OP_READ, into=[(ARENA, 12 * PAGE)]) == -errno.EMSGSIZE
    t = make(fake, indirect_per_slot=1)
    assert t.submit(b"", operation=lib.BLKIF_OP_READ, into=[(ARENA, 513 * PAGE)]) == -errno.EMSGSIZE
    assert t.submit(b"", operation=lib.BLKIF_OP_WRITE_BARRIER, out=[(ARENA, 12 * PAGE)]) == -errno.EMSGSIZE


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": 0, "into": [(ARENA + 1, 512)]},
        {"operation": 0, "into": [(ARENA, 511)]},
        {"operation": 0},
        {"operation": 0, "into": [(ARENA, 512)], "out": [(ARENA, 512)]},
        {"operation": 4},
        {"operation": 6},
        {"operation": 200},
        {"operation": 5, "out": [(ARENA, 512)]},
    ],
)
def test_our_own_mistakes_send_nothing(fake, fields):
    t = make(fake)
    assert t.submit(b"", **fields) == -errno.EINVAL
    assert lib.vi_outstanding(t.c) == 0


@pytest.mark.parametrize(
    "lie",
    [
        lambda tag: RESPONSE.pack(tag + (1 << 40), 0, 0, 0),
        lambda tag: RESPONSE.pack(tag, 1, 0, 0),
        lambda tag: RESPONSE.pack(tag, 6, 0, 0),
        lambda tag: RESPONSE.pack(tag, 0, 1, 0),
        lambda tag: RESPONSE.pack(tag, 0, -3, 0),
    ],
)
def test_a_lie_ends_the_channel(fake, lie):
    t = make(fake)
    tag = t.submit(b"", operation=lib.BLKIF_OP_READ, into=[(ARENA, 512)])
    lib.vi_flush(t.c)
    t.expect()
    t.respond(lie(tag))
    assert t.reap()[1][0].error == -errno.EPROTO
    assert t.submit(b"", operation=lib.BLKIF_OP_FLUSH_DISKCACHE) == -errno.EPROTO


def test_the_whole_ring_can_be_outstanding(fake):
    t = make(fake)
    tags = [t.submit(b"", operation=lib.BLKIF_OP_FLUSH_DISKCACHE) for _ in range(256)]
    assert min(tags) > 0 and len(set(tags)) == 256
    assert t.submit(b"", operation=lib.BLKIF_OP_FLUSH_DISKCACHE) == -errno.EAGAIN


def test_indirect_pages_are_granted_for_the_request(fake):
    t = make(fake, persistent=False, indirect_per_slot=1)
    tag = t.submit(b"", operation=lib.BLKIF_OP_READ, into=[(ARENA, 20 * PAGE)])
    lib.vi_flush(t.c)
    gref = struct.unpack_from("<I", t.expect(), 28)[0]
    at = (gref - 8) * PAGE
    assert t.flags(at) == lib.GTF_PERMIT_ACCESS | lib.GTF_READONLY
    t.respond(RESPONSE.pack(tag, 0, 0, 0))
    assert t.reap()[1][0].error == 0
    assert t.flags(at) == 0
