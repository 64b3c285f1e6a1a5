# SPDX-License-Identifier: BSD-2-Clause
"""What each action of PERSISTENT RESERVE OUT does, and which nexuses are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command_in
from reserving import (
    CLEAR,
    IGNORE,
    KEY,
    MOVE,
    PREEMPT,
    PREEMPT_AND_ABORT,
    PREEMPTED,
    READ,
    REGISTER,
    REGISTRATIONS,
    RELEASE,
    RELEASED,
    RESERVE,
    WRITE,
    A,
    B,
    C,
    out,
    out_conflict,
    out_fails,
    read,
    register,
    told,
)

from vscsi.scsi import cdb, sense
from vscsi.scsi import reservations as layout
from vscsi.scsi.reservations import Type, encode_move, encode_out, encode_srp_transportid


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M", "1=mem:1M", state=tmp_path)
    for index in (A, B, C):
        made.connect(index)
    yield made
    made.close()


# ---- what the actions do, and who is told ----


def test_register_and_unregister(device: FakeDevice) -> None:
    out_conflict(device, A, REGISTER, encode_out(1, 2))
    out(device, A, REGISTER, encode_out(0, 0))  # not registered, and not to be: nothing happens
    assert layout.decode_keys(read(device, 0)) == (0, [])
    register(device, A)
    out_conflict(device, A, REGISTER, encode_out(0, 2))
    out(device, A, REGISTER, encode_out(KEY[A], 2))
    out(device, A, IGNORE, encode_out(0xDEAD, 3))
    assert layout.decode_keys(read(device, 0)) == (3, [3])
    out(device, A, REGISTER, encode_out(3, 0))
    assert layout.decode_keys(read(device, 0)) == (4, [])
    out(device, B, IGNORE, encode_out(0, 0))
    assert layout.decode_keys(read(device, 0)) == (4, [])
    assert told(device) == {}


def test_everything_else_wants_a_registration_and_its_key(device: FakeDevice) -> None:
    register(device, A)
    out(device, A, RESERVE, encode_out(KEY[A]), 1)
    before = read(device, 3)
    for who, key in ((B, 0), (B, KEY[A]), (A, KEY[B]), (A, 0)):
        for sa in (RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT):
            out_conflict(device, who, sa, encode_out(key, KEY[A]), 1)
        out_conflict(device, who, MOVE, encode_move(key, 5, 1, encode_srp_transportid(bytes(16))))
    assert read(device, 3) == before
    assert told(device) == {}


@pytest.mark.parametrize("kind", Type)
def test_release_tells_the_other_registrants_of_some_types(device: FakeDevice, kind: Type) -> None:
    register(device, A, B)
    out(device, A, RESERVE, encode_out(KEY[A]), kind)
    out(device, A, RESERVE, encode_out(KEY[A]), kind)
    if kind.all_registrants:
        out(device, B, RESERVE, encode_out(KEY[B]), kind)
    else:
        out_conflict(device, B, RESERVE, encode_out(KEY[B]), kind)
    out_conflict(device, A, RESERVE, encode_out(KEY[A]), Type.EXCLUSIVE_ACCESS if kind == 1 else 1)
    out(device, A, RELEASE, encode_out(KEY[A]), kind)
    assert told(device) == ({B: [RELEASED]} if kind >= 5 else {})
    assert layout.decode_reservation(read(device, 1)) == (2, None)
    assert device.denied[0] == (0, {A: 0, B: 0, C: 0})


@pytest.mark.parametrize("kind", Type)
def test_unregistering_releases(device: FakeDevice, kind: Type) -> None:
    register(device, A, B, C)
    out(device, A, RESERVE, encode_out(KEY[A]), kind)
    out(device, C, REGISTER, encode_out(KEY[C], 0))
    assert told(device) == {}
    out(device, A, REGISTER, encode_out(KEY[A], 0))
    assert told(device) == ({B: [RELEASED]} if kind in (5, 6) else {})
    assert (layout.decode_reservation(read(device, 1))[1] is not None) is (kind in (7, 8))
    out(device, B, REGISTER, encode_out(KEY[B], 0))
    assert layout.decode_reservation(read(device, 1)) == (6, None)
    assert told(device) == {}


def test_clear(device: FakeDevice) -> None:
    register(device, A, B)
    out(device, A, RESERVE, encode_out(KEY[A]), 3)
    out(device, B, CLEAR, encode_out(KEY[B]))
    assert told(device) == {A: [PREEMPTED]}
    assert layout.decode_full_status(read(device, 3)) == (3, [])
    assert device.denied[0] == (0, {A: 0, B: 0, C: 0})


def test_preempt_of_a_registration(device: FakeDevice) -> None:
    register(device, A, B)
    out(device, C, REGISTER, encode_out(0, KEY[B]))  # two with one key
    out_conflict(device, A, PREEMPT, encode_out(KEY[A], 0x77))
    out_fails(device, A, PREEMPT, encode_out(KEY[A], 0), sense.INVALID_FIELD_IN_PARAMETER_LIST, (8, None))
    out(device, A, PREEMPT, encode_out(KEY[A], KEY[B]))
    assert told(device) == {B: [REGISTRATIONS], C: [REGISTRATIONS]}
    assert layout.decode_keys(read(device, 0)) == (4, [KEY[A]])
    out(device, A, RESERVE, encode_out(KEY[A]), 1)
    out_fails(device, A, PREEMPT, encode_out(KEY[A], 0), sense.INVALID_FIELD_IN_PARAMETER_LIST, (8, None))


def test_preempt_of_the_reservation(device: FakeDevice) -> None:
    register(device, A, B, C)
    out(device, A, RESERVE, encode_out(KEY[A]), Type.WRITE_EXCLUSIVE)
    out(device, B, PREEMPT, encode_out(KEY[B], KEY[A]), Type.WRITE_EXCLUSIVE)
    assert told(device) == {A: [REGISTRATIONS]}, "the type is the same: nobody else has lost anything"
    assert device.denied[0] == (WRITE, {A: WRITE, B: 0, C: WRITE})
    out(device, C, PREEMPT, encode_out(KEY[C], KEY[B]), Type.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    assert told(device) == {B: [REGISTRATIONS]}
    assert device.denied[0] == (READ | WRITE, {A: READ | WRITE, B: READ | WRITE, C: 0})
    register(device, A, B)
    out(device, C, PREEMPT, encode_out(KEY[C], KEY[C]), Type.WRITE_EXCLUSIVE)  # of oneself: another type
    assert told(device) == {A: [RELEASED], B: [RELEASED]}
    assert layout.decode_reservation(read(device, 1))[1]["type"] == 1
    assert device.aborted == []


def test_preempt_of_all_registrants(device: FakeDevice) -> None:
    register(device, A, B, C)
    out(device, A, RESERVE, encode_out(KEY[A]), Type.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    out(device, B, PREEMPT, encode_out(KEY[B], KEY[A]), 0)
    assert told(device) == {A: [REGISTRATIONS]}
    assert layout.decode_reservation(read(device, 1))[1]["type"] == 7
    out(device, C, PREEMPT_AND_ABORT, encode_out(KEY[C], 0), Type.EXCLUSIVE_ACCESS)
    assert told(device) == {B: [REGISTRATIONS]}
    assert layout.decode_full_status(read(device, 3))[1][0].holder
    assert device.denied[0] == (3, {A: 3, B: 3, C: 0})
    assert device.aborted == [(0, [B])]


def test_preempt_and_abort(device: FakeDevice) -> None:
    register(device, A, B)
    out(device, C, REGISTER, encode_out(0, KEY[B]))
    out(device, A, PREEMPT_AND_ABORT, encode_out(KEY[A], KEY[B]))
    assert device.aborted == [(0, [B, C])]
    out(device, A, PREEMPT_AND_ABORT, encode_out(KEY[A], KEY[A]))
    assert device.aborted[1:] == [(0, [A])], "its own key: its own other commands"
    out_conflict(device, A, PREEMPT_AND_ABORT, encode_out(KEY[A], KEY[B]))
    assert len(device.aborted) == 2
    register(device, B)
    device.stuck = True
    out_fails(device, A, PREEMPT_AND_ABORT, encode_out(KEY[A], KEY[B]), sense.INTERNAL_TARGET_FAILURE)
    assert layout.decode_keys(read(device, 0))[1] == [KEY[A]], "it is preempted all the same"


def test_register_and_move(device: FakeDevice) -> None:
    to = bytes([9]) * 16
    move = encode_move(KEY[A], 9, 1, encode_srp_transportid(to))
    register(device, A, B)
    out_fails(device, A, MOVE, move, sense.INVALID_FIELD_IN_CDB, (1, 4))
    out(device, A, RESERVE, encode_out(KEY[A]), Type.EXCLUSIVE_ACCESS)
    out_conflict(device, B, MOVE, encode_move(KEY[B], 9, 1, encode_srp_transportid(to)))
    bad = sense.INVALID_FIELD_IN_PARAMETER_LIST
    out_fails(device, A, MOVE, encode_move(KEY[A], 0, 1, encode_srp_transportid(to)), bad, (8, None))
    own = encode_srp_transportid(bytes([A]) * 16)
    out_fails(device, A, MOVE, encode_move(KEY[A], 9, 1, own), bad, (24, None))
    out_fails(device, A, MOVE, encode_move(KEY[A], 9, 2, encode_srp_transportid(to)), bad, (18, None))
    for byte, bit in ((16, 7), (16, 0), (17, 7), (17, 2)):
        changed = bytearray(move)
        changed[byte] |= 1 << bit
        out_fails(device, A, MOVE, bytes(changed), bad, (byte, bit))
    out(device, A, MOVE, move, 0xF, scope=0xF)
    generation, rows = layout.decode_full_status(read(device, 3))
    assert (generation, [(row.key, row.holder) for row in rows]) == (3, [(0xA, False), (0xB, False), (9, True)])
    assert rows[2].transportid == encode_srp_transportid(to)
    assert device.denied[0] == (3, {A: 3, B: 3, C: 3})
    device.connect(9, to)
    assert device.denied[0][1][9] == 0
    back = encode_move(9, 0x99, 1, own, unreg=True)
    out(device, 9, MOVE, back)
    assert [(row.key, row.holder) for row in layout.decode_full_status(read(device, 3))[1]] == [
        (0x99, True),
        (0xB, False),
    ]
    assert told(device) == {}


def test_units_have_nothing_to_do_with_each_other(device: FakeDevice) -> None:
    register(device, A, B)
    out(device, A, RESERVE, encode_out(KEY[A]), 3)
    raw = cdb.PERSISTENT_RESERVE_IN_READ_KEYS.build(allocation_length=99)
    assert do_command_in(device, raw, lun=1, nexus=B) == bytes(8)
    assert device.denied[1] == (0, {A: 0, B: 0, C: 0})
    assert told(device, 1) == {}
