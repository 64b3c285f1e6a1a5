# SPDX-License-Identifier: BSD-2-Clause
"""The native core's counts of a unit: commands and blocks, of SRP, whoever ran them; what failed is no block moved."""

from pathlib import Path

import pytest
from served import good, served

from target.scsi_device import Counts
from vscsi.scsi import cdb, log


@pytest.mark.parametrize("store", ["image", "mem:1M"])
def test_counts(tmp_path: Path, store: str) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    with served(tmp_path, f"0={tmp_path / store if store == 'image' else store}", "1=mem:1M") as (target, (one,)):
        unit = target.server.units[0]
        before = unit.device.counts(unit)
        good(one, cdb.WRITE_10.build(lba=8, transfer_length=3), bytes(3 * 512))
        good(one, cdb.WRITE_16.build(lba=8, transfer_length=1), bytes(512))
        good(one, cdb.READ_10.build(lba=0, transfer_length=16), data_in=16 * 512)
        good(one, cdb.READ_6.build(lba=0, transfer_length=0), data_in=256 * 512)
        assert one.execute(0, cdb.READ_10.build(lba=2048, transfer_length=1), data_in=512).status == 2
        good(one, cdb.VERIFY_10.build(lba=0, verification_length=4))
        good(one, cdb.READ_10.build(lba=0, transfer_length=1), lun=1, data_in=512)
        now = unit.device.counts(unit)
        moved = Counts(*(a - b for a, b in zip(now, before, strict=True)))
        assert moved[1:] == (2, 272, 4, 0, 0)
        assert moved.reads in (2, 3), "one that fails in the checks may count, its blocks never"
        raw = cdb.LOG_SENSE.build(pc=1, page_code=2, allocation_length=255)
        data = good(one, raw, data_in=255)
        written = log.decode(data)[1][0]
        assert int.from_bytes(written.raw[4:]) == now.blocks_written * 512
