# SPDX-License-Identifier: BSD-2-Clause
"""Which fault hits which command: rules in their order, what each has seen and done, and blocks that are bad.

A machine without input or output: it is told of commands, with the time, and says what becomes of them. Knows rules
(`target.faults_rule`). Must not know units, threads or how a fault is carried out. The caller keeps threads apart.
"""

import bisect
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from target.access import fits
from target.faults_rule import LAST_LBA, Key, Rule

if TYPE_CHECKING:
    from random import Random

MAX_RULES = 256


@dataclass(frozen=True, slots=True)
class Command:
    """A command as rules see it. `lba` None: it names no blocks. `blocks` None: to the end. `port_id` None: blkif."""

    key: Key
    lba: int | None = None
    blocks: int | None = None
    port_id: bytes | None = None

    @property
    def touches(self) -> tuple[int, int] | None:
        """First and last block, if there is one."""
        if self.lba is None or self.blocks == 0:
            return None
        return self.lba, LAST_LBA if self.blocks is None else self.lba + self.blocks - 1


class Extents:
    """A set of blocks as ranges, first and last, in order and apart from each other."""

    def __init__(self, first: int, last: int) -> None:
        self._ranges = [(first, last)]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def first_in(self, first: int, last: int) -> int | None:
        """The first block of the set from `first` to `last`."""
        at = bisect.bisect_right(self._ranges, (first, LAST_LBA))
        if at and self._ranges[at - 1][1] >= first:
            return first
        return self._ranges[at][0] if at < len(self._ranges) and self._ranges[at][0] <= last else None

    def remove(self, first: int, last: int) -> None:
        """Takes the blocks from `first` to `last` out."""
        low = bisect.bisect_right(self._ranges, (first, LAST_LBA))
        if low and self._ranges[low - 1][1] >= first:
            low -= 1
        high = low
        while high < len(self._ranges) and self._ranges[high][0] <= last:
            high += 1
        rest = [
            part
            for start, end in self._ranges[low:high]
            for part in ((start, min(end, first - 1)), (max(start, last + 1), end))
            if part[0] <= part[1]
        ]
        self._ranges[low:high] = rest


@dataclass(slots=True)
class Active:
    """A rule in force. `seen` counts commands that it is about, `hits` those that it did something to."""

    number: int
    rule: Rule
    since: float
    seed: int
    random: "Random"
    seen: int = 0
    hits: int = 0
    damage: Extents | None = None

    @property
    def spent(self) -> bool:
        """It will never do anything again."""
        if self.damage is not None:
            return not any(self.damage)
        return self.rule.count is not None and self.hits >= self.rule.count

    def text(self) -> str:
        """The rule with what is needed to repeat it."""
        uses_chance = self.rule.chance < 1 or self.rule.corrupt or self.rule.delay_ms[0] != self.rule.delay_ms[1]
        return f"{self.rule.text},seed={self.seed}" if uses_chance and self.rule.seed is None else self.rule.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a command: it waits `delay_ms`, with `after` once it has run; `decisive` says how it ends."""

    delay_ms: int = 0
    after: bool = False
    decisive: Active | None = None
    hits: list[Active] = field(default_factory=list)
    information: int | None = None
    """The first block that the decisive rule is about."""
    noise: int = 0
    """A number at random, from the decisive rule."""


@dataclass(slots=True)
class Engine:
    """The rules of one unit."""

    rules: list[Active] = field(default_factory=list)
    _next: int = 1

    @property
    def active(self) -> bool:
        """Whether any rule may still do something."""
        return any(not each.spent for each in self.rules)

    def add(self, rule: Rule, now: float) -> Active:
        """A rule comes into force, behind the others. ValueError if there are too many."""
        if len(self.rules) >= MAX_RULES:
            raise ValueError(f"there are {MAX_RULES} rules already")
        from random import Random

        seed = int.from_bytes(os.urandom(4)) if rule.seed is None else rule.seed
        made = Active(self._next, rule, now, seed, Random(seed))
        if rule.bad and rule.lba is not None:
            made.damage = Extents(*rule.lba)
        self._next += 1
        self.rules.append(made)
        return made

    def remove(self, number: int | None) -> list[Active]:
        """Takes one rule away, or all of them; those that have gone."""
        gone = [each for each in self.rules if number in (None, each.number)]
        self.rules = [each for each in self.rules if each not in gone]
        return gone

    # ---- commands ----

    def decide(self, command: Command, now: float) -> Verdict:
        """Rules have their say in order: delays add up, and the first that says how a command ends is the last."""
        delay, after, hits = 0, False, []
        for each in self.rules:
            if each.damage is not None or not self._hits(each, command, now):
                continue
            each.hits += 1
            hits.append(each)
            delay += each.random.randint(*each.rule.delay_ms)
            after = each.rule.after
            if each.rule.outcome is not None:
                noise = each.random.getrandbits(64)
                return Verdict(delay, after, each, hits, _first_common(each.rule, command), noise)
        return Verdict(delay, after, None, hits)

    def _hits(self, each: Active, command: Command, now: float) -> bool:
        rule = each.rule
        if each.spent or not _about(rule, command) or _sleeps(rule, now - each.since):
            return False
        each.seen += 1
        behind = each.seen - rule.skip
        return behind > 0 and behind % rule.every == 0 and (rule.chance >= 1 or each.random.random() < rule.chance)

    # ---- blocks ----

    def unreadable(self, lba: int, blocks: int) -> tuple[Active, int] | None:
        """The rule that makes a read of these blocks fail, and the first bad block."""
        if not blocks:
            return None
        found = [
            (bad, each)
            for each in self.rules
            if each.damage is not None and (bad := each.damage.first_in(lba, lba + blocks - 1)) is not None
        ]
        if not found:
            return None
        bad, each = min(found, key=lambda item: (item[0], item[1].number))
        each.seen += 1
        each.hits += 1
        return each, bad

    def written(self, lba: int, blocks: int) -> None:
        """These blocks can be read again."""
        for each in self.rules if blocks else ():
            if each.damage is not None:
                each.damage.remove(lba, lba + blocks - 1)


def _about(rule: Rule, command: Command) -> bool:
    if rule.commands is not None and command.key not in rule.commands:
        return False
    if rule.port is not None and (command.port_id is None or not fits(command.port_id, (rule.port,))):
        return False
    if rule.lba is None:
        return True
    touched = command.touches
    return touched is not None and touched[0] <= rule.lba[1] and rule.lba[0] <= touched[1]


def _sleeps(rule: Rule, age: float) -> bool:
    return rule.up > 0 and age % (rule.up + rule.down) < rule.up


def _first_common(rule: Rule, command: Command) -> int | None:
    touched = command.touches
    if touched is None:
        return None
    return touched[0] if rule.lba is None else max(touched[0], rule.lba[0])
