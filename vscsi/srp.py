# SPDX-License-Identifier: BSD-2-Clause
"""SRP r16a sessions: what both ends of a channel hold with each other, from login to logout.

One table says who may send what, another what an IU does to a session; both ends run on the same tables, so neither
can be lenient for itself. The IUs themselves are in vscsi.srp_iu and are offered again here.
Knows no clock, socket, ring or thread, and no policy: who may log in is the target's business.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from vscsi.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from vscsi.native import lib
from vscsi.srp_iu import (
    LAYOUTS,
    AerReq,
    AerRsp,
    CredReq,
    CredRsp,
    ILogout,
    Iu,
    Layout,
    LoginRej,
    LoginReq,
    LoginRsp,
    TLogout,
    decode,
    encode,
    logout_text,
    reject_text,
)

__all__ = [
    "LAYOUTS", "MAX_WAITING", "MIN_IT_IU_NBYTES", "PORT_ID_NBYTES", "RULES", "SENDERS",
    "AerReq", "AerRsp", "CredReq", "CredRsp", "ILogout", "InitiatorSession", "Iu", "Layout", "LocalProtocolError",
    "LoginRej", "LoginReq", "LoginRsp", "ProtocolError", "RemoteProtocolError", "Ring", "Role", "Session", "State",
    "TLogout", "TargetSession", "decode", "encode", "logout_text", "reject_text",
]  # fmt: skip

PORT_ID_NBYTES = 16
TAG_MASK = (1 << 64) - 1
MIN_IT_IU_NBYTES = 64
"""Smallest REQUESTED INITIATOR-TO-TARGET IU LENGTH (SRP r16a, SRP_LOGIN_REQ)."""
MAX_WAITING = 16
"""Target requests kept back while one is unanswered; further ones are dropped (AER) or merged (CRED)."""


class Role(Enum):
    INITIATOR = "initiator"
    TARGET = "target"


class Ring(Enum):
    """The channel's own ring, where the initiator asks, or the one-page ring where the target does."""

    FORWARD = "forward"
    REVERSE = "reverse"


class State(Enum):
    IDLE = "idle"
    LOGIN = "login asked"
    LIVE = "logged in"
    INITIATOR_LEFT = "initiator logged out"
    TARGET_LEFT = "target logged out"
    REJECTED = "login rejected"


# Who may send it, and on which ring.
SENDERS: dict[type[Iu], tuple[Role, Ring]] = {
    LoginReq: (Role.INITIATOR, Ring.FORWARD),
    ILogout: (Role.INITIATOR, Ring.FORWARD),
    LoginRsp: (Role.TARGET, Ring.FORWARD),
    LoginRej: (Role.TARGET, Ring.FORWARD),
    TLogout: (Role.TARGET, Ring.REVERSE),
    CredReq: (Role.TARGET, Ring.REVERSE),
    AerReq: (Role.TARGET, Ring.REVERSE),
    CredRsp: (Role.INITIATOR, Ring.REVERSE),
    AerRsp: (Role.INITIATOR, Ring.REVERSE),
}


def _login_asked(session: "Session", iu: Any) -> None:
    session.login_req = iu


def _login_answered(session: "Session", iu: Any) -> None:
    assert session.login_req is not None
    if iu.tag != session.login_req.tag:
        raise ProtocolError(f"login answered with tag {iu.tag:#x}, asked with {session.login_req.tag:#x}")
    if isinstance(iu, LoginRsp):
        if iu.max_it_iu_len < MIN_IT_IU_NBYTES:
            raise ProtocolError(f"maximum initiator-to-target IU length {iu.max_it_iu_len} is below {MIN_IT_IU_NBYTES}")
        session.login_rsp = iu
    else:
        session.login_rej = iu


def _asked(session: "Session", iu: Any) -> None:
    if session.unanswered is not None:
        raise ProtocolError("a second target request while one is unanswered")
    session.unanswered = iu


def _answered(session: "Session", iu: Any) -> None:
    asked, answers = session.unanswered, {CredRsp: CredReq, AerRsp: AerReq}
    if asked is None or type(asked) is not answers[type(iu)] or asked.tag != iu.tag:
        raise ProtocolError(f"{type(iu).__name__} answers no target request", lib.SRP_TLO_SPURIOUS_RESPONSE)
    session.unanswered = None


def _left(session: "Session", iu: Any) -> None:
    session.logout = iu
    session.unanswered = None


