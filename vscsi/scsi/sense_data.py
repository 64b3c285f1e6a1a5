# SPDX-License-Identifier: BSD-2-Clause
"""Sense data in fixed and descriptor format, both ways (SPC-4 4.5); use it through `vscsi.scsi.sense`.

Knows sense keys and the two formats. A command that fails raises `CheckCondition`, made from a named `Sense`. Must not
know which command failed, how a target chooses between the formats, nor the list of codes (that is `sense.py`).
"""

from dataclasses import dataclass, replace
from enum import IntEnum

FIXED_NBYTES = 18


class Key(IntEnum):
    """Sense keys."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF

    @property
    def text(self) -> str:
        return self.name.replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which byte (and bit, 7 the leftmost) of the CDB or of the parameter list is wrong.

    With COPY ABORTED it points into the parameter list, or with `in_segment` into the segment descriptor.
    """

    byte: int
    bit: int | None = None
    in_cdb: bool = True
    in_segment: bool = False

    def __str__(self) -> str:
        place = f"byte {self.byte}" if self.bit is None else f"byte {self.byte} bit {self.bit}"
        what = "CDB" if self.in_cdb else "segment descriptor" if self.in_segment else "parameter list"
        return f"{place} of the {what}"


@dataclass(frozen=True, slots=True)
class Detail:
    """What sense data may add to its code. `progress` is in 65536ths; `information` an LBA or a byte offset."""

    information: int | None = None
    command_specific: int | None = None
    pointer: Pointer | None = None
    progress: int | None = None
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class Sense:
    """A sense key with an additional sense code and qualifier, and the standard's words for it."""

    key: int
    asc: int
    ascq: int
    name: str

    @property
    def code(self) -> int:
        """key << 16 | asc << 8 | ascq, as the native core has it (enum vt_sense)."""
        return self.key << 16 | self.asc << 8 | self.ascq

    def error(
        self,
        *,
        information: int | None = None,
        command_specific: int | None = None,
        progress: int | None = None,
        deferred: bool = False,
    ) -> "CheckCondition":
        """The exception that ends a command with this sense."""
        return CheckCondition(self, Detail(information, command_specific, None, progress, deferred))

    def at(self, byte: int, bit: int | None = None, *, in_cdb: bool = True) -> "CheckCondition":
        """The same, pointing at what is wrong in the CDB or the parameter list."""
        return CheckCondition(self, Detail(pointer=Pointer(byte, bit, in_cdb)))

    def encode(self, detail: Detail | None = None, *, descriptor: bool = False) -> bytes:
        """Sense data, current or deferred, in fixed (18 bytes) or descriptor format."""
        detail = detail or Detail()
        return _encode_descriptor(self, detail) if descriptor else _encode_fixed(self, detail)


NAMES: dict[tuple[int, int], Sense] = {}
"""Named codes by (asc, ascq), filled by `sense.py`."""


class CheckCondition(Exception):
    """Ends a command with CHECK CONDITION and this sense."""

    def __init__(self, sense: Sense, detail: Detail | None = None) -> None:
        super().__init__(sense, detail)
        self.sense = sense
        self.detail = detail or Detail()

    def __str__(self) -> str:
        where = f" ({self.detail.pointer})" if self.detail.pointer else ""
        return self.sense.name.lower() + where

    def encode(self, *, descriptor: bool = False) -> bytes:
        """Sense data in the format that D_SENSE asks for."""
        return self.sense.encode(self.detail, descriptor=descriptor)


def _sense_key_specific(detail: Detail) -> bytes:
    """Three bytes, or none (SPC-4 4.5.2.4)."""
    if (pointer := detail.pointer) is not None:
        flags = (
            0x80
            | 0x40 * pointer.in_cdb
            | 0x20 * pointer.in_segment
            | (0 if pointer.bit is None else 0x08 | pointer.bit)
        )
        return bytes([flags]) + min(pointer.byte, 0xFFFF).to_bytes(2)
    if detail.progress is not None:
        return b"\x80" + min(detail.progress, 0xFFFF).to_bytes(2)
    return b""


def _encode_fixed(sense: Sense, detail: Detail) -> bytes:
    data = bytearray(FIXED_NBYTES)
    data[0] = 0x71 if detail.deferred else 0x70
    data[2] = sense.key
    if detail.information is not None and detail.information <= 0xFFFFFFFF:  # else VALID stays 0: it does not fit
        data[0] |= 0x80
        data[3:7] = detail.information.to_bytes(4)
    data[7] = FIXED_NBYTES - 8
    if detail.command_specific is not None and detail.command_specific <= 0xFFFFFFFF:
        data[8:12] = detail.command_specific.to_bytes(4)
    data[12], data[13] = sense.asc, sense.ascq
    specific = _sense_key_specific(detail)
    data[15 : 15 + len(specific)] = specific
    return bytes(data)


