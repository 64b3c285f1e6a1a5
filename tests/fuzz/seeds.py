# SPDX-License-Identifier: BSD-2-Clause
"""Recorded sessions as inputs of the fuzz targets: the same requests and answers, rebased to the harness's memory.

Knows the formats of slots, of records (native/record.h) and of the harnesses' operations; knows no process. Numbers of
operations are those of the tables in the harnesses, which are read here.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fuzz.programs import NATIVE

REQUEST, RESPONSE, PAGE = 1, 2, 3
PAGE_NBYTES = 4096
MOST_NBYTES = 700
MOST_TABLE = 24 * 16
"""Bytes of an indirect table that are worth an input's room."""

# The harness's memory (native/fuzz.h): references of its data pages, of which the first few hold tables.
DATA_GREF, TABLE_PAGES, DATA_PAGES = 8 + 6, 4, 12
POKE_NBYTES = 64

SRP_CMD, SRP_TSK_MGMT, SRP_I_LOGOUT = 2, 1, 3
BLKIF_INDIRECT = 6
DIRECT, INDIRECT = 1, 2
MEDIA = {0x28, 0x2A, 0x88, 0x8A, 0x35, 0x08, 0x0A}
SLOW_LUN = 2
"""The unit that Python serves, in the harness and in the sessions."""
LUN_RESET = 8


@dataclass
class Request:
    """What a slot held, the tables that it named, and where in the session its answer came."""

    iu: bytes
    pages: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Response:
    """What was written to a slot."""

    iu: bytes


Event = Request | Response


def events(raw: bytes) -> list[Event]:
    """A file of records as requests and responses in their order. A slot is read piece by piece."""
    found: list[Event] = []
    at, last, end = 0, None, -1
    while at + 16 <= len(raw):
        where, kind, nbytes = struct.unpack_from("<QII", raw, at)
        data = raw[at + 16 : at + 16 + nbytes]
        at += 16 + nbytes
        if kind == RESPONSE:
            found.append(Response(data))
        elif kind == PAGE:
            for event in found:
                if isinstance(event, Request):
                    event.pages.setdefault(where, data)
        elif last is not None and where == end:
            last.iu += data
        else:
            last = Request(data)
            found.append(last)
        end = where + nbytes if kind == REQUEST else -1
    return found


def operations(harness: str) -> dict[str, int]:
    """Name (without op_) and number of every operation of a harness."""
    text = (NATIVE / f"{harness}_fuzz.c").read_text()
    table = text[text.index("operations[] = {") :]
    return {name: number for number, name in enumerate(re.findall(r"\{ op_(\w+), ", table))}


# ---- slots ----


def tag_of(event: Event, protocol: str) -> bytes:
    """The tag of an IU, or the id of a blkif request or response."""
    return event.iu[0:8] if protocol == "blkif" and isinstance(event, Response) else event.iu[8:16]


@dataclass
class Lists:
    """Where in an SRP_CMD its descriptors stand: (offset, direction) of direct ones; of tables likewise."""

    direct: list[tuple[int, str]] = field(default_factory=list)
    tables: list[tuple[int, str]] = field(default_factory=list)


def lists(iu: bytes) -> Lists:
    """The descriptors of an SRP_CMD."""
    found, at = Lists(), 48 + (iu[31] & 0xFC)
    for direction, form, count in (("out", iu[5] >> 4, iu[6]), ("in", iu[5] & 0xF, iu[7])):
        if form == DIRECT:
            found.direct.append((at, direction))
            at += 16
        elif form == INDIRECT:
            found.tables.append((at, direction))
            found.direct += [(at + 20 + 16 * i, direction) for i in range(count)]
            at += 20 + 16 * count
    return found


