# SPDX-License-Identifier: BSD-2-Clause
"""The library over the real bus against a target played in Python: login, commands, escalation, loss, and manners."""

import os
import threading
import time
from pathlib import Path

import pytest
from fake_server import LIMIT, PORT_ID, POWER_ON, Disk, FakeServer

from initiator import (
    CommandAborted,
    CommandTimeout,
    ConnectError,
    Initiator,
    InitiatorError,
    ScsiError,
    TransportError,
)
from initiator.native import lib
from vscsi import srp
from vscsi.scsi import cdb

TUR = bytes(6)


@pytest.fixture
def server(tmp_path: Path):
    made = FakeServer(tmp_path / "s")
    yield made
    made.close()


@pytest.fixture
def connect(server: FakeServer):
    made: list[Initiator] = []

    def make(**options) -> Initiator:
        made.append(Initiator(server.path, memory_nbytes=options.pop("memory_nbytes", 8 << 20), **options))
        return made[-1]

    yield make
    for initiator in made:
        initiator.close()


# ---- login ----


def test_login(server, connect):
    initiator = connect(port_id=bytes(range(100, 116)))
    (request,) = server.logins
    assert request.initiator_port_id == bytes(range(100, 116)) and request.target_port_id == PORT_ID
    assert (request.req_it_iu_len, request.req_buf_fmt, request.req_flags) == (248, 6, 0)
    info = initiator.target_info
    assert (info.name, info.os, info.max_transfer, info.target_port_id) == ("fake", "python", 1 << 20, PORT_ID)
    assert info.pid == os.getpid()
    assert initiator.request_limit == LIMIT


def test_ports_are_random_unless_given(connect):
    assert connect().port_id != connect().port_id


def test_several_channels(server, connect):
    initiator = connect(channels=3)
    assert [login.req_flags for login in server.logins] == [0, 1, 1]
    for _ in range(6):
        initiator.execute(0, TUR)
    assert {k for _, k in server.devices} == {"0", "1", "2"}
    assert all(c.ring.stats()["requests"] == 3 for c in initiator.channels)  # the login and two commands
    assert initiator.request_limit == 3 * LIMIT


def test_no_target(tmp_path):
    with pytest.raises(ConnectError, match="no target is listening"):
        Initiator(tmp_path / "nobody")


def test_login_rejected(server, connect):
    server.login = lambda iu: srp.LoginRej(reason=lib.SRP_REJ_CHANNEL_LIMIT_REACHED, tag=iu.tag, buf_fmt=6)
    with pytest.raises(ConnectError, match="reject"):
        connect()
    server.until(lambda: not server.devices)


def test_device_refused(server, connect):
    server.refuse = "no rings today"
    with pytest.raises(ConnectError, match="no rings today"):
        connect()


def test_login_never_answered(server, connect):
    server.login = None
    with pytest.raises(ConnectError, match=r"within 0.2 s"):
        connect(timeout=0.2)


@pytest.mark.parametrize(
    "change", [{"tag": 99}, {"max_it_iu_len": 63}, {"req_lim_delta": 0}, {"req_lim_delta": -5}, {"buf_fmt": 2}]
)
def test_a_login_answer_that_makes_no_sense(server, connect, change):
    fields = {"req_lim_delta": 5, "max_it_iu_len": 248, "max_ti_iu_len": 248, "buf_fmt": 6, "rsp_flags": 0}
    server.login = lambda iu: srp.LoginRsp(**{**fields, "tag": iu.tag, **change})
    with pytest.raises(ConnectError):
        connect()


def test_more_credit_than_slots_is_not_believed(server, connect):
    fields = {"max_it_iu_len": 248, "max_ti_iu_len": 248, "buf_fmt": 6, "rsp_flags": 0}
    server.login = lambda iu: srp.LoginRsp(req_lim_delta=1 << 20, tag=iu.tag, **fields)
    assert connect(ring_pages=1).request_limit == 14


# ---- commands ----


