# SPDX-License-Identifier: BSD-2-Clause
"""Logins, nexuses and unit attentions over a real bus and real rings, with loops of Python in place of C's."""

import pytest
from python_loops import MULTI, A, B, running_server

from target.nexus import NexusRegistry
from vscsi import srp

running = pytest.fixture(running_server)


# ---- login ----


def test_login_command_logout(running):
    channel = running.raw().srp()
    answer = channel.login(A)
    assert answer == srp.LoginRsp(30, 0x1122334455667788, 248, 248, 6, 0), "2 pages: 32 slots, limit 30"
    assert running.lib.named("vt_channel_login")[0][2] == 30
    assert channel.command(bytes(16)).status == 0
    channel.ring.send(channel.session.send(srp.ILogout(9)))
    channel.wait_state(5)
    assert channel.target_request(0.05) is None, "I_LOGOUT has no answer"
    assert channel.error is None
    channel.close()
    assert running.attentions() == [0x2900]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"req_it_iu_len": 63}, 0x10002),
        ({"req_it_iu_len": 249}, 0x10002),
        ({"req_it_iu_len": 0, "target_port_id": bytes(16)}, 0x10002),
        ({"target_port_id": bytes(16)}, 0x10003),
        ({"target_port_id": b"x" * 16, "req_buf_fmt": 8}, 0x10003),
        ({"req_buf_fmt": 0x0E}, 0x10004),
        ({"req_buf_fmt": 1, "req_flags": MULTI}, 0x10004),
        ({"req_flags": 2}, 0x10000),
    ],
)
def test_login_rejected(running, changes, reason):
    channel = running.raw().srp()
    assert channel.login(A, **changes) == srp.LoginRej(reason, 0x1122334455667788, 6)
    channel.wait_state(5)
    assert channel.error == f"login rejected: {srp.reject_text(reason)}"
    assert running.lib.named("vt_channel_login") == []
    channel.close()
    channel.connect()
    assert isinstance(channel.login(A), srp.LoginRsp), "a new ring may log in again"


@pytest.mark.parametrize("nbytes", [64, 248])
def test_shortest_and_longest_iu_are_accepted(running, nbytes):
    assert isinstance(running.raw().srp().login(A, req_it_iu_len=nbytes, req_buf_fmt=2), srp.LoginRsp)


@pytest.mark.options(max_channels=1)
def test_several_channels_not_supported(running):
    raw = running.raw()
    raw.srp().login(A)
    assert raw.srp(1).login(A, req_flags=MULTI).reason == 0x10005
    assert raw.srp(2).login(B).rsp_flags == 0


@pytest.mark.options(max_channels=2)
def test_channel_limit(running):
    raw = running.raw()
    raw.srp().login(A)
    assert raw.srp(1).login(A, req_flags=MULTI).rsp_flags == 2
    assert raw.srp(2).login(A, req_flags=MULTI).reason == 0x10006
    assert raw.srp(3).login(B, req_flags=MULTI).rsp_flags == 0, "another nexus has its own limit"


def test_no_room_for_a_nexus(running):
    running.lib.max_nexuses = 1
    raw = running.raw()
    raw.srp().login(A)
    assert raw.srp(1).login(B).reason == 0x10001


def test_action_single_ends_the_other_channels_first(running):
    raw = running.raw()
    first, second = raw.srp(0), raw.srp(1)
    assert first.login(A).rsp_flags == 0
    assert second.login(A, req_flags=MULTI).rsp_flags == 2
    other = running.raw().srp()
    running.lib.hold_stops = True
    other.ask_login(A)
    assert other.ring.take(0.1) is None, "old tasks must be over before the new channel is answered"
    assert first.target_request(0.05) is None, "T_LOGOUT comes after the last response"
    running.lib.hold_stops = False
    for number in list(running.lib.channels):
        if running.lib.channels[number].broken:
            running.lib.finish_stop(number)
    assert other.login_answer().rsp_flags == 1
    for channel in (first, second):
        channel.expect_t_logout(4)
        channel.wait_state(5)
        assert channel.error is None
    assert running.attentions() == [0x2900, 0x2907]
    assert other.command(bytes(16)).status == 0


