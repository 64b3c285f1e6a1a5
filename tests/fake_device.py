# SPDX-License-Identifier: BSD-2-Clause
"""A target device without rings for tests of commands: feeds CDBs to `execute` and looks at what comes back."""

from dataclasses import dataclass, field

from target.commands import Result, execute
from target.commands.task import Aborted
from target.lu import LogicalUnit
from target.lunspec import parse
from target.stores import Store, StoreSpec, open_store
from vscsi.scsi import lun as lun_
from vscsi.scsi import sense
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


class FakeDevice:
    """Units by LUN, and the native core's part in plain dictionaries."""

    target_port_id = bytes(range(16))

    def __init__(self, *luns: str, store: Store | None = None) -> None:
        self.units: dict[int, LogicalUnit] = {}
        self.attentions: dict[tuple[int, int], list[int]] = {}
        self.states: dict[int, int] = {}
        self.sync_failures: set[int] = set()
        for text in luns or ("0=mem:1M",):
            spec = parse(text)
            opened = store or open_store(spec.store, StoreSpec("", spec.readonly, spec.cache))
            self.units[spec.lun] = LogicalUnit(spec, opened)
        for index, unit in enumerate(self.units.values()):
            unit.index = index

    def ua_take(self, nexus: int, lu: LogicalUnit) -> int:
        queue = self.attentions.get((nexus, lu.index), [])
        return queue.pop(0) if queue else 0

    def ua_clear(self, nexus: int, lu: LogicalUnit, code: int) -> None:
        queue = self.attentions.get((nexus, lu.index), [])
        if code in queue:
            queue.remove(code)

    def set_not_ready(self, lu: LogicalUnit, code: int) -> None:
        self.states[lu.lun] = code

    def sync_failed(self, lu: LogicalUnit) -> bool:
        return lu.lun in self.sync_failures

    def run(self, raw: bytes, port: FakePort | None = None, *, lun: int = 0, nexus: int = 7) -> Result:
        """Runs a CDB."""
        unit = self.units.get(lun)
        return execute(port or FakePort(), self, raw, lu=unit, lun=lun_.encode(lun), nexus=nexus)

    def close(self) -> None:
        for unit in self.units.values():
            unit.store.close()


def do_command(device: FakeDevice, raw: bytes, data_out: bytes = b"", *, lun: int = 0) -> FakePort:
    """The command must end with GOOD."""
    port = FakePort(data_out)
    result = device.run(raw, port, lun=lun)
    assert result.status is Status.GOOD, sense.decode(result.sense).describe()
    assert result.sense == b""
    assert result.in_nbytes == len(port.data_in)
    return port


def do_command_in(
    device: FakeDevice, raw: bytes, data_out: bytes = b"", expected: bytes | None = None, *, lun: int = 0
) -> bytes:
    """The command must end with GOOD; returns its data-in, which must be `expected` if that is given."""
    data = bytes(do_command(device, raw, data_out, lun=lun).data_in)
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
) -> DecodedSense:
    """The command must end with CHECK CONDITION and this sense; `at` is where the field pointer has to point."""
    port = FakePort(data_out)
    result = device.run(raw, port, lun=lun)
    assert result.status is Status.CHECK_CONDITION
    got = sense.decode(result.sense)
    assert got.matches(expected), got.describe()
    if at is not None:
        assert got.field_pointer is not None
        assert (got.field_pointer.byte, got.field_pointer.bit) == at
    return got


__all__ = ["Aborted", "FakeDevice", "FakePort", "do_command", "do_command_fail", "do_command_in"]