def test_data_both_ways(server, connect):
    seen = []
    server.command = lambda cmd, out: seen.append((cmd, out)) or {"data": out[::-1]}
    initiator = connect()
    done = initiator.execute(300, bytes(range(32)), data_out=b"abc" * 5000, data_in=15000, attribute=2)
    ((cmd, out),) = seen
    assert out == b"abc" * 5000 and done.data_in == out[::-1] and done.status == 0
    assert cmd.lun == bytes.fromhex("412c000000000000") and cmd.cdb == bytes(range(32)) and cmd.task_attr == 2


def test_less_comes_than_there_is_room(server, connect):
    server.command = lambda cmd, out: {"data": b"xyz"}
    done = connect().execute(0, TUR, data_in=100)
    assert (done.data_in, done.data_in_len, done.in_residual) == (b"xyz", 3, 97)


def test_more_would_come_than_there_is_room(server, connect):
    server.command = lambda cmd, out: {"data": bytes(150)}
    done = connect().execute(0, TUR, data_in=100)
    assert (done.data_in_len, done.in_residual) == (100, -50)


def test_data_into_a_buffer(server, connect):
    server.command = lambda cmd, out: {"data": b"xyz"}
    buffer = bytearray(b"......")
    done = connect().execute(0, TUR, data_in=buffer)
    assert buffer == b"xyz..." and bytes(done.data_in) == b"xyz"


def test_status_and_sense(server, connect):
    server.command = lambda cmd, out: {"sense": POWER_ON}
    done = connect().execute(0, TUR)
    assert (done.status, done.sense) == (2, POWER_ON)
    with pytest.raises(ScsiError, match="unit attention") as caught:
        done.raise_for_status()
    assert (caught.value.sense.asc, caught.value.sense_bytes, caught.value.status) == (0x29, POWER_ON, 2)


def test_not_persistent(server, connect):
    server.persistent = False
    server.command = Disk()
    initiator = connect(persistent=False)
    disk = initiator.lun(0)
    for k in range(20):
        disk.write(k, bytes([k]) * 5 * 512)
        assert disk.read(k, 5) == bytes([k]) * 5 * 512
    assert not initiator._buffers.lost


def test_memory_runs_out_and_comes_back(server, connect):
    server.command = lambda cmd, out: {"data": bytes(3 << 20)}
    initiator = connect(memory_nbytes=6 << 20, timeout=10)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(initiator.execute(0, TUR, data_in=3 << 20).data_in_len))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [3 << 20] * 4
    with pytest.raises(InitiatorError, match="shared memory"):
        initiator.execute(0, TUR, data_in=7 << 20, timeout=0.05)


# ---- queue depth ----


def test_submit_and_reap(server, connect):
    server.command = lambda cmd, out: {"data": cmd.cdb[:2]}
    initiator = connect()
    tags = {initiator.submit(0, bytes([0, k, 0, 0, 0, 0]), data_in=8, cookie=f"k{k}"): k for k in range(100)}
    assert len(tags) == 100
    found = []
    while len(found) < 100:
        found += initiator.reap(max=7, min=3, timeout=5)
    assert {done.cookie: done.data_in for done in found} == {f"k{k}": bytes([0, k]) for k in range(100)}
    assert {done.tag for done in found} == set(tags)
    assert initiator.reap(min=5, timeout=5) == []  # nothing is outstanding: no waiting


def test_many_are_really_outstanding(server, connect):
    server.command = lambda cmd, out: None
    initiator = connect()
    for _ in range(LIMIT - 1):
        initiator.submit(0, TUR)
    server.until(lambda: len(server.ius) == LIMIT)  # with the login
    with pytest.raises(CommandTimeout, match="no credit"):
        initiator.submit(0, TUR, timeout=0.05)
    assert initiator.stats()["outstanding"] == LIMIT - 1
    assert initiator.reap(timeout=0.02) == []

    def answer(device) -> None:
        for cmd in device.held:
            device.respond(cmd.tag)

    server.do(answer)
    assert len(initiator.reap(min=LIMIT - 1, timeout=5)) == LIMIT - 1


def test_reap_over_several_channels(connect):
    initiator = connect(channels=3)
    for k in range(30):
        initiator.submit(0, TUR, cookie=k)
    found = []
    while len(found) < 30:
        found += initiator.reap(min=30, timeout=5)
    assert sorted(done.cookie for done in found) == list(range(30))


