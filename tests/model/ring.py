# SPDX-License-Identifier: BSD-2-Clause
"""Model of the shared ring with event suppression, as vscsi/native/ring.h, event.h and their users have it.

Two processors with store buffers: a store is seen by the other side later, a relaxed one even after younger ones; one
with release after all older ones. A fence waits until the own buffer is empty. Loads are in order (acquire).
Indexes count modulo `wrap` and start just before it. Either side may die between any two steps.
Must not import the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from model.checker import CHANCE, Broken, Step

REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT, SLOTS = range(5)
NAMES = ("req_prod", "req_event", "rsp_prod", "rsp_event")
REQUEST, RESPONSE = 0, 64  # what a slot holds: one of these, plus 1 + the number of the request
GONE = ("end", "dead")

# What a change of the code could get wrong; none of these is let through by the checker (tests/model/test_ring.py).
MUTATIONS = (
    "no fence after publishing",
    "no fence after asking",
    "no second look",
    "asks after the second look",
    "index without release",
    "asks one too late",
    "kicks only for the last",
    "takes the kick after the look",
    "full channel blocks",
)

Buffer = tuple[tuple[int, int, bool], ...]  # variable, value, release; the oldest first


class Side(NamedTuple):
    """One side's private memory. Front: produces requests. Back: produces responses."""

    pc: str
    prod: int  # *_prod_pvt
    published: int
    cons: int
    busy: int  # bits: front: requests outstanding; back: consumed and not yet answered
    made: int  # front: how many requests so far; back: how many consumed
    old: int  # published before this push
    buffer: Buffer
    kick: bool  # a message stands in its event channel


class State(NamedTuple):
    """Everything: shared memory and both sides."""

    memory: tuple[int, ...]
    front: Side
    back: Side


