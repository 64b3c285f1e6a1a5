# SPDX-License-Identifier: BSD-2-Clause
"""What a peer can write into shared memory, against a real target process: slots, tables and grants that a process
of the attacker's rewrites at full speed, indexes that jump, requests that are wrong, storms of events. Each time the
target says one line or none, and the well-behaved initiator beside it goes on. Knows the wire by struct.
"""

import contextlib
import itertools
import random
import struct
import time

import oracle_srp as oracle
from bus_initiator import RawSrp, RawVbd
from hostile_field import LONG
from real_server import TEST_UNIT_READY, read_10

from vscsi.native import lib

SECONDS = 10.0 if LONG else 0.7
PAGE = 4096
LUN0 = bytes(8)

# Rewrites byte ranges of the memfd for ever: "offset:hex:hex" each, first one content, then the other.
FLIP = """
import mmap, os, sys
fd = int(sys.argv[1])
memory = mmap.mmap(fd, os.fstat(fd).st_size)
ranges = []
for word in sys.argv[2:]:
    offset, one, two = word.split(":")
    one, two = bytes.fromhex(one), bytes.fromhex(two)
    ranges.append((slice(int(offset), int(offset) + len(one)), one, two))
print("on", flush=True)
while True:
    for where, one, two in ranges:
        memory[where] = two
    for where, one, two in ranges:
        memory[where] = one
"""


def flip(field, memory, *ranges: tuple[int, bytes, bytes]) -> None:
    words = [f"{offset}:{one.hex()}:{two.hex()}" for offset, one, two in ranges]
    child = field.child(FLIP, memory.fd, *words, pass_fds=[memory.fd])
    assert child.stdout is not None and child.stdout.readline() == "on\n"


def direct(gref: int, nbytes: int, va: int = 0) -> bytes:
    return struct.pack(">QII", va, gref, nbytes)


def cmd(tag: int, cdb: bytes, *, in_: bytes = b"", out: bytes = b"", fmt: int = 0, ocount: int = 0, icount: int = 0):
    head = struct.pack(">BB3xBBBQ4x8sBBBB", 2, 0, fmt, ocount, icount, tag, LUN0, 0, 0, 0, 0)
    return (head + cdb.ljust(16, b"\0") + out + in_).ljust(248, b"\0")[:248]


def pump(channel: RawSrp, requests, seconds: float) -> int:
    """Sends them round and round, at most a dozen outstanding, until the time is over or the channel is; how many."""
    sent = taken = 0
    deadline = time.monotonic() + seconds
    for request in itertools.cycle(requests):
        if time.monotonic() > deadline or channel.state != 4:
            break
        if sent - taken < 12:
            assert lib.vscsi_ring_request(channel.ring.ring, request, len(request)) >= 0
            lib.vscsi_event_send_fd(channel.ring.fd)
            sent += 1
        while (rc := lib.vscsi_ring_take_response(channel.ring.ring, channel.ring.slot)) == 1:
            taken += 1
        assert rc >= 0
    return sent


def lines(field, channel: RawSrp) -> list[str]:
    """What the target said against this device."""
    return [line for line in field.log() if channel.path.removeprefix("device/") in line and "warning" in line]


def test_slots_rewritten_while_read(field):
    """Between READ, WRITE, other opcodes and lengths that do not agree; new channels as old ones are ended."""
    deadline, total, rounds = time.monotonic() + 2 * SECONDS, 0, 0
    while time.monotonic() < deadline:
        channel = field.srp(ring_pages=1)
        memory = channel.raw.connection.memory
        offset = memory.alloc(PAGE)
        gref = memory.grant(offset, PAGE)[0]
        read = cmd(1, read_10(0, 8), in_=direct(gref, PAGE), fmt=1)
        other = [
            cmd(1, b"\x2a" + read_10(8, 1)[1:], out=direct(gref, 512), fmt=0x10),
            cmd(2, read_10(0, 8), in_=direct(gref, 0xFFFFFFFF, 0xFFFFFFFFFFFFF000), fmt=1),
            cmd(
                1,
                read_10(0, 8),
                in_=direct(gref, 160) + struct.pack(">I", 4096) + direct(gref, 512) * 8,
                fmt=2,
                icount=8,
            ),
            cmd(1, b"\x12", in_=direct(gref, 96), fmt=1),
        ]
        change = other[rounds % len(other)]
        start = channel.ring.offset + 64
        flip(field, memory, *((start + 248 * slot, read, change) for slot in range(16)))
        total += pump(channel, [read, change], SECONDS / 2)
        rounds += 1
        field.leave()
        field.bystander.alive()
    assert total > 100 * SECONDS
    field.check()