def test_two_logins_at_once_leave_one_channel(running):
    raw = running.raw()
    first, second, third = (raw.srp(k) for k in range(3))
    first.login(A)
    running.lib.hold_stops = True
    second.ask_login(A)
    running.until(lambda: len(running.lib.named("vt_channel_stop")) == 1, "first is stopped")
    third.ask_login(A)
    running.until(lambda: len(running.lib.named("vt_channel_stop")) == 2, "second is stopped")
    running.lib.hold_stops = False
    for number in list(running.lib.channels):
        if running.lib.channels[number].broken:
            running.lib.finish_stop(number)
    assert third.login_answer().rsp_flags == 1
    second.expect_t_logout(4)
    first.expect_t_logout(4)


def test_one_nexus_does_not_disturb_another(running):
    raw = running.raw()
    first, second = raw.srp(0), raw.srp(1)
    first.login(A)
    second.login(B)
    assert first.command(bytes(16)).status == second.command(bytes(16)).status == 0
    assert running.attentions() == [0x2900, 0x2900]


# ---- nexus loss and unit attentions ----


def test_relogin_after_loss_gives_nexus_loss_and_power_on_only_once(running):
    for expected in ([0x2900], [0x2900, 0x2907]):
        raw = running.raw()
        raw.srp().login(A)
        assert running.attentions() == expected
        raw.close()
        running.until(lambda: not running.lib.channels, "channels of a vanished peer are removed")


def test_second_channel_and_last_one_standing_are_no_loss(running):
    raw = running.raw()
    first, second = raw.srp(0), raw.srp(1)
    first.login(A)
    second.login(A, req_flags=MULTI)
    first.ring.send(first.session.send(srp.ILogout(1)))
    first.wait_state(5)
    raw.srp(2).login(A, req_flags=MULTI)
    assert running.attentions() == [0x2900]


def test_a_login_that_ends_all_other_channels_is_one_loss(running):
    lost = []
    running.do(lambda: running.server.nexuses.on_loss.append(lambda nexus: lost.append(nexus.initiator_port_id)))
    raw = running.raw()
    raw.srp(0).login(A)
    raw.srp(1).login(A, req_flags=MULTI)
    assert lost == []
    raw.srp(2).login(A)
    assert lost == [A] and running.attentions() == [0x2900, 0x2907]


def test_loss_hook_and_bounded_memory(running):
    lost = []
    running.do(lambda: running.server.nexuses.on_loss.append(lambda nexus: lost.append(nexus.initiator_port_id)))
    running.server.nexuses._max_idle = 2
    raw = running.raw()
    registrant = bytes(16)
    running.server.nexuses.is_registrant = lambda nexus: nexus.initiator_port_id == registrant
    for k in range(5):
        channel = raw.srp()
        channel.login(bytes([k]) * 16)
        channel.ring.send(channel.session.send(srp.ILogout(1)))
        channel.wait_state(5)
        channel.close()
    assert lost == [bytes([k]) * 16 for k in range(5)]
    known = [key[0][0] for key in running.do(lambda: list(running.server.nexuses._known))]
    assert known == [0, 3, 4], "the registrant and the two idle for the shortest time"


def test_attention_helpers(running):
    registry: NexusRegistry = running.server.nexuses
    running.raw().srp().login(A)
    everyone = running.lib.VT_ALL

    def establish():
        nexus = next(iter(registry._known.values()))
        registry.luns_changed(new_lu=1)
        registry.capacity_changed(0, nexus.index)
        return nexus.index

    index = running.do(establish)
    assert running.lib.named("vt_ua_establish")[1:] == [
        (everyone, everyone, everyone, 0x3F0E),
        (everyone, everyone, 1, 0x2900),
        (everyone, index, 0, 0x2A09),
    ]
