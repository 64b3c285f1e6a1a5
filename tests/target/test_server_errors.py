# SPDX-License-Identifier: BSD-2-Clause
"""What a peer can break, and target requests: over a real bus and real rings, with loops of Python in place of C's."""

import logging

import pytest
from bus_initiator import RawSrp
from python_loops import MULTI, A, B, running_server

from target.srp_device import grow_credits, send_async_event
from vscsi import srp
from vscsi.errors import LocalProtocolError
from vscsi.native import lib

running = pytest.fixture(running_server)


# ---- protocol errors ----


@pytest.mark.parametrize("opcode", [0x02, 0x01, 0x03, 0x41, 0xC0, 0x77])
def test_anything_before_login_is_an_invalid_iu_type(running, opcode, caplog):
    other = running.raw().srp()
    other.login(B)
    channel = running.raw().srp()
    with caplog.at_level(logging.WARNING, "vscsi.target"):
        channel.ring.send(bytes((opcode,)) + bytes(100))
        channel.expect_t_logout(2)
        channel.wait_state(5)
    assert channel.error
    assert len([r for r in caplog.records if r.name == "vscsi.target"]) == 1, "one log line"
    assert other.command(bytes(16)).status == 0, "others are untouched"
    channel.close()
    channel.connect()
    assert isinstance(channel.login(A), srp.LoginRsp), "the same device id serves again"


def test_second_login_is_an_invalid_iu_type(running):
    channel = running.raw().srp()
    channel.login(A)
    channel.ring.send(srp.encode(channel.login_req(A)))
    channel.expect_t_logout(2)
    channel.wait_state(5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(1, 0), (3, 0), (4, 2), (6, 6), (7, 7), (8, 8), (9, 9), (10, 0), (99, 0)],
)
def test_errors_of_the_loops_become_logout_reasons(running, error, reason):
    channel = running.raw().srp()
    channel.login(A)
    running.lib.post(running.lib.VT_EVENT_ERROR, next(iter(running.lib.channels)), error=error)
    channel.expect_t_logout(reason)
    channel.wait_state(5)
    assert channel.error


def test_ring_indexes_out_of_range(running):
    channel = running.raw().srp()
    channel.login(A)
    channel.ring.header.req_prod = 0x80000000
    channel.expect_t_logout(0)
    channel.wait_state(5)
    assert channel.error == "ring indexes out of range"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ring-page-order": "5"}, "ring-page-order"),
        ({"ring-ref1": None}, "ring-ref1"),
        ({"ring-ref1": "4000000"}, "mapped"),
        ({"reverse-ring-ref": "900"}, "mapped"),
        ({"event-channel": "77"}, "event channel 77"),
        ({"reverse-event-channel": "77"}, "event channel 77"),
        ({"protocol": "srp-r17"}, "protocol"),
    ],
)
def test_bad_nodes_end_in_closing_with_an_error(running, changes, word):
    channel = RawSrp(running.raw(), connect=False)
    channel.connect(lambda nodes: {**nodes, **changes})
    assert channel.state == 5
    assert word in channel.error
    assert not running.lib.channels
    channel.close()
    channel.connect(lambda nodes: {**nodes, **dict.fromkeys(changes), **nodes})
    assert channel.state == 4 and channel.error is None
    assert isinstance(channel.login(A), srp.LoginRsp)


def test_a_state_that_is_none(running):
    raw = running.raw()
    raw.srp().write({"state": "nine"})
    raw.wait(lambda: raw.connection.store.get("backend/vscsi-srp/0/state") == "5", "Closing")


@pytest.mark.parametrize("name", ["64", "00", "x", "-1", "99999999999999999999"])
def test_device_ids_that_are_none_are_left_alone(running, name):
    raw = running.raw()
    raw.connection.write({f"device/vscsi-srp/{name}/state": "1", "device/vbd/7/state": "1"})
    raw.srp(63).login(A) if raw.srp(0) else None
    assert sorted(raw.connection.store.children("backend/vscsi-srp")) == ["0", "63"]


# ---- target requests ----


def test_credits_grow_and_shrink_one_request_at_a_time(running):
    channel = running.raw().srp()
    channel.login(A)
    device = running.do(running.device)
    with pytest.raises(LocalProtocolError):
        running.do(lambda: grow_credits(device, 1))
    for delta in (-20, -5):
        assert running.do(lambda delta=delta: grow_credits(device, delta))
    first = channel.target_request()
    assert isinstance(first, srp.CredReq) and first.req_lim_delta == -20
    assert channel.target_request(0.05) is None
    assert running.lib.named("vt_channel_credit") == [], "lowered only once the initiator knows"
    channel.reverse.answer(channel.session.answer(first))
    second = channel.target_request()
    assert second.req_lim_delta == -5
    channel.reverse.answer(channel.session.answer(second))
    running.until(lambda: device.request_limit == 5, "limit lowered")
    with pytest.raises(LocalProtocolError):
        running.do(lambda: grow_credits(device, -5))
    assert running.do(lambda: grow_credits(device, 25))
    assert channel.target_request().req_lim_delta == 25
    assert [delta for _, delta in running.lib.named("vt_channel_credit")] == [-20, -5, 25]


def test_asynchronous_event(running):
    raw = running.raw()
    channel, quiet = raw.srp(0), raw.srp(1)
    channel.login(A)
    quiet.login(A, req_flags=MULTI)
    lun = bytes((0, 3)) + bytes(6)
    nexus = running.do(running.device).nexus
    assert running.do(lambda: send_async_event(nexus, lun, b"\x70" + bytes(17)))
    event = channel.target_request()
    assert isinstance(event, srp.AerReq) and (event.lun, event.sense_data) == (lun, b"\x70" + bytes(17))
    channel.reverse.answer(channel.session.answer(event))
    assert quiet.target_request(0.05) is None


@pytest.mark.parametrize("answer", [srp.CredRsp(1), srp.AerRsp(77), srp.ILogout(1)], ids=lambda a: type(a).__name__)
def test_wrong_answer_on_the_reverse_ring(running, answer):
    channel = running.raw().srp()
    channel.login(A)
    device = running.do(running.device)
    running.do(lambda: send_async_event(device.nexus, bytes(8), b""))
    request = channel.target_request()
    assert isinstance(request, srp.AerReq)
    channel.reverse.answer(srp.encode(answer))
    channel.expect_t_logout(2 if isinstance(answer, srp.ILogout) else 3)
    channel.wait_state(5)


def test_answer_that_nobody_asked_for(running):
    channel = running.raw().srp()
    channel.login(A)
    channel.reverse.header.rsp_prod = 1
    lib.vscsi_event_send_fd(channel.reverse.fd)
    channel.expect_t_logout(0)
    channel.wait_state(5)
    assert "reverse ring" in channel.error


def test_reverse_event_channel_closed(running):
    raw = running.raw()
    channel = raw.srp()
    channel.login(A)
    raw.connection.close_event_channel(channel.reverse.port)
    channel.wait_state(5)
    assert channel.error == "reverse event channel closed"


def test_kicks_while_stopping_are_not_listened_to(running):
    channel = running.raw().srp()
    channel.login(A)
    device = running.do(running.device)
    running.lib.hold_stops = True
    channel.ring.send(channel.session.send(srp.ILogout(1)))
    running.until(lambda: device.stopping, "stopping")
    lib.vscsi_event_send_fd(channel.reverse.fd)
    running.until(lambda: device._reverse_fd not in running.server.selector.get_map(), "not watched")
    running.lib.hold_stops = False
    running.lib.finish_stop(device.channel)
    channel.wait_state(5)
