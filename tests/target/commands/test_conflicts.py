# SPDX-License-Identifier: BSD-2-Clause
"""Which reservations stand in the way of which command: every handler against the standard's tables, by opcode.

The lists were written from SPC-4 table 51, SBC-3 table 13 and SPC-2, not from the target's table. A new command has to
be put into one of them before it passes.
"""

import pytest
from fake_device import FakeDevice, FakePort

from target import commands
from target.commands.table import Conflict, Handler
from vscsi.scsi import cdb
from vscsi.scsi.reservations import Type, encode_out
from vscsi.scsi.status import Status

# Not even SPC-2's RESERVE keeps these from anybody.
ALWAYS = "03 12 a0 17 57"
# A persistent reservation lets them pass for everybody. 16, 56 and 5f have rules of their own, in their functions; 1b
# and 1e depend on more than the opcode.
PERSISTENT_ALLOWED = """
    00 25 9e/10 4d 16 56 1b 1e 5e/00 5e/01 5e/02 5e/03 5f/00 5f/06 9e/13
    a3/05 a3/0a a3/0f 84/00 84/01 84/03 84/04 84/05 84/06 84/07 84/08
"""
# Of registered nexuses only; of holders only, if there is a reservation (SPC-4 table 52).
REGISTERED, HOLDER = "5f/02 5f/03 5f/04 5f/05", "5f/01 5f/07"
# Exclusive access excludes these, write exclusive does not.
AS_READ = """
    08 28 a8 88 7f/0009 2f af 8f 7f/000a 34 90 9e/12 1a 5a 37 b7 1c a3/0c a3/0d 83/10
    3c/02 3c/03 3c/0a 3c/0b 9b/02 9b/03 9b/0a 9b/0b
"""
AS_WRITE = """
    0a 2a aa 8a 7f/000b 2e ae 8e 7f/000c 41 93 7f/000d 42 89 8b 7f/000e 9c 7f/000f 04 35 91 15 55 4c 1d 3b/02 3b/0a
    48/01 48/02 48/03 48/1f 83/00 83/01 83/11 83/1c a4/06 a4/0a a4/0f
"""


def _keys(text: str) -> set[tuple[int, int | None]]:
    words = [word.split("/") for word in text.split()]
    return {(int(word[0], 16), int(word[1], 16) if len(word) > 1 else None) for word in words}


EXPECTED = {
    Conflict.NONE: _keys(ALWAYS),
    Conflict.SPC2: _keys(PERSISTENT_ALLOWED),
    Conflict.UNREGISTERED | Conflict.SPC2: _keys(REGISTERED),
    Conflict.NOT_HOLDER | Conflict.UNREGISTERED | Conflict.SPC2: _keys(HOLDER),
    Conflict.READ | Conflict.SPC2: _keys(AS_READ),
    Conflict.WRITE | Conflict.SPC2: _keys(AS_WRITE),
}


@pytest.mark.parametrize("handler", commands.handlers().values(), ids=lambda h: h.row.symbol)
def test_every_command_has_the_classes_of_the_standard(handler: Handler) -> None:
    found = [conflict for conflict, keys in EXPECTED.items() if handler.row.key in keys]
    assert found == [handler.conflict], f"{handler.row.name} is in no list, or in the wrong one"


def test_no_command_is_in_two_lists() -> None:
    assert len(set().union(*EXPECTED.values())) == sum(map(len, EXPECTED.values()))


@pytest.fixture
def device() -> FakeDevice:
    made = FakeDevice("0=mem:1M,removable=on")
    made.connect(1)
    made.connect(2)
    for who in (1, 2):
        raw = cdb.PERSISTENT_RESERVE_OUT_REGISTER.build(parameter_list_length=24)
        assert made.run(raw, FakePort(encode_out(0, who)), nexus=who).status is Status.GOOD
    return made


START, PREVENT = cdb.START_STOP_UNIT, cdb.PREVENT_ALLOW_MEDIUM_REMOVAL
AS_FIELDS_SAY = [
    (START.build(start=1), True),
    (START.build(start=1, immed=1), True),
    (START.build(start=0), False),
    (START.build(start=0, loej=1), False),
    (START.build(start=1, power_condition=1), False),
    (START.build(start=0, power_condition=3), False),
    (PREVENT.build(prevent=0), True),
    (PREVENT.build(prevent=1), False),
]


@pytest.mark.parametrize("kind", Type)
@pytest.mark.parametrize("raw,allowed", AS_FIELDS_SAY, ids=lambda x: x.hex() if isinstance(x, bytes) else "")
def test_commands_whose_conflict_depends_on_a_field(device: FakeDevice, kind: Type, raw: bytes, allowed: bool) -> None:
    reserve = cdb.PERSISTENT_RESERVE_OUT_RESERVE.build(type=kind, parameter_list_length=24)
    assert device.run(reserve, FakePort(encode_out(1)), nexus=1).status is Status.GOOD
    registered = allowed or kind in (5, 6, 7, 8)
    expected = {1: True, 2: registered, 3: allowed}
    device.connect(3)
    for who, may in expected.items():
        status = device.run(raw, nexus=who).status
        assert status is (Status.GOOD if may else Status.RESERVATION_CONFLICT), who
        device.run(PREVENT.build(prevent=0), nexus=who)
