# SPDX-License-Identifier: BSD-2-Clause
"""How a command fares under a fault rule: late, with another status, with less or other data, or not at all.

One function for each outcome of `target.faults_rule`, found through a table. Must not know when a rule hits.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from target.commands.table import Function
from target.commands.task import Aborted, InBackground, Port, StatusOnly, Task
from target.faults import FOREVER, Faults
from target.faults_engine import Active, Command, Verdict
from vscsi.scsi import sense
from vscsi.scsi.cdb import Cdb, Data
from vscsi.scsi.sense import Key

if TYPE_CHECKING:
    from random import Random

_UP_TO_THE_END = ("SYNCHRONIZE_CACHE", "WRITE_SAME", "PRE_FETCH")
"""Commands whose count of blocks, when it is 0, stands for all that follow."""
_WITH_PLACE = (Key.MEDIUM_ERROR, Key.RECOVERED_ERROR)


def around(task: Task, function: Function) -> bytes | InBackground | None:
    """Runs the command as the rules of its unit want it."""
    faults = task.unit.part(Faults)
    verdict = faults.decide(_command(task), task.row.name)
    rest = verdict_function(verdict, function)
    outcome = None if verdict.decisive is None else verdict.decisive.rule.outcome
    if outcome in ("drop", "hang"):
        return _held(task, faults, verdict, function)
    if not verdict.delay_ms:
        return rest(task)
    if not verdict.after:
        return _later(task, faults, verdict, lambda: rest(task))
    data = function(task)
    if isinstance(data, InBackground):
        return data
    return _later(task, faults, verdict, lambda: _finish(task, verdict, data))


def _finish(task: Task, verdict: Verdict, data: bytes | InBackground | None) -> bytes | InBackground | None:
    return verdict_function(verdict, lambda _: data)(task)


def verdict_function(verdict: Verdict, function: Function) -> Function:
    """The command's function with the outcome that the rules have chosen."""
    chosen = verdict.decisive
    if chosen is None or chosen.rule.outcome is None:
        return function
    make = _OUTCOMES.get(chosen.rule.outcome)
    return function if make is None else lambda task: make(task, function, chosen, verdict)


def _command(task: Task) -> Command:
    nexus = task.device.nexus(task.nexus)
    port_id = None if nexus is None else bytes(nexus.initiator_port_id)
    lba, blocks = task.touches or _touched(task.row, task.fields)
    return Command(task.row.key, lba, blocks, port_id)


def _touched(row: Cdb, fields: dict[str, int]) -> tuple[int | None, int | None]:
    """LBA and number of blocks by the CDB; None for the number: up to the end."""
    name = next((name for name in row.BLOCK_COUNTS if name in fields), None)
    if name is None or "lba" not in fields:
        return None, None
    blocks = fields[name] or (256 if row.zero_is_256 else 0)
    if not blocks and row.symbol.startswith(_UP_TO_THE_END):
        return fields["lba"], None
    return fields["lba"], blocks


# ---- in time ----


def _later(
    task: Task, faults: Faults, verdict: Verdict, rest: Callable[[], bytes | InBackground | None]
) -> InBackground:
    def run() -> bytes | InBackground | None:
        task.check_aborted()
        return rest()

    return InBackground(
        run,
        lambda go_on: faults.hold(verdict.delay_ms / 1000, go_on, owner=verdict.hits[-1], aborted=task.port.aborted),
    )


def _held(task: Task, faults: Faults, verdict: Verdict, function: Function) -> InBackground:
    """A command that is never answered, or not before the rule goes."""
    chosen = verdict.decisive
    assert chosen is not None
    if chosen.rule.after:
        data = function(task)
        if not isinstance(data, InBackground) and data is not None:
            task.send(data)
    stubborn = chosen.rule.hang

    def run() -> bytes | InBackground | None:
        task.check_aborted()
        if not stubborn:
            raise Aborted
        return function(task)

    aborted = None if stubborn else task.port.aborted
    return InBackground(run, lambda go_on: faults.hold(FOREVER, go_on, owner=chosen, aborted=aborted))


# ---- outcomes ----


