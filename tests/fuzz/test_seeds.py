# SPDX-License-Identifier: BSD-2-Clause
"""What is recorded of sessions becomes inputs: slots read in pieces, references rebased, tables carried along."""

import struct

import pytest

from fuzz.programs import TARGETS
from fuzz.seeds import (
    DATA_GREF,
    DATA_PAGES,
    PAGE,
    REQUEST,
    RESPONSE,
    TABLE_PAGES,
    InitiatorSeeds,
    Rebase,
    Request,
    Response,
    TargetSeeds,
    events,
    operations,
)

FIRST_DATA = DATA_GREF + TABLE_PAGES


def record(kind: int, at: int, data: bytes) -> bytes:
    return struct.pack("<QII", at, kind, len(data)) + data


def command(form: int, out: bytes = b"", count: int = 0, cdb: bytes = b"\x2a") -> bytes:
    return bytes((2, 0, 0, 0, 0, form << 4, count, 0)) + (7).to_bytes(8, "big") + bytes(16) + cdb.ljust(16, b"\0") + out


def descriptor(gref: int, nbytes: int, va: int = 0) -> bytes:
    return struct.pack(">QII", va, gref, nbytes)


def test_a_slot_that_is_read_in_pieces_is_one_request():
    raw = record(REQUEST, 0x1040, b"head" * 16) + record(REQUEST, 0x1080, b"tail") + record(RESPONSE, 0x1040, b"rsp")
    assert events(raw) == [Request(b"head" * 16 + b"tail"), Response(b"rsp")]


def test_two_slots_are_two_requests():
    raw = record(REQUEST, 0x1040, b"a" * 64) + record(PAGE, 9, b"page") + record(REQUEST, 0x1138, b"b" * 64)
    first, second = events(raw)
    assert (first.iu[:1], second.iu[:1]) == (b"a", b"b")
    assert first.pages == {9: b"page"}


def test_runs_of_references_stay_runs():
    rebase = Rebase()
    assert [rebase.data(gref) for gref in (500, 501, 503)] == [FIRST_DATA, FIRST_DATA + 1, FIRST_DATA + 3]
    assert FIRST_DATA <= rebase.data(499) < FIRST_DATA + DATA_PAGES


@pytest.mark.parametrize("harness", TARGETS)
def test_operations_are_those_of_the_harness(harness):
    found = operations(harness)
    assert sorted(found.values()) == list(range(len(found)))
    assert {"raw", "race", "when_read", "spoil"} <= set(found)


def test_a_direct_descriptor():
    seeds = TargetSeeds("srp")
    one = seeds.srp(Request(command(1, descriptor(900, 513, 64))))
    assert one[:2] == bytes((seeds.ops["raw"], 0))
    assert one[3 + 48 :] == descriptor(FIRST_DATA, 513, 64)


def test_a_table_in_a_page_comes_before_its_command():
    table = descriptor(901, 4096) + descriptor(903, 4096)
    head = descriptor(700, 32, 16) + (8191).to_bytes(4, "big")
    seeds = TargetSeeds("srp")
    made = seeds.srp(Request(command(2, head), {700: (bytes(16) + table).ljust(4096, b"\0")}))
    poke = bytes((seeds.ops["poke"], 0, 0, 16, 0, 31)) + descriptor(FIRST_DATA, 4096) + descriptor(FIRST_DATA + 2, 4096)
    assert made.startswith(poke)
    assert made.endswith(descriptor(DATA_GREF, 32, 16) + (8191).to_bytes(4, "big"))


def test_a_slow_command_is_taken_and_ended_by_a_worker():
    seeds = TargetSeeds("srp")
    inquiry = command(0, cdb=b"\x12\0\0\0\x60\0")
    answer = bytes((0xC1,)) + bytes(7) + (7).to_bytes(8, "big") + bytes(20)
    (made,) = seeds.inputs([Request(inquiry), Response(answer)])
    assert bytes((seeds.ops["worker"], 0x41, 0)) in made


def test_indirect_blkif_request():
    iu = struct.pack("<BBHIQQHHI", 6, 1, 12, 0, 5, 8, 0, 0, 700).ljust(64, b"\0")
    page = b"".join(struct.pack("<IBBH", 800 + i, 0, 7, 0) for i in range(12))
    made = TargetSeeds("blkif").blkif(Request(iu, {700: page}))
    assert struct.pack("<IBBH", FIRST_DATA + 1, 0, 7, 0) in made
    assert made[-64:][28:32] == struct.pack("<I", DATA_GREF)


def test_the_initiator_sends_the_same_shape_and_gets_the_same_answer():
    seeds = InitiatorSeeds("srp")
    answer = struct.pack(">BBHIQHBBIIII", 0xC1, 0, 0, 1, 7, 0, 2, 2, 0, 0, 18, 0) + bytes(18)
    (made,) = seeds.inputs([Request(command(1, descriptor(900, 8192))), Response(answer)])
    submit = bytes((seeds.ops["submit"], 1, 0x82, 0, 8, 0, 0, 1, 0, seeds.ops["flush"]))
    respond = bytes((seeds.ops["respond"], 0, 2, 0x18, 2)) + struct.pack("<II", 18, 0)
    assert made[4:].startswith(submit + respond)