def test_grants_and_tables_rewritten_in_use(field):
    """Entries of the data pages granted, revoked, made read-only, sent to other frames; the external table as well."""
    channel = field.srp(ring_pages=1)
    memory = channel.raw.connection.memory
    offset = memory.alloc(24 * PAGE)
    grefs = memory.grant(offset, 24 * PAGE)
    table = offset + 23 * PAGE
    good = b"".join(direct(gref, PAGE) for gref in grefs[:16])
    bad = b"".join(direct(gref ^ 0x40000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF) for gref in grefs[:16])
    entries = [(gref * 8, bytes(memory.view[gref * 8 : gref * 8 + 8])) for gref in grefs[:16]]
    others = itertools.cycle(
        struct.pack("<HHI", *entry)
        for entry in ((0, 0, 0), (1 | 4, 0, 9), (1, 7, 9), (1, 0, 0xFFFFFFFF), (3, 0, 9), (1 | 0x100, 0, 9), (1, 0, 0))
    )
    flip(field, memory, (table, good, bad), *((at, entry, next(others)) for at, entry in entries))
    indirect = direct(grefs[23], 256) + struct.pack(">I", 16 * PAGE)
    requests = [
        cmd(1, read_10(0, 128), in_=indirect, fmt=2),
        cmd(2, b"\x2a" + read_10(0, 128)[1:], out=indirect, fmt=0x20),
        cmd(3, read_10(0, 128), in_=direct(grefs[0], 16 * PAGE), fmt=1),
        cmd(4, b"\x12\0\0\0\x60", in_=direct(grefs[0], 16 * PAGE), fmt=1),
    ]
    assert pump(channel, requests, 2 * SECONDS) > 100 * SECONDS
    assert channel.state == 4, "bad grants end commands, not the channel"
    field.check()


INDEXES = [-1, -3, 16, 17, 255, 0x7FFFFFFF, -0x80000000, 0xFFFFFFFF]


def test_indexes_that_jump_or_run_backwards(field):
    for jump in INDEXES:
        channel = field.srp(ring_pages=1)
        header = channel.ring.header
        said = len(lines(field, channel))
        header.req_prod = (header.req_prod + jump) & 0xFFFFFFFF
        lib.vscsi_event_send_fd(channel.ring.fd)
        channel.raw.wait(lambda channel=channel: channel.state != 4, f"{jump}: the channel is ended")
        assert len(lines(field, channel)) == said + 1, field.log()
        field.bystander.alive()
        channel.raw.close()
    field.check()


def test_indexes_flipped_while_they_are_read(field):
    """A process of the attacker's writes the producer index, right and wrong in turns, as fast as it can."""
    for jump in (1, 16, 17, 0x80000000):
        channel = field.srp(ring_pages=1)
        said, memory, at = len(lines(field, channel)), channel.raw.connection.memory, channel.ring.offset
        read = cmd(1, read_10(0, 8), in_=direct(memory.grant(memory.alloc(PAGE), PAGE)[0], PAGE), fmt=1)
        memory.view[at + 64 : at + 64 + 16 * 248] = read * 16
        now = channel.ring.header.req_prod
        flip(field, memory, (at, struct.pack("<I", now), struct.pack("<I", (now + jump) & 0xFFFFFFFF)))
        deadline = time.monotonic() + SECONDS / 2
        while time.monotonic() < deadline and channel.state == 4:
            lib.vscsi_event_send_fd(channel.ring.fd)
            time.sleep(0.001)
        assert len(lines(field, channel)) <= said + 1, field.log()
        field.bystander.alive()
        field.leave()
    field.check()


