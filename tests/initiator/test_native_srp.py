# SPDX-License-Identifier: BSD-2-Clause
"""SRP through the native channel: what goes to the ring, byte for byte against the oracle, and what comes from it."""

import errno
import threading
import time

import oracle_srp as oracle
import pytest
from fake_target import ARENA, LUN0, PAGE, TABLE_PAGES, rsp, tag_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from initiator.native import ffi, lib

READ10 = bytes.fromhex("28000000100000000800")
SENSE = bytes.fromhex("700005000000000a00000000210000000000")


def direct(offset: int, nbytes: int) -> oracle.Direct:
    return oracle.Direct(offset % PAGE, offset // PAGE + 8, nbytes)


def test_one_run_is_one_direct_descriptor(fake):
    t = fake()
    tag = t.submit(READ10, into=[(ARENA + 512, 8 << 10)], lun=bytes([0, 3] + [0] * 6))
    assert lib.vi_flush(t.c) == 0
    iu = t.expect()
    expected = oracle.Cmd(tag, bytes([0, 3] + [0] * 6), READ10.ljust(16, b"\0"), None, direct(ARENA + 512, 8 << 10))
    assert iu[:64] == oracle.encode_cmd(expected)


@pytest.mark.parametrize("count", [2, 11])
@pytest.mark.parametrize("write", [False, True])
def test_several_runs_stand_inline(fake, count, write):
    t = fake()
    runs = [(ARENA + 2 * i * PAGE, 1000 + i) for i in range(count)]
    tag = t.submit(READ10, **{"out" if write else "into": runs})
    lib.vi_flush(t.c)
    entries = tuple(direct(*r) for r in runs)
    indirect = oracle.Indirect(oracle.Direct(0, 0, 16 * count), sum(n for _, n in runs), entries)
    cmd = oracle.Cmd(tag, LUN0, READ10.ljust(16, b"\0"), *((indirect, None) if write else (None, indirect)))
    expected = oracle.encode_cmd(cmd)
    assert t.expect()[: len(expected)] == expected


def test_more_runs_go_to_a_table_in_memory(fake):
    t = fake()
    runs = [(ARENA + 2 * i * PAGE, PAGE) for i in range(12)]
    table = 32 * PAGE + 64
    tag = t.submit(READ10, into=runs, table=(table, PAGE))
    lib.vi_flush(t.c)
    cmd = oracle.decode_cmd(t.expect())
    assert (cmd.tag, cmd.data_in) == (tag, oracle.Indirect(direct(table, 12 * 16), 12 * PAGE, ()))
    assert t.map[table : table + 192] == b"".join(direct(*r).encode() for r in runs)


def test_too_many_runs_without_a_table(fake):
    t = fake()
    runs = [(ARENA + i * PAGE, PAGE) for i in range(12)]
    assert t.submit(READ10, into=runs) == -errno.EMSGSIZE
    assert t.submit(READ10, into=runs, table=(ARENA, 191)) == -errno.EMSGSIZE
    assert lib.vi_outstanding(t.c) == 0


def test_both_directions(fake):
    t = fake()
    tag = t.submit(READ10, out=[(ARENA, 512)], into=[(ARENA + PAGE, 100), (ARENA + 3 * PAGE, 200)])
    lib.vi_flush(t.c)
    iu = t.expect()
    cmd = oracle.decode_cmd(iu)
    assert cmd.data_out == direct(ARENA, 512)
    assert [d.len for d in cmd.data_in.desc_list] == [100, 200]
    t.good(tag, flags=lib.SRP_RSP_DOUNDER | lib.SRP_RSP_DIOVER, out_res=12, in_res=7)
    _, (done,) = t.reap()
    assert (done.out_residual, done.in_residual) == (12, -7)


def test_both_directions_share_the_room_for_descriptors(fake):
    t = fake()
    runs = [(ARENA + i * PAGE, 8) for i in range(11)]
    assert t.submit(READ10, out=runs[:5], into=runs[5:10]) > 0  # 2 * 20 + 10 * 16 = 200, all the room there is
    assert t.submit(READ10, out=runs[:5], into=runs[5:]) == -errno.EMSGSIZE


@pytest.mark.parametrize("nbytes", [6, 10, 12, 16, 32, 33, 200])
def test_cdb_lengths(fake, nbytes):
    t = fake()
    cdb = bytes(range(1, nbytes + 1))
    t.submit(cdb, into=[(ARENA, 16)])
    lib.vi_flush(t.c)
    cmd = oracle.decode_cmd(t.expect())
    padded = nbytes if nbytes <= 16 else 16 + (nbytes - 16 + 3) // 4 * 4
    assert cmd.cdb.rstrip(b"\0") == cdb
    assert len(cmd.cdb) == max(16, padded)
    assert cmd.data_in == direct(ARENA, 16)


def test_what_stands_behind_a_cdb_is_not_sent(fake):
    t = fake()
    for nbytes in range(1, 41):
        t.submit(b"\xff" * 200, cdb_nbytes=nbytes)
        lib.vi_flush(t.c)
        cmd = oracle.decode_cmd(iu := t.expect())
        assert cmd.cdb.rstrip(b"\0") == b"\xff" * nbytes
        t.good(tag_of(iu))
        assert t.reap()[0] == 1


def test_a_long_cdb_leaves_less_room_for_descriptors(fake):
    t = fake()
    runs = [(ARENA + i * PAGE, 8) for i in range(11)]
    assert t.submit(bytes(32), into=runs[:10]) > 0  # (248 - 68 - 16) // 16
    assert t.submit(bytes(32), into=runs) == -errno.EMSGSIZE


def test_the_targets_maximum_iu_length_is_kept(fake):
    t = fake(live=False)
    assert lib.vi_channel_live(t.c, 10, 63) == -errno.EINVAL
    assert lib.vi_channel_live(t.c, 10, 64) == 0
    assert t.submit(READ10, into=[(ARENA, 8)]) > 0
    assert t.submit(READ10, into=[(ARENA, 8), (ARENA + PAGE, 8)]) == -errno.EMSGSIZE


@pytest.mark.parametrize(
    "fields",
    [
        {"into": [(0, 16)]},  # the grant table
        {"into": [(TABLE_PAGES * PAGE - 8, 16)]},
        {"into": [(PAGE * 1024 - 8, 9)]},
        {"into": [(PAGE * 1024, 1)]},
        {"into": [(1 << 63, 8)]},
        {"into": [(ARENA, (1 << 64) - 8)]},
        {"into": [(ARENA, 0)]},
        {"cdb": b""},
        {"attribute": 5},
    ],
)
def test_our_own_mistakes_send_nothing(fake, fields):
    t = fake()
    assert t.submit(fields.pop("cdb", READ10), **fields) == -errno.EINVAL
    lib.vi_flush(t.c)
    assert t.take() is None
    assert lib.vi_outstanding(t.c) == 0


def test_buffers_may_lie_anywhere_between_the_grant_table_and_the_end(fake):
    t = fake()
    for segment in ((TABLE_PAGES * PAGE, 8), (PAGE * 1024 - 8, 8), (TABLE_PAGES * PAGE, (1024 - TABLE_PAGES) * PAGE)):
        assert t.submit(READ10, into=[segment]) > 0
        lib.vi_flush(t.c)
        assert oracle.decode_cmd(t.expect()).data_in == direct(*segment)


def test_what_no_flag_announces_is_not_there(fake):
    """Behind it the slot's last command must not show either: one with sense, residuals and a status."""
    t = fake()
    for flags, status in ((2 | lib.SRP_RSP_DIUNDER | lib.SRP_RSP_DOOVER, 2), (0, 8), (0, 0)):
        tag = t.submit(READ10, into=[(ARENA, 512)])
        lib.vi_flush(t.c)
        t.expect()
        answer = rsp(tag, flags=flags, status=status, in_res=7, out_res=9, sense=SENSE if flags else b"")
        t.respond(answer if flags else answer[:20] + b"\xff" * 16 + answer[36:])
        _, (done,) = t.reap()
        assert (done.tag, done.error, done.status, done.responded) == (tag, 0, status, 0)
        assert (done.in_residual, done.out_residual, done.sense_nbytes) == ((7, -9, len(SENSE)) if flags else (0, 0, 0))


def test_sense_and_residual(fake):
    t = fake()
    tag = t.submit(READ10, into=[(ARENA, PAGE)])
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag, flags=lib.SRP_RSP_SNSVALID | lib.SRP_RSP_DIUNDER, status=2, in_res=4096, sense=SENSE)
    _, (done,) = t.reap()
    assert (done.error, done.status, done.in_residual) == (0, 2, 4096)
    assert bytes(ffi.buffer(done.sense))[: done.sense_nbytes] == SENSE


