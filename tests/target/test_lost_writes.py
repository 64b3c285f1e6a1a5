# SPDX-License-Identifier: BSD-2-Clause
"""Durable writes that fail in Python: if other data may be lost with them, nothing syncs any more.

Knows the system calls of a store with a descriptor; the native core's half is in tests/crash/test_lost_data.py.
"""

import errno
import os
from pathlib import Path

import pytest

from target.lu import open_lu
from target.lunspec import parse
from vscsi.scsi.sense import CheckCondition


@pytest.mark.parametrize(
    ("code", "witness", "lost"),
    [
        (errno.EIO, None, True),
        (errno.ENOSPC, None, False),
        (errno.ENOSPC, errno.ENOSPC, True),
        (errno.EFBIG, None, False),
        (errno.EROFS, errno.EIO, False),
    ],
)
@pytest.mark.parametrize("scheme", ["", "sim:", "crypt:"])
def test_an_error_that_earlier_data_may_be_lost_with_is_remembered(tmp_path, monkeypatch, scheme, code, witness, lost):
    unit = open_lu(parse(f"0={scheme}{tmp_path}/disk.img,size=64k"))
    try:
        unit.write(memoryview(bytes(512)), 0)
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            if witness and fd != getattr(unit.store, "_inner", unit.store).fd:
                raise OSError(witness, "the witness")
            real(fd)

        def pwritev(*_: object) -> int:
            raise OSError(code, "a test")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", pwritev)
            patch.setattr(os, "fdatasync", fdatasync)
            with pytest.raises(CheckCondition):
                unit.write(memoryview(bytes(512)), 1, fua=True)
        if lost:
            with pytest.raises(CheckCondition):
                unit.flush()
        else:
            unit.flush()
            unit.write(memoryview(bytes(512)), 1, fua=True)
    finally:
        unit.close()


def test_nothing_is_left_open(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for text in ("disk.img,size=64k", "disk.img"):
        open_lu(parse(f"0={tmp_path}/{text}")).close()
    open_lu(parse(f"0=sim:{tmp_path}/disk.img")).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
