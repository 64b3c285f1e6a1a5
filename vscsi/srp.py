# SPDX-License-Identifier: BSD-2-Clause
"""SRP r16a conversation: codec of the nine cold information units, and the session both ends hold with them.

Layouts come from the ABI structs by introspection; no offset stands here. One table says who may send what, another
what an IU does to a session; both ends run on the same tables, so neither can be lenient for itself.
Knows no clock, socket, ring or thread, and no policy: who may log in is the target's business. The three IUs that run
for every I/O (SRP_CMD, SRP_TSK_MGMT, SRP_RSP) are C's; here they are only recognised.
Contract: whatever bytes arrive, they decode or RemoteProtocolError is raised, never anything else.
"""

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from vscsi.native import ffi, lib

PORT_ID_NBYTES = 16
TAG_MASK = (1 << 64) - 1
MIN_IT_IU_NBYTES = 64
"""Smallest REQUESTED INITIATOR-TO-TARGET IU LENGTH (SRP r16a, SRP_LOGIN_REQ)."""
MAX_WAITING = 16
"""Target requests kept back while one is unanswered; further ones are dropped (AER) or merged (CRED)."""


class ProtocolError(Exception):
    """A rule of SRP was broken. `reason` is the T_LOGOUT reason that names it, or 0."""

    def __init__(self, text: str, reason: int = lib.SRP_TLO_NO_REASON) -> None:
        super().__init__(text)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """We were about to break it: our bug."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it."""


class Role(Enum):
    INITIATOR = "initiator"
    TARGET = "target"


class Ring(Enum):
    """The channel's own ring, where the initiator asks, or the one-page ring where the target does."""

    FORWARD = "forward"
    REVERSE = "reverse"


# ---- the nine IUs; names and order of the fields are those of the ABI structs, which a check below enforces ----


class Iu:
    """An information unit. `struct_name` and `opcode` find its layout."""

    struct_name: ClassVar[str]
    opcode: ClassVar[int]
    tag: int


@dataclass(frozen=True)
class LoginReq(Iu):
    tag: int
    req_it_iu_len: int
    req_buf_fmt: int
    req_flags: int
    initiator_port_id: bytes
    target_port_id: bytes


@dataclass(frozen=True)
class LoginRsp(Iu):
    req_lim_delta: int
    tag: int
    max_it_iu_len: int
    max_ti_iu_len: int
    buf_fmt: int
    rsp_flags: int


@dataclass(frozen=True)
class LoginRej(Iu):
    reason: int
    tag: int
    buf_fmt: int


@dataclass(frozen=True)
class ILogout(Iu):
    tag: int


@dataclass(frozen=True)
class TLogout(Iu):
    sol_not: int
    reason: int
    tag: int


@dataclass(frozen=True)
class CredReq(Iu):
    sol_not: int
    req_lim_delta: int
    tag: int


@dataclass(frozen=True)
class CredRsp(Iu):
    tag: int


@dataclass(frozen=True)
class AerReq(Iu):
    sol_not: int
    req_lim_delta: int
    tag: int
    lun: bytes
    sense_data: bytes


@dataclass(frozen=True)
class AerRsp(Iu):
    tag: int


# ---- codec ----

I = TypeVar("I", bound=Iu)  # noqa: E741  (the letter for IU)

_NUMBERS = {"uint8_t": "B", "be16_t": "H", "be32_t": "I", "be64_t": "Q"}
_SIGNED = frozenset({"req_lim_delta"})


