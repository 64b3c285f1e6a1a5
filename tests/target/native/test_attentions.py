# SPDX-License-Identifier: BSD-2-Clause
"""Unit attentions and reservations: which of them a command meets first, what takes them away, what brings them back.

Knows raw rings and the native core's words; must not know how the core keeps them.
"""

import pytest
from raw_initiator import row
from raw_wire import ABORT_TASK, code, read10, srp_cmd, tsk_mgmt, write10

from target.native import ffi, lib

INQUIRY = b"\x12" + bytes(5)


@pytest.fixture
def disk(two_nexuses):
    return two_nexuses


def test_unit_attentions_come_in_order_one_at_a_time(disk):
    for ua in (0x2A09, 0x3F0E, 0x2F01, 0x2907, 0x2903, 0x2A09, 0x2902):
        assert lib.vt_ua_establish(disk.t, disk.a.nexus, lib.VT_ALL, 0, ua) == 0
    # 29/02 is a hard reset: what ranks below is gone.
    for ua in (0x2A01, 0x2907, 0x3F03, 0x2903):
        assert lib.vt_ua_establish(disk.t, lib.VT_ALL, disk.b.nexus, lib.VT_ALL, ua) == 0
    disk.a.send(srp_cmd(1, INQUIRY))
    disk.complete(disk.request())
    assert disk.a.answer().status == 0, "INQUIRY neither reports nor clears"
    assert code(disk.a.command(b"\xff" + bytes(5))) == 0x052000
    got = []
    while (rsp := disk.a.command(read10(0, 0))).status:
        got.append(code(rsp) & 0xFFFF)
    assert got == [0x2902, 0x2903, 0x2907, 0x2A01, 0x3F03]
    assert disk.b.command(read10(0, 0)).status == 0


def test_unit_attentions_taken_cleared_and_overflowing(disk):
    t, n = disk.t, disk.a.nexus
    for ua in (0x2907, 0x2A09):
        lib.vt_ua_establish(t, n, lib.VT_ALL, 0, ua)
    assert [lib.vt_ua_take(t, n, 0) for _ in range(3)] == [0x2907, 0x2A09, 0]
    for ua in range(0x2A00, 0x2A00 + 17):
        lib.vt_ua_establish(t, n, lib.VT_ALL, 0, ua)
    assert [lib.vt_ua_take(t, n, 0) for _ in range(2)] == [0x2900, 0]
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2A09)
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2900)
    assert [lib.vt_ua_take(t, n, 0) for _ in range(2)] == [0x2900, 0]


REPORT_LUNS = b"\xa0" + bytes(11)
INVENTORY = 0x3F0E


def inventory(disk) -> list[bool]:
    """Whether REPORTED LUNS DATA HAS CHANGED stands in the queue of A on LUN 0 and 1, and of B; others stay."""
    found = []
    for who, lu in ((disk.a, 0), (disk.a, 1), (disk.b, 0)):
        codes = list(iter(lambda who=who, lu=lu: lib.vt_ua_take(disk.t, who.nexus, lu), 0))
        assert 0x2A09 in codes
        found.append(INVENTORY in codes)
    return found


@pytest.mark.parametrize("lun", [0, 7])
@pytest.mark.parametrize("how", ["good", "bad", "aborted", "too late"])
def test_report_luns_takes_the_inventory_attention_away_only_if_it_ends_good(disk, how, lun):
    """Sent to a unit, or to where there is none. Nor one that has come since the inventory was looked at."""
    disk.lu(lun=1, flags=4)
    for ua in (0x2A09, INVENTORY):
        lib.vt_ua_establish(disk.t, lib.VT_ALL, lib.VT_ALL, lib.VT_ALL, ua)
    disk.a.send(srp_cmd(1, REPORT_LUNS, lun=lun))
    request = disk.request()
    if how == "aborted":
        disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
        disk.a.taken()
    if how == "too late":
        lib.vt_ua_establish(disk.t, disk.a.nexus, lib.VT_ALL, 0, INVENTORY)
    result = ffi.new("struct vt_result *", {"status": 8 * (how == "bad"), "clears": INVENTORY})
    assert lib.vt_request_complete(disk.t, request.task, result) == 0
    assert disk.a.answer().tag in ((1, 9) if how == "aborted" else (1,))
    if how == "aborted":
        disk.a.answer()
    spared = how == "good" or (how == "aborted" and lun == 7)  # where there is no unit there is no task set
    assert inventory(disk) == [not spared, not spared, True]