def test_bad_commands_are_answered_and_leave_the_channel(field):
    """Descriptors that lie: each is answered with an error, and the next command works."""
    channel = field.srp()
    memory = channel.raw.connection.memory
    offset = memory.alloc(20 * PAGE)
    gref, *others = memory.grant(offset, 18 * PAGE)
    readonly = memory.grant(offset + 18 * PAGE, PAGE, readonly=True)[0]
    foreign = memory.gref((offset >> 12) + 19)
    assert lib.vscsi_granter_grant(memory.granter, foreign, 5, (offset >> 12) + 19, False) == 0
    outside = others[-1]
    at = outside * 8
    memory.view[at + 4 : at + 8] = b"\xff\xff\xff\x7f"
    wrap = 0xFFFFFFFFFFFFFE00
    table = others[0]
    itself = offset + PAGE
    memory.view[itself : itself + PAGE] = direct(table, PAGE) * 256
    bad = {
        "gref 0": direct(0, 4096),
        "gref out of range": direct(0xFFFFFFF0, 4096),
        "run past the last gref": direct(memory.gref(memory.nbytes // PAGE - 1), 4096, 0x100000),
        "another domain": direct(foreign, 4096),
        "read-only": direct(readonly, 4096),
        "outside memory": direct(outside, 4096),
        "va wraps": direct(gref, 4096, wrap),
        "va far": direct(gref, 4096, 1 << 50),
    }
    tag = 10
    for name, descriptor in bad.items():
        channel.ring.send(cmd(tag, read_10(0, 8), in_=descriptor, fmt=1))
        rsp = oracle.decode_rsp(channel.ring.take())
        assert rsp.tag == tag and (rsp.status or rsp.response_data not in (b"", bytes(4))), (name, rsp)
        tag += 1
    tables = {
        "table in no page": (direct(0xFFFFFFF0, 256), 4096),
        "table wraps": (direct(gref, 256, wrap + 0x100), 4096),
        "table of 4 GiB": (direct(gref, 0xFFFFFFF0), 4096),
        "table points into itself, 1 MiB": (direct(table, 4096), 1 << 20),
        "total of 4 GiB": (direct(table, 4096), 0xFFFFFFFF),
        "total more than the sum": (direct(table, 16), 1 << 20),
    }
    for name, (descriptor, total) in tables.items():
        indirect = descriptor + struct.pack(">I", total)
        channel.ring.send(cmd(tag, read_10(0, 2048), in_=indirect, fmt=2))
        rsp = oracle.decode_rsp(channel.ring.take())
        assert rsp.tag == tag, name
        if "itself" not in name:
            assert rsp.status or rsp.response_data not in (b"", bytes(4)), (name, rsp)
        tag += 1
    assert channel.command(TEST_UNIT_READY, tag=tag).status == 0
    assert channel.state == 4 and not field.log()
    field.check()


def test_iu_that_break_srp_end_the_channel_with_one_line(field):
    gref = 100
    bad = {
        "opcode": b"\x55".ljust(248, b"\0"),
        "a response": b"\xc1".ljust(248, b"\0"),
        "login again": bytes(248),
        "format 3": cmd(1, read_10(0, 8), in_=direct(gref, 4096), fmt=3),
        "table not a multiple of 16": cmd(1, read_10(0, 8), in_=direct(gref, 17) + bytes(4), fmt=2),
        "table shorter than its count": cmd(1, read_10(0, 8), in_=direct(gref, 16) + bytes(36), fmt=2, icount=2),
        "past the slot": cmd(1, read_10(0, 8), in_=bytes(200), fmt=2, icount=255),
    }
    for name, iu in bad.items():
        channel = field.srp()
        said = len(lines(field, channel))
        channel.ring.send(iu)
        channel.raw.wait(lambda channel=channel: channel.state == 5, f"{name}: Closing")
        assert len(lines(field, channel)) == said + 1, (name, field.log())
        channel.raw.close()
        field.bystander.alive()
    field.check()


def test_more_requests_than_the_limit_and_no_answers_taken(field):
    """Fills its ring, never takes a response, uses one tag for all."""
    for round_ in range(6 if LONG else 2):
        channel = field.srp(ring_pages=4)
        memory = channel.raw.connection.memory
        gref = memory.grant(memory.alloc(PAGE), PAGE)[0]
        slow = cmd(7, b"\x12\0\0\0\x60" if round_ % 2 else read_10(0, 8), in_=direct(gref, PAGE), fmt=1)
        for _ in range(64):
            rc = lib.vscsi_ring_request(channel.ring.ring, slow, 248)
            if rc < 0:
                break
        lib.vscsi_event_send_fd(channel.ring.fd)
        field.bystander.alive()
        with contextlib.suppress(AssertionError):
            channel.target_request(0.2)
        assert len(lines(field, channel)) <= round_ + 1
    field.check()


def test_blkif_requests_that_lie(field):
    vbd = RawVbd(field.raw(), pages=2)
    vbd.connect()
    memory = vbd.raw.connection.memory
    offset = memory.alloc(4 * PAGE)
    gref, table, *_ = memory.grant(offset, 4 * PAGE)
    readonly_at = memory.alloc(PAGE)
    readonly = memory.grant(readonly_at, PAGE, readonly=True)[0]
    ring = vbd.rings[0]

    def request(op, segments, *, nr=None, sector=0):
        body = b"".join(struct.pack("<IBBH", g, first, last, 0) for g, first, last in segments)
        return struct.pack("<BBHIQQ", op, len(segments) if nr is None else nr, 0, 0, 77, sector) + body

    def indirect(op, nr, grefs, sector=0):
        return struct.pack("<BBHIQQHH8II", 6, op, nr, 0, 77, sector, 0, 0, *(grefs + [0] * 8)[:8], 0)

    def discard(sector, count, flag=0):
        return struct.pack("<BBHIQQQ", 5, flag, 0, 0, 77, sector, count)

    bad = [
        request(0, [(gref, 3, 2)]),
        request(0, [(gref, 0, 8)]),
        request(0, [(gref, 0, 255)]),
        request(0, [(gref, 0, 0)] * 10, nr=12),
        request(0, [(gref, 0, 0)] * 10, nr=255),
        request(0, []),
        request(0, [(gref, 0, 7)], sector=1 << 55),
        request(0, [(gref, 0, 7)], sector=0xFFFFFFFFFFFFFFFF),
        request(1, [(0, 0, 7)]),
        request(0, [(readonly, 0, 7)]),
        request(0, [(0xFFFFFFFF, 0, 7)]),
        request(7, []),
        request(255, [(gref, 0, 7)]),
        indirect(0, 0, [table]),
        indirect(0, 257, [table]),
        indirect(0, 65535, [table] * 8),
        indirect(0, 16, [0xFFFFFFFF]),
        indirect(0, 16, [0]),
        indirect(6, 16, [table]),
        indirect(3, 16, [table]),
        indirect(0, 16, [table], sector=0xFFFFFFFFFFFFFFFF),
        discard(0xFFFFFFFFFFFFFFFF, 1),
        discard(0, 0xFFFFFFFFFFFFFFFF),
        discard(1 << 54, 1 << 54),
    ]
    memory.view[offset + PAGE : offset + 2 * PAGE] = struct.pack("<IBBH", table, 0, 9, 0) * 512
    for k, one in enumerate(bad):
        ring.send(one)
        answer = ring.take()
        assert answer is not None, k
        id_, _, status = struct.unpack_from("<QBxh", answer)
        assert id_ == 77 and status in (-1, -2), (k, status)
    assert vbd.flush() is not None and vbd.state == 4 and not field.log()
    # And at random, with the segments rewritten meanwhile.
    chance = random.Random(5)
    flip(field, memory, (offset + PAGE, struct.pack("<IBBH", gref, 0, 7, 0) * 512, bytes(4096)))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        data = bytearray(chance.randbytes(112))
        data[0] = chance.randrange(9)
        ring.send(bytes(data) if chance.random() < 0.5 else indirect(0, chance.randrange(300), [table] * 8))
        assert ring.take() is not None
    field.check()


STORM = """
import os, socket, sys, time
socks = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]
for s in socks:
    s.setblocking(False)
print("on", flush=True)
while True:
    for s in socks:
        try:
            s.send(b"x")
        except BlockingIOError:
            pass
"""


def test_storms_on_every_event_channel(field):
    channel = field.srp()
    vbd = RawVbd(channel.raw)
    vbd.connect()
    fds = [channel.ring.fd, channel.reverse.fd, vbd.rings[0].fd]
    for _ in range(2):
        child = field.child(STORM, *fds, pass_fds=fds)
        assert child.stdout is not None and child.stdout.readline() == "on\n"
    deadline, rounds = time.monotonic() + 2 * SECONDS, field.bystander.rounds
    while time.monotonic() < deadline:
        newcomer = field.srp(b"a newcomer's one")
        assert newcomer.command(TEST_UNIT_READY).status == 0
        newcomer.raw.close()
    assert channel.command(TEST_UNIT_READY).status == 0, "the storming one is served too, only later"
    field.bystander.alive()
    assert field.bystander.rounds > rounds
    field.check()


def test_big_slow_commands_do_not_starve_others(field):
    """Holds what the loop lends for big scattered buffers, and the workers, all the time."""
    channel = field.srp(ring_pages=16)
    memory = channel.raw.connection.memory
    offset = memory.alloc(40 * PAGE)
    grefs = memory.grant(offset, 40 * PAGE)
    table = offset + 39 * PAGE
    memory.view[table : table + 512] = b"".join(direct(grefs[k], 4000, 8) for k in range(32))
    slow = cmd(1, b"\x12\0\0\0\x60", in_=direct(grefs[39], 512) + struct.pack(">I", 32 * 4000), fmt=2)
    before = field.bystander.rounds
    deadline, outstanding, sent = time.monotonic() + 2 * SECONDS, 0, 0
    while time.monotonic() < deadline:
        while outstanding < 200:
            one = bytearray(slow)
            struct.pack_into(">Q", one, 8, sent)
            assert lib.vscsi_ring_request(channel.ring.ring, bytes(one), 248) >= 0
            outstanding, sent = outstanding + 1, sent + 1
        lib.vscsi_event_send_fd(channel.ring.fd)
        while lib.vscsi_ring_take_response(channel.ring.ring, channel.ring.slot) == 1:
            outstanding -= 1
    assert sent > 1000 * SECONDS and field.bystander.rounds > before + 3
    assert field.bystander.slowest < 2.0
    field.check()
