# SPDX-License-Identifier: BSD-2-Clause
"""The library over the real bus against a target played in Python: login, commands, queue depth."""

import os
import threading

import pytest
from fake_server import LIMIT, PORT_ID, POWER_ON, Disk

from initiator import (
    CommandTimeout,
    ConnectError,
    Initiator,
    InitiatorError,
    ScsiError,
)
from initiator.native import lib
from vscsi import srp

TUR = bytes(6)


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
