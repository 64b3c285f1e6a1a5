# SPDX-License-Identifier: BSD-2-Clause
"""Pages granted for one request: given with it, taken back with its response, lost if the target keeps them."""

import errno

from fake_target import ARENA, PAGE, tag_of

from initiator.native import ffi, lib
from vscsi.native import lib as shared

TUR = bytes(6)
READ_WRITE, READ_ONLY = lib.GTF_PERMIT_ACCESS, lib.GTF_PERMIT_ACCESS | lib.GTF_READONLY


def test_pages_are_granted_with_the_request_and_revoked_with_the_response(fake):
    t = fake(persistent=False)
    tag = t.submit(TUR, out=[(ARENA + 100, PAGE)], into=[(ARENA + 4 * PAGE, 1)])
    assert [t.flags(ARENA + i * PAGE) for i in range(5)] == [READ_ONLY, READ_ONLY, 0, 0, READ_WRITE]
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag)
    assert t.reap()[1][0].error == 0
    assert [t.flags(ARENA + i * PAGE) for i in range(5)] == [0] * 5


def test_the_table_is_granted_too(fake):
    t = fake(persistent=False)
    runs = [(ARENA + 2 * i * PAGE, PAGE) for i in range(12)]
    tag = t.submit(TUR, out=runs, table=(40 * PAGE, PAGE))
    assert t.flags(40 * PAGE) == READ_ONLY
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag)
    t.reap()
    assert t.flags(40 * PAGE) == 0


def test_runs_that_meet_in_a_page(fake):
    t = fake(persistent=False)
    tag = t.submit(TUR, into=[(ARENA, 100), (ARENA + 100, 5000), (ARENA + 5100, 100)])
    assert [t.flags(ARENA + i * PAGE) for i in range(3)] == [READ_WRITE, READ_WRITE, 0]
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag)
    assert t.reap()[1][0].error == 0
    assert t.flags(ARENA) == t.flags(ARENA + PAGE) == 0


def test_a_page_belongs_to_one_request(fake):
    t = fake(persistent=False)
    assert t.submit(TUR, into=[(ARENA, 100)]) > 0
    assert t.submit(TUR, out=[(ARENA + PAGE, 10), (ARENA, 100)]) == -errno.EBUSY
    assert t.flags(ARENA + PAGE) == 0
    assert t.flags(ARENA) == READ_WRITE
    assert t.submit(TUR, into=[(ARENA + PAGE, 10)], out=[(ARENA + PAGE, 20)]) == -errno.EBUSY
    assert lib.vi_outstanding(t.c) == 1


def test_a_page_still_in_use_after_the_response(fake):
    t = fake(persistent=False)
    tag = t.submit(TUR, into=[(ARENA, 2 * PAGE)])
    lib.vi_flush(t.c)
    t.expect()
    address = ffi.new("uint8_t **")
    assert shared.vscsi_mapper_get(t.mapper, ARENA // PAGE + 8, 1, 0, address) == 0
    t.good(tag)
    _, (done,) = t.reap()
    assert done.error == -errno.EBUSY
    assert t.submit(TUR) == -errno.EBUSY
    assert t.flags(ARENA) & lib.GTF_PERMIT_ACCESS, "never taken back, so never used again"
    assert t.flags(ARENA + PAGE) == 0
    shared.vscsi_mapper_put(t.mapper, ARENA // PAGE + 8, 1, 0)


def test_a_failed_channel_takes_its_grants_back(fake):
    t = fake(persistent=False)
    t.submit(TUR, into=[(ARENA, 2 * PAGE)])
    lib.vi_channel_fail(t.c, -errno.EPIPE)
    assert t.flags(ARENA) == t.flags(ARENA + PAGE) == 0


def test_many_rounds(fake):
    t = fake(persistent=False, limit=5)
    address = ffi.new("uint8_t **")

    def handler(iu: bytes) -> None:
        gref = int.from_bytes(iu[56:60], "big")
        assert shared.vscsi_mapper_get(t.mapper, gref, 1, 0, address) == 0
        address[0][0] = 7
        shared.vscsi_mapper_put(t.mapper, gref, 1, 0)
        t.good(tag_of(iu))

    t.serve(handler)
    for i in range(200):
        rc, done = t.execute(TUR, into=[(ARENA + i % 50 * PAGE, PAGE)])
        assert rc == 0 and done.error == 0
    assert shared.vscsi_mapper_in_use(t.mapper) == 0
