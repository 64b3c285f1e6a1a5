# SPDX-License-Identifier: BSD-2-Clause
"""Model of the range locks, as target/native/range.c has them: fast commands, lockers, tickets, wake-ups.

A step is what C does under the LU's lock, or one atomic store without it. A locker sleeps until somebody has waked it,
but for the time in which a command has not said where it goes: then it looks again by itself.
Must not import the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from model.checker import CHANCE, Broken, Step

UNKNOWN, KNOWN, LOOK, PARKED, GRANTED, NONE = "unknown", "known", "look", "parked", "granted", "none"

MUTATIONS = (
    "a fast command does not look",
    "a lock does not wait for fast commands",
    "a lock does not wait for those that have not said where",
    "a lock overtakes locks",
    "parked commands stay parked",
    "a granted command looks again",
    "nobody is waked by a command's end",
    "nobody is waked by an unlock",
    "a holder waits its turn",
    "an orphan has nothing for itself",
    "an orphan's end is told to nobody",
)


class Blocks(NamedTuple):
    """A range of blocks of an LU."""

    lu: int
    lba: int
    blocks: int

    def meets(self, other: "Blocks") -> bool:
        """Do they have a block in common?"""
        return self.lu == other.lu and self.lba < other.lba + other.blocks and other.lba < self.lba + self.blocks


class Fast(NamedTuple):
    """A READ or WRITE of the C path. at: away, entered, running, parked, gone.

    orphan: its channel has stopped while it ran. behind: orphans that were about on its blocks when it came.
    """

    at: str = "away"
    extent: str = NONE
    ticket: int = 0
    aborted: bool = False
    orphan: bool = False
    behind: frozenset[int] = frozenset()


class Locker(NamedTuple):
    """Takes its ranges one after the other, then gives them back. at: taking, waiting, giving, gone."""

    at: str = "taking"
    held: int = 0
    ticket: int = 0
    signalled: bool = False
    polls: bool = False


class Range(NamedTuple):
    """A lock, held or waited for."""

    ticket: int
    owner: int
    blocks: Blocks
    held: bool


class State(NamedTuple):
    """All commands, all lockers, all locks in the order of their tickets."""

    fast: tuple[Fast, ...]
    lockers: tuple[Locker, ...]
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Ranges:
    """`fast` commands and `lockers`, each with its ranges in order. `errors`: they may be aborted or time out.

    `losses`: the channel of a command that runs may stop.

    With `watched` ("fast" or "locker", number) all others begin again and again, and that one must come to its end.
    """

    fast: tuple[Blocks, ...]
    lockers: tuple[tuple[Blocks, ...], ...]
    errors: bool = False
    losses: bool = False
    watched: tuple[str, int] | None = None
    mutation: str = ""

    def initial(self) -> State:
        return State(tuple(Fast() for _ in self.fast), tuple(Locker() for _ in self.lockers), ())

    # ---- states ----

    def with_fast(self, state: State, i: int, **kw: object) -> State:
        new = state.fast[i]._replace(**kw)  # type: ignore[arg-type]
        return state._replace(fast=(*state.fast[:i], new, *state.fast[i + 1 :]))

    def with_locker(self, state: State, i: int, **kw: object) -> State:
        new = state.lockers[i]._replace(**kw)  # type: ignore[arg-type]
        return state._replace(lockers=(*state.lockers[:i], new, *state.lockers[i + 1 :]))

    def next_ticket(self, state: State) -> int:
        tickets = [r.ticket for r in state.ranges] + [f.ticket for f in state.fast if f.extent == PARKED]
        return 1 + max(tickets, default=0)

    def canonical(self, state: State) -> State:
        """Only the order of tickets matters; those of nobody are 0."""
        used = {r.ticket for r in state.ranges} | {f.ticket for f in state.fast if f.extent == PARKED}
        rank = {ticket: n + 1 for n, ticket in enumerate(sorted(used))}
        return State(
            tuple(f._replace(ticket=rank[f.ticket] if f.extent == PARKED else 0) for f in state.fast),
            tuple(x._replace(ticket=rank[x.ticket] if x.at == "waiting" else 0) for x in state.lockers),
            tuple(r._replace(ticket=rank[r.ticket]) for r in state.ranges),
        )

    # ---- range.c ----

    def wake(self, state: State, lu: int) -> State:
        """If (lu->range_waiting) vt_range_wake: one condition for all lockers of the target."""
        if not any(not r.held and r.blocks.lu == lu for r in state.ranges):
            return state
        lockers = tuple(x._replace(signalled=True) if x.at == "waiting" else x for x in state.lockers)
        return state._replace(lockers=lockers)

    def orphans(self, state: State, blocks: Blocks) -> frozenset[int]:
        return frozenset(i for i, f in enumerate(state.fast) if f.orphan and self.fast[i].meets(blocks))

    def has_orphan(self, state: State, blocks: Blocks) -> bool:
        return bool(self.orphans(state, blocks)) and self.mutation != "an orphan has nothing for itself"

    def claim(self, state: State, i: int) -> State:
        me, blocks = state.fast[i], self.fast[i]
        granted = me.extent == GRANTED and self.mutation != "a granted command looks again"
        taken = not granted and (any(r.blocks.meets(blocks) for r in state.ranges) or self.has_orphan(state, blocks))
        if taken and self.mutation != "a fast command does not look":
            return self.with_fast(state, i, at="parked", extent=PARKED, ticket=self.next_ticket(state))
        return self.with_fast(state, i, at="running", extent=KNOWN)

    def left(self, state: State, i: int) -> State:
        """vt_range_left, after the command has left the set."""
        extent, blocks, orphan = state.fast[i].extent, self.fast[i], state.fast[i].orphan
        again = self.watched not in (None, ("fast", i))
        state = self.with_fast(
            state, i, at="away" if again else "gone", extent=NONE, aborted=False, orphan=False, behind=frozenset()
        )
        state = state._replace(fast=tuple(f._replace(behind=f.behind - {i}) for f in state.fast))
        if orphan and self.mutation != "an orphan's end is told to nobody":
            state = self.unpark_what_may(state, blocks.lu)
        meets = extent == KNOWN and any(not r.held and r.blocks.meets(blocks) for r in state.ranges)
        if (extent in (UNKNOWN, GRANTED) or meets) and self.mutation != "nobody is waked by a command's end":
            state = self.wake(state, blocks.lu)
        return state

    def may_hold(self, state: State, mine: Range) -> tuple[bool, bool]:
        """May it, and is there a command that has not said where it goes?"""
        holder = any(r.held and r.owner == mine.owner and r.blocks.lu == mine.blocks.lu for r in state.ranges)
        if self.mutation == "a holder waits its turn":
            holder = False
        for r in state.ranges:
            first = not holder and r.ticket < mine.ticket and self.mutation != "a lock overtakes locks"
            if r.owner != mine.owner and r.blocks.meets(mine.blocks) and (r.held or first):
                return False, False
        for i, f in enumerate(state.fast):
            older = f.extent == PARKED and f.ticket < mine.ticket
            if older and not holder and self.fast[i].meets(mine.blocks):
                return False, False
        used = unknown = False
        for i, f in enumerate(state.fast):
            if f.extent == UNKNOWN and self.fast[i].lu == mine.blocks.lu:
                unknown = self.mutation != "a lock does not wait for those that have not said where"
            elif f.extent in (KNOWN, GRANTED) and self.fast[i].meets(mine.blocks):
                used = self.mutation != "a lock does not wait for fast commands"
        return not used and not unknown, unknown

    def unpark_what_may(self, state: State, lu: int) -> State:
        for i, f in enumerate(state.fast):
            if f.extent != PARKED or self.fast[i].lu != lu or self.has_orphan(state, self.fast[i]):
                continue
            if not any((r.held or r.ticket < f.ticket) and r.blocks.meets(self.fast[i]) for r in state.ranges):
                state = self.with_fast(state, i, at="entered", extent=GRANTED)
        return state

    def give_back(self, state: State, mine: Range) -> State:
        state = state._replace(ranges=tuple(r for r in state.ranges if r != mine))
        if self.mutation != "parked commands stay parked":
            state = self.unpark_what_may(state, mine.blocks.lu)
        return state if self.mutation == "nobody is waked by an unlock" else self.wake(state, mine.blocks.lu)

    # ---- steps ----

    def steps(self, state: State) -> Iterator[Step]:
        if self.watched_ended(state):
            return
        for i in range(len(self.fast)):
            for who, what, after in self.fast_steps(state, i):
                yield who, what, self.canonical(after)
        for i in range(len(self.lockers)):
            for who, what, after in self.locker_steps(state, i):
                if after != state:
                    yield who, what, self.canonical(after)

    def fast_steps(self, state: State, i: int) -> Iterator[tuple[str, str, State]]:
        me, who = state.fast[i], f"fast {i}"
        match me.at:
            case "away":
                lu = self.fast[i].lu
                looks = any(r.blocks.lu == lu for r in state.ranges)
                looks |= any(f.orphan and blocks.lu == lu for f, blocks in zip(state.fast, self.fast, strict=True))
                behind = self.orphans(state, self.fast[i])
                after = self.with_fast(state, i, at="entered", extent=LOOK if looks else UNKNOWN, behind=behind)
                once = self.watched in (None, ("fast", i))
                yield who if once else CHANCE, "enters", after
            case "entered" if me.aborted:
                yield who, "ends, aborted", self.left(state, i)
            case "entered" if me.extent == UNKNOWN:
                yield who, "says where it goes", self.with_fast(state, i, at="running", extent=KNOWN)
            case "entered":
                yield who, "looks", self.claim(state, i)
            case "running":
                yield who, "ends", self.left(state, i)
                if self.losses and not me.orphan:
                    yield CHANCE, f"stops the channel of fast {i}", self.with_fast(state, i, orphan=True)
            case "parked" if self.errors:
                after = self.with_fast(state, i, at="entered", extent=LOOK, aborted=True)
                yield CHANCE, f"aborts fast {i}", self.wake(after, self.fast[i].lu)

    def locker_steps(self, state: State, i: int) -> Iterator[tuple[str, str, State]]:
        me, script, who = state.lockers[i], self.lockers[i], f"locker {i}"
        mine = next((r for r in state.ranges if r.ticket == me.ticket), None)
        match me.at:
            case "taking":
                ticket = self.next_ticket(state)
                ranges = (*state.ranges, Range(ticket, i, script[me.held], False))
                after = self.with_locker(state, i, at="waiting", ticket=ticket, signalled=True, polls=False)
                begins = me.held == 0 and self.watched not in (None, ("locker", i))
                yield CHANCE if begins else who, f"wants {tuple(script[me.held])}", after._replace(ranges=ranges)
            case "waiting" if mine:
                if me.signalled or me.polls:
                    yield who, "tries", self.try_hold(state, i, mine)
                if self.errors:
                    after = self.give_back(self.with_locker(state, i, at="giving"), mine)
                    yield CHANCE, f"locker {i} gives up", after
            case "giving" if me.held:
                held = next(r for r in state.ranges if r.owner == i and r.blocks == script[me.held - 1])
                yield who, "unlocks", self.give_back(self.with_locker(state, i, held=me.held - 1), held)
            case "giving":
                again = self.watched not in (None, ("locker", i))
                yield who, "ends", self.with_locker(state, i, at="taking" if again else "gone")

    def try_hold(self, state: State, i: int, mine: Range) -> State:
        may, unknown = self.may_hold(state, mine)
        if not may:
            return self.with_locker(state, i, signalled=False, polls=unknown)
        ranges = tuple(r._replace(held=True) if r == mine else r for r in state.ranges)
        held = state.lockers[i].held + 1
        at = "giving" if held == len(self.lockers[i]) else "taking"
        after = self.with_locker(state, i, at=at, held=held, signalled=False, polls=False)
        return after._replace(ranges=ranges)

    # ---- properties ----

    def check(self, state: State) -> None:
        for i, f in enumerate(state.fast):
            if f.at == "running" and f.behind:
                raise Broken(f"fast {i} moves data that {sorted(f.behind)}, whose initiator is gone, may still change")
        held = [r for r in state.ranges if r.held]
        for n, one in enumerate(held):
            if any(one.owner != other.owner and one.blocks.meets(other.blocks) for other in held[:n]):
                raise Broken("two lockers hold the same blocks")
            for i, f in enumerate(state.fast):
                if f.at == "running" and one.blocks.meets(self.fast[i]):
                    raise Broken(f"fast {i} moves data in a range that is locked")

    def watched_ended(self, state: State) -> bool:
        if self.watched is None:
            return False
        kind, number = self.watched
        who: tuple[Fast, ...] | tuple[Locker, ...] = state.fast if kind == "fast" else state.lockers
        return who[number].at == "gone"

    def ended(self, state: State) -> bool:
        everybody = all(x.at == "gone" for x in (*state.fast, *state.lockers))
        return self.watched_ended(state) or (everybody and not state.ranges)

    def show(self, state: State) -> str:
        fast = " ".join(f"{f.at}/{f.extent}" for f in state.fast)
        lockers = " ".join(f"{x.at}:{x.held}{'!' * x.signalled}" for x in state.lockers)
        ranges = " ".join(f"{r.owner}@{tuple(r.blocks)}{'+' if r.held else '?'}" for r in state.ranges)
        return f"fast {fast} | lockers {lockers} | {ranges}"
