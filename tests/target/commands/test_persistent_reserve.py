# SPDX-License-Identifier: BSD-2-Clause
"""PERSISTENT RESERVE IN and OUT by their bytes: answers, parameter lists, and what is wrong with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command_fail, do_command_in
from reserving import (
    CLEAR,
    IGNORE,
    KEY,
    MOVE,
    OUT,
    PREEMPT,
    PREEMPT_AND_ABORT,
    READ,
    REGISTER,
    RELEASE,
    RESERVE,
    WRITE,
    A,
    B,
    C,
    out,
    out_fails,
    raw_out,
    read,
    register,
)

from target.reservations import MAX_REGISTRANTS, MAX_REGISTRATIONS
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


def test_a_port_that_is_registered_keeps_its_key(device: FakeDevice) -> None:
    register(device, B)
    out(device, A, REGISTER, encode_out(0, 7, transportids=[encode_srp_transportid(bytes([B]) * 16)]))
    assert layout.decode_keys(read(device, 0)) == (2, [KEY[B], 7])
