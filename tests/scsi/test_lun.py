# SPDX-License-Identifier: BSD-2-Clause
"""LUN addressing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.scsi import lun


def test_known() -> None:
    assert lun.encode(0) == bytes(8)
    assert lun.encode(255).hex() == "00ff000000000000"
    assert lun.encode(256).hex() == "4100000000000000"
    assert lun.encode(16383).hex() == "7fff000000000000"
    assert lun.encode(lun.WLUN_REPORT_LUNS).hex() == "c101000000000000"
    # flat addressing of a small LUN is legal too
    assert lun.decode(bytes.fromhex("4005000000000000")) == 5


@pytest.mark.parametrize(
    "field",
    [
        "0000000000000001", "0001000100000000", "0100000000000000", "8001000000000000", "c102000000000000",
        "d200000100000000", "ffffffffffffffff", "00010000000000", "",
    ],
)  # fmt: skip
def test_what_names_no_unit_of_ours(field: str) -> None:
    assert lun.decode(bytes.fromhex(field)) is None


@given(st.integers(0, lun.LUN_MAX))
def test_round_trip(number: int) -> None:
    assert lun.decode(lun.encode(number)) == number


@pytest.mark.parametrize("number", [-1, 16384, 0xC102])
def test_out_of_range(number: int) -> None:
    with pytest.raises(ValueError, match="not within"):
        lun.encode(number)