def _encode_descriptor(sense: Sense, detail: Detail) -> bytes:
    descriptors = b""
    if detail.information is not None:
        descriptors += b"\x00\x0a\x80\x00" + detail.information.to_bytes(8)
    if detail.command_specific is not None:
        descriptors += b"\x01\x0a\x00\x00" + detail.command_specific.to_bytes(8)
    if specific := _sense_key_specific(detail):
        descriptors += b"\x02\x06\x00\x00" + specific + b"\x00"
    code = 0x73 if detail.deferred else 0x72
    return bytes([code, sense.key, sense.asc, sense.ascq, 0, 0, 0, len(descriptors)]) + descriptors


@dataclass(frozen=True, slots=True)
class DecodedSense:
    """Sense data as received. `response_code` is 0 if the bytes were no sense data that we know."""

    response_code: int = 0
    key: int = 0
    asc: int = 0
    ascq: int = 0
    information: int | None = None
    command_specific: int | None = None
    field_pointer: Pointer | None = None
    progress: int | None = None
    fru: int = 0
    filemark: bool = False
    eom: bool = False
    ili: bool = False
    raw: bytes = b""

    @property
    def deferred(self) -> bool:
        return self.response_code in (0x71, 0x73)

    @property
    def code(self) -> int:
        """key << 16 | asc << 8 | ascq."""
        return self.key << 16 | self.asc << 8 | self.ascq

    def matches(self, sense: Sense) -> bool:
        """Whether key, ASC and ASCQ are those of `sense`."""
        return self.code == sense.code

    def describe(self) -> str:
        """One line for people."""
        if not self.response_code:
            return f"unknown sense data {self.raw.hex(' ')}" if self.raw else "no sense data"
        known = NAMES.get((self.asc, self.ascq))
        words = known.name.lower() if known else f"asc {self.asc:02X}h ascq {self.ascq:02X}h"
        extra = [f"at {self.field_pointer}"] if self.field_pointer else []
        extra += [f"information {self.information}"] if self.information is not None else []
        extra += [f"progress {self.progress * 100 // 65536}%"] if self.progress is not None else []
        extra += ["deferred"] if self.deferred else []
        return ", ".join([f"{Key(self.key).text}: {words}", *extra])


def decode(data: bytes | bytearray | memoryview) -> DecodedSense:
    """Reads sense data of either format, cut short or not. Never raises, whatever the bytes are."""
    raw = bytes(data)
    code = raw[0] & 0x7F if raw else 0
    if code in (0x70, 0x71):
        return _decode_fixed(raw, code)
    if code in (0x72, 0x73):
        return _decode_descriptor(raw, code)
    return DecodedSense(raw=raw)


def _with_specific(result: DecodedSense, specific: bytes) -> DecodedSense:
    if len(specific) < 3 or not specific[0] & 0x80:
        return result
    value = int.from_bytes(specific[1:3])
    if result.key == Key.ILLEGAL_REQUEST:
        bit = specific[0] & 0x07 if specific[0] & 0x08 else None
        return replace(result, field_pointer=Pointer(value, bit, bool(specific[0] & 0x40)))
    if result.key == Key.COPY_ABORTED:
        bit = specific[0] & 0x07 if specific[0] & 0x08 else None
        return replace(result, field_pointer=Pointer(value, bit, False, bool(specific[0] & 0x20)))
    if result.key in (Key.NO_SENSE, Key.NOT_READY):
        return replace(result, progress=value)
    return result


def _decode_fixed(raw: bytes, code: int) -> DecodedSense:
    # An ADDITIONAL SENSE LENGTH shorter than what came along says what of it counts.
    end = min(len(raw), 8 + raw[7]) if len(raw) > 7 else len(raw)
    data = raw[:end].ljust(FIXED_NBYTES, b"\0")
    result = DecodedSense(
        code, data[2] & 0x0F, data[12], data[13],
        information=int.from_bytes(data[3:7]) if data[0] & 0x80 else None,
        command_specific=int.from_bytes(data[8:12]) or None,
        fru=data[14], filemark=bool(data[2] & 0x80), eom=bool(data[2] & 0x40), ili=bool(data[2] & 0x20), raw=raw,
    )  # fmt: skip
    return _with_specific(result, data[15:18])


def _decode_descriptor(raw: bytes, code: int) -> DecodedSense:
    head = raw[:8].ljust(8, b"\0")
    result = DecodedSense(code, head[1] & 0x0F, head[2], head[3], raw=raw)
    rest = raw[8 : 8 + head[7]]
    while len(rest) >= 2 and len(rest) >= 2 + rest[1]:
        kind, body, rest = rest[0], rest[: 2 + rest[1]], rest[2 + rest[1] :]
        if kind == 0x00 and len(body) >= 12 and body[2] & 0x80:
            result = replace(result, information=int.from_bytes(body[4:12]))
        elif kind == 0x01 and len(body) >= 12:
            result = replace(result, command_specific=int.from_bytes(body[4:12]))
        elif kind == 0x02:
            result = _with_specific(result, body[4:7])
        elif kind == 0x03 and len(body) >= 4:
            result = replace(result, fru=body[3])
        elif kind == 0x04 and len(body) >= 4:
            flags = body[3]
            result = replace(result, filemark=bool(flags & 0x80), eom=bool(flags & 0x40), ili=bool(flags & 0x20))
        elif kind == 0x05 and len(body) >= 4:
            result = replace(result, ili=bool(body[3] & 0x20))
    return result
