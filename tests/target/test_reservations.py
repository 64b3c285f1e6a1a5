# SPDX-License-Identifier: BSD-2-Clause
"""Reservations against a model written from the standard's text, over random actions, losses and restarts.

The model keeps tables and flags; the target's rules are functions on values. They share no code.
"""

from typing import Any

from fake_device import FakeDevice, FakePort
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from target.commands.table import AS_READ, AS_WRITE, Conflict
from target.reservations import Reservations
from target.state import State
from vscsi.scsi import cdb
from vscsi.scsi import reservations as layout
from vscsi.scsi.reservations import Type, encode_move, encode_out, encode_srp_transportid
from vscsi.scsi.status import Status

PORTS = (1, 2, 3, 4)
KEYS = st.integers(0, 3)
WHO = st.sampled_from(PORTS)
KIND = st.sampled_from(list(Type))
UNREGISTERED, NOT_HOLDER = 16, 32
GOOD, CONFLICT, BAD = Status.GOOD, Status.RESERVATION_CONFLICT, Status.CHECK_CONDITION

# Columns of SPC-4 table 51: what conflicts with a reservation that one does not hold.
COLUMNS = {"A": "W", "B": "RW", "C": "", "D": "W", "E": "RW"}
NOT_REGISTERED = {1: "A", 3: "B", 5: "D", 6: "E", 7: "D", 8: "E"}
REGISTERED = {1: "A", 3: "B", 5: "C", 6: "C", 7: "C", 8: "C"}


class Kept(State):
    """Documents that outlive a target, without a disk."""

    durable = True

    def power_cycled(self) -> "Kept":
        other = Kept()
        other._memory = dict(self._memory)
        return other


class Model:
    """What the standard says, as one would tell it."""

    def __init__(self) -> None:
        self.key: dict[int, int] = {}
        self.generation = 0
        self.kind = 0
        self.holder = 0
        self.aptpl = False
        self.legacy = 0
        self.told: list[tuple[int, int]] = []

    def restart(self) -> None:
        if not self.aptpl:
            self.key, self.kind, self.holder = {}, 0, 0
        self.generation = self.legacy = 0
        self.told = []

    def is_holder(self, n: int) -> bool:
        return n in self.key and ((self.kind > 6) or (self.kind > 0 and n == self.holder))

    def conflicts(self, n: int) -> str:
        if not self.kind or self.is_holder(n):
            return ""
        return COLUMNS[(REGISTERED if n in self.key else NOT_REGISTERED)[self.kind]]

    def lose(self, n: int) -> None:
        """A registration goes; with it what only it held."""
        del self.key[n]
        if (self.kind > 6 and not self.key) or (0 < self.kind < 7 and self.holder == n):
            self.kind = self.holder = 0

    def tell(self, code: int, besides: int) -> None:
        self.told += [(n, code) for n in self.key if n != besides]

    def register(self, n: int, key: int, new: int, ignore: bool, aptpl: bool, others: list[int]) -> Status:
        if not ignore and key != self.key.get(n, 0):
            return CONFLICT
        if not new and n not in self.key:
            return GOOD
        if new and others and n in self.key:
            return BAD
        if new:
            for other in others if n not in self.key else []:
                if other != n:
                    self.key.setdefault(other, new)
            self.key[n] = new
        else:
            ro_holder = self.kind in (5, 6) and self.holder == n
            self.lose(n)
            if ro_holder:
                self.tell(0x2A04, n)
        self.aptpl = aptpl
        self.generation += 1
        return GOOD

    def reserve(self, n: int, kind: int) -> Status:
        if self.kind and (not self.is_holder(n) or self.kind != kind):
            return CONFLICT
        if not self.kind:
            self.kind, self.holder = kind, n if kind < 7 else 0
        return GOOD

    def release(self, n: int, kind: int) -> Status:
        if self.is_holder(n):
            if kind != self.kind:
                return BAD
            if kind >= 5:
                self.tell(0x2A04, n)
            self.kind = self.holder = 0
        return GOOD

    def clear(self, n: int) -> Status:
        self.tell(0x2A03, n)
        self.key, self.kind, self.holder = {}, 0, 0
        self.generation += 1
        return GOOD

    def preempt(self, n: int, victim: int, kind: int) -> Status:
        every = self.kind > 6 and victim == 0
        if victim == 0 and not every:
            return BAD
        victims = [m for m, key in self.key.items() if every or key == victim]
        if not victims:
            return CONFLICT
        takes = every or (0 < self.kind < 7 and self.key[self.holder] == victim)
        former = self.kind
        for m in victims:
            if m != n:
                self.lose(m)
                self.told.append((m, 0x2A05))
        if takes:
            self.kind, self.holder = kind, n if kind < 7 else 0
            if kind != former:
                self.tell(0x2A04, n)
        self.generation += 1
        return GOOD

    def move(self, n: int, new: int, to: int, unregister: bool, aptpl: bool) -> Status:
        if not self.kind:
            return BAD
        if not self.is_holder(n):
            return CONFLICT
        if not new:
            return BAD
        if self.kind > 6:
            return CONFLICT
        if to == n:
            return BAD
        self.key[to], self.holder, self.aptpl = new, to, aptpl
        if unregister:
            del self.key[n]
        self.generation += 1
        return GOOD


