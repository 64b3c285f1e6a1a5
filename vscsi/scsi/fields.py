# SPDX-License-Identifier: BSD-2-Clause
"""Named bit fields in big-endian byte strings, from which encoders and decoders follow.

Knows bytes and bits only. CDBs, INQUIRY data, VPD pages, mode pages and parameter lists are all `Layout`s of `Field`s.
Must not know what any field means.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """`width` bits, `shift` bits above the last bit of the `nbytes` bytes from `byte` on; big-endian."""

    byte: int
    nbytes: int
    shift: int
    width: int
    text: bool = False

    @property
    def mask(self) -> int:
        """Greatest value that fits."""
        return (1 << self.width) - 1

    @property
    def end(self) -> int:
        return self.byte + self.nbytes

    @property
    def pointer(self) -> tuple[int, int | None]:
        """Where sense data points for this field: its first byte, and its leftmost bit unless it starts at bit 7."""
        top = self.shift + self.width - 8 * (self.nbytes - 1) - 1
        return self.byte, None if top == 7 else top

    def get(self, data: bytes | bytearray | memoryview) -> int:
        return int.from_bytes(data[self.byte : self.end]) >> self.shift & self.mask

    def put(self, data: bytearray, value: int) -> None:
        whole = int.from_bytes(data[self.byte : self.end]) & ~(self.mask << self.shift)
        data[self.byte : self.end] = (whole | value << self.shift).to_bytes(self.nbytes)


def bit(byte: int, bit: int) -> Field:
    """One bit of one byte; bit 7 is the leftmost."""
    return Field(byte, 1, bit, 1)


def bits(byte: int, high: int, low: int) -> Field:
    """Bits `high` down to `low` of one byte."""
    return Field(byte, 1, low, high - low + 1)


def be(byte: int, nbytes: int) -> Field:
    """A big-endian number of `nbytes` whole bytes."""
    return Field(byte, nbytes, 0, 8 * nbytes)


def be8(byte: int) -> Field:
    return be(byte, 1)


def be16(byte: int) -> Field:
    return be(byte, 2)


def be24(byte: int) -> Field:
    return be(byte, 3)


def be32(byte: int) -> Field:
    return be(byte, 4)


def be64(byte: int) -> Field:
    return be(byte, 8)


def text(byte: int, nbytes: int) -> Field:
    """ASCII, left-aligned, padded with spaces."""
    return Field(byte, nbytes, 0, 8 * nbytes, text=True)


Value = int | str


class Layout:
    """A fixed-size structure of named fields; what no field covers is reserved."""

    def __init__(self, nbytes: int, **fields: Field) -> None:
        self.nbytes = nbytes
        self.fields: Mapping[str, Field] = fields
        taken = 0
        for name, field in fields.items():
            place = field.mask << field.shift << 8 * max(0, nbytes - field.end)
            if field.end > nbytes or taken & place:
                raise ValueError(f"field {name} overlaps another or the end")
            taken |= place
        self._taken = taken

    def usage(self) -> bytes:
        """One bit for every bit that belongs to a field."""
        return self._taken.to_bytes(self.nbytes)

    def put(self, data: bytearray, values: Mapping[str, Value]) -> None:
        """Writes fields into `data`. TypeError: no such field, or text for a number; ValueError: does not fit."""
        for name, value in values.items():
            field = self.fields.get(name)
            if field is None:
                raise TypeError(f"no field {name!r}")
            if field.text:
                raw = str(value).encode("ascii", "replace")
                if len(raw) > field.nbytes:
                    raise ValueError(f"{name}={value!r} is longer than {field.nbytes} characters")
                data[field.byte : field.end] = raw.ljust(field.nbytes)
                continue
            if not isinstance(value, int):
                raise TypeError(f"{name} is a number")
            if not 0 <= value <= field.mask:
                raise ValueError(f"{name}={value} does not fit in {field.width} bits")
            field.put(data, int(value))

    def build(self, **values: Value) -> bytes:
        """The structure with these fields set and every other bit zero."""
        data = bytearray(self.nbytes)
        for field in self.fields.values():
            if field.text:
                data[field.byte : field.end] = b" " * field.nbytes
        self.put(data, values)
        return bytes(data)

    def numbers(self, data: bytes | bytearray | memoryview) -> dict[str, int]:
        """The number fields that lie wholly within `data`; never raises, whatever the bytes are."""
        size = len(data)
        return {name: f.get(data) for name, f in self.fields.items() if not f.text and f.end <= size}

    def texts(self, data: bytes | bytearray | memoryview) -> dict[str, str]:
        """The text fields that lie wholly within `data`, without padding; what is not ASCII becomes '?'."""
        size = len(data)
        return {
            name: bytes(data[f.byte : f.end]).decode("ascii", "replace").replace("�", "?").strip(" \0")
            for name, f in self.fields.items()
            if f.text and f.end <= size
        }

    def decode(self, data: bytes | bytearray | memoryview) -> dict[str, Value]:
        """Every field, number or text, that lies wholly within `data`."""
        return {**self.numbers(data), **self.texts(data)}