# What an IU does in a state: the state afterwards, and the effect. What is not here is a protocol error.
RULES: dict[tuple[State, type[Iu]], tuple[State, Callable[["Session", Any], None]]] = {
    (State.IDLE, LoginReq): (State.LOGIN, _login_asked),
    (State.IDLE, TLogout): (State.TARGET_LEFT, _left),
    (State.LOGIN, LoginRsp): (State.LIVE, _login_answered),
    (State.LOGIN, LoginRej): (State.REJECTED, _login_answered),
    (State.LOGIN, TLogout): (State.TARGET_LEFT, _left),
    (State.LIVE, CredReq): (State.LIVE, _asked),
    (State.LIVE, AerReq): (State.LIVE, _asked),
    (State.LIVE, CredRsp): (State.LIVE, _answered),
    (State.LIVE, AerRsp): (State.LIVE, _answered),
    (State.LIVE, ILogout): (State.INITIATOR_LEFT, _left),
    (State.LIVE, TLogout): (State.TARGET_LEFT, _left),
}

# A peer that has not seen the logout yet may still send these.
CROSSINGS: dict[tuple[State, Role], frozenset[type[Iu]]] = {
    (State.TARGET_LEFT, Role.INITIATOR): frozenset({LoginReq, ILogout, CredRsp, AerRsp}),
    (State.INITIATOR_LEFT, Role.TARGET): frozenset({TLogout, CredReq, AerReq}),
}


class Session:
    """One login of one channel, as one role sees it. `state` and the IUs that made it are public to read."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.IDLE
        self.login_req: LoginReq | None = None
        self.login_rsp: LoginRsp | None = None
        self.login_rej: LoginRej | None = None
        self.logout: ILogout | TLogout | None = None
        self.unanswered: CredReq | AerReq | None = None

    def send(self, iu: Iu) -> bytes:
        """Our IU as bytes, ready for its ring. Raises LocalProtocolError if it may not be sent now."""
        data = encode(iu)
        try:
            self._apply(iu, self.role, SENDERS[type(iu)][1])
        except ProtocolError as error:
            raise LocalProtocolError(str(error), error.reason) from None
        return data

    def receive(self, data: bytes, ring: Ring = Ring.FORWARD) -> Iu | None:
        """The peer's IU from that ring; None if it crossed our logout and means nothing any more.

        Raises RemoteProtocolError, with the T_LOGOUT reason where SRP has one.
        """
        iu = decode(data)
        sender = Role.TARGET if self.role is Role.INITIATOR else Role.INITIATOR
        if type(iu) in CROSSINGS.get((self.state, sender), ()) and SENDERS[type(iu)] == (sender, ring):
            return None
        try:
            self._apply(iu, sender, ring)
        except ProtocolError as error:
            raise RemoteProtocolError(str(error), error.reason) from None
        return iu

    def _apply(self, iu: Iu, sender: Role, ring: Ring) -> None:
        name = type(iu).__name__
        if SENDERS[type(iu)] != (sender, ring):
            raise ProtocolError(f"{name} from the {sender.value} on the {ring.value} ring", lib.SRP_TLO_INVALID_IU_TYPE)
        rule = RULES.get((self.state, type(iu)))
        if rule is None:
            reason = lib.SRP_TLO_SPURIOUS_RESPONSE if type(iu) in (CredRsp, AerRsp) else lib.SRP_TLO_INVALID_IU_TYPE
            raise ProtocolError(f"{name} while {self.state.value}", reason)
        state, effect = rule
        effect(self, iu)
        self.state = state


class InitiatorSession(Session):
    """The initiator's end."""

    def __init__(self) -> None:
        super().__init__(Role.INITIATOR)

    def answer(self, request: CredReq | AerReq) -> bytes:
        """The CRED_RSP or AER_RSP to a target request just received."""
        return self.send(CredRsp(tag=request.tag) if isinstance(request, CredReq) else AerRsp(tag=request.tag))


class TargetSession(Session):
    """The target's end, with the requests that wait until the initiator has answered the one before."""

    def __init__(self) -> None:
        super().__init__(Role.TARGET)
        self.waiting: deque[CredReq | AerReq] = deque()
        self._tag = 0

    def next_tag(self) -> int:
        """A tag for a target request, unique for the life of the session."""
        self._tag += 1
        return self._tag & TAG_MASK

    def ask(self, request: CredReq | AerReq) -> bool:
        """Queues a target request; False if it was dropped because too many wait (only an AER can be).

        Credits are never dropped: they join a CRED_REQ that still waits.
        """
        if isinstance(request, CredReq):
            for index, other in enumerate(self.waiting):
                if isinstance(other, CredReq):
                    merged = other.req_lim_delta + request.req_lim_delta
                    self.waiting[index] = CredReq(sol_not=other.sol_not, req_lim_delta=merged, tag=other.tag)
                    return True
        elif len(self.waiting) >= MAX_WAITING:
            return False
        self.waiting.append(request)
        return True

    def next_request(self) -> tuple[CredReq | AerReq, bytes] | None:
        """The target request that may be sent now, already counted as sent, or None."""
        if self.state is not State.LIVE or self.unanswered is not None or not self.waiting:
            return None
        request = self.waiting.popleft()
        return request, self.send(request)