def test_an_attention_that_request_sense_took_goes_back_to_its_place(disk):
    for ua in (0x2A09, 0x2903, 0x2A01):
        lib.vt_ua_establish(disk.t, disk.a.nexus, lib.VT_ALL, 0, ua)
    for expected in (0x2903, 0x2A09):
        disk.a.send(srp_cmd(1, b"\x03" + bytes(5)))
        request = disk.request()
        assert lib.vt_request_attention(disk.t, request.task) == expected
        assert lib.vt_request_attention(disk.t, request.task) == -2, "one for each command"
        disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
        disk.a.taken()
        disk.complete(request)
        assert [disk.a.answer().tag for _ in range(2)] == [1, 9]
        disk.a.send(srp_cmd(1, b"\x03" + bytes(5)))
        request = disk.request()
        assert lib.vt_request_attention(disk.t, request.task) == expected
        disk.complete(request)
        assert disk.a.answer().status == 0
    assert lib.vt_request_attention(disk.t, request.task) == -2, "no such task"
    assert lib.vt_ua_take(disk.t, disk.a.nexus, 0) == 0x2A01


def test_reservation_conflict_ranks_between_reset_and_other_attentions(disk):
    t, n = disk.t, disk.a.nexus
    assert lib.vt_lu_deny(t, 0, n, 2) == 0
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2A09)
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2907)
    assert code(disk.a.command(write10(0, 0))) == 0x062907
    assert disk.a.command(write10(0, 0)).status == 0x18
    assert code(disk.a.command(read10(0, 0))) == 0x062A09, "the conflict left it pending"
    assert disk.a.command(read10(0, 0)).status == 0
    assert disk.b.command(write10(0, 0)).status == 0
    assert lib.vt_lu_deny(t, 0, lib.VT_ALL, 0) == 0
    assert disk.a.command(write10(0, 0)).status == 0


def test_a_class_that_only_python_looks_for_ranks_before_an_attention(disk):
    """Without one the command goes to Python, which says RESERVATION CONFLICT, or why the CDB is wrong."""
    t, n = disk.t, disk.a.nexus
    assert lib.vt_command_add(t, row(0x5E, 10, conflict=lib.VT_CONFLICT_UNREGISTERED)) == 0
    assert lib.vt_lu_deny(t, 0, n, lib.VT_CONFLICT_UNREGISTERED) == 0
    cdb = b"\x5e" + bytes(9)
    disk.a.send(srp_cmd(1, cdb))
    disk.complete(disk.request(), status=0x18)
    assert disk.a.answer().status == 0x18
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2A09)
    assert disk.a.command(cdb).status == 0x18
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2907)
    assert code(disk.a.command(cdb)) == 0x062907
    assert code(disk.a.command(read10(0, 0))) == 0x062A09
    assert disk.a.command(read10(0, 0)).status == 0, "and a READ never asks for it"


@pytest.mark.parametrize(("last", "denied"), [(0x01, False), (0x00, True), (0x11, True), (0x03, False)])
def test_a_class_that_a_field_of_the_cdb_adds(disk, last, denied):
    """As START STOP UNIT: START 1 with POWER CONDITION 0 is harmless."""
    t, n = disk.t, disk.a.nexus
    start_stop = row(0x1B, 6)
    start_stop.otherwise, start_stop.harmless_byte = 2, 4
    start_stop.harmless_mask, start_stop.harmless_value = 0xF1, 0x01
    assert lib.vt_command_add(t, start_stop) == 0
    assert lib.vt_lu_deny(t, 0, n, 2) == 0
    lib.vt_ua_establish(t, n, lib.VT_ALL, 0, 0x2A09)
    rsp = disk.a.command(b"\x1b" + bytes(3) + bytes([last, 0]))
    assert rsp.status == 0x18 if denied else code(rsp) == 0x062A09
