# SPDX-License-Identifier: BSD-2-Clause
"""Helper: range locks taken and given back by hand, what commands that meet them look like."""

import time

from raw_wire import (
    RSPVALID,
)

from target.native import ffi, lib

SLOW = b"\x41" + bytes(9)
SYNC = b"\x35" + bytes(9)
NO_ENTRY, INVALID, SHUTDOWN, TIMED_OUT, CANCELED = -2, -22, -108, -110, -125
ABORTED = (RSPVALID, b"\0\0\0\0")
LONG = 10000
BLKIF_READ, BLKIF_WRITE = 0, 1


def lock(rig, lba, blocks, timeout_ms=0, task=0, lu=0) -> int:
    return int(lib.vt_range_lock(rig.t, task, lu, lba, blocks, timeout_ms))


def unlock(rig, *ids, lu=0) -> None:
    for id_ in ids:
        assert lib.vt_range_unlock(rig.t, lu, id_) == 0


def elsewhere(pool, rig, *args, **kw) -> int:
    """A lock of another thread: those of one do not exclude each other."""
    return pool.submit(lock, rig, *args, **kw).result()


def none_queued(rig) -> bool:
    return lib.vt_request_next(rig.t, ffi.new("struct vt_request *"), 30) == 0


def waits(future) -> bool:
    time.sleep(0.05)
    return not future.done()
