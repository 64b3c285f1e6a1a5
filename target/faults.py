# SPDX-License-Identifier: BSD-2-Clause
"""The faults of a logical unit: which rules it has, commands that they hold back, and what is told of them.

Rules come from `--fault` and from the admin command. While any may still do something, the unit has no fast
path: the native core hands every command to Python. Knows units; how a command fares is `target.commands.fault`'s.
"""

import logging
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from target.faults_engine import Active, Command, Engine, Verdict
from target.faults_hold import Holder
from target.faults_rule import Rule
from target.part import Part, part
from vscsi.scsi import sense

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger("vscsi.target")


@part
class Faults(Part):
    """Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._engine = Engine()
        self._holder = Holder(f"vscsi-faults-{unit.lun}")
        self._lock = threading.Lock()
        self._damaged = False

    def start(self) -> None:
        for rule in self.unit.spec.faults:
            self.add(rule)

    def sanitized(self) -> None:
        self.written(0, self.unit.blocks)

    def shutdown(self) -> None:
        self._holder.close()

    # ---- the rules ----

    def add(self, rule: Rule) -> Active:
        """A rule comes into force at once. ValueError if there are too many."""
        assert self.unit.device is not None
        if rule.lba is not None and rule.lba[0] >= self.unit.blocks:
            log.warning("lun %d: fault %s: the unit has only %d blocks", self.unit.lun, rule.text, self.unit.blocks)
        with self._lock:
            made = self._engine.add(rule, self.unit.device.monotonic())
        log.info("lun %d: fault %d: %s", self.unit.lun, made.number, made.text())
        self._enforce()
        return made

    def remove(self, number: int | None = None) -> list[dict[str, Any]]:
        """Ends one rule, or all of them; what there was to tell of them. Commands that hang on it go on."""
        with self._lock:
            gone = self._engine.remove(number)
        told = [self._describe(each) for each in gone]
        self._enforce()
        for each in gone:
            log.info("lun %d: fault %d ends after %d hits", self.unit.lun, each.number, each.hits)
            if not each.rule.drop:
                self._holder.release(each.number)
        return told

    def list(self) -> "list[dict[str, Any]]":
        """Every rule with its counters."""
        with self._lock:
            return [self._describe(each) for each in self._engine.rules]

    def _describe(self, each: Active) -> dict[str, Any]:
        told = {
            "id": each.number,
            "rule": each.text(),
            "seen": each.seen,
            "hits": each.hits,
            "held": self._holder.count(each.number),
            "spent": each.spent,
        }
        if each.damage is not None:
            last = self.unit.blocks - 1
            told["bad"] = [[first, min(end, last)] for first, end in each.damage if first <= last]
        return told

    def _enforce(self) -> None:
        """Tells the core whether the unit has a fast path."""
        unit = self.unit
        with self._lock:
            self._damaged = any(each.damage is not None for each in self._engine.rules)
            changed, unit.faulty = unit.faulty != self._engine.active, self._engine.active
        if changed and unit.device is not None:
            unit.device.refresh(unit)

    # ---- commands ----

    def decide(self, command: Command, name: str) -> Verdict:
        """What becomes of a command; `name` is for the log."""
        device = self.unit.device
        assert device is not None
        with self._lock:
            verdict = self._engine.decide(command, device.monotonic())
            spent = not self._engine.active
        for each in verdict.hits:
            where = "" if command.lba is None else f" at block {command.lba}"
            log.info("lun %d: fault %d (%s) hits %s%s", self.unit.lun, each.number, each.rule.text, name, where)
        if spent:
            self._enforce()
        return verdict

    def hold(
        self, seconds: float, rest: Callable[[], None], *, owner: Active | None, aborted: Callable[[], bool] | None
    ) -> None:
        """Calls `rest` when the time is over (infinite: never), `aborted` says so, or the rule `owner` is removed."""
        self._holder.hold(seconds, rest, owner=0 if owner is None else owner.number, aborted=aborted)

    # ---- blocks ----

    def check_readable(self, lba: int, blocks: int) -> None:
        """CheckCondition if one of the blocks is bad."""
        if not self._damaged:
            return
        with self._lock:
            found = self._engine.unreadable(lba, blocks)
        if found is not None:
            each, bad = found
            log.info("lun %d: fault %d (%s) hits block %d", self.unit.lun, each.number, each.rule.text, bad)
            raise (each.rule.sense or sense.UNRECOVERED_READ_ERROR).error(information=bad)

    def written(self, lba: int, blocks: int) -> None:
        """The blocks have been written: they are good again."""
        if not self._damaged:
            return
        with self._lock:
            self._engine.written(lba, blocks)
            spent = not self._engine.active
        if spent:
            self._enforce()


FOREVER = math.inf
