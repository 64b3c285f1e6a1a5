# SPDX-License-Identifier: BSD-2-Clause
"""A logical unit as bytes: against models, in the face of holes that lie, and with ranges that wait."""

import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mount_door import Door, fails

from initiator.mount.disk import Disk

MIB = 1 << 20


class StatusLun:
    """A disk of 100 blocks that tells where its holes are, one extent at a time; a lie where asked to."""

    lun, block_nbytes, blocks = 0, 512, 100

    def __init__(self, holes, lie=None):
        self.holes, self.lie = holes, lie

    def execute(self, cdb, **_):
        from types import SimpleNamespace

        from vscsi.scsi.medium import LbaStatus, encode_lba_status

        if cdb[0] != 0x9E or cdb[1] & 0x1F != 0x12:
            return SimpleNamespace(data_in=bytes(252))
        lba = int.from_bytes(cdb[2:10], "big")
        end = next((n for n in range(lba, 100) if (n in self.holes) != (lba in self.holes)), 100)
        extents = [LbaStatus(lba, end - lba, int(lba in self.holes))] if self.lie is None else self.lie
        return SimpleNamespace(data_in=encode_lba_status(extents))


@given(st.sets(st.integers(0, 99)), st.integers(0, 99 * 512 + 511), st.booleans())
def test_seek_agrees_with_a_model(holes, offset, hole):
    disk = Disk(StatusLun(holes))
    block = offset // 512
    expected = next((n for n in range(block, 100) if (n in holes) == hole), None)
    if expected is not None:
        assert disk.seek(offset, hole=hole) == max(offset, expected * 512)
    elif hole:
        assert disk.seek(offset, hole=True) == 100 * 512
    else:
        fails(errno.ENXIO, lambda: disk.seek(offset, hole=False))


@pytest.mark.parametrize("lie", [[], [(0, 0)], [(50, 3)], [(5, 1), (5, 1)], [(0, 5), (3, 1)]])
def test_a_target_that_tells_nonsense_of_its_holes_holds_nobody_up(lie):
    from vscsi.scsi.medium import LbaStatus

    disk = Disk(StatusLun(set(), [LbaStatus(lba, blocks, 1) for lba, blocks in lie]))
    assert 0 <= disk.seek(7 * 512, hole=True) <= 100 * 512


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "punch", "zero"]),
        st.integers(0, 20000),
        st.integers(1, 9000),
        st.binary(min_size=1, max_size=1),
    ),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(STEPS)
def test_agrees_with_a_bytearray(model_door, steps):
    size = 16384
    for disk in model_door.disks.values():
        disk.write(0, bytes(size))
        model = bytearray(size)
        for what, offset, nbytes, byte in steps:
            end = min(offset + nbytes, size)
            if what == "read":
                assert disk.read(offset, nbytes) == model[offset:end]
            elif what == "write" and offset < size:
                assert disk.write(offset, byte * nbytes) == end - offset
                model[offset:end] = byte * (end - offset)
            elif what in ("punch", "zero") and offset < size:
                getattr(disk, what)(offset, nbytes)
                model[offset:end] = bytes(end - offset)
        assert disk.read(0, size) == model


@pytest.fixture(scope="module")
def model_door(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    made = Door(folder, f"0={folder}/a,size=16k", f"1={folder}/b,size=16k,bs=4096")
    yield made
    made.close()