class Layout(Generic[I]):
    """How one IU class lies in bytes: its ABI struct, and byte strings behind it whose lengths the struct holds.

    `tails` maps the field of a byte string to the struct field with its length, in wire order.
    """

    def __init__(self, cls: type[I], struct_name: str, opcode: int, tails: dict[str, str] | None = None) -> None:
        self.cls, self.opcode, self.tails = cls, opcode, tails or {}
        cls.struct_name, cls.opcode = struct_name, opcode
        ctype = ffi.typeof(f"struct {struct_name}")
        self.nbytes: int = ffi.sizeof(ctype)
        self.names: list[str] = []
        code, end = ">", 0
        for name, field in ctype.fields:
            assert field.offset == end, f"{struct_name}.{name}: padding in an SRP struct"
            end += ffi.sizeof(field.type)
            nbytes = ffi.sizeof(field.type)
            if name.startswith("reserved"):
                code += f"{nbytes}x"
                continue
            self.names.append(name)
            if field.type.kind == "array":
                code += f"{nbytes}s"
            else:
                number = _NUMBERS[field.type.cname]
                code += number.lower() if name in _SIGNED else number
        self.struct = struct.Struct(code)
        self.lengths = {self.names.index(length): name for name, length in self.tails.items()}
        shown = [name for name in self.names[1:] if name not in self.tails.values()] + list(self.tails)
        if [field.name for field in fields(cls)] != shown:  # type: ignore[arg-type]
            raise TypeError(f"{cls.__name__}: fields {[f.name for f in fields(cls)]}, ABI has {shown}")  # type: ignore[arg-type]
        self.sizes = {name: ffi.sizeof(f.type) for name, f in ctype.fields if f.type.kind == "array"}

    def encode(self, iu: I) -> bytes:
        """Raises LocalProtocolError if a value does not fit its field."""
        values: list[Any] = []
        tails = b""
        for name in self.tails:
            tails += getattr(iu, name)
        for index, name in enumerate(self.names):
            if index == 0:
                values.append(self.opcode)
            elif index in self.lengths:
                values.append(len(getattr(iu, self.lengths[index])))
            else:
                value = getattr(iu, name)
                if name in self.sizes and len(value) != self.sizes[name]:
                    raise LocalProtocolError(f"{self.cls.__name__}.{name}: {len(value)} bytes, not {self.sizes[name]}")
                values.append(value)
        try:
            return self.struct.pack(*values) + tails
        except struct.error as error:
            raise LocalProtocolError(f"{self.cls.__name__}: {error}") from None

    def decode(self, data: bytes) -> I:
        """`data` may be longer than the IU (a ring slot); bytes after the last field are ignored.

        Raises RemoteProtocolError if it is shorter, or the opcode is another.
        """
        if len(data) < self.nbytes:
            raise RemoteProtocolError(f"{self.cls.__name__} of {len(data)} bytes, shorter than {self.nbytes}")
        values = self.struct.unpack_from(data)
        if values[0] != self.opcode:
            text = f"opcode {values[0]:#04x} is not {self.cls.__name__}"
            raise RemoteProtocolError(text, lib.SRP_TLO_INVALID_IU_TYPE)
        pairs = enumerate(zip(self.names, values, strict=True))
        arguments = {name: value for index, (name, value) in pairs if index and index not in self.lengths}
        offset = self.nbytes
        for name, length_name in self.tails.items():
            nbytes = values[self.names.index(length_name)]
            if nbytes > len(data) - offset:
                raise RemoteProtocolError(f"{self.cls.__name__}: {name} of {nbytes} bytes runs past the IU")
            arguments[name] = bytes(data[offset : offset + nbytes])
            offset += nbytes
        return self.cls(**arguments)


LAYOUTS: dict[int, Layout[Any]] = {
    layout.opcode: layout
    for layout in (
        Layout(LoginReq, "srp_login_req", lib.SRP_LOGIN_REQ),
        Layout(LoginRsp, "srp_login_rsp", lib.SRP_LOGIN_RSP),
        Layout(LoginRej, "srp_login_rej", lib.SRP_LOGIN_REJ),
        Layout(ILogout, "srp_i_logout", lib.SRP_I_LOGOUT),
        Layout(TLogout, "srp_t_logout", lib.SRP_T_LOGOUT),
        Layout(CredReq, "srp_cred_req", lib.SRP_CRED_REQ),
        Layout(CredRsp, "srp_cred_rsp", lib.SRP_CRED_RSP),
        Layout(AerReq, "srp_aer_req", lib.SRP_AER_REQ, {"sense_data": "sense_data_len"}),
        Layout(AerRsp, "srp_aer_rsp", lib.SRP_AER_RSP),
    )
}

_OPCODE_NAMES = {value: name for name, value in ffi.typeof("enum srp_opcode").relements.items()}
_REJECT_NAMES = {value: name for name, value in ffi.typeof("enum srp_login_rej_reason").relements.items()}
_LOGOUT_NAMES = {value: name for name, value in ffi.typeof("enum srp_logout_reason").relements.items()}


def _words(names: dict[int, str], value: int, prefix: str) -> str:
    name = names.get(value)
    return f"reason {value:#x}" if name is None else name.removeprefix(prefix).lower().replace("_", " ")


def reject_text(reason: int) -> str:
    """A LOGIN_REJ reason in words."""
    return _words(_REJECT_NAMES, reason, "SRP_REJ_")


def logout_text(reason: int) -> str:
    """A T_LOGOUT reason in words."""
    return _words(_LOGOUT_NAMES, reason, "SRP_TLO_")


def encode(iu: Iu) -> bytes:
    """The IU at its exact length. Raises LocalProtocolError if a value does not fit."""
    return LAYOUTS[iu.opcode].encode(iu)


def decode(data: bytes) -> Iu:
    """One of the nine IUs. `data` may be a whole ring slot. Raises RemoteProtocolError."""
    if not data:
        raise RemoteProtocolError("an empty IU")
    layout = LAYOUTS.get(data[0])
    if layout is None:
        name = _OPCODE_NAMES.get(data[0], f"opcode {data[0]:#04x}")
        raise RemoteProtocolError(f"unexpected {name}", lib.SRP_TLO_INVALID_IU_TYPE)
    return layout.decode(data)  # type: ignore[no-any-return]


# ---- the session ----


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
