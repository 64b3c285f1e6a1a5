# SPDX-License-Identifier: BSD-2-Clause
"""iSCSI PDUs (RFC 7143, section 11), as far as a capture of SRP traffic needs them: building only.

Knows where the fields stand; numbers, tags and data come from the caller. Must not know SRP, packets or files.
"""

import struct
from typing import NamedTuple

BHS_NBYTES = 48
NO_TAG = 0xFFFFFFFF
"""Reserved value of task tags: none."""

_HEAD = struct.Struct(">BBBBI8sI28s")
_COMMAND = struct.Struct(">III16s")
_RESPONSE = struct.Struct(">IIIIIII")
_MANAGE = struct.Struct(">IIIII8x")
_ANSWER = struct.Struct(">4xIII12x")
_DATA_OUT = struct.Struct(">I4xI4xII4x")
_DATA_IN = struct.Struct(">IIIIIII")
_LOGIN = struct.Struct(">H2xII16x")
_LOGGED_IN = struct.Struct(">4xIIIBB10x")
_LOGGED_OUT = struct.Struct(">4xIII12x")
_ASYNC = struct.Struct(">4xIIIBB6x4x")

_EXTENDED_CDB = struct.Struct(">HBx")
_BIDIRECTIONAL = struct.Struct(">HBxI")

FINAL = 0x80
READ, WRITE = 0x40, 0x20
# Of a SCSI Response: for data-in of a bidirectional command, and for the one direction of any other.
BIDI_OVER, BIDI_UNDER, OVER, UNDER = 0x10, 0x08, 0x04, 0x02
IMMEDIATE = 0x40


class Sequence(NamedTuple):
    """The numbers that every PDU of one direction carries: of commands and of statuses."""

    command: int
    status: int


def _pdu(
    opcode: int,
    flags: int,
    special: bytes,
    *,
    byte2: int = 0,
    byte3: int = 0,
    lun: bytes = bytes(8),
    tag: int = NO_TAG,
    ahs: bytes = b"",
    nbytes: int = 0,
) -> bytes:
    """Header and additional header segments; `nbytes` of data segment follow, padded to a multiple of 4."""
    return _HEAD.pack(opcode, flags, byte2, byte3, len(ahs) // 4 << 24 | nbytes, lun, tag, special) + ahs


def command(seq: Sequence, tag: int, lun: bytes, cdb: bytes, attribute: int, out_nbytes: int, in_nbytes: int) -> bytes:
    """SCSI Command (11.3), without immediate data. `attribute` is iSCSI's."""
    flags = FINAL | (READ if in_nbytes else 0) | (WRITE if out_nbytes else 0) | attribute
    ahs = b""
    if len(cdb) > 16:
        ahs += _EXTENDED_CDB.pack(len(cdb) - 15, 1) + cdb[16:] + bytes(-len(cdb) % 4)
    if out_nbytes and in_nbytes:
        ahs += _BIDIRECTIONAL.pack(5, 2, in_nbytes)
    special = _COMMAND.pack(out_nbytes or in_nbytes, seq.command, seq.status, cdb[:16])
    return _pdu(0x01, flags, special, lun=lun, tag=tag, ahs=ahs)


def data_out(seq: Sequence, tag: int, lun: bytes, number: int, offset: int, nbytes: int, *, last: bool) -> bytes:
    """Unsolicited SCSI Data-Out (11.7)."""
    special = _DATA_OUT.pack(NO_TAG, seq.status, number, offset)
    return _pdu(0x05, FINAL if last else 0, special, lun=lun, tag=tag, nbytes=nbytes)


def data_in(seq: Sequence, tag: int, lun: bytes, number: int, offset: int, nbytes: int, *, last: bool) -> bytes:
    """SCSI Data-In (11.7) without status."""
    special = _DATA_IN.pack(NO_TAG, 0, seq.command, seq.command + 127, number, offset, 0)
    return _pdu(0x25, FINAL if last else 0, special, lun=lun, tag=tag, nbytes=nbytes)


def response(
    seq: Sequence,
    tag: int,
    status: int,
    *,
    code: int = 0,
    flags: int = 0,
    residual: int = 0,
    in_residual: int = 0,
    pdus: int = 0,
    nbytes: int = 0,
) -> bytes:
    """SCSI Response (11.4). `code` 0: completed at target, 1: target failure; `pdus`: Data-In that came before."""
    special = _RESPONSE.pack(0, seq.status, seq.command, seq.command + 127, pdus, in_residual, residual)
    return _pdu(0x21, FINAL | flags, special, byte2=code, byte3=status, tag=tag, nbytes=nbytes)


def manage(seq: Sequence, tag: int, lun: bytes, function: int, referenced: int) -> bytes:
    """Task Management Function Request (11.5), immediate; `function` is iSCSI's."""
    special = _MANAGE.pack(referenced, seq.command, seq.status, seq.command, 0)
    return _pdu(0x02 | IMMEDIATE, FINAL | function, special, lun=lun, tag=tag)


def managed(seq: Sequence, tag: int, code: int) -> bytes:
    """Task Management Function Response (11.6)."""
    special = _ANSWER.pack(seq.status, seq.command, seq.command + 127)
    return _pdu(0x22, FINAL, special, byte2=code, tag=tag)


def login(seq: Sequence, tag: int, session: int, text: bytes) -> bytes:
    """Login Request (11.12): from operational negotiation to full feature phase; `session` makes the ISID."""
    isid = b"\x80" + session.to_bytes(5, "big") + bytes(2)
    special = _LOGIN.pack(0, seq.command, seq.status)
    return _pdu(0x03 | IMMEDIATE, 0x87, special, lun=isid, tag=tag, nbytes=len(text))


def logged_in(seq: Sequence, tag: int, session: int, status: tuple[int, int], text: bytes) -> bytes:
    """Login Response (11.13). `status`: class and detail."""
    isid = b"\x80" + session.to_bytes(5, "big") + (b"\0\1" if status == (0, 0) else bytes(2))
    special = _LOGGED_IN.pack(seq.status, seq.command, seq.command + 127, *status)
    flags = 0x87 if status == (0, 0) else 0
    return _pdu(0x23, flags, special, lun=isid, tag=tag, nbytes=len(text))


def logout(seq: Sequence, tag: int) -> bytes:
    """Logout Request (11.14): close the session."""
    return _pdu(0x06 | IMMEDIATE, FINAL, _LOGIN.pack(0, seq.command, seq.status), tag=tag)


def logged_out(seq: Sequence, tag: int) -> bytes:
    """Logout Response (11.15)."""
    return _pdu(0x26, FINAL, _LOGGED_OUT.pack(seq.status, seq.command, seq.command + 127), tag=tag)


def event(seq: Sequence, lun: bytes, code: int, nbytes: int) -> bytes:
    """Asynchronous Message (11.9). `code` 0: sense data follow; 1: the target asks for a logout."""
    special = _ASYNC.pack(seq.status, seq.command, seq.command + 127, code, 0)
    return _pdu(0x32, FINAL, special, lun=lun, nbytes=nbytes)
