# SPDX-License-Identifier: BSD-2-Clause
"""Allocation lengths truncate answers and do nothing else; a parameter list that is not all there changes nothing."""

import os
from collections.abc import Iterator

import pytest
import sweep
from fake_device import FakeDevice, FakePort, do_command

from target import commands
from target.commands import Result
from vscsi.scsi import cdb, sense
from vscsi.scsi.cdb import Cdb, Data
from vscsi.scsi.status import Status

TAKING = [
    handler.row
    for handler in commands.handlers().values()
    if handler.row.data is Data.OUT and "parameter_list_length" in handler.row.fields
]
STRESS = "VSCSI_STRESS_SECONDS" in os.environ
"""Then no length is left out, of any command."""
EVERY_LENGTH = cdb.INQUIRY, {"evpd": 1, "page_code": 0x83}


@pytest.fixture(scope="module")
def device() -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M,serial=SER0", "1=mem:1M")
    made.connect(7)
    made.now = lambda: 1e9  # type: ignore[method-assign]
    for raw, data in sweep.PREPARED:
        do_command(made, raw, data)
    yield made
    made.close()


def ask(device: FakeDevice, row: Cdb, fields: dict[str, int], nbytes: int) -> tuple[Result, bytes]:
    port = FakePort(data_in_nbytes=nbytes)
    result = device.run(row.build(**fields, allocation_length=nbytes), port)
    return result, bytes(port.data_in)


@pytest.mark.stress
@pytest.mark.parametrize("case", list(sweep.asking()), ids=sweep.name)
def test_allocation_lengths(device: FakeDevice, case: tuple[Cdb, dict[str, int]]) -> None:
    row, fields = case
    whole, data = ask(device, row, fields, sweep.greatest(row))
    if row in sweep.FORMS and "evpd" not in fields:
        assert data
    step = 1 if case == EVERY_LENGTH or STRESS else 997
    for nbytes in sweep.lengths(row, len(data), step):
        got, came = ask(device, row, fields, nbytes)
        assert (got.status, got.sense) == (whole.status, whole.sense)
        assert came == data[:nbytes], f"allocation length {nbytes}"
        assert got.in_nbytes == len(came)


@pytest.mark.parametrize("row", TAKING, ids=lambda row: row.symbol)
def test_lists_that_the_buffer_does_not_hold(device: FakeDevice, row: Cdb) -> None:
    """The CDB names more than the initiator's buffer has: refused before a byte is looked at."""
    fields = {"pf": 1} if "pf" in row.fields else {}
    for nbytes in (1, 4, 12, 24, 28, 200):
        for short in {0, nbytes // 2, nbytes - 1}:
            port = FakePort(bytes(short))
            result = device.run(row.build(**fields, parameter_list_length=nbytes), port)
            assert result.status is Status.CHECK_CONDITION
            assert sense.decode(result.sense).key == sense.Key.ILLEGAL_REQUEST
            assert not port.fetched
    assert not any(device.attentions.values())
