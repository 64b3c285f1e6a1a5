# SPDX-License-Identifier: BSD-2-Clause
"""Allocation lengths over a real ring: no byte beyond the answer is written, and none of the target's memory comes."""

from pathlib import Path

import sweep
from served import good, served

from initiator import Initiator
from initiator.done import Done
from initiator.request import Request
from vscsi.native import lib as abi
from vscsi.scsi import cdb
from vscsi.scsi.cdb import Cdb

CANARY = 0xA5
PAGE = 4096


def ask(initiator: Initiator, row: Cdb, fields: dict[str, int], nbytes: int, room: int) -> tuple[Done, bytes]:
    """Runs the command with a buffer of `room` bytes. Data-in as it lies in the granted pages, up to their end."""
    raw = row.build(**fields, allocation_length=nbytes)
    link = initiator.hold(10)
    try:
        return _ask(initiator, initiator.build(link, 0, raw, b"", room, abi.SRP_TSK_SIMPLE, 10, None), room)
    finally:
        link.users.leave()


def _ask(initiator: Initiator, request: Request, room: int) -> tuple[Done, bytes]:
    start = request.in_offset
    end = start + -(-room // PAGE) * PAGE
    view = initiator.memory.view
    view[start:end] = bytes([CANARY]) * (end - start)
    assert request.channel.ring.run(request.call, 10) == 0
    came = bytes(view[start:end])
    return initiator.finish(request, request.call.completion), came


def test_allocation_lengths_with_a_canary_behind_the_buffer(tmp_path: Path) -> None:
    with served(tmp_path, "0=mem:1M,serial=SER0", "1=mem:1M") as (_, (initiator,)):
        for raw, data in sweep.PREPARED:
            good(initiator, raw, data)
        for row, fields in sweep.asking():
            if row is cdb.REPORT_TIMESTAMP:
                continue  # never the same twice
            most = sweep.greatest(row)
            whole, came = ask(initiator, row, fields, most, most)
            data = bytes(whole.data_in)
            assert came == data + bytes([CANARY]) * (len(came) - len(data))
            around = {1, 3, 4, 7, 8, 35, 36, 251, 252, len(data) - 1, len(data), len(data) + 1, 4095, 4097}
            for nbytes in sorted(n for n in around if 0 < n <= most):
                # A buffer of just that size, and one that is longer: both keep their canary.
                for room in (nbytes, nbytes + 100):
                    done, came = ask(initiator, row, fields, nbytes, room)
                    what = f"{sweep.name((row, fields))}: {nbytes} of {room}"
                    assert (done.status, done.sense) == (whole.status, whole.sense), what
                    assert bytes(done.data_in) == data[:nbytes], what
                    expected = data[:nbytes]
                    assert came == expected + bytes([CANARY]) * (len(came) - len(expected)), what
                    assert done.in_residual == room - len(expected), what
