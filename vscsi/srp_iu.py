# SPDX-License-Identifier: BSD-2-Clause
"""SRP r16a information units: codec of the nine that are conversation.

Layouts come from the ABI structs by introspection; no offset stands here. The three IUs that run for every I/O
(SRP_CMD, SRP_TSK_MGMT, SRP_RSP) are C's; here they are only recognised.
Contract: whatever bytes arrive, they decode or RemoteProtocolError is raised, never anything else.
"""

import struct
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from vscsi.errors import LocalProtocolError, RemoteProtocolError
from vscsi.native import ffi, lib

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
