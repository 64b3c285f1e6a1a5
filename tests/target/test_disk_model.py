# SPDX-License-Identifier: BSD-2-Clause
"""A real target beside a model of a disk that is a dictionary of blocks: any sequence of commands, byte for byte alike.

Two initiators and a blkif device reach the same small unit, so that commands meet on the same blocks; a second unit
takes part in copies. What must fail has to leave everything as it was.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from real_server import Target

from initiator import Done, Initiator
from initiator.vbd import Vbd
from target.commands import handlers
from vscsi.scsi import cdb, copy, parameters, sense
from vscsi.scsi.cdb import Cdb
from vscsi.scsi.sense import Sense
from vscsi.scsi.status import Status

BLOCKS = 48
LBAS = st.integers(0, BLOCKS + 2)
COUNTS = st.integers(0, 9)
WHO = st.integers(0, 1)
FILLS = st.integers(0, 255)
READS = (cdb.READ_6, cdb.READ_10, cdb.READ_12, cdb.READ_16)
WRITES = (cdb.WRITE_6, cdb.WRITE_10, cdb.WRITE_12, cdb.WRITE_16)
WRITES_AND_VERIFIES = (cdb.WRITE_AND_VERIFY_10, cdb.WRITE_AND_VERIFY_12, cdb.WRITE_AND_VERIFY_16)
VERIFIES = (cdb.VERIFY_10, cdb.VERIFY_12, cdb.VERIFY_16)


class Disk(RuleBasedStateMachine):
    """The model, and the target beside it. `size` is the block length; `keys` are the LUN's."""

    size = 512
    keys = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s"
        nbytes = BLOCKS * self.size
        keys = f",bs={self.size}{self.keys}"
        image = Path(self.folder.name) / "image"
        image.write_bytes(bytes(nbytes))
        self.target = Target(self.path, f"0={image}{keys}", f"1=mem:{nbytes}{keys}")
        self.initiators = [Initiator(self.path) for _ in range(2)]
        for initiator in self.initiators:
            for lun in (0, 1):
                initiator.execute(lun, cdb.TEST_UNIT_READY.build())
        self.vbd = Vbd(self.path, lun=0)
        self.model = {lun: {lba: bytes(self.size) for lba in range(BLOCKS)} for lun in (0, 1)}
        self.unit = self.target.server.units[0]

    def teardown(self) -> None:
        self.vbd.close()
        for initiator in self.initiators:
            initiator.close()
        self.target.stop()
        self.folder.cleanup()

    # ---- what the model does ----

    def data(self, fill: int, blocks: int) -> bytes:
        return b"".join(bytes([fill, n & 0xFF]) * (self.size // 2) for n in range(blocks))

    def blocks(self, lba: int, count: int, lun: int = 0) -> bytes:
        return b"".join(self.model[lun][lba + n] for n in range(count))

    def put(self, lba: int, data: bytes, lun: int = 0) -> None:
        for n in range(len(data) // self.size):
            self.model[lun][lba + n] = data[n * self.size : (n + 1) * self.size]

    def send(self, who: int, raw: bytes, data_out: bytes = b"", data_in: int = 0) -> Done:
        return self.initiators[who].execute(0, raw, data_out=data_out, data_in=data_in)

    def expect(self, done: Done, expected: Sense | None) -> bool:
        """The command ended as it had to; whether that was GOOD."""
        if expected is None:
            assert done.status == Status.GOOD, sense.decode(done.sense).describe()
            return True
        assert done.status == Status.CHECK_CONDITION
        got = sense.decode(done.sense)
        assert got.matches(expected), got.describe()
        return False

    def range_sense(self, lba: int, count: int) -> Sense | None:
        return None if lba + count <= BLOCKS else sense.LBA_OUT_OF_RANGE

    # ---- commands ----

    @rule(who=WHO, row=st.sampled_from(READS), lba=LBAS, count=COUNTS)
    def read(self, who: int, row: Cdb, lba: int, count: int) -> None:
        asked = count or (256 if row.zero_is_256 else 0)
        done = self.send(who, row.build(lba=lba, transfer_length=count), data_in=10 * self.size)
        if self.expect(done, self.range_sense(lba, asked)):
            assert bytes(done.data_in)[: asked * self.size] == self.blocks(lba, asked)
            assert done.in_residual == (10 - asked) * self.size

    @rule(who=WHO, row=st.sampled_from(WRITES), lba=LBAS, count=COUNTS, fill=FILLS, fua=st.booleans())
    def write(self, who: int, row: Cdb, lba: int, count: int, fill: int, fua: bool) -> None:
        if row.zero_is_256 and not count:
            return
        flags = {"fua": fua} if "fua" in row.fields else {}
        data = self.data(fill, count)
        done = self.send(who, row.build(lba=lba, transfer_length=count, **flags), data)
        if self.expect(done, self.range_sense(lba, count)):
            self.put(lba, data)

    @rule(
        who=WHO, row=st.sampled_from(WRITES_AND_VERIFIES), lba=LBAS, count=COUNTS, fill=FILLS, bytchk=st.integers(0, 1)
    )
    def write_and_verify(self, who: int, row: Cdb, lba: int, count: int, fill: int, bytchk: int) -> None:
        data = self.data(fill, count)
        done = self.send(who, row.build(lba=lba, transfer_length=count, bytchk=bytchk), data)
        if self.expect(done, self.range_sense(lba, count)):
            self.put(lba, data)

    @rule(who=WHO, row=st.sampled_from(VERIFIES), lba=LBAS, count=st.integers(1, 9), wrong=st.booleans())
    def verify(self, who: int, row: Cdb, lba: int, count: int, wrong: bool) -> None:
        expected = self.range_sense(lba, count)
        data = bytearray(self.data(1, count) if expected else self.blocks(lba, count))
        if wrong:
            data[-1] ^= 1
        done = self.send(who, row.build(lba=lba, verification_length=count, bytchk=1), bytes(data))
        self.expect(done, expected or (sense.MISCOMPARE_DURING_VERIFY_OPERATION if wrong else None))

    @rule(who=WHO, lba=LBAS, count=COUNTS, fill=FILLS, ndob=st.booleans(), unmap=st.booleans())
    def write_same(self, who: int, lba: int, count: int, fill: int, ndob: bool, unmap: bool) -> None:
        unmap = unmap and self.unit.discard
        raw = cdb.WRITE_SAME_16.build(lba=lba, number_of_logical_blocks=count, ndob=ndob, unmap=unmap)
        block = bytes(self.size) if ndob else self.data(fill, 1)
        done = self.send(who, raw, b"" if ndob else block)
        none = sense.INVALID_FIELD_IN_CDB if not count and self.unit.discard else None  # WSNZ
        if self.expect(done, self.range_sense(lba, count) or none):
            self.put(lba, block * (count or BLOCKS - lba))

    @precondition(lambda self: self.unit.discard)
    @rule(who=WHO, extents=st.lists(st.tuples(LBAS, COUNTS), max_size=4))
    def unmap(self, who: int, extents: list[tuple[int, int]]) -> None:
        data = parameters.encode_unmap(extents)
        done = self.send(who, cdb.UNMAP.build(parameter_list_length=len(data)), data)
        bad = any(lba + count > BLOCKS for lba, count in extents)
        if self.expect(done, sense.LBA_OUT_OF_RANGE if bad else None):
            for lba, count in extents:
                self.put(lba, bytes(count * self.size))

    @rule(who=WHO, lba=LBAS, count=st.integers(1, 5), fill=FILLS, stale=st.booleans())
    def compare_and_write(self, who: int, lba: int, count: int, fill: int, stale: bool) -> None:
        expected = self.range_sense(lba, count)
        old = bytearray(self.data(1, count) if expected else self.blocks(lba, count))
        if stale:
            old[self.size * count // 2] ^= 0x80
        new = self.data(fill, count)
        done = self.send(who, cdb.COMPARE_AND_WRITE.build(lba=lba, number_of_logical_blocks=count), bytes(old) + new)
        if expected is None and stale:
            expected = sense.MISCOMPARE_DURING_VERIFY_OPERATION
            assert sense.decode(done.sense).information == self.size * count // 2
        if self.expect(done, expected):
            self.put(lba, new)

    @rule(who=WHO, lba=LBAS, count=COUNTS, fill=FILLS)
    def orwrite(self, who: int, lba: int, count: int, fill: int) -> None:
        data = self.data(fill, count)
        done = self.send(who, cdb.ORWRITE_16.build(lba=lba, transfer_length=count), data)
        if self.expect(done, self.range_sense(lba, count)):
            self.put(lba, bytes(a | b for a, b in zip(self.blocks(lba, count), data, strict=True)))

    @precondition(lambda self: cdb.WRITE_ATOMIC_16.key in handlers())
    @rule(who=WHO, lba=LBAS, count=COUNTS, fill=FILLS)
    def write_atomic(self, who: int, lba: int, count: int, fill: int) -> None:
        handler = handlers()[cdb.WRITE_ATOMIC_16.key]
        if not handler.supported(self.unit):
            return
        data = self.data(fill, count)
        done = self.send(who, cdb.WRITE_ATOMIC_16.build(lba=lba, transfer_length=count), data)
        if self.expect(done, self.range_sense(lba, count)):
            self.put(lba, data)

    @rule(who=WHO, source=st.integers(0, 1), destination=st.integers(0, 1), a=LBAS, b=LBAS, count=COUNTS)
    def extended_copy(self, who: int, source: int, destination: int, a: int, b: int, count: int) -> None:
        units = [self.target.server.units[lun] for lun in (0, 1)]
        cscds = [copy.encode_cscd(1, 0, 3, unit.naa, self.size) for unit in units]
        data = copy.encode_list_lid1(who, cscds, [copy.encode_blocks(source, destination, count, a, b)])
        done = self.send(who, cdb.EXTENDED_COPY_LID1.build(parameter_list_length=len(data)), data)
        bad = self.range_sense(a, count) or self.range_sense(b, count)
        if self.expect(done, sense.COPY_TARGET_DEVICE_NOT_REACHABLE if bad else None):
            self.put(b, self.blocks(a, count, source), destination)

    @rule(who=WHO)
    def synchronize(self, who: int) -> None:
        self.expect(self.send(who, cdb.SYNCHRONIZE_CACHE_16.build()), None)

    @rule(lba=st.integers(0, BLOCKS - 9), count=st.integers(1, 9), fill=FILLS)
    def write_by_blkif(self, lba: int, count: int, fill: int) -> None:
        data = self.data(fill, count)
        self.vbd.write(lba * self.size // self.vbd.block_nbytes, data)
        self.put(lba, data)

    @rule(lba=st.integers(0, BLOCKS - 9), count=st.integers(1, 9))
    def read_by_blkif(self, lba: int, count: int) -> None:
        factor = self.size // self.vbd.block_nbytes
        assert bytes(self.vbd.read(lba * factor, count * factor)) == self.blocks(lba, count)

    @initialize()
    def begin(self) -> None:
        self.everything_is_as_the_model_has_it()

    @invariant()
    def everything_is_as_the_model_has_it(self) -> None:
        for lun in (0, 1):
            raw = cdb.READ_16.build(transfer_length=BLOCKS)
            done = self.initiators[0].execute(lun, raw, data_in=BLOCKS * self.size)
            assert bytes(done.data_in) == self.blocks(0, BLOCKS, lun)


class Thick(Disk):
    keys = ",discard=off,cache=wt"


class Large(Disk):
    size = 4096


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", [Disk, Thick, Large], ids=lambda kind: kind.__name__)
def test_any_sequence_of_commands(kind: Callable[[], Disk]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        kind,
        settings=settings(
            max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
