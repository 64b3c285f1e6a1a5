# SPDX-License-Identifier: BSD-2-Clause
"""What is not answered, what the target says by itself, loss, and the end: against a target played in Python."""

import os
import threading
import time
from pathlib import Path

import pytest
from fake_server import LIMIT, POWER_ON, Disk

from initiator import (
    CommandAborted,
    CommandTimeout,
    ConnectError,
    InitiatorError,
    TransportError,
)
from initiator.native import lib
from vscsi import srp
from vscsi.scsi import cdb

TUR = bytes(6)


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


def test_logging_out_of_several_channels_is_no_loss(server, connect, caplog):
    connect(channels=3).close()
    server.until(lambda: not server.devices)
    assert [record.message for record in caplog.records if "lost" in record.message] == []


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