def test_sense_stands_behind_response_data(fake):
    t = fake()
    tag = t.submit(READ10)
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag, flags=3, status=2, response=bytes(8), sense=SENSE)
    _, (done,) = t.reap()
    assert done.responded and bytes(ffi.buffer(done.sense))[: done.sense_nbytes] == SENSE


def test_sense_that_fills_the_slot(fake):
    t = fake()
    tag = t.submit(READ10)
    lib.vi_flush(t.c)
    t.expect()
    sense = bytes(range(212))
    t.good(tag, flags=2, status=2, sense=sense)
    _, (done,) = t.reap()
    assert bytes(ffi.buffer(done.sense))[: done.sense_nbytes] == sense


@pytest.mark.parametrize(("code", "error"), [(0, -errno.ECANCELED), (2, -errno.EIO)])
def test_a_command_without_a_status(fake, code, error):
    t = fake()
    tag = t.submit(READ10)
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag, flags=1, response=bytes([0, 0, 0, code]))
    _, (done,) = t.reap()
    assert (done.error, done.responded, done.response_code) == (error, 1, code)


def test_the_last_credit_is_kept_for_task_management(fake):
    t = fake(limit=3)
    first, second = t.submit(READ10), t.submit(READ10)
    assert t.submit(READ10) == -errno.EAGAIN
    done = ffi.new("struct vi_completion *")

    def answer() -> None:
        t.expect(), t.expect()
        iu = oracle.decode_tsk_mgmt(t.expect()[:48])
        assert (iu.tsk_mgmt_func, iu.task_tag, iu.lun) == (lib.SRP_TMF_ABORT_TASK, second, b"\0\1" + bytes(6))
        t.good(second, flags=1, response=bytes(4))
        t.good(iu.tag, flags=1, response=bytes([0, 0, 0, 5]))

    thread = threading.Thread(target=answer)
    thread.start()
    assert lib.vi_task_management(t.c, lib.SRP_TMF_ABORT_TASK, b"\0\1" + bytes(6), second, done, 5000) == 0
    thread.join()
    assert (done.responded, done.response_code) == (1, 5)
    n, (aborted,) = t.reap()
    assert (n, aborted.tag, aborted.error) == (1, second, -errno.ECANCELED)
    t.good(first)
    assert t.reap()[0] == 1