def _first(task: Task, function: Function, chosen: Active) -> InBackground | None:
    """What the command asks, if the rule lets it have its way first."""
    data = function(task) if chosen.rule.after else None
    if isinstance(data, InBackground):
        return data
    if data is not None:
        task.send(data)
    return None


def _sense(task: Task, function: Function, chosen: Active, verdict: Verdict) -> bytes | InBackground | None:
    if (background := _first(task, function, chosen)) is not None:
        return background
    wanted = chosen.rule.sense
    assert wanted is not None
    raise wanted.error(information=verdict.information if wanted.key in _WITH_PLACE else None)


def _status(task: Task, function: Function, chosen: Active, _: Verdict) -> bytes | InBackground | None:
    if (background := _first(task, function, chosen)) is not None:
        return background
    assert chosen.rule.status is not None
    raise StatusOnly(chosen.rule.status)


def _ignore(task: Task, *_: object) -> None:
    """GOOD, as if all had been taken."""
    task.out_nbytes = task.port.data_out_nbytes


class _Altered:
    """A task's way to its initiator on which `fetched` and `stored` meet the data."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.request = port.request
        self.data_out_nbytes, self.data_in_nbytes = port.data_out_nbytes, port.data_in_nbytes

    def fetch(self, offset: int, nbytes: int) -> bytes:
        return self.fetched(self._port.fetch(offset, nbytes))

    def store(self, offset: int, data: bytes | memoryview) -> None:
        self._port.store(offset, self.stored(offset, data))

    def aborted(self) -> bool:
        return self._port.aborted()

    def fetched(self, data: bytes) -> bytes:
        return data

    def stored(self, offset: int, data: bytes | memoryview) -> bytes | memoryview:
        return data


class _Flipping(_Altered):
    """Flips bits of the first piece of data that passes."""

    def __init__(self, port: Port, bits: int, source: "Random") -> None:
        super().__init__(port)
        self._left, self._random = bits, source

    def fetched(self, data: bytes) -> bytes:
        changed, bits = bytearray(data), min(self._left, 8 * len(data))
        self._left -= bits
        for bit in self._random.sample(range(8 * len(data)), bits):
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def stored(self, offset: int, data: bytes | memoryview) -> bytes | memoryview:
        return self.fetched(bytes(data)) if self._left else data


class _Short(_Altered):
    """Lets only so many bytes through to the initiator."""

    def __init__(self, port: Port, nbytes: int) -> None:
        super().__init__(port)
        self._nbytes = nbytes

    def stored(self, offset: int, data: bytes | memoryview) -> bytes | memoryview:
        return data[: max(0, self._nbytes - offset)]


def _corrupt(task: Task, function: Function, chosen: Active, verdict: Verdict) -> bytes | InBackground | None:
    from random import Random

    task.port = _Flipping(task.port, chosen.rule.corrupt or 0, Random(verdict.noise))
    return function(task)


def _short(task: Task, function: Function, chosen: Active, _: Verdict) -> bytes | InBackground | None:
    """Data-in ends after so many bytes; a write takes only whole blocks of them. blkif has no residual: an error."""
    nbytes, complete = chosen.rule.short or 0, False
    if task.row.data is Data.OUT and "transfer_length" in task.fields:
        wanted = task.out_nbytes = min(nbytes, task.port.data_out_nbytes)
        blocks = min(wanted // task.unit.block_nbytes, _touched(task.row, task.fields)[1] or 0)
        task.fields["transfer_length"] = blocks
        if blocks:
            function(task)
        task.out_nbytes = wanted
        complete = wanted == task.port.data_out_nbytes
    else:
        task.port = _Short(task.port, nbytes)
        data = function(task)
        if isinstance(data, InBackground):
            return data
        if data is not None:
            task.send(data)
        complete = task.in_nbytes <= nbytes
        task.in_nbytes = min(task.in_nbytes, nbytes)
    if not complete and task.device.nexus(task.nexus) is None:
        failed = sense.WRITE_ERROR if task.row.data is Data.OUT else sense.UNRECOVERED_READ_ERROR
        raise failed.error()
    return None


_OUTCOMES: dict[str, Callable[[Task, Function, Active, Verdict], bytes | InBackground | None]] = {
    "sense": _sense,
    "status": _status,
    "short": _short,
    "corrupt": _corrupt,
    "ignore": _ignore,
}
