# SPDX-License-Identifier: BSD-2-Clause
"""READ and WRITE over a raw ring: data, residuals, descriptors, errors of grants and of the image."""

import os
import struct

import pytest
from raw_initiator import (
    direct,
)


def read10(lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", 0x28, flags, lba, 0, blocks, 0)


def write10(lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, flags, lba, 0, blocks, 0)


@pytest.mark.parametrize("engine", [1, 2])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("spin_ns", [0, 50000])
def test_write_then_read(make_rig, engine, persistent, spin_ns):
    rig = make_rig(engine=engine, spin_ns=spin_ns)
    fd = rig.file()
    rig.lu(fd=fd)
    memory = rig.memory()
    channel = rig.srp(memory, persistent=persistent)
    frame = memory.alloc(4)
    data = os.urandom(8192)
    memory.write(frame, data)
    rsp = channel.command(write10(3, 16), out=direct(frame + 8, 8192))
    assert (rsp.status, rsp.flags) == (0, 0)
    assert os.pread(fd, 8192, 3 * 512) == data
    rsp = channel.command(read10(3, 16), in_=direct(frame + 2 + 8, 8192))
    assert (rsp.status, rsp.flags) == (0, 0)
    assert memory.read(frame + 2, 8192) == data
    assert memory.flags(frame) & 24 == (8 if persistent else 0)
    assert memory.flags(frame + 2) & 24 == (24 if persistent else 0)