def test_an_only_credit_is_for_commands(fake):
    t = fake(limit=1)
    assert t.submit(READ10) > 0
    assert t.submit(READ10) == -errno.EAGAIN


def test_deltas_and_credit_requests(fake):
    t = fake(limit=2)
    tag = t.submit(READ10)
    lib.vi_flush(t.c)
    t.expect()
    t.good(tag, delta=-1)
    t.reap()
    stats = ffi.new("struct vi_stats *")
    lib.vi_channel_stats(t.c, stats)
    assert stats.request_limit == 0
    assert t.submit(READ10) == -errno.EAGAIN
    assert lib.vi_channel_credit(t.c, 2) == 0
    assert t.submit(READ10) > 0


def test_waiting_for_credit(fake):
    t = fake(limit=2)
    seen = []

    def handler(iu: bytes) -> None:
        seen.append(iu)
        time.sleep(0.01)
        t.good(tag_of(iu))

    t.serve(handler)
    results = []
    threads = [threading.Thread(target=lambda: results.append(t.execute(READ10)[0])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 6 and len(seen) == 6


def test_execute_gives_up_and_goes_on_waiting(fake):
    t = fake()
    rc, done = t.execute(READ10, into=[(ARENA, 64)], timeout_ms=30)
    assert rc == -errno.ETIMEDOUT and done.tag
    assert lib.vi_wait(t.c, done.tag, done, 0) == -errno.ETIMEDOUT
    assert lib.vi_outstanding(t.c) == 1
    t.good(tag_of(t.expect()))
    tag = done.tag
    assert lib.vi_wait(t.c, tag, done, 1000) == 0
    assert lib.vi_wait(t.c, tag, done, 0) == -errno.ENOENT
    assert lib.vi_outstanding(t.c) == 0


def test_reap_keeps_its_time(fake):
    t = fake()
    t.submit(READ10)
    start = time.monotonic()
    assert t.reap(timeout_ms=60)[0] == 0
    assert 0.05 < time.monotonic() - start < 2
    assert t.reap(min_=0, timeout_ms=-1)[0] == 0


def test_nothing_is_sent_before_login(fake):
    t = fake(live=False)
    assert t.submit(READ10) == -errno.ENOTCONN
    assert t.execute(READ10)[0] == -errno.ENOTCONN
    done = ffi.new("struct vi_completion *")
    assert lib.vi_task_management(t.c, 1, LUN0, 0, done, 10) == -errno.ENOTCONN


def test_login_conversation(fake):
    t = fake(live=False)
    iu = ffi.new("uint8_t[248]")
    assert lib.vi_channel_receive(t.c, iu, 10) == -errno.ETIMEDOUT
    assert lib.vi_channel_send(t.c, bytes(249), 249) == -errno.EMSGSIZE
    assert lib.vi_channel_send(t.c, b"login, sort of", 14) == 0
    assert t.expect().startswith(b"login, sort of")
    assert lib.vi_channel_live(t.c, 5, 248) == -errno.EBUSY
    t.respond(b"\xc0 and an answer")
    assert lib.vi_channel_receive(t.c, iu, 1000) == 1
    assert bytes(iu)[:15] == b"\xc0 and an answer"
    assert lib.vi_channel_live(t.c, 5, 248) == 0
    tag = t.submit(READ10)
    lib.vi_flush(t.c)
    assert tag_of(t.expect()) == tag


def test_an_answer_may_come_more_than_a_ring_later(fake):
    """Responses free ring slots in any order: one slow command is overtaken by any number of others."""
    t = fake()
    slow = t.submit(b"\x35" + bytes(9))
    lib.vi_flush(t.c)
    assert tag_of(t.expect()) == slow
    for _ in range(2 * t.slots):
        tag = t.submit(bytes(6))
        lib.vi_flush(t.c)
        assert tag_of(t.expect()) == tag
        t.good(tag)
        assert t.reap()[0] == 1
    t.good(slow)
    n, (done,) = t.reap()
    assert (n, done.tag, done.error) == (1, slow, 0)


def test_tags_are_never_used_twice(fake):
    t = fake(limit=4)
    t.serve(lambda iu: t.good(tag_of(iu)))
    tags = {t.execute(READ10)[1].tag for _ in range(500)}
    assert len(tags) == 500


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    out=st.lists(st.tuples(st.integers(0, 60 * PAGE), st.integers(1, 3 * PAGE)), max_size=12),
    into=st.lists(st.tuples(st.integers(0, 60 * PAGE), st.integers(1, 3 * PAGE)), max_size=12),
    cdb_nbytes=st.sampled_from([6, 10, 16, 32, 64]),
)
def test_whatever_is_sent_decodes_to_what_was_asked(fake, out, into, cdb_nbytes):
    t = fake(indirect_per_slot=1)
    out = [(ARENA + o, n) for o, n in out]
    into = [(ARENA + o, n) for o, n in into]
    tag = t.submit(bytes(cdb_nbytes), out=out, into=into)
    lib.vi_flush(t.c)
    cmd = oracle.decode_cmd(t.expect())
    assert cmd.tag == tag
    for asked, got in ((out, cmd.data_out), (into, cmd.data_in)):
        entries = [direct(*s) for s in asked]
        if isinstance(got, oracle.Indirect):
            assert got.len == sum(n for _, n in asked) and got.table.len == 16 * len(asked)
            if not got.desc_list:
                at = (got.table.key - 8) * PAGE + got.table.va
                assert t.map[at : at + got.table.len] == b"".join(e.encode() for e in entries)
            else:
                assert list(got.desc_list) == entries
        else:
            assert ([got] if got else []) == entries