class Rebase:
    """References of one request in the harness's memory: tables come first, data behind them, runs stay runs."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.tables: dict[int, int] = {}

    def data(self, gref: int) -> int:
        if self.first is None:
            self.first = gref
        return DATA_GREF + TABLE_PAGES + (gref - self.first) % DATA_PAGES

    def table(self, gref: int) -> int:
        return DATA_GREF + self.tables.setdefault(gref, len(self.tables) % TABLE_PAGES)

    def descriptors(self, raw: bytes) -> bytes:
        """Direct descriptors, one behind the other."""
        rows = struct.iter_unpack(">QII", raw[: len(raw) // 16 * 16])
        return b"".join(struct.pack(">QII", va, self.data(key), nbytes) for va, key, nbytes in rows)

    def segments(self, raw: bytes) -> bytes:
        """blkif segments, one behind the other."""
        rows = struct.iter_unpack("<IHH", raw[: len(raw) // 8 * 8])
        return b"".join(struct.pack("<IHH", self.data(gref), sectors, rest) for gref, sectors, rest in rows)


# ---- the target's harness ----


class TargetSeeds:
    """A session as programs of target_fuzz.c."""

    # persistent, engine, lu_flags, misc, request_limit, batch: see world.h.
    CONFIGURATIONS = (
        (0, 0, 0x21, 0, 16, 8),
        (0, 0x82, 0x21, 0, 16, 8),  # held, can be cancelled
        (3, 0x20, 0x23, 0, 16, 8),  # persistent grants, turns
        (0, 0x22, 0xA5, 4, 16, 8),  # held, turns at a rotating device, simulated disk
        (0, 0x40, 0x30, 0, 16, 8),  # the product's pool, unaligned buffers are bounced
        (3, 0x41, 0x09, 1, 16, 8),  # its io_uring, tap
        (4, 0x40, 0x60, 0x10, 16, 8),
    )

    def __init__(self, protocol: str) -> None:
        self.protocol, self.ops = protocol, operations("target")
        self.channel = 1 if protocol == "blkif" else 0
        self.cold = False
        self.waiting: dict[bytes, bytes] = {}

    def op(self, name: str, *operands: int, data: bytes = b"") -> bytes:
        return bytes((self.ops[name], *operands)) + data

    def poke(self, gref: int, offset: int, data: bytes) -> bytes:
        """Writes to a data page."""
        frame = gref - DATA_GREF
        return b"".join(
            self.op("poke", 0, frame, *struct.pack("<H", offset + at), len(part) - 1, data=part)
            for at in range(0, len(data), POKE_NBYTES)
            for part in (data[at : at + POKE_NBYTES],)
        )

    def srp(self, request: Request) -> bytes:
        """An SRP_CMD with its tables."""
        iu, before, rebase = bytearray(request.iu), b"", Rebase()
        found = lists(request.iu)
        for at, _ in found.direct:
            iu[at : at + 16] = rebase.descriptors(request.iu[at : at + 16])
        for at, _ in found.tables:
            va, key, nbytes = struct.unpack_from(">QII", iu, at)
            offset, page = va % PAGE_NBYTES, request.pages.get(key + va // PAGE_NBYTES, b"")
            if page and not any(direct > at for direct, _ in found.direct) and nbytes <= MOST_TABLE:
                struct.pack_into(">QI", iu, at, offset, rebase.table(key))
                before += self.poke(rebase.table(key), offset, rebase.descriptors(page[offset : offset + nbytes]))
        return before + self.op("raw", self.channel, len(bytes(iu).rstrip(b"\0")), data=bytes(iu).rstrip(b"\0"))

    def blkif(self, request: Request) -> bytes:
        """A request with its segments."""
        iu, before, rebase = bytearray(request.iu), b"", Rebase()
        if iu[0] == BLKIF_INDIRECT:
            count = struct.unpack_from("<H", iu, 2)[0]
            gref = struct.unpack_from("<I", iu, 28)[0]
            table = rebase.segments(request.pages.get(gref, b"")[: min(count, 48) * 8])
            struct.pack_into("<I", iu, 28, rebase.table(gref))
            before = self.poke(rebase.table(gref), 0, table)
        elif iu[0] != 5:
            iu[24 : 24 + 8 * iu[1]] = rebase.segments(bytes(iu[24 : 24 + 8 * iu[1]]))
        return before + self.op("raw", self.channel, len(iu), data=bytes(iu))

    def request(self, request: Request) -> bytes:
        if self.protocol == "blkif":
            return self.blkif(request)
        self.waiting[request.iu[8:16]] = request.iu
        if request.iu[0] == SRP_CMD:
            return self.srp(request)
        self.cold |= request.iu[0] == 0
        return self.op("raw", self.channel, 64, data=request.iu[:64].ljust(64, b"\0"))

    def response(self, response: Response, held: bool) -> bytes:
        """What the harness has to do for such an answer to come."""
        asked = self.waiting.pop(tag_of(response, self.protocol), b"") if self.protocol == "srp" else b""
        if asked[:1] in (b"\0", b"\x03"):
            return self.op("python", 1, 0)
        reset = asked[:1] == bytes((SRP_TSK_MGMT,)) and asked[30] == LUN_RESET
        slow = asked[:1] == bytes((SRP_CMD,)) and (asked[32] not in MEDIA or asked[21] == SLOW_LUN)
        if not (slow or reset):
            return self.op("engine", 0, 0) if held else b""
        status, key = response.iu[19], response.iu[38] & 0xF if len(response.iu) > 38 else 0
        sizes = dict.fromkeys(("out", "in"), 0)
        for at, direction in lists(asked).direct if slow else ():
            sizes[direction] += struct.unpack_from(">I", asked, at + 12)[0]
        what = 0x41 | (2 if sizes["out"] else 0) | (4 if sizes["in"] else 0)
        moved = struct.pack("<HH", 0, min(max(sizes.values()), 512))
        result = struct.pack("<BHHB", status, min(sizes["in"], 512), min(sizes["out"], 512), key)
        return self.op("worker", what, 0, data=moved + result)

    def inputs(self, session: Iterable[Event], number: int = 0) -> Iterator[bytes]:
        """The session cut into programs that fit, each with another configuration from `number` on."""
        body = b""
        for event in session:
            held = self.CONFIGURATIONS[number % len(self.CONFIGURATIONS)][1] & 2 != 0
            more = self.request(event) if isinstance(event, Request) else self.response(event, held)
            if body and len(body) + len(more) > MOST_NBYTES:
                yield self.configuration(number) + body
                number, body = number + 1, b""
            body += more
        if body:
            yield self.configuration(number) + body

    def edges(self) -> Iterator[bytes]:
        """What our own initiator never sends: lists in part in the IU, and each limit from inside and from outside."""
        number = 0
        for count, claimed in ((3, 5), (3, 3), (3, 2), (4, 0)):
            listed = struct.pack("<BHH", 6, 0, 1280) * 5
            head = struct.pack("<BBBH", 0x80 | count | claimed // 2 << 3, 0, 0, 4096)
            inline = struct.pack("<BHH", 4, 512, 512) * count
            table = self.op("table", 0, 0, 5, 0, data=listed)
            # READ(10) of 8 blocks with data-in, WRITE(10) with data-out.
            for opcode, form in ((0, 0x21), (1, 0x02)):
                body = self.op("command", 0, opcode, 0, form, 1, 0, 0, 8, data=head + inline)
                yield self.configuration(number) + table + body
                number += 2
        for segments in (64, 65, 200):
            table = self.op("table", 6, 0, 1, 0, 0x00, 8)
            for operation in (0, 1):
                yield self.configuration(number) + table + self.op("blkif", 1, 6, operation, 1, 0, segments, 0, 0)
                number += 2
        # Buffers that O_DIRECT does not take, with the product's engines.
        for engine in (0x40, 0x41):
            for opcode, form, offset in ((1, 0x01, 100), (0, 0x10, 100), (0, 0x10, 0), (1, 0x01, 512)):
                direct = struct.pack("<BHH", 4, offset, 8192)
                yield bytes((0, engine, 0x30, 0, 16, 8)) + (
                    self.op("command", 0, opcode, 0, form, 1, 3, 1, 2, data=direct) + self.op("run", 3)
                )
        for frame, flags in ((40, 1), (48, 1), (200, 1), (0xFF, 1), (40, 5), (10, 0)):
            granted = self.op("grant", 0, 14, frame, flags)
            direct = struct.pack("<BHH", 8, 0, 512)
            yield (
                self.configuration(number)
                + granted
                + (
                    self.op("command", 0, 0, 0, 0x10, 1, 0, 0, 1, data=direct)
                    + self.op("blkif", 1, 0, 1, 1, 0, 0x00, 8)
                    + self.op("command", 0, 1, 0, 0x01, 2, 0, 0, 1, data=direct)
                )
            )
            number += 1

    def configuration(self, number: int) -> bytes:
        values = bytearray(self.CONFIGURATIONS[number % len(self.CONFIGURATIONS)])
        values[3] |= 2 if self.cold else 0
        self.cold = False
        return bytes(values)


# ---- the initiator's harness ----


class InitiatorSeeds:
    """A session as programs of initiator_fuzz.c: requests of the same shape, and the answers that came."""

    def __init__(self, protocol: str) -> None:
        self.protocol, self.ops = protocol, operations("initiator")
        self.sent: list[bytes] = []

    def op(self, name: str, *operands: int, data: bytes = b"") -> bytes:
        return bytes((self.ops[name], *operands)) + data

    def shape(self, out: int, in_: int, first: int) -> bytes:
        """Operands of a submit, from its first byte on: so many segments of a page each."""
        more = 0x80 if out > 24 else 0
        out = min(out - (24 if more else 0), 7)
        counts = (0x80 | out if out or more else 0) | (0x08 | min(in_, 7) << 4 if in_ else 0)
        if counts & 0x80:
            out = counts & 7
        segments = b"".join(bytes((i % 32, 0)) for i in range(out + (24 if more and counts & 0x80 else 0)))
        in_ = counts >> 4 & 7 if counts & 0x08 else 0
        segments += b"".join(bytes((8 + i, 0)) for i in range(in_))
        return bytes((first | more, counts, 0, 8)) + segments

    def request(self, iu: bytes) -> bytes:
        self.sent.append(iu[8:16])
        if self.protocol == "blkif":
            operation = iu[1] if iu[0] == BLKIF_INDIRECT else iu[0]
            count = struct.unpack_from("<H", iu, 2)[0] if iu[0] == BLKIF_INDIRECT else iu[1] if iu[0] != 5 else 0
            reads = operation == 0
            shape = self.shape(0 if reads else count, count if reads else 0, operation)
            return self.op("submit", data=shape) + self.op("flush")
        if iu[0] == SRP_TSK_MGMT:
            return self.op("management", iu[21], iu[30], 0, 3)
        if iu[0] != SRP_CMD:
            self.sent.pop()
            return b""
        count = {"out": 0, "in": 0}
        for at, direction in lists(iu).direct:
            count[direction] += max(1, -(-struct.unpack_from(">I", iu, at + 12)[0] // PAGE_NBYTES))
        write = 1 if count["out"] else 0
        return self.op("submit", data=self.shape(count["out"], count["in"], write | (iu[29] & 7) << 3)) + self.op(
            "flush"
        )

    def response(self, response: Response) -> bytes:
        tag, iu = tag_of(response, self.protocol), response.iu
        if tag not in self.sent:
            return b""
        which = self.sent.index(tag) & 0x3F
        self.sent.remove(tag)
        if self.protocol == "blkif":
            status = -struct.unpack_from("<h", iu, 10)[0] % 3
            return self.op("respond", which, status, 0) + self.op("reap", 0x0F)
        flags, sense, response_nbytes = iu[18] & 0x3F, *struct.unpack_from(">II", iu, 28)
        residual = struct.unpack_from(">II", iu, 20)
        data = bytes((iu[19],))
        if flags & 0x3C:
            data += struct.pack("<I", max(residual))
        data += struct.pack("<II", sense, response_nbytes)
        code = iu[39] if flags & 1 and len(iu) > 39 else 0
        return self.op("respond", which, flags, 0x1C if flags & 0x3C else 0x18, data=data + bytes((code,))) + (
            self.op("reap", 0x0F)
        )

    def inputs(self, session: Iterable[Event]) -> Iterator[bytes]:
        number, body = 0, b""
        for event in session:
            more = self.request(event.iu) if isinstance(event, Request) else self.response(event)
            if body and len(body) + len(more) > MOST_NBYTES and not self.sent:
                yield self.configuration(number) + body
                number, body = number + 1, b""
            body += more
        if body:
            yield self.configuration(number) + body

    def configuration(self, number: int) -> bytes:
        """Protocol, request limit, options (1: persistent grants), more for the IU's length."""
        return bytes((1 if self.protocol == "blkif" else 0, 14, number & 1, 184))