@dataclass(frozen=True)
class Ring:
    """`slots` of a ring, `requests` in all, who `may_die` ("", "front", "back", "both"), who never sleeps (`spins`)."""

    slots: int = 2
    requests: int = 3
    may_die: str = ""
    spins: str = ""
    mutation: str = ""
    wrap: int = 16

    def initial(self) -> State:
        start = self.wrap - 1
        side = Side("work", start, start, start, 0, 0, start, (), False)
        return State((start, self.add(start, 1), start, self.add(start, 1), *[0] * self.slots), side, side)

    def add(self, index: int, n: int) -> int:
        return (index + n) % self.wrap

    def load(self, state: State, side: Side, variable: int) -> int:
        for v, value, _ in reversed(side.buffer):
            if v == variable:
                return value
        return state.memory[variable]

    def slot(self, index: int) -> int:
        return SLOTS + index % self.slots

    # ---- steps ----

    def steps(self, state: State) -> Iterator[Step]:
        for name, moves in (("front", self.front), ("back", self.back)):
            side: Side = getattr(state, name)
            yield from self.drain(state, name, side)
            if side.pc in GONE:
                continue
            for what, after in moves(state, side):
                yield name, what, after
            if self.may_die in (name, "both"):
                yield CHANCE, f"kills {name}", state._replace(**{name: side._replace(pc="dead")})

    def drain(self, state: State, name: str, side: Side) -> Iterator[Step]:
        """The processor makes one store visible."""
        for i, (variable, value, release) in enumerate(side.buffer):
            older = side.buffer[:i]
            if i and (release or any(v == variable for v, _, _ in older)):
                continue
            memory = (*state.memory[:variable], value, *state.memory[variable + 1 :])
            after = side._replace(buffer=older + side.buffer[i + 1 :])
            yield "memory", f"{name}'s {self.name(variable)}={value}", state._replace(memory=memory, **{name: after})

    def name(self, variable: int) -> str:
        return NAMES[variable] if variable < SLOTS else f"slot {variable - SLOTS}"

    def front(self, state: State, me: Side) -> Iterator[tuple[str, State]]:
        peer_gone = state.back.pc in GONE
        if me.pc in ("work", "asleep") and me.made < self.requests:
            used = (me.prod - me.cons) % self.wrap
            if used > self.slots:
                raise Broken("the ring is over-full")
            if used < self.slots and not peer_gone:
                stored = self.store(me, self.slot(me.prod), REQUEST + 1 + me.made)
                after = stored._replace(
                    pc="work", prod=self.add(me.prod, 1), busy=me.busy | 1 << me.made, made=me.made + 1
                )
                yield f"writes request {me.made}", state._replace(front=after)
        if me.pc == "work" and me.made == self.requests and not me.busy and me.prod == me.published:
            yield "closes", state._replace(front=me._replace(pc="end"))
            return
        yield from self.common(state, "front", me, REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT)

    def back(self, state: State, me: Side) -> Iterator[tuple[str, State]]:
        if me.pc in ("work", "asleep"):
            for n in range(self.requests):
                if me.busy & 1 << n:
                    stored = self.store(me, self.slot(me.prod), RESPONSE + 1 + n)
                    after = stored._replace(pc="work", prod=self.add(me.prod, 1), busy=me.busy & ~(1 << n))
                    yield f"answers request {n}", state._replace(back=after)
        yield from self.common(state, "back", me, RSP_PROD, RSP_EVENT, REQ_PROD, REQ_EVENT)

    def store(self, me: Side, variable: int, value: int, release: bool = False) -> Side:
        return me._replace(buffer=(*me.buffer, (variable, value, release)))

    def common(
        self, state: State, name: str, me: Side, my_prod: int, my_event: int, prod: int, event: int
    ) -> Iterator[tuple[str, State]]:
        """What both sides do alike. `my_event`: what the peer asks of me; `event`: what I ask of it."""
        other = "back" if name == "front" else "front"
        peer: Side = getattr(state, other)

        def me_as(**kw: object) -> State:
            return state._replace(**{name: me._replace(**kw)})  # type: ignore[arg-type]

        match me.pc:
            case "work":
                if me.prod != me.published:
                    after = self.store(me, my_prod, me.prod, self.mutation != "index without release")
                    after = after._replace(pc="published", old=me.published, published=me.prod)
                    yield f"publishes {self.name(my_prod)}={me.prod}", state._replace(**{name: after})
                waiting = self.unconsumed(state, name, me, prod)
                if waiting:
                    yield "takes", self.take(state, name, me)
                elif peer.pc in GONE and not (name == "back" and me.busy) and me.prod == me.published:
                    # The event channel is closed. What was in the ring before that is visible by now: a system call.
                    if not peer.buffer:
                        yield "sees the end", me_as(pc="end")
                elif me.prod == me.published and name not in self.spins.split():
                    yield "goes to sleep", me_as(pc="ask")
            case "published":
                if not me.buffer or self.mutation == "no fence after publishing":
                    asked = self.load(state, me, my_event)
                    span = (me.published - me.old) % self.wrap
                    if self.mutation == "kicks only for the last":
                        span = 1
                    kick = (me.published - asked) % self.wrap < span
                    yield f"fences, reads event {asked}", me_as(pc="kick" if kick else "work")
            case "kick":
                if peer.pc in GONE:
                    yield "kicks nobody", me_as(pc="work")
                elif not peer.kick:
                    both = me_as(pc="work")
                    yield "kicks", both._replace(**{other: peer._replace(kick=True)})
                elif self.mutation != "full channel blocks":
                    yield "a kick is pending", me_as(pc="work")
            case "ask":
                for ahead in self.aheads(name, me):
                    asked = self.add(me.cons, ahead + (self.mutation == "asks one too late"))
                    if self.mutation == "asks after the second look":
                        yield "looks", me_as(pc="late" if not self.unconsumed(state, name, me, prod) else "work")
                    else:
                        pc = "wait" if self.mutation == "no second look" else "asked"
                        after = self.store(me, event, asked)._replace(pc=pc)
                        yield f"asks for {asked}", state._replace(**{name: after})
            case "late":
                after = self.store(me, event, self.add(me.cons, 1))._replace(pc="wait")
                yield "asks late", state._replace(**{name: after})
            case "asked":
                if not me.buffer or self.mutation == "no fence after asking":
                    found = self.unconsumed(state, name, me, prod)
                    yield (
                        ("fences, finds work", self.take(state, name, me))
                        if found
                        else (
                            "fences, finds nothing",
                            me_as(pc="asleep"),
                        )
                    )
            case "wait":
                yield "sleeps", me_as(pc="asleep")
            case "asleep":
                if me.kick and self.mutation == "takes the kick after the look":
                    found = self.unconsumed(state, name, me, prod)
                    yield "looks first", me_as(pc="drain") if not found else self.take(state, name, me)
                elif me.kick:
                    yield "wakes", me_as(pc="work", kick=False)
                elif peer.pc in GONE and not (name == "back" and me.busy):
                    yield "is hung up on", me_as(pc="work")
            case "drain":
                yield "takes the kick", me_as(pc="asleep", kick=False)

    def aheads(self, name: str, me: Side) -> set[int]:
        """How many responses the front waits for at least: one, or all that are outstanding."""
        return {1, max(1, me.busy.bit_count())} if name == "front" else {1}

    def unconsumed(self, state: State, name: str, me: Side, prod: int) -> int:
        there = self.load(state, me, prod)
        waiting = (there - me.cons) % self.wrap
        limit = (me.published - me.cons) % self.wrap if name == "front" else self.slots
        if waiting > limit or (name == "back" and (there - me.published) % self.wrap > self.slots):
            raise Broken(f"{name}: -EPROTO, though both keep the rules")
        return waiting

    def take(self, state: State, name: str, me: Side) -> State:
        """Copies the oldest slot and counts it as consumed."""
        content = self.load(state, me, self.slot(me.cons))
        cons = self.add(me.cons, 1)
        if name == "back":
            if content != REQUEST + 1 + me.made:
                raise Broken(f"back consumes {content}, not request {me.made}")
            after = me._replace(pc="work", cons=cons, busy=me.busy | 1 << me.made, made=me.made + 1)
        else:
            n = content - RESPONSE - 1
            if n < 0 or not me.busy & 1 << n:
                raise Broken(f"front finds {content}: no response to anything outstanding")
            after = me._replace(pc="work", cons=cons, busy=me.busy & ~(1 << n))
        return state._replace(**{name: after})

    # ---- properties ----

    def check(self, state: State) -> None:
        front, back = state.front, state.back
        if front.busy.bit_count() > self.slots or back.busy & ~front.busy:
            raise Broken("more is outstanding than the ring has slots, or than was asked")
        if front.pc == "end" and front.busy and back.pc not in GONE:
            raise Broken("the front gives up a request although the back lives")

    def ended(self, state: State) -> bool:
        """Both sides are gone; without a death every request has had its one response."""
        front, back = state.front, state.back
        if "dead" not in (front.pc, back.pc) and (front.busy or front.made != self.requests or back.busy):
            return False
        return front.pc in GONE and back.pc in GONE

    def show(self, state: State) -> str:
        def side(s: Side) -> str:
            stores = " ".join(f"{self.name(v)}={x}" for v, x, _ in s.buffer)
            return f"{s.pc}{' kicked' if s.kick else ''} prod {s.prod} cons {s.cons} [{stores}]"

        return f"{state.memory}  front {side(state.front)}  back {side(state.back)}"
