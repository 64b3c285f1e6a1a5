# SPDX-License-Identifier: BSD-2-Clause
"""Parameter data of PERSISTENT RESERVE IN and OUT, and TransportIDs; both ways (SPC-4 6.15, 6.16, 7.6.4).

Knows where fields stand. Must not know who holds what, nor which command a reservation stands in the way of.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from vscsi.scsi.fields import Layout, be, be16, be32, be64, bit, bits


class Type(IntEnum):
    """TYPE of a persistent reservation (SPC-4 table 185)."""

    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8

    @property
    def excludes_reads(self) -> bool:
        """Exclusive access, not only write exclusive."""
        return self in (3, 6, 8)

    @property
    def registrants_only(self) -> bool:
        return self in (5, 6)

    @property
    def all_registrants(self) -> bool:
        """Every registered nexus is a holder."""
        return self in (7, 8)

    @property
    def text(self) -> str:
        """The standard's words."""
        words = self.name.lower().split("_")
        return " ".join(words[:2]) + (", " + " ".join(words[2:]) if len(words) > 2 else "")


SCOPE_LOGICAL_UNIT = 0
KEY_NBYTES = 8

IN_HEADER = Layout(8, prgeneration=be32(0), additional_length=be32(4))
RESERVATION = Layout(16, reservation_key=be64(0), scope=bits(13, 7, 4), type=bits(13, 3, 0))
CAPABILITIES = Layout(
    8, length=be16(0), rlr_c=bit(2, 7), crh=bit(2, 4), sip_c=bit(2, 3), atp_c=bit(2, 2), ptpl_c=bit(2, 0),
    tmv=bit(3, 7), allow_commands=bits(3, 6, 4), ptpl_a=bit(3, 0),
    wr_ex_ar=bit(4, 7), ex_ac_ro=bit(4, 6), wr_ex_ro=bit(4, 5), ex_ac=bit(4, 3), wr_ex=bit(4, 1), ex_ac_ar=bit(5, 0),
)  # fmt: skip
FULL_STATUS = Layout(
    24, reservation_key=be64(0), all_tg_pt=bit(12, 1), r_holder=bit(12, 0), scope=bits(13, 7, 4), type=bits(13, 3, 0),
    relative_target_port_identifier=be16(18), additional_descriptor_length=be32(20),
)  # fmt: skip
OUT_LIST = Layout(
    24, reservation_key=be64(0), service_action_reservation_key=be64(8),
    spec_i_pt=bit(20, 3), all_tg_pt=bit(20, 2), aptpl=bit(20, 0),
)  # fmt: skip
"""With SPEC_I_PT a length (4 bytes) and TransportIDs follow."""
MOVE_LIST = Layout(
    24, reservation_key=be64(0), service_action_reservation_key=be64(8), unreg=bit(17, 1), aptpl=bit(17, 0),
    relative_target_port_identifier=be16(18), transportid_parameter_data_length=be32(20),
)  # fmt: skip
"""REGISTER AND MOVE; the TransportID follows."""

PROTOCOL_SRP, PROTOCOL_ISCSI = 4, 5
"""PROTOCOL IDENTIFIER (SPC-4 table 438)."""
TRANSPORTID_NBYTES = 24
"""Of every protocol but iSCSI, whose TransportID is 4 bytes and ADDITIONAL LENGTH."""
SRP_TRANSPORTID = Layout(24, protocol_identifier=bits(0, 3, 0), initiator_port_identifier=be(8, 16))


def encode_srp_transportid(port: bytes) -> bytes:
    """The TransportID of an SRP initiator port, named by its 16 bytes."""
    return SRP_TRANSPORTID.build(protocol_identifier=PROTOCOL_SRP, initiator_port_identifier=int.from_bytes(port))


def encode_iscsi_transportid(name: str, isid: int | None = None) -> bytes:
    """The TransportID of an iSCSI initiator device, or with `isid` (48 bits) of one of its ports."""
    text = name.encode() if isid is None else f"{name},i,0x{isid:012x}".encode()
    body = (text + b"\0").ljust(20, b"\0")
    body += bytes(-len(body) % 4)
    return bytes([(0 if isid is None else 0x40) | PROTOCOL_ISCSI, 0]) + len(body).to_bytes(2) + body


def transportid_nbytes(data: bytes) -> int:
    """Length of the TransportID that `data` begins with, as it says itself; 0 if not even that is there."""
    if len(data) < 4:
        return 0
    return 4 + int.from_bytes(data[2:4]) if data[0] & 0xF == PROTOCOL_ISCSI else TRANSPORTID_NBYTES


def decode_srp_transportid(data: bytes) -> bytes | None:
    """The 16 bytes of an SRP initiator port; None if this is no whole SRP TransportID of format 0."""
    if len(data) != TRANSPORTID_NBYTES or data[0] != PROTOCOL_SRP:
        return None
    return bytes(data[8:24])


def split_transportids(data: bytes) -> list[bytes] | None:
    """The TransportIDs that `data` is made up of; None if it does not end where one ends."""
    found = []
    while data:
        nbytes = transportid_nbytes(data)
        if not nbytes or nbytes > len(data):
            return None
        found.append(bytes(data[:nbytes]))
        data = data[nbytes:]
    return found


