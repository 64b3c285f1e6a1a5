# SPDX-License-Identifier: BSD-2-Clause
"""The session tables: every IU in every state from both sides, and whole conversations over a fake link."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi import srp
from vscsi.srp import Ring, Role, State

SAMPLES = {
    srp.LoginReq: srp.LoginReq(1, 248, 6, 0, bytes(16), bytes(16)),
    srp.LoginRsp: srp.LoginRsp(30, 1, 248, 248, 6, 0),
    srp.LoginRej: srp.LoginRej(0x10003, 1, 6),
    srp.ILogout: srp.ILogout(2),
    srp.TLogout: srp.TLogout(0, 4, 3),
    srp.CredReq: srp.CredReq(0, 5, 4),
    srp.CredRsp: srp.CredRsp(4),
    srp.AerReq: srp.AerReq(0, 0, 4, bytes(8), b"sense"),
    srp.AerRsp: srp.AerRsp(4),
}
PATHS = {
    State.IDLE: [],
    State.LOGIN: [srp.LoginReq],
    State.LIVE: [srp.LoginReq, srp.LoginRsp],
    State.REJECTED: [srp.LoginReq, srp.LoginRej],
    State.INITIATOR_LEFT: [srp.LoginReq, srp.LoginRsp, srp.ILogout],
    State.TARGET_LEFT: [srp.LoginReq, srp.LoginRsp, srp.TLogout],
}


def pair() -> dict[Role, srp.Session]:
    return {Role.INITIATOR: srp.InitiatorSession(), Role.TARGET: srp.TargetSession()}


def pass_on(ends: dict[Role, srp.Session], iu: srp.Iu) -> srp.Iu | None:
    sender, ring = srp.SENDERS[type(iu)]
    receiver = Role.TARGET if sender is Role.INITIATOR else Role.INITIATOR
    return ends[receiver].receive(ends[sender].send(iu), ring)


def bring_to(state: State) -> dict[Role, srp.Session]:
    ends = pair()
    for step in PATHS[state]:
        assert pass_on(ends, SAMPLES[step]) == SAMPLES[step]
    assert ends[Role.INITIATOR].state is ends[Role.TARGET].state is state
    return ends


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda k: k.__name__)
@pytest.mark.parametrize("state", PATHS, ids=lambda s: s.name)
def test_both_ends_agree_about_every_iu_in_every_state(state, kind):
    """What we may not send in a state is exactly what a peer may not send in it."""
    sender, ring = srp.SENDERS[kind]
    receiver = Role.TARGET if sender is Role.INITIATOR else Role.INITIATOR
    legal = (state, kind) in srp.RULES and kind not in (srp.CredRsp, srp.AerRsp)
    crossing = kind in srp.CROSSINGS.get((state, sender), ())
    ends = bring_to(state)
    if legal:
        assert pass_on(ends, SAMPLES[kind]) == SAMPLES[kind]
        assert ends[sender].state is ends[receiver].state is srp.RULES[(state, kind)][0]
        return
    with pytest.raises(srp.LocalProtocolError):
        ends[sender].send(SAMPLES[kind])
    if crossing:
        assert ends[receiver].receive(srp.encode(SAMPLES[kind]), ring) is None
    else:
        with pytest.raises(srp.RemoteProtocolError) as caught:
            ends[receiver].receive(srp.encode(SAMPLES[kind]), ring)
        assert caught.value.reason == (3 if kind in (srp.CredRsp, srp.AerRsp) else 2)
    assert ends[receiver].state is state


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda k: k.__name__)
def test_an_iu_on_the_wrong_ring_or_from_the_wrong_end_is_an_invalid_type(kind):
    sender, ring = srp.SENDERS[kind]
    receiver = Role.TARGET if sender is Role.INITIATOR else Role.INITIATOR
    other = Ring.REVERSE if ring is Ring.FORWARD else Ring.FORWARD
    for role, where in ((receiver, other), (sender, ring), (sender, other)):
        with pytest.raises(srp.RemoteProtocolError) as caught:
            bring_to(State.LIVE)[role].receive(srp.encode(SAMPLES[kind]), where)
        assert caught.value.reason == 2


@pytest.mark.parametrize("kind", [srp.CredReq, srp.AerReq], ids=lambda k: k.__name__)
def test_target_request_is_answered_once(kind):
    ends = bring_to(State.LIVE)
    request = pass_on(ends, SAMPLES[kind])
    answer = ends[Role.INITIATOR].answer(request)
    assert ends[Role.TARGET].receive(answer, Ring.REVERSE).tag == request.tag
    with pytest.raises(srp.RemoteProtocolError) as caught:
        ends[Role.TARGET].receive(answer, Ring.REVERSE)
    assert caught.value.reason == 3


@pytest.mark.parametrize("answer", [srp.CredRsp(5), srp.AerRsp(4)], ids=["other tag", "other type"])
def test_an_answer_must_fit_its_request(answer):
    ends = bring_to(State.LIVE)
    pass_on(ends, SAMPLES[srp.CredReq])
    with pytest.raises(srp.RemoteProtocolError) as caught:
        ends[Role.TARGET].receive(srp.encode(answer), Ring.REVERSE)
    assert caught.value.reason == 3


def test_second_request_while_one_is_unanswered_is_refused_on_both_ends():
    ends = bring_to(State.LIVE)
    pass_on(ends, SAMPLES[srp.CredReq])
    with pytest.raises(srp.LocalProtocolError):
        ends[Role.TARGET].send(SAMPLES[srp.AerReq])
    with pytest.raises(srp.RemoteProtocolError):
        ends[Role.INITIATOR].receive(srp.encode(SAMPLES[srp.AerReq]), Ring.REVERSE)


def test_waiting_requests_go_one_at_a_time_and_credits_merge():
    ends = bring_to(State.LIVE)
    target, initiator = ends[Role.TARGET], ends[Role.INITIATOR]
    for delta in (3, -1, 5):
        assert target.ask(srp.CredReq(0, delta, target.next_tag()))
    assert target.ask(srp.AerReq(0, 0, target.next_tag(), bytes(8), b""))
    seen = []
    while (step := target.next_request()) is not None:
        assert target.next_request() is None, "one unanswered at a time"
        request = initiator.receive(step[1], Ring.REVERSE)
        assert request == step[0]
        seen.append(request)
        target.receive(initiator.answer(request), Ring.REVERSE)
    assert [type(request) for request in seen] == [srp.CredReq, srp.AerReq]
    assert seen[0].req_lim_delta == 7


def test_waiting_aers_are_bounded_and_credits_never_lost():
    target = bring_to(State.LIVE)[Role.TARGET]
    asked = [target.ask(srp.AerReq(0, 0, target.next_tag(), bytes(8), b"")) for _ in range(srp.MAX_WAITING + 1)]
    assert asked == [True] * srp.MAX_WAITING + [False]
    assert target.ask(srp.CredReq(0, 1, target.next_tag()))


def test_no_request_goes_out_before_login_or_after_logout():
    for state in set(State) - {State.LIVE}:
        target = bring_to(state)[Role.TARGET]
        target.ask(srp.CredReq(0, 1, target.next_tag()))
        assert target.next_request() is None


@pytest.mark.parametrize("answer", [srp.LoginRsp(30, 2, 248, 248, 6, 0), srp.LoginRej(0x10000, 2, 6)])
def test_login_answer_with_another_tag_is_refused(answer):
    ends = bring_to(State.LOGIN)
    with pytest.raises(srp.RemoteProtocolError):
        ends[Role.INITIATOR].receive(srp.encode(answer))
    assert ends[Role.INITIATOR].state is State.LOGIN


def test_login_answer_with_a_maximum_iu_no_command_fits_is_refused():
    ends = bring_to(State.LOGIN)
    with pytest.raises(srp.RemoteProtocolError):
        ends[Role.INITIATOR].receive(srp.encode(srp.LoginRsp(30, 1, 63, 248, 6, 0)))


@given(st.lists(st.tuples(st.sampled_from(Ring), st.binary(max_size=80))), st.sampled_from(sorted(PATHS, key=str)))
def test_any_bytes_leave_a_session_in_a_known_state(stream, state):
    for end in bring_to(state).values():
        for ring, data in stream:
            with contextlib.suppress(srp.RemoteProtocolError):
                end.receive(data, ring)
            assert end.state in State


def test_reasons_have_words():
    assert srp.reject_text(0x10003) == "unable associate channel"
    assert srp.logout_text(4) == "multi channel"
    assert srp.logout_text(99) == "reason 0x63"
