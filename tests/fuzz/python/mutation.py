# SPDX-License-Identifier: BSD-2-Clause
"""Other inputs made of one: bytes, sequences of items, JSON. And the reader that a target takes its input apart with.

An item is kind (1 byte), size (2 bytes, little-endian), body; so changed bodies keep the frame they stand in, and what
is behind them its place. Knows no target.
"""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 4095, 4096, 0x7FFF, 0x8000, 0xFFFF,
    0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 256, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**40, 0.5, 1e308, -0.0, "",
    "0", "1", "3", "4", "5", "6", "x", "00", "ff", "zz", "-1", "1_0", "\u0663", "\u00b2", "\x1b[2J",
    "a" * 300, [], [[]], {},
    {"": None}, [0] * 20,
)  # fmt: skip


DEEP = "a list in a list, and so on"


class Reader:
    """Takes an input apart; at its end everything is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, nbytes: int) -> bytes:
        """As many as there are, at most."""
        data = self._data[self._at : self._at + nbytes]
        self._at += nbytes
        return data

    def number(self, nbytes: int = 1) -> int:
        return int.from_bytes(self.take(nbytes), "little")

    def blob(self) -> bytes:
        """Its size stands before it, in 2 bytes."""
        return self.take(self.number(2))

    def items(self, most: int = 64) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of each, up to so many."""
        for _ in range(most):
            if not self.more:
                return
            yield self.number(), self.blob()


def item(kind: int, body: bytes) -> bytes:
    """As `Reader.items` takes it."""
    assert len(body) < 1 << 16
    return bytes((kind,)) + len(body).to_bytes(2, "little") + body


# ---- bytes ----


def _place(data: bytearray, rng: Random) -> int:
    """Rather at the beginning, where the numbers stand that the rest hangs on."""
    return rng.randrange(min(len(data), rng.choice((24, 48, len(data)))))


def _flip(data: bytearray, rng: Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: Random) -> None:
    data[_place(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(data: bytearray, rng: Random) -> None:
    nbytes = rng.choice((1, 1, 2, 3, 4, 8))
    at = _place(data, rng)
    value = (rng.choice(NUMBERS) + rng.choice((0, 0, 1, -1))) % (1 << 8 * nbytes)
    data[at : at + nbytes] = value.to_bytes(nbytes, rng.choice(("big", "big", "little")))


def _insert(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _delete(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 16))]


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _repeat(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 4, 16, 64))]
    data[at:at] = piece * rng.choice((1, 2, 10))


_CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip,
    _set,
    _number,
    _number,
    _insert,
    _delete,
    _cut,
    _repeat,
)


def of_bytes(data: bytes, rng: Random) -> bytes:
    """One to four changes anywhere."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.randint(1, 4)):
        rng.choice(_CHANGES)(changed, rng)
        changed = changed or bytearray(1)
    return bytes(changed)


# ---- items ----


def of_items(data: bytes, rng: Random) -> bytes:
    """Changes to some items: their bodies (as JSON where they are), their kinds, their order and number."""
    found = list(Reader(data).items(1000)) or [(0, b"")]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(found))
        kind, body = found[at]
        what = rng.randrange(10)
        if what < 6:
            found[at] = kind, of_json(body, rng) if body[:1] == b"{" else of_bytes(body, rng)
        elif what == 6:
            found[at] = rng.choice((rng.randrange(16), rng.randrange(256))), body
        elif what == 7 and len(found) > 1:
            del found[at]
        elif what == 8:
            found.insert(rng.randrange(len(found) + 1), (kind, body))
        else:
            other = rng.randrange(len(found))
            found[at], found[other] = found[other], found[at]
    return b"".join(item(kind, body[: (1 << 16) - 1]) for kind, body in found)


# ---- JSON ----


def of_json(data: bytes, rng: Random) -> bytes:
    """A value, a key or an entry of a document is another; sometimes the text itself is broken."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(data, rng)
    if rng.random() < 0.1:
        return of_bytes(data, rng)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, (dict, list)):
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                walk(value[key])

    walk(document)
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    for _ in range(rng.randint(1, 2)):
        holder, key = rng.choice(places)
        what = rng.randrange(6)
        if isinstance(holder, list) and not key < len(holder):
            continue
        if isinstance(holder, dict) and key not in holder:
            continue
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[rng.choice(("state", "", "x", str(key) + "0", "a" * 300))] = holder.pop(key)
        elif what == 2 and isinstance(holder[key], str):
            holder[key] = of_bytes(holder[key].encode(errors="replace"), rng).decode("latin-1")
        elif what == 3 and isinstance(holder[key], int):
            holder[key] = int(holder[key]) + rng.choice((1, -1, 1 << 16, 1 << 32, 1 << 64))
        elif what == 4 and rng.random() < 0.2:
            holder[key] = DEEP
        elif isinstance(holder[key], str) and rng.random() < 0.7:
            holder[key] = rng.choice([value for value in VALUES if isinstance(value, str)])
        else:
            holder[key] = rng.choice(VALUES)
    depth = rng.choice((10, 900, 960, 990, 5000))
    return json.dumps(document).encode().replace(json.dumps(DEEP).encode(), b"[" * depth + b"]" * depth)


def of_document(data: bytes, rng: Random) -> bytes:
    """The first byte says which; the rest is JSON."""
    if rng.random() < 0.05:
        return bytes((rng.randrange(256),)) + data[1:]
    return data[:1] + of_json(data[1:], rng)