def describe_transportid(data: bytes) -> str:
    """One line for people; never raises."""
    protocol = data[0] & 0xF if data else None
    if protocol == PROTOCOL_SRP and len(data) >= TRANSPORTID_NBYTES:
        return f"SRP initiator port {data[8:24].hex()}"
    if protocol == PROTOCOL_ISCSI:
        return "iSCSI " + data[4 : transportid_nbytes(data)].split(b"\0")[0].decode("ascii", "replace")
    return f"TransportID {bytes(data).hex(' ')}"


# PERSISTENT RESERVE IN


def encode_keys(prgeneration: int, keys: Iterable[int]) -> bytes:
    """READ KEYS."""
    body = b"".join(key.to_bytes(KEY_NBYTES) for key in keys)
    return IN_HEADER.build(prgeneration=prgeneration, additional_length=len(body)) + body


def decode_keys(data: bytes) -> tuple[int, list[int]]:
    """(PRGENERATION, keys) as far as the data goes; never raises."""
    head, body = _in(data)
    return head, [int.from_bytes(body[i : i + 8]) for i in range(0, len(body) - 7, 8)]


def encode_reservation(prgeneration: int, held: tuple[int, Type] | None) -> bytes:
    """READ RESERVATION: (key, type) of what is held; the key is 0 for all-registrants types."""
    if held is None:
        return IN_HEADER.build(prgeneration=prgeneration)
    body = RESERVATION.build(reservation_key=held[0], scope=SCOPE_LOGICAL_UNIT, type=held[1])
    return IN_HEADER.build(prgeneration=prgeneration, additional_length=len(body)) + body


def decode_reservation(data: bytes) -> tuple[int, dict[str, int] | None]:
    """(PRGENERATION, fields of `RESERVATION` if one is held); never raises."""
    head, body = _in(data)
    return head, RESERVATION.numbers(body) if len(body) >= RESERVATION.nbytes else None


@dataclass(frozen=True, slots=True)
class Registration:
    """One descriptor of READ FULL STATUS. `scope` and `type` mean something to a holder only."""

    key: int
    transportid: bytes
    relative_target_port: int
    holder: bool = False
    type: int = 0
    scope: int = SCOPE_LOGICAL_UNIT
    all_tg_pt: bool = False

    def encode(self) -> bytes:
        head = FULL_STATUS.build(
            reservation_key=self.key, all_tg_pt=self.all_tg_pt, r_holder=self.holder, scope=self.scope, type=self.type,
            relative_target_port_identifier=self.relative_target_port,
            additional_descriptor_length=len(self.transportid),
        )  # fmt: skip
        return head + self.transportid


def encode_full_status(prgeneration: int, registrations: Iterable[Registration]) -> bytes:
    """READ FULL STATUS."""
    body = b"".join(registration.encode() for registration in registrations)
    return IN_HEADER.build(prgeneration=prgeneration, additional_length=len(body)) + body


def decode_full_status(data: bytes) -> tuple[int, list[Registration]]:
    """(PRGENERATION, whole descriptors) as far as the data goes; never raises."""
    generation, rest = _in(data)
    found = []
    while len(rest) >= FULL_STATUS.nbytes:
        f = FULL_STATUS.numbers(rest)
        end = FULL_STATUS.nbytes + f["additional_descriptor_length"]
        if end > len(rest):
            break
        found.append(
            Registration(
                f["reservation_key"],
                bytes(rest[24:end]),
                f["relative_target_port_identifier"],
                bool(f["r_holder"]),
                f["type"],
                f["scope"],
                bool(f["all_tg_pt"]),
            )
        )
        rest = rest[end:]
    return generation, found


def _in(data: bytes) -> tuple[int, bytes]:
    head = IN_HEADER.numbers(data)
    return head.get("prgeneration", 0), bytes(data[8 : 8 + head.get("additional_length", 0)])


# PERSISTENT RESERVE OUT


def encode_out(key: int = 0, sa_key: int = 0, *, transportids: Iterable[bytes] = (), **flags: int) -> bytes:
    """The parameter list of every action but REGISTER AND MOVE; TransportIDs set SPEC_I_PT."""
    ids = b"".join(transportids)
    if ids:
        flags = {**flags, "spec_i_pt": 1}
    head = OUT_LIST.build(reservation_key=key, service_action_reservation_key=sa_key, **flags)
    return head + (len(ids).to_bytes(4) + ids if ids else b"")


def encode_move(
    key: int, sa_key: int, relative_target_port: int, transportid: bytes, *, unreg: bool = False, aptpl: bool = False
) -> bytes:
    """The parameter list of REGISTER AND MOVE."""
    head = MOVE_LIST.build(
        reservation_key=key, service_action_reservation_key=sa_key, unreg=unreg, aptpl=aptpl,
        relative_target_port_identifier=relative_target_port, transportid_parameter_data_length=len(transportid),
    )  # fmt: skip
    return head + transportid
