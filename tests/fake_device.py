# SPDX-License-Identifier: BSD-2-Clause
"""A target device without rings for tests of commands: feeds CDBs to `execute` and looks at what comes back."""

import gc
import itertools
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from target.commands import Background, Result, execute
from target.commands.table import Handler
from target.commands.task import Aborted
from target.lu import LogicalUnit
from target.lunspec import parse
from target.native import lib
from target.part import Nexus
from target.scsi_device import Counts, TargetDevice
from target.state import State
from target.stores import Store, StoreSpec, open_store
from vscsi.scsi import lun as lun_
from vscsi.scsi import sense
from vscsi.scsi.cdb import Cdb
from vscsi.scsi.sense import DecodedSense, Sense
from vscsi.scsi.status import Status


@dataclass
class FakePort:
    """An initiator's buffers. `abort_after` counts calls of aborted()."""

    data_out: bytes = b""
    data_in_nbytes: int = 1 << 24
    abort_after: int = -1
    data_in: bytearray = field(default_factory=bytearray)
    fetched: list[tuple[int, int]] = field(default_factory=list)

    request = 0

    @property
    def data_out_nbytes(self) -> int:
        return len(self.data_out)

    def fetch(self, offset: int, nbytes: int) -> bytes:
        for start, end in self.fetched:
            assert offset + nbytes <= start or offset >= end, "a byte of the initiator's memory is read twice"
        self.fetched.append((offset, offset + nbytes))
        assert offset + nbytes <= len(self.data_out)
        return self.data_out[offset : offset + nbytes]

    def store(self, offset: int, data: bytes | memoryview) -> None:
        assert offset == len(self.data_in)
        self.data_in += bytes(data)[: max(0, self.data_in_nbytes - offset)]

    def aborted(self) -> bool:
        self.abort_after -= 1
        return self.abort_after == -1


@dataclass(frozen=True)
class FakeNexus:
    """An I_T nexus without a channel."""

    index: int
    initiator_port_id: bytes
    target_port_id: bytes = bytes(range(16))


def _close(stores: Sequence[Store]) -> None:
    for store in stores:
        store.close()


class FakeDevice(TargetDevice):
    """Units by LUN, and the native core's part in plain dictionaries. Its stores are closed when it is dropped."""

    target_port_id = bytes(range(16))
    _numbers = itertools.count(1)

    def __init__(self, *luns: str, store: Store | None = None, state: Path | None = None) -> None:
        super().__init__()
        self.units: dict[int, LogicalUnit] = {}
        self.known: dict[int, FakeNexus] = {}
        self.attentions: dict[tuple[int, int], list[int]] = {}
        self.states: dict[int, int] = {}
        self.operations: dict[int, tuple[int, int]] = {}
        self.denied: dict[int, tuple[int, dict[int, int]]] = {}
        self.denied_rarely: dict[int, tuple[int, dict[int, int]]] = {}
        self.aborted: list[tuple[int, list[int]]] = []
        """Whose commands were aborted: LUN, nexuses."""
        self.accesses: dict[tuple[int, int | None], tuple[bool, bool]] = {}
        """Hidden, read-only: by LUN and nexus."""
        self.stuck = False
        """Aborted commands do not end."""
        self.sync_failures: set[int] = set()
        self.refreshed: list[int] = []
        self.counted: dict[int, Counts] = {}
        self.writes: list[int] = []
        self.resizes: list[tuple[int, int | None]] = []
        self.locks: list[tuple[int, int, int]] = []
        """Locks held now: LUN, LBA, blocks."""
        self.lock_log: list[tuple[int, int, int]] = []
        for text in luns or ("0=mem:1M",):
            spec = parse(text)
            wanted = StoreSpec("", spec.readonly, spec.cache, spec.size, discard=spec.discard)
            opened = store or open_store(spec.store, wanted)
            unit = LogicalUnit(spec, opened)
            if state is not None:
                unit.state = State(state / str(spec.lun))
            self.units[spec.lun] = unit
        if store is None:
            weakref.finalize(self, _close, [unit.store for unit in self.units.values()])
        if next(self._numbers) % 50 == 0:
            gc.collect()  # they stand in circles
        for index, unit in enumerate(self.units.values()):
            unit.index = index
            unit.start(self)

    def connect(self, index: int, initiator_port_id: bytes | None = None) -> FakeNexus:
        """A nexus logs in."""
        nexus = self.known[index] = FakeNexus(index, initiator_port_id or bytes([index]) * 16)
        for unit in self.units.values():
            unit.nexus_known(nexus)
        return nexus

    def nexus(self, index: int) -> FakeNexus | None:
        return self.known.get(index)

    def nexuses(self) -> Sequence[Nexus]:
        return list(self.known.values())

    def attention(
        self, code: int, *, nexus: int | None = None, besides: int | None = None, unit: LogicalUnit | None = None
    ) -> None:
        for index in self.known if nexus is None else (nexus,):
            for other in self.units.values() if unit is None else (unit,):
                queue = self.attentions.setdefault((index, other.index), [])
                if index != besides and code not in queue:
                    queue.append(code)

    def attention_take(self, nexus: int, unit: LogicalUnit, request: int = 0) -> int:
        queue = self.attentions.get((nexus, unit.index), [])
        return queue.pop(0) if queue else 0

    def set_not_ready(self, unit: LogicalUnit, code: int) -> None:
        self.states[unit.lun] = code

    def operation(self, unit: LogicalUnit, code: int, progress: int = 0) -> None:
        self.operations[unit.lun] = code, progress

    def deny(self, unit: LogicalUnit, others: int, classes: Mapping[int, int]) -> None:
        rare = int(lib.VT_CONFLICT_RARE)
        self.denied[unit.lun] = others & ~rare, {nexus: each & ~rare for nexus, each in classes.items()}
        self.denied_rarely[unit.lun] = others & rare, {nexus: each & rare for nexus, each in classes.items()}

    def access(self, unit: LogicalUnit, nexus: int | None, *, hidden: bool, readonly: bool) -> None:
        self.accesses[unit.lun, nexus] = hidden, readonly

    def abort_tasks(self, unit: LogicalUnit, nexuses: Sequence[int], request: int) -> bool:
        self.aborted.append((unit.lun, sorted(nexuses)))
        return not self.stuck

    def refresh(self, unit: LogicalUnit) -> None:
        self.refreshed.append(unit.lun)

    def resized(self, unit: LogicalUnit, besides: int | None = None) -> None:
        self.resizes.append((unit.lun, besides))

    def counts(self, unit: LogicalUnit) -> Counts:
        return self.counted.get(unit.lun, Counts())

    def sync_failed(self, unit: LogicalUnit) -> bool:
        return unit.lun in self.sync_failures

    def sync(self, unit: LogicalUnit, flush: Callable[[], None]) -> None:
        flush()

    def wrote(self, unit: LogicalUnit) -> None:
        self.writes.append(unit.lun)

    def lock(self, unit: LogicalUnit, lba: int, blocks: int, request: int, seconds: float) -> int:
        for lun, start, count in self.locks:
            assert lun != unit.lun or lba >= start + count or start >= lba + blocks, "would wait for itself for ever"
        self.locks.append((unit.lun, lba, blocks))
        self.lock_log.append((unit.lun, lba, blocks))
        return len(self.lock_log)

    def unlock(self, unit: LogicalUnit, number: int) -> None:
        self.locks.remove(self.lock_log[number - 1])

    def run(self, raw: bytes, port: FakePort | None = None, *, lun: int = 0, nexus: int = 7) -> Result:
        """Runs a CDB; what would go on in the background is waited for."""
        unit = self.units.get(lun)
        result = execute(port or FakePort(), self, raw, lu=unit, lun=lun_.encode(lun), nexus=nexus)
        result = result.finish() if isinstance(result, Background) else result
        for (who, _), codes in self.attentions.items():
            if result.status is Status.GOOD and who == nexus and result.clears in codes:
                codes.remove(result.clears)
        return result

    def close(self) -> None:
        for unit in self.units.values():
            unit.close()


