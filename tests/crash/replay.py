# SPDX-License-Identifier: BSD-2-Clause
"""Every state of an image that a crash can leave, for every place of the log, and whether it keeps the promises.

Knows what a completed flush and a durable write settle. Contents of sectors that are not settled are independent of
each other. Must not know commands, but as promises.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from crash.log import SECTOR, Log, Op
from crash.promises import Promises

ZERO = bytes(SECTOR)


class Medium:
    """One file as the medium has it: `settled` content of every sector, and what may be there instead."""

    def __init__(self, before: dict[int, bytes] | None = None) -> None:
        self.settled: dict[int, bytes] = dict(before or {})
        self.open: dict[int, list[tuple[Op, bytes]]] = {}

    def begin(self, op: Op) -> list[tuple[int, bytes]]:
        """The contents it may bring, by sector."""
        brings = list(sectors_of(op))
        for sector, content in brings:
            self.open.setdefault(sector, []).append((op, content))
        return brings

    def end(self, op: Op) -> None:
        """Files take what is written when it ends, so what ended earlier has been written over."""
        if op.kind == "flush":
            for sector in list(self.open):
                pairs = self.open[sector]
                done = [pair for pair in pairs if pair[0].end is not None and pair[0].end < op.begin]
                if done:
                    self.settled[sector] = max(done, key=lambda pair: pair[0].end)[1]
                    self._keep(sector, [pair for pair in pairs if pair not in done])
        elif op.durable:
            for sector, content in sectors_of(op):
                self.settled[sector] = content
                self._keep(sector, [pair for pair in self.open[sector] if pair[0].end is None or pair[0].end > op.end])

    def _keep(self, sector: int, pairs: list[tuple[Op, bytes]]) -> None:
        if pairs:
            self.open[sector] = pairs
        else:
            del self.open[sector]

    def contents(self, sector: int) -> list[bytes]:
        """Everything a crash now may leave there."""
        return [self.settled.get(sector, ZERO), *(data for _, data in self.open.get(sector, ()))]

    def state(self, rng: random.Random, chance: float, piece: int = 1) -> dict[int, bytes]:
        """One state: the sectors that differ from `settled`. Pieces of so many sectors are torn nowhere."""
        found: dict[int, bytes] = {}
        chosen: dict[int, int] = {}
        for sector, pairs in self.open.items():
            unit = sector // piece
            if unit not in chosen:
                chosen[unit] = rng.randrange(1 << 30) if rng.random() < chance else -1
            if chosen[unit] < 0:
                continue
            # The last with half of the chances: that is what a medium most often has.
            at = -1 if chosen[unit] & 1 else (chosen[unit] >> 1) % len(pairs)
            found[sector] = pairs[at][1]
        return found


def sectors_of(op: Op) -> Iterator[tuple[int, bytes]]:
    """What a write or a hole brings to each sector; both are whole sectors."""
    if op.kind in ("write", "punch"):
        assert op.offset % SECTOR == 0 and len(op.data) % SECTOR == 0, (op.offset, len(op.data))
        for at in range(0, len(op.data), SECTOR):
            yield (op.offset + at) // SECTOR, op.data[at : at + SECTOR]


@dataclass
class Report:
    """What came of a replay. `losses`: one line each."""

    points: int = 0
    contents: int = 0
    losses: list[str] | None = None

    def __str__(self) -> str:
        lost = len(self.losses or ())
        return f"{self.points} crash points, {self.contents} contents of sectors, {lost} losses"


def replay(log: Log, file: str, before: dict[int, bytes] | None = None) -> Report:
    """Every crash point: before the first entry and after each. Nothing else can change what is allowed or possible."""
    medium, promises, report = Medium(before), Promises(before), Report(1, 0, [])

    def look(sector: int, content: bytes, now: int) -> None:
        report.contents += 1
        if not promises.allows(sector, content) and len(report.losses) < 100:
            report.losses.append(
                f"crash after entry {now}: sector {sector} can hold {content[:32].hex()}; "
                f"allowed: {'; '.join(promises.told(sector))}"
            )

    def look_again(sectors: set[int], now: int) -> None:
        for sector in sectors:
            for content in medium.contents(sector):
                look(sector, content, now)

    for now, (what, thing) in enumerate(log.entries):
        if what in ("begin", "end") and thing.file != file:
            continue
        report.points += 1
        if what == "begin":
            for sector, content in medium.begin(thing):
                look(sector, content, now)
                for barrier in promises.barriers(sector, content):
                    look_again(promises.flushed(barrier), now)
        elif what == "end":
            medium.end(thing)
        elif what == "sent":
            promises.sent(thing, now)
        elif what == "acked":
            look_again(promises.acked(thing, now), now)
    return report