def port_id(n: int) -> bytes:
    return bytes([n]) * 16


class Machine(RuleBasedStateMachine):
    """Port n has the nexus with index n while it is known; port 4 comes and goes."""

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.kept = Kept()
        self.boot((1, 2, 3))

    def boot(self, who: tuple[int, ...]) -> None:
        self.device = FakeDevice("0=mem:1M")
        self.unit = self.device.units[0]
        self.unit.state = self.kept
        self.part = self.unit.part(Reservations)
        self.part.start()
        for n in who:
            self.device.connect(n, port_id(n))

    def send(self, n: int, raw: bytes, data: bytes = b"") -> Status:
        return self.device.run(raw, FakePort(data), nexus=n).status

    def pr_out(self, n: int, sa: int, data: bytes, kind: int = 0) -> Status:
        return self.send(n, cdb.ROWS[0x5F, sa].build(type=kind, parameter_list_length=len(data)), data)

    def expect(self, n: int, key: int | None, got: Status, model: Any) -> None:
        """The rules that all actions share, then the action's own. Nothing that fails changes anything."""
        if self.model.legacy or (key is not None and self.model.key.get(n) != key):
            assert got is CONFLICT
        else:
            assert got is model()

    @rule(
        n=st.sampled_from((1, 2, 3)), key=KEYS, new=KEYS, ignore=st.booleans(), aptpl=st.booleans(), more=st.lists(WHO)
    )
    def register(self, n: int, key: int, new: int, ignore: bool, aptpl: bool, more: list[int]) -> None:
        more = [] if ignore else more
        ids = [encode_srp_transportid(port_id(m)) for m in more]
        got = self.pr_out(n, 6 if ignore else 0, encode_out(key, new, transportids=ids, aptpl=aptpl))
        self.expect(n, None, got, lambda: self.model.register(n, key, new, ignore, aptpl, more))

    @rule(n=st.sampled_from((1, 2, 3)), new=st.integers(0, 3), aptpl=st.booleans())
    def join_or_leave(self, n: int, new: int, aptpl: bool) -> None:
        got = self.pr_out(n, 6, encode_out(0, new, aptpl=aptpl))
        self.expect(n, None, got, lambda: self.model.register(n, 0, new, True, aptpl, []))

    @rule(kind=KIND)
    def whoever_may_takes_it(self, kind: int) -> None:
        """So that there is something to lose."""
        if self.model.key.keys() & {1, 2, 3}:
            self.reserve_rightly(min(self.model.key.keys() & {1, 2, 3}), kind)

    @rule(n=st.sampled_from((1, 2, 3)), key=KEYS, kind=KIND)
    def reserve(self, n: int, key: int, kind: int) -> None:
        self.expect(n, key, self.pr_out(n, 1, encode_out(key), kind), lambda: self.model.reserve(n, kind))

    @rule(n=st.sampled_from((1, 2, 3)), kind=KIND)
    def reserve_rightly(self, n: int, kind: int) -> None:
        key = self.model.key.get(n, 0)
        self.expect(n, key or None, self.pr_out(n, 1, encode_out(key), kind),
                    lambda: self.model.reserve(n, kind) if key else CONFLICT)  # fmt: skip

    @rule(n=st.sampled_from((1, 2, 3)), key=KEYS, kind=KIND)
    def release(self, n: int, key: int, kind: int) -> None:
        self.expect(n, key, self.pr_out(n, 2, encode_out(key), kind), lambda: self.model.release(n, kind))

    @rule(n=st.sampled_from((1, 2, 3)), key=KEYS)
    def clear(self, n: int, key: int) -> None:
        self.expect(n, key, self.pr_out(n, 3, encode_out(key)), lambda: self.model.clear(n))

    @rule(n=st.sampled_from((1, 2, 3)), victim=KEYS, kind=KIND, abort=st.booleans())
    def preempt(self, n: int, victim: int, kind: int, abort: bool) -> None:
        key = self.model.key.get(n, 9)
        got = self.pr_out(n, 5 if abort else 4, encode_out(key, victim), kind)
        self.expect(n, key, got, lambda: self.model.preempt(n, victim, kind))

    @rule(n=st.sampled_from((1, 2, 3)), new=KEYS, to=WHO, unregister=st.booleans(), aptpl=st.booleans())
    def move(self, n: int, new: int, to: int, unregister: bool, aptpl: bool) -> None:
        key = self.model.key.get(n, 9)
        data = encode_move(key, new, 1, encode_srp_transportid(port_id(to)), unreg=unregister, aptpl=aptpl)
        self.expect(n, key, self.pr_out(n, 7, data), lambda: self.model.move(n, new, to, unregister, aptpl))

    @rule(n=st.sampled_from((1, 2, 3)), take=st.booleans(), long=st.booleans())
    def legacy(self, n: int, take: bool, long: bool) -> None:
        raw = bytes([(0x56 if long else 0x16) + (not take)]) + bytes(9 if long else 5)
        got = self.send(n, raw)
        model = self.model
        if model.key:
            assert got is (GOOD if n in model.key and model.kind and not model.conflicts(n) else CONFLICT)
        elif model.legacy not in (0, n):
            assert got is (CONFLICT if take else GOOD)
        else:
            assert got is GOOD
            model.legacy = n if take else 0

    @rule(n=WHO)
    def nexus_lost(self, n: int) -> None:
        if n in self.device.known:
            self.unit.nexus_lost(self.device.known[n])
            self.model.legacy = 0 if self.model.legacy == n else self.model.legacy

    @rule()
    def logical_unit_reset(self) -> None:
        self.unit.reset()
        self.model.legacy = 0

    @rule()
    def the_fourth_comes_or_goes(self) -> None:
        nexus = self.device.known.get(4)
        if nexus is None:
            self.device.connect(4, port_id(4))
        elif not self.unit.remembers(nexus):
            self.unit.nexus_forgotten(self.device.known.pop(4))

    @rule(order=st.permutations((1, 2, 3)))
    def power_cycle(self, order: list[int]) -> None:
        self.kept = self.kept.power_cycled()
        self.model.restart()
        self.boot(tuple(order))

    @invariant()
    def everything_agrees(self) -> None:
        model, state = self.model, self.part.state
        if model.legacy:
            assert self.send(model.legacy, cdb.PERSISTENT_RESERVE_IN_READ_KEYS.build(allocation_length=8)) is CONFLICT
        else:
            port = FakePort()
            raw = cdb.PERSISTENT_RESERVE_IN_READ_FULL_STATUS.build(allocation_length=4096)
            assert self.device.run(raw, port, nexus=1).status is GOOD
            generation, rows = layout.decode_full_status(port.data_in)
            assert generation == model.generation
            assert {row.transportid[8]: row.key for row in rows} == model.key
            assert {row.transportid[8] for row in rows if row.holder} == {n for n in model.key if model.is_holder(n)}
            assert {row.type for row in rows if row.holder} <= {model.kind}
        assert state.aptpl == model.aptpl
        others, denied = self.device.denied[0]
        rare_others, rarely = self.device.denied_rarely[0]
        assert set(denied) == set(self.device.known)
        for n in (*self.device.known, 0):
            conflicts = model.conflicts(n)
            expected = 7 if model.legacy not in (0, n) else ("R" in conflicts) | ("W" in conflicts) << 1
            strange = UNREGISTERED * (n not in model.key) | NOT_HOLDER * bool(model.kind and not model.is_holder(n))
            assert (rare_others if n == 0 else rarely[n]) == (0 if model.legacy not in (0, n) else strange)
            assert (others if n == 0 else denied[n]) == expected
            assert self.part.denies(n, AS_READ) is bool(expected & 5)
            assert self.part.denies(n, AS_WRITE) is bool(expected & 6)
            assert self.part.denies(n, Conflict.READ) is bool(expected & 5)
            assert self.part.denies(n, Conflict.SPC2) is bool(expected & 4)
            assert not self.part.denies(n, Conflict.NONE)

    @invariant()
    def the_right_ones_are_told(self) -> None:
        got = [(n, code) for (n, _), codes in self.device.attentions.items() for code in codes]
        assert sorted(got) == sorted(t for t in self.model.told if t[0] in self.device.known)
        self.device.attentions.clear()
        self.model.told.clear()


TestReservations = Machine.TestCase
TestReservations.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