SETUPS = ("0=mem:1M", "0=mem:1M,removable=on", "0=mem:1M,protection=2", "0=crypt:NEW,size=1M")
"""Between them these units have every command; a command that none of them has needs one more here. To be made with
`fresh`."""

_FOLDER = tempfile.TemporaryDirectory(prefix="vscsi-setups-")
_images = itertools.count()


def fresh(text: str) -> str:
    """The specification of a unit, with an image of its own where it says NEW."""
    return text.replace("NEW", f"{_FOLDER.name}/{next(_images)}.img")


def spec_with(handler: Handler) -> str:
    """The first of `SETUPS` that has a command."""
    for text in SETUPS:
        device = FakeDevice(fresh(text))
        found = handler.supported(device.units[0])
        device.close()
        if found:
            return text
    raise AssertionError(f"no unit has {handler.row.name}: add one to SETUPS")


def is_service_action(row: Cdb, byte: int, bit: int) -> bool:
    """Whether this bit belongs to the field that tells commands of one opcode apart."""
    field = row.sa_field
    return field is not None and field.byte <= byte < field.end and (field.nbytes == 2 or bit < field.width)


def do_command(device: FakeDevice, raw: bytes, data_out: bytes = b"", *, lun: int = 0, nexus: int = 7) -> FakePort:
    """The command must end with GOOD."""
    port = FakePort(data_out)
    result = device.run(raw, port, lun=lun, nexus=nexus)
    assert result.status is Status.GOOD, sense.decode(result.sense).describe()
    assert result.sense == b""
    assert result.in_nbytes == len(port.data_in)
    return port


def do_command_in(
    device: FakeDevice,
    raw: bytes,
    data_out: bytes = b"",
    expected: bytes | None = None,
    *,
    lun: int = 0,
    nexus: int = 7,
) -> bytes:
    """The command must end with GOOD; returns its data-in, which must be `expected` if that is given."""
    data = bytes(do_command(device, raw, data_out, lun=lun, nexus=nexus).data_in)
    assert expected is None or data == expected, data.hex(" ")
    return data


def do_command_fail(
    device: FakeDevice,
    raw: bytes,
    expected: Sense,
    at: tuple[int, int | None] | None = None,
    *,
    data_out: bytes = b"",
    lun: int = 0,
    nexus: int = 7,
) -> DecodedSense:
    """The command must end with CHECK CONDITION and this sense; `at` is where the field pointer has to point."""
    port = FakePort(data_out)
    result = device.run(raw, port, lun=lun, nexus=nexus)
    assert result.status is Status.CHECK_CONDITION
    got = sense.decode(result.sense)
    assert got.matches(expected), got.describe()
    if at is not None:
        assert got.field_pointer is not None
        assert (got.field_pointer.byte, got.field_pointer.bit) == at
    return got


__all__ = [
    "Aborted",
    "FakeDevice",
    "FakeNexus",
    "FakePort",
    "do_command",
    "do_command_fail",
    "do_command_in",
    "spec_with",
]