# ---- time and task management ----


def test_a_command_that_is_not_answered_is_aborted(server, connect):
    server.command = lambda cmd, out: None
    initiator = connect()
    with pytest.raises(CommandTimeout, match="ABORT TASK"):
        initiator.execute(3, TUR, timeout=0.1)
    (function,) = server.functions
    assert function.tsk_mgmt_func == lib.SRP_TMF_ABORT_TASK and function.lun == bytes([0, 3] + [0] * 6)
    server.command = lambda cmd, out: {}
    assert initiator.execute(3, TUR).status == 0
    assert not initiator._buffers.lost and initiator.stats()["outstanding"] == 0


def test_then_the_logical_unit_is_reset(server, connect):
    server.command = lambda cmd, out: None
    server.management = lambda iu: 5 if iu.tsk_mgmt_func == lib.SRP_TMF_ABORT_TASK else 0
    initiator = connect()
    with pytest.raises(CommandTimeout, match="LOGICAL UNIT RESET"):
        initiator.execute(0, TUR, timeout=0.1)
    assert initiator.alive


def test_then_the_channel_is_given_up(server, connect):
    server.command = lambda cmd, out: None
    server.management = lambda iu: None
    initiator = connect()
    with pytest.raises(CommandTimeout, match="channel closed"):
        initiator.execute(0, TUR, data_in=100, timeout=0.1)
    assert not initiator.alive
    assert len(initiator._buffers.lost) == 1  # the target may still write to it
    with pytest.raises(TransportError, match="does not answer"):
        initiator.execute(0, TUR)
    server.management, server.command = (lambda iu: 0), (lambda cmd, out: {})
    initiator.reconnect()
    assert initiator.execute(0, TUR).status == 0


def test_an_answer_that_comes_with_the_abort_counts(server, connect):
    server.command = lambda cmd, out: None

    def late(iu):
        device = next(iter(server.devices.values()))
        device.respond(device.held.pop().tag, status=8)
        return 0

    server.management = late
    assert connect().execute(0, TUR, timeout=0.1).status == 8


def test_task_management(server, connect):
    server.command = lambda cmd, out: None
    initiator = connect(channels=2)
    tags = [initiator.submit(0, TUR, cookie=k) for k in range(2)]
    for tag in tags:
        assert initiator.task_management(lib.SRP_TMF_ABORT_TASK, 0, tag) == 0
    done = initiator.reap(min=2, timeout=5)
    assert {type(d.error) for d in done} == {CommandAborted} and len(done) == 2
    server.management = lambda iu: 4
    assert initiator.task_management(lib.SRP_TMF_CLEAR_ACA, 0) == 4


# ---- what the target says by itself ----


def test_credit_request(server, connect):
    initiator = connect()
    server.do(lambda d: d.reverse.ask(srp.encode(srp.CredReq(sol_not=0, req_lim_delta=5, tag=77))))
    server.until(lambda: server.reverse_answers == [srp.CredRsp(tag=77)])
    assert initiator.stats()["request_limit"] == LIMIT + 5


def test_asynchronous_event(server, connect, caplog):
    caplog.set_level("INFO", "vscsi")
    connect()
    aer = srp.AerReq(sol_not=0, req_lim_delta=0, tag=78, lun=bytes(8), sense_data=POWER_ON)
    server.do(lambda d: d.reverse.ask(srp.encode(aer)))
    server.until(lambda: server.reverse_answers == [srp.AerRsp(tag=78)])
    assert "unit attention" in caplog.text


def test_the_target_logs_out(server, connect):
    server.command = lambda cmd, out: None
    initiator = connect()
    results = []

    def run() -> None:
        try:
            initiator.execute(0, TUR)
        except TransportError as error:
            results.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    server.until(lambda: len(server.ius) == 2)
    server.do(lambda d: d.reverse.ask(srp.encode(srp.TLogout(sol_not=0, reason=4, tag=1))))
    thread.join(5)
    assert len(results) == 1 and "logged us out" in results[0]
    with pytest.raises(TransportError, match="logged us out"):
        initiator.execute(0, TUR)


