# SPDX-License-Identifier: BSD-2-Clause
"""What the control mode page says of tasks, over rings: obeyed at once, back to the saved values with a reset, saved.

A range lock that the test holds keeps commands in the task set. Must not know how the native core decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from served import absorb, bad, good, mode_page, mode_select, served

from initiator import CommandAborted, Initiator
from target.native import lib
from vscsi.native import lib as abi
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.status import Status

NACA = 4
READ = cdb.READ_10.build(lba=100, transfer_length=1)
BAD_NACA = cdb.READ_10.build(lba=0xFFFFFFFF, transfer_length=1)[:9] + bytes([NACA])
BAD = BAD_NACA[:9] + b"\0"


@contextmanager
def disk(folder: Path, keys: str = "") -> Iterator[tuple]:
    image = folder / "image"
    if not image.exists():
        image.write_bytes(bytes(1 << 20))
    with served(folder, f"0={image}{keys}", initiators=2) as (target, (one, two)):
        yield target, one, two


@contextmanager
def locked(target, lba: int, blocks: int) -> Iterator[None]:
    """Commands that touch these blocks wait meanwhile."""
    held = lib.vt_range_lock(target.server.target, 0, 0, lba, blocks, 0)
    assert held > 0
    try:
        yield
    finally:
        assert lib.vt_range_unlock(target.server.target, 0, held) == 0


def read(initiator: Initiator) -> int:
    return initiator.execute(0, READ, data_in=512).status


def start(initiator: Initiator) -> None:
    """A READ of block 0 that has entered the task set."""
    initiator.submit(0, cdb.READ_10.build(lba=0, transfer_length=1), data_in=512)
    initiator.execute(0, cdb.INQUIRY.build(allocation_length=5), data_in=5)


def end(initiator: Initiator) -> int | None:
    """The status with which the oldest has ended; None: none, it was aborted."""
    [done] = initiator.reap(max=1, timeout=10)
    assert done.error is None or isinstance(done.error, CommandAborted)
    return None if done.error else done.status


@pytest.mark.parametrize("tst", [0, 1])
def test_aca_and_separate_task_sets(tmp_path: Path, tst: int) -> None:
    with disk(tmp_path) as (_, one, two):
        mode_select(one, mode.CONTROL, tst=tst)
        absorb(two)
        bad(one, BAD_NACA, sense.LBA_OUT_OF_RANGE)
        assert read(one) == Status.ACA_ACTIVE
        assert read(two) == (Status.GOOD if tst else Status.BUSY)
        assert one.task_management(abi.SRP_TMF_CLEAR_ACA, 0) == abi.SRP_RESP_COMPLETE
        assert read(one) == read(two) == Status.GOOD


def test_somebody_else_may_end_an_aca_condition_with_a_reset(tmp_path: Path) -> None:
    with disk(tmp_path) as (_, one, two):
        bad(one, BAD_NACA, sense.LBA_OUT_OF_RANGE)
        assert two.task_management(abi.SRP_TMF_LUN_RESET, 0) == abi.SRP_RESP_COMPLETE
        assert absorb(one) == absorb(two) == [0x2903]
        assert read(one) == read(two) == Status.GOOD


def test_an_initiator_that_goes_takes_its_aca_condition_along(tmp_path: Path) -> None:
    with disk(tmp_path) as (_, one, two):
        bad(one, BAD_NACA, sense.LBA_OUT_OF_RANGE)
        assert read(two) == Status.BUSY
        one.close()
        while (status := read(two)) == Status.BUSY:
            pass
        assert status == Status.GOOD


@pytest.mark.parametrize(("qerr", "tas"), [(0, 0), (1, 0), (1, 1), (3, 1)])
def test_an_error_and_the_tasks_of_others(tmp_path: Path, qerr: int, tas: int) -> None:
    with disk(tmp_path) as (target, one, two):
        mode_select(one, mode.CONTROL, qerr=qerr, tas=tas)
        absorb(two)
        with locked(target, 0, 1):
            start(one)
            start(two)
            bad(one, BAD, sense.LBA_OUT_OF_RANGE)
            if qerr:
                assert end(one) is None
            if qerr == 1:
                assert end(two) == (Status.TASK_ABORTED if tas else None)
        if qerr == 0:
            assert end(one) == Status.GOOD
        if qerr != 1:
            assert end(two) == Status.GOOD
        assert absorb(two) == ([0x2F00] if qerr == 1 and not tas else [])


@pytest.mark.parametrize("modifier", [0, 1])
def test_restricted_reordering(tmp_path: Path, modifier: int) -> None:
    """A READ of what an older WRITE of its own nexus writes: only without restriction it does not wait."""
    write = cdb.WRITE_10.build(lba=0, transfer_length=2)
    with disk(tmp_path) as (target, one, two):
        mode_select(one, mode.CONTROL, queue_algorithm_modifier=modifier)
        absorb(two)
        with locked(target, 1, 1):
            first = one.submit(0, write, data_out=b"n" * 1024)
            second = one.submit(0, cdb.READ_10.build(lba=0, transfer_length=1), data_in=512)
            if modifier:
                [done] = one.reap(max=1, timeout=10)
                assert (done.tag, bytes(done.data_in)) == (second, bytes(512))
            assert good(two, cdb.READ_10.build(lba=0, transfer_length=1), data_in=512) == bytes(512)
        done = [one.reap(max=1, timeout=10)[0] for _ in range(2 - modifier)]
        assert done[0].tag == first
        assert modifier or bytes(done[1].data_in) == b"n" * 512


@pytest.mark.parametrize("interlock", [0, 2, 3])
def test_interlocked_unit_attentions(tmp_path: Path, interlock: int) -> None:
    with disk(tmp_path) as (_, one, two):
        mode_select(one, mode.CONTROL, ua_intlck_ctrl=interlock, d_sense=1)
        bad(two, READ, sense.MODE_PARAMETERS_CHANGED)
        if interlock:
            bad(two, READ, sense.MODE_PARAMETERS_CHANGED)
            assert absorb(two) == [0x2A01]
        assert read(two) == Status.GOOD


def test_limit_of_the_task_set(tmp_path: Path) -> None:
    with disk(tmp_path, ",queue=2") as (target, one, two):
        with locked(target, 0, 1):
            start(one)
            start(one)
            assert read(one) == Status.TASK_SET_FULL
            assert read(two) == Status.BUSY
        assert end(one) == end(one) == Status.GOOD
        assert read(one) == read(two) == Status.GOOD


def test_a_reset_brings_the_saved_values_back_and_the_next_target_has_them(tmp_path: Path) -> None:
    saved = {"tst": 1, "qerr": 3, "tas": 1, "ua_intlck_ctrl": 2, "queue_algorithm_modifier": 0, "d_sense": 1}
    with disk(tmp_path) as (_, one, two):
        mode_select(one, mode.CONTROL, sp=1, **saved)
        kept = mode_page(one, mode.CONTROL)
        mode_select(one, mode.CONTROL, tst=0, qerr=0, tas=0, ua_intlck_ctrl=0, queue_algorithm_modifier=1, d_sense=0)
        assert mode_page(one, mode.CONTROL) != kept
        absorb(two)
        bad(one, BAD_NACA, sense.LBA_OUT_OF_RANGE)
        assert read(two) == Status.BUSY, "one task set"
        assert two.task_management(abi.SRP_TMF_LUN_RESET, 0) == abi.SRP_RESP_COMPLETE
        assert absorb(one) == absorb(two) == [0x2903], "and no 2A/01 beside it"
        assert mode_page(one, mode.CONTROL) == mode_page(one, mode.CONTROL, pc=3) == kept
    for _ in range(2):
        with disk(tmp_path) as (_, one, two):
            assert mode_page(one, mode.CONTROL) == kept
            assert bad(one, BAD_NACA, sense.LBA_OUT_OF_RANGE).sense[0] == 0x72
            assert (read(one), read(two)) == (Status.ACA_ACTIVE, Status.GOOD), "two task sets"


@pytest.mark.parametrize(("name", "value"), [("tst", 2), ("qerr", 2), ("queue_algorithm_modifier", 2)])
def test_values_that_do_not_exist(tmp_path: Path, name: str, value: int) -> None:
    with disk(tmp_path) as (_, one, _two):
        data = bytearray(mode_page(one, mode.CONTROL))
        before = bytes(data)
        mode.CONTROL.layout.put(data, {name: value})
        raw = cdb.MODE_SELECT_6.build(pf=1, parameter_list_length=4 + len(data))
        bad(one, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, bytes(4) + bytes(data))
        assert mode_page(one, mode.CONTROL) == before
