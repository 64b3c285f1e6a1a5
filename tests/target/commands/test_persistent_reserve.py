# SPDX-License-Identifier: BSD-2-Clause
"""PERSISTENT RESERVE IN and OUT by their bytes: answers, parameter lists, what is wrong with them, who is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in

from target.reservations import MAX_REGISTRANTS, MAX_REGISTRATIONS
from vscsi.scsi import cdb, sense
from vscsi.scsi import reservations as layout
from vscsi.scsi.reservations import Type, encode_move, encode_out, encode_srp_transportid
from vscsi.scsi.status import Status

A, B, C = 1, 2, 3
KEY = {A: 0xA, B: 0xB, C: 0xC}
OUT = {
    sa: cdb.ROWS[0x5F, sa]
    for sa in range(8)
}  # fmt: skip
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE = range(8)
PREEMPTED, RELEASED, REGISTRATIONS = 0x2A03, 0x2A04, 0x2A05
READ, WRITE, SPC2 = 1, 2, 4


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M", "1=mem:1M", state=tmp_path)
    for index in (A, B, C):
        made.connect(index)
    yield made
    made.close()


def raw_out(sa: int, data: bytes, kind: int = 0, scope: int = 0) -> bytes:
    return OUT[sa].build(type=kind, scope=scope, parameter_list_length=len(data))


def out(device: FakeDevice, who: int, sa: int, data: bytes, kind: int = 0, *, lun: int = 0, scope: int = 0) -> None:
    do_command(device, raw_out(sa, data, kind, scope), data, nexus=who, lun=lun)


def conflict(device: FakeDevice, who: int, raw: bytes, data: bytes = b"") -> None:
    assert device.run(raw, FakePort(data), nexus=who).status is Status.RESERVATION_CONFLICT


def out_conflict(device: FakeDevice, who: int, sa: int, data: bytes, kind: int = 0) -> None:
    conflict(device, who, raw_out(sa, data, kind), data)


def out_fails(device, who, sa, data, code, at=None, *, kind=0, scope=0) -> None:
    got = do_command_fail(device, raw_out(sa, data, kind, scope), code, at, data_out=data, nexus=who)
    if at is not None:
        assert got.field_pointer is not None
        assert got.field_pointer.in_cdb is (code is sense.INVALID_FIELD_IN_CDB)


def register(device: FakeDevice, *who: int, **flags: int) -> None:
    for one in who:
        out(device, one, REGISTER, encode_out(0, KEY[one], **flags))


def read(device: FakeDevice, sa: int, who: int = A) -> bytes:
    return do_command_in(device, cdb.ROWS[0x5E, sa].build(allocation_length=4096), nexus=who)


def told(device: FakeDevice, unit: int = 0) -> dict[int, list[int]]:
    """Every unit attention of this unit since last time."""
    found = {nexus: list(codes) for (nexus, index), codes in device.attentions.items() if index == unit and codes}
    device.attentions.clear()
    return found


# ---- IN, by bytes ----


def test_read_keys(device: FakeDevice) -> None:
    assert read(device, 0).hex(" ") == "00 00 00 00 00 00 00 00"
    register(device, A, B)
    assert read(device, 0).hex() == "0000000200000010000000000000000a000000000000000b"


def test_read_reservation(device: FakeDevice) -> None:
    register(device, A)
    assert read(device, 1).hex() == "0000000100000000"
    out(device, A, RESERVE, encode_out(KEY[A]), Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    assert read(device, 1).hex() == "0000000100000010000000000000000a0000000000050000"
    out(device, A, PREEMPT, encode_out(KEY[A], KEY[A]), Type.EXCLUSIVE_ACCESS_ALL_REGISTRANTS)
    assert read(device, 1).hex() == "000000020000001000000000000000000000000000080000"


def test_report_capabilities(device: FakeDevice) -> None:
    assert read(device, 2).hex(" ") == "00 08 1d 90 ea 01 00 00"
    register(device, A, aptpl=1)
    assert read(device, 2).hex(" ") == "00 08 1d 91 ea 01 00 00"
    assert layout.CAPABILITIES.numbers(read(device, 2))["allow_commands"] <= 5


def test_what_cannot_persist_says_so() -> None:
    device = FakeDevice("0=mem:1M")
    device.connect(A)
    assert read(device, 2).hex(" ") == "00 08 1c 90 ea 01 00 00"
    for sa in (REGISTER, IGNORE):
        out_fails(device, A, sa, encode_out(0, 1, aptpl=1), sense.INVALID_FIELD_IN_PARAMETER_LIST, (20, 0))
    out(device, A, REGISTER, encode_out(0, 1))
    out(device, A, RESERVE, encode_out(1), 3)
    move = encode_move(1, 2, 1, encode_srp_transportid(bytes(16)), aptpl=True)
    out_fails(device, A, MOVE, move, sense.INVALID_FIELD_IN_PARAMETER_LIST, (17, 0))


def test_read_full_status(device: FakeDevice) -> None:
    register(device, A)
    register(device, B, all_tg_pt=1)
    out(device, A, RESERVE, encode_out(KEY[A]), Type.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    a = "000000000000000a00000000010600000000000100000018" + "04" + "00" * 7 + "01" * 16
    b = "000000000000000b00000000020000000000000100000018" + "04" + "00" * 7 + "02" * 16
    assert read(device, 3).hex() == "0000000200000060" + a + b
    out(device, A, PREEMPT, encode_out(KEY[A], KEY[A]), Type.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    _, rows = layout.decode_full_status(read(device, 3))
    assert [(row.holder, row.type, row.all_tg_pt) for row in rows] == [(True, 7, False), (True, 7, True)]


@pytest.mark.parametrize("sa", range(4))
def test_allocation_lengths_truncate(device: FakeDevice, sa: int) -> None:
    register(device, A, B)
    whole = read(device, sa)
    for nbytes in (*range(len(whole) + 2), 65535):
        raw = cdb.ROWS[0x5E, sa].build(allocation_length=nbytes)
        assert do_command_in(device, raw, nexus=A) == whole[:nbytes]


@pytest.mark.parametrize("opcode,first", [(0x5E, 4), (0x5F, 8)])
def test_service_actions_that_do_not_exist(device: FakeDevice, opcode: int, first: int) -> None:
    """REPLACE LOST RESERVATION (8) among them: RLR_C=0."""
    for sa in range(first, 32):
        do_command_fail(device, bytes([opcode, sa]) + bytes(8), sense.INVALID_FIELD_IN_CDB, (1, 4), nexus=A)


# ---- parameter lists ----


@pytest.mark.parametrize("sa", range(8))
def test_parameter_list_lengths(device: FakeDevice, sa: int) -> None:
    register(device, A)
    good = encode_move(KEY[A], 5, 1, encode_srp_transportid(bytes(16))) if sa == MOVE else encode_out(KEY[A], KEY[A])
    before = read(device, 3)
    for nbytes in range(len(good) + 40):
        if nbytes == len(good):
            continue
        data = (good + bytes(40))[:nbytes]
        out_fails(device, A, sa, data, sense.PARAMETER_LIST_LENGTH_ERROR, kind=1)
    short = OUT[sa].build(parameter_list_length=len(good), type=1)
    do_command_fail(device, short, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=good[:-1], nexus=A)
    huge = OUT[sa].build(parameter_list_length=0xFFFFFFFF, type=1)
    do_command_fail(device, huge, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=good, nexus=A)
    assert read(device, 3) == before


@pytest.mark.parametrize("sa", [REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE])
def test_reserved_bits_of_the_parameter_list(device: FakeDevice, sa: int) -> None:
    good = encode_out()
    for byte, bits in ((20, (7, 6, 5, 4, 1)), (21, range(8))):
        for bit in bits:
            bad = bytearray(good)
            bad[byte] |= 1 << bit
            out_fails(device, A, sa, bytes(bad), sense.INVALID_FIELD_IN_PARAMETER_LIST, (byte, bit), kind=1)
    if sa != REGISTER:
        with_ports = encode_out(spec_i_pt=1)
        out_fails(device, A, sa, with_ports, sense.INVALID_FIELD_IN_PARAMETER_LIST, (20, 3), kind=1)


def test_obsolete_bytes_are_ignored(device: FakeDevice) -> None:
    data = bytearray(encode_out(0, 5))
    data[16:20] = data[22:24] = b"\xff\xff\xff\xff"
    out(device, A, REGISTER, bytes(data[:22] + b"\xff\xff"), 0xF, scope=0xF)
    assert read(device, 0)[8:].hex() == "0000000000000005"


def test_scope_and_type_of_the_cdb(device: FakeDevice) -> None:
    register(device, A, B)
    for kind in set(range(16)) - set(Type):
        out_fails(device, A, RESERVE, encode_out(KEY[A]), sense.INVALID_FIELD_IN_CDB, (2, 3), kind=kind)
    for scope in range(1, 16):
        out_fails(device, A, RESERVE, encode_out(KEY[A]), sense.INVALID_FIELD_IN_CDB, (2, None), kind=1, scope=scope)
    out(device, A, RESERVE, encode_out(KEY[A]), 1)
    for kind, scope in ((0, 0), (3, 0), (1, 1)):
        bad = sense.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
        out_fails(device, A, RELEASE, encode_out(KEY[A]), bad, kind=kind, scope=scope)
        out(device, B, RELEASE, encode_out(KEY[B]), kind, scope=scope)  # not the holder: no effect
    taking_over = encode_out(KEY[B], KEY[A])
    out_fails(device, B, PREEMPT, taking_over, sense.INVALID_FIELD_IN_CDB, (2, None), kind=0)
    out_fails(device, B, PREEMPT, taking_over, sense.INVALID_FIELD_IN_CDB, (2, None), kind=1, scope=1)
    out(device, A, PREEMPT, encode_out(KEY[A], KEY[B]), 0, scope=3)  # only a registration goes
    assert read(device, 1)[8:].hex() == "000000000000000a0000000000010000"


# ---- SPEC_I_PT ----


def test_ports_not_there_yet_are_registered(device: FakeDevice) -> None:
    later = bytes([9]) * 16
    ids = [encode_srp_transportid(bytes([B]) * 16), encode_srp_transportid(later)]
    out(device, A, REGISTER, encode_out(0, 7, transportids=ids))
    generation, rows = layout.decode_full_status(read(device, 3))
    assert generation == 1
    assert [(row.key, row.transportid[8:]) for row in rows] == [(7, bytes([n]) * 16) for n in (A, B, 9)]
    out(device, A, RESERVE, encode_out(7), Type.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    others, denied = device.denied[0]
    assert (others, denied) == (READ | WRITE, {A: 0, B: 0, C: READ | WRITE})
    device.connect(9, later)
    assert device.denied[0][1] == {A: 0, B: 0, C: READ | WRITE, 9: 0}
    assert device.units[0].remembers(device.known[9])
    assert not device.units[0].remembers(device.known[C])


def test_transportids_that_are_wrong(device: FakeDevice) -> None:
    good = encode_srp_transportid(bytes([B]) * 16)
    base = encode_out(0, 7, spec_i_pt=1)

    def with_ids(data: bytes, length: int | None = None) -> bytes:
        return base + (len(data) if length is None else length).to_bytes(4) + data

    length_error, field = sense.PARAMETER_LIST_LENGTH_ERROR, sense.INVALID_FIELD_IN_PARAMETER_LIST
    for bad in (base, base + bytes(3), with_ids(good[:-1]), with_ids(good, 23), with_ids(good, 25),
                with_ids(good + b"\x04"), with_ids(good, 0xFFFFFFFF)):  # fmt: skip
        out_fails(device, A, REGISTER, bad, length_error)
    out_fails(device, A, REGISTER, with_ids(good + b"\x06" + good[1:]), field, (52, None))
    out_fails(device, A, REGISTER, with_ids(layout.encode_iscsi_transportid("iqn.2000-01.a:b")), field, (28, None))
    out_fails(device, A, REGISTER, with_ids(b"\x44" + good[1:]), field, (28, None))
    assert layout.decode_keys(read(device, 0)) == (0, []), "nobody has been registered"
    out(device, A, REGISTER, with_ids(b""))
    out_fails(device, A, REGISTER, encode_out(7, 8, transportids=[good]), field, (20, 3))
    assert layout.decode_keys(read(device, 0)) == (1, [7])


def test_the_table_of_registrations_is_finite(device: FakeDevice) -> None:
    ids = [encode_srp_transportid(n.to_bytes(16)) for n in range(MAX_REGISTRATIONS)]
    full = encode_out(0, 7, transportids=ids)
    out_fails(device, A, REGISTER, full, sense.INSUFFICIENT_REGISTRATION_RESOURCES)
    out(device, A, REGISTER, encode_out(0, 7, transportids=ids[1:]))
    out_fails(device, B, REGISTER, encode_out(0, 7), sense.INSUFFICIENT_REGISTRATION_RESOURCES)
    out(device, A, REGISTER, encode_out(7, 8))  # a change needs no room
    assert len(layout.decode_keys(read(device, 0))[1]) == MAX_REGISTRATIONS


def test_units_together_leave_room_for_others() -> None:
    luns = MAX_REGISTRANTS // MAX_REGISTRATIONS
    device = FakeDevice(*(f"{lun}=null:1M" for lun in range(luns + 1)))
    device.connect(A)
    for lun in range(luns):
        ids = [encode_srp_transportid((lun << 16 | n).to_bytes(16)) for n in range(1, MAX_REGISTRATIONS)]
        out(device, A, REGISTER, encode_out(0, 7, transportids=ids), lun=lun)
    ids = [encode_srp_transportid((99 << 16 | n).to_bytes(16)) for n in range(luns)]
    data = encode_out(0, 7, transportids=ids)
    do_command_fail(
        device, raw_out(REGISTER, data), sense.INSUFFICIENT_REGISTRATION_RESOURCES, data_out=data, nexus=A, lun=luns
    )
    out(device, A, REGISTER, encode_out(0, 7, transportids=ids[1:]), lun=luns)


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
