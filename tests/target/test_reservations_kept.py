# SPDX-License-Identifier: BSD-2-Clause
"""Reservations over restarts, from files that are whole or damaged; and two nexuses that preempt each other at once."""

import threading

import pytest
from fake_device import FakeDevice, FakePort

from target.reservations import Reservations
from target.state import State
from vscsi.scsi import cdb, sense
from vscsi.scsi.reservations import encode_out
from vscsi.scsi.status import Status

GOOD, CONFLICT = Status.GOOD, Status.RESERVATION_CONFLICT


def port_id(n: int) -> bytes:
    return bytes([n]) * 16


# ---- over restarts ----


def booted(state: State, lun: int = 0) -> FakeDevice:
    device = FakeDevice(f"{lun}=mem:1M")
    device.units[lun].state = state
    device.units[lun].part(Reservations).start()
    device.connect(1, port_id(1))
    return device


def do(device: FakeDevice, sa: int, data: bytes, kind: int = 0, *, lun: int = 0) -> Status:
    raw = cdb.ROWS[0x5F, sa].build(type=kind, parameter_list_length=len(data))
    return device.run(raw, FakePort(data), nexus=1, lun=lun).status


def test_another_lun_number_is_fine(tmp_path) -> None:
    device = booted(State(tmp_path / "x"))
    assert do(device, 0, encode_out(0, 7, aptpl=1, all_tg_pt=1)) is GOOD
    assert do(device, 1, encode_out(7), 3) is GOOD
    again = booted(State(tmp_path / "x"), lun=5)
    state = again.units[5].part(Reservations).state
    assert (dict(state.keys), state.type, state.holder) == ({port_id(1): 7}, 3, port_id(1))
    assert (state.aptpl, state.generation, state.all_tg_pt) == (True, 0, {port_id(1)})
    assert do(again, 0, encode_out(7, 8), lun=5) is GOOD  # APTPL=0: nothing is kept any more
    assert dict(booted(State(tmp_path / "x")).units[0].part(Reservations).state.keys) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "{", "[]", "{}", '{"registrations": [], "type": 3, "holder": null}',
        '{"registrations": [{"port": "00", "key": "7", "all_tg_pt": false}], "type": null, "holder": null}',
        '{"registrations": [], "type": 7, "holder": null}', '{"registrations": 5, "type": null, "holder": null}',
        '{"registrations": [], "type": 2, "holder": null}',
        '{"registrations": [], "type": 1, "holder": "01010101010101010101010101010101"}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_set_aside(tmp_path, caplog, damage) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "reservations.json").write_text(damage)
    device = booted(State(folder))
    assert device.units[0].part(Reservations).state.keys == {}
    assert [path.name for path in folder.iterdir()] == ["reservations.damaged"]
    assert (folder / "reservations.damaged").read_text() == damage
    assert caplog.records
    assert do(device, 0, encode_out(0, 7, aptpl=1)) is GOOD


def test_what_cannot_be_kept_has_not_happened(monkeypatch, tmp_path) -> None:
    device = booted(State(tmp_path / "x"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(device.units[0].state, "save", full)
    before = device.units[0].part(Reservations).state
    data = encode_out(0, 7, aptpl=1)
    raw = cdb.PERSISTENT_RESERVE_OUT_REGISTER.build(parameter_list_length=24)
    result = device.run(raw, FakePort(data), nexus=1)
    assert sense.decode(result.sense).matches(sense.SPACE_ALLOCATION_FAILED)
    assert device.units[0].part(Reservations).state is before


# ---- races ----


def preempt_each_other() -> tuple[FakeDevice, dict[int, Status]]:
    device = FakeDevice("0=mem:1M")
    for n in (1, 2):
        device.connect(n, port_id(n))
        raw = cdb.PERSISTENT_RESERVE_OUT_REGISTER.build(parameter_list_length=24)
        assert device.run(raw, FakePort(encode_out(0, n)), nexus=n).status is GOOD
    assert do(device, 1, encode_out(1), 8) is GOOD
    raw = cdb.PERSISTENT_RESERVE_OUT_PREEMPT_AND_ABORT.build(type=3, parameter_list_length=24)
    start, status = threading.Barrier(2), {}

    def run(n: int) -> None:
        start.wait()
        status[n] = device.run(raw, FakePort(encode_out(n, 0)), nexus=n).status

    threads = [threading.Thread(target=run, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return device, status


@pytest.mark.parametrize("_", range(20))
def test_of_two_who_preempt_each_other_one_wins(_) -> None:
    """Exactly one is left registered, holds, and only the other has been told."""
    device, status = preempt_each_other()
    winner = next(n for n in (1, 2) if status[n] is GOOD)
    loser = 3 - winner
    assert status[loser] is CONFLICT
    state = device.units[0].part(Reservations).state
    assert (dict(state.keys), state.holder) == ({port_id(winner): winner}, port_id(winner))
    assert device.attentions[loser, 0] == [0x2A05]
    assert not device.attentions.get((winner, 0))
    assert device.denied[0] == (3, {winner: 0, loser: 3})
    assert device.aborted == [(0, [loser])]