@pytest.mark.parametrize("iu", [bytes(248), b"\xff" * 248, b"\xc1" + bytes(247)])
def test_nonsense_on_the_reverse_ring(server, connect, iu):
    initiator = connect()
    server.do(lambda d: d.reverse.ask(iu))
    server.until(lambda: not initiator.alive)
    with pytest.raises(TransportError, match="protocol"):
        initiator.execute(0, TUR)


def test_the_target_dies(server, connect):
    server.command = lambda cmd, out: None
    initiator = connect()
    initiator.submit(0, TUR, cookie="c")
    server.until(lambda: len(server.ius) == 2)
    server._stop = True
    (done,) = initiator.reap(timeout=5)
    assert done.cookie == "c" and isinstance(done.error, TransportError) and "gone" in str(done.error)
    with pytest.raises(TransportError, match="gone"):
        initiator.submit(0, TUR)
    with pytest.raises(ConnectError):
        initiator.reconnect()


def test_the_target_closes_the_device(server, connect):
    initiator = connect()
    server.do(lambda d: d.switch(5, error="going home"))
    server.until(lambda: not initiator.alive)
    with pytest.raises(TransportError, match="going home"):
        initiator.execute(0, TUR)


# ---- the end ----


def test_closing_logs_out_and_lets_go(server, connect):
    initiator = connect()
    initiator.close()
    initiator.close()
    assert server.logouts == 1
    server.until(lambda: not server.devices)
    with pytest.raises(TransportError, match="closed"):
        initiator.execute(0, TUR)


def test_logout_then_again(server, connect):
    with connect() as initiator:
        initiator.logout()
        with pytest.raises(TransportError):
            initiator.execute(0, TUR)
        initiator.reconnect()
        assert initiator.execute(0, TUR).status == 0
    assert {login.initiator_port_id for login in server.logins} == {initiator.port_id}


def test_closing_wakes_who_waits(server, connect):
    server.command = lambda cmd, out: None
    initiator = connect()
    results = []

    def run() -> None:
        try:
            initiator.execute(0, TUR)
        except TransportError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    server.until(lambda: len(server.ius) == 4)
    initiator.close()
    for thread in threads:
        thread.join(5)
    assert len(results) == 3


def test_nothing_is_left_behind(server, connect):
    def state() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    connect(channels=2).close()
    server.until(lambda: not server.devices)
    before = state()
    for _ in range(5):
        initiator = connect(channels=2)
        initiator.execute(0, TUR, data_in=100)
        initiator.close()
        del initiator
    server.until(lambda: not server.devices)
    import gc

    gc.collect()
    assert state()[1] == before[1]
    assert state()[0] <= before[0] + 4 * 5  # channels kept alive by the fixture's list own two descriptors each


def test_a_forked_child_is_told(connect):
    initiator = connect()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            initiator.execute(0, TUR)
        except InitiatorError as error:
            status = 0 if "child" in str(error) else 2
        except BaseException:
            status = 3
        initiator.close()
        del initiator
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert initiator.execute(0, TUR).status == 0


def test_eight_threads_on_one_initiator(server, connect):
    server.command = Disk(attentions=0)
    disk = connect(channels=2).lun(0)
    assert disk.blocks == 4096
    failures: list[BaseException] = []
    end = time.monotonic() + 1

    def hammer(me: int) -> None:
        try:
            k = 0
            while time.monotonic() < end:
                data = bytes([me, k % 256]) * 1024
                disk.write(me * 100 + k % 50, data)
                assert disk.read(me * 100 + k % 50, 4) == data
                k += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures


def test_luns(server, connect):
    server.command = Disk(attentions=0)
    assert connect().luns() == [0, 7]


def test_arguments(connect):
    for options in ({"port_id": b"short"}, {"channels": 0}, {"ring_pages": 17}):
        with pytest.raises(ValueError):
            connect(**options)
    with pytest.raises(ValueError):
        connect().execute(0, b"")
    with pytest.raises(ValueError):
        connect().execute(1 << 14, cdb.TEST_UNIT_READY.build())
