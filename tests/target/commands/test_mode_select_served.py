# SPDX-License-Identifier: BSD-2-Clause
"""MODE SELECT over a ring: the native core obeys what has been changed, and other initiators learn of it."""

from pathlib import Path

from served import absorb, bad, good, mode_page, mode_select, served

from vscsi.native import lib as abi
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.sense import MODE_PARAMETERS_CHANGED


def test_software_write_protection_and_sense_format(tmp_path: Path) -> None:
    write = cdb.WRITE_10.build(lba=0, transfer_length=1)
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    with served(tmp_path, f"0={image}", initiators=2) as (_, (one, two)):
        mode_select(one, mode.CONTROL, swp=1)
        assert absorb(two) == [MODE_PARAMETERS_CHANGED.code & 0xFFFF]
        assert absorb(one) == []
        for initiator in (one, two):
            done = bad(initiator, write, sense.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED, bytes(512))
            assert done.sense[0] == 0x70
        mode_select(two, mode.CONTROL, d_sense=1)
        done = bad(two, write, sense.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED, bytes(512))
        assert done.sense[0] == 0x72
        assert one.task_management(abi.SRP_TMF_LUN_RESET, 0) == abi.SRP_RESP_COMPLETE
        absorb(one)
        assert mode_page(one, mode.CONTROL) == mode_page(one, mode.CONTROL, pc=2), "nothing was saved"
        good(one, write, bytes(512))


def test_saved_values_reach_the_native_core_of_the_next_target(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    with served(tmp_path, f"0={image}") as (_, (one,)):
        mode_select(one, mode.CONTROL, sp=1, swp=1, d_sense=1)
        mode_select(one, mode.CACHING, wce=0)
    with served(tmp_path, f"0={image}") as (_, (one,)):
        done = bad(one, cdb.WRITE_16.build(transfer_length=1), sense.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED, bytes(512))
        assert done.sense[0] == 0x72
        assert mode_page(one, mode.CACHING)[2] == 4, "was not saved"


def test_turning_the_write_cache_off_makes_earlier_writes_durable(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    with served(tmp_path, f"0={image}") as (target, (one,)):
        unit, flushes = target.server.units[0], []
        flush = unit.store.flush
        unit.store.flush = lambda: (flushes.append(1), flush())
        good(one, cdb.WRITE_10.build(lba=3, transfer_length=1), b"x" * 512)
        assert not flushes
        mode_select(one, mode.CACHING, wce=0)
        assert flushes == [1]
        good(one, cdb.WRITE_10.build(lba=4, transfer_length=1), b"y" * 512)
        assert flushes == [1], "writes are durable by themselves now"
        assert not unit.native_config().flags & 1
