# SPDX-License-Identifier: BSD-2-Clause
"""The XenBus machine: two of them wired together, in every order that messages and work can interleave."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.bus.xenbus import Action, Role, Step, XenbusMachine, XenbusState
from vscsi.errors import LocalProtocolError, RemoteProtocolError

S = XenbusState


class End:
    """A device end: writes go to the other's queue; a step is done only when the test says so."""

    def __init__(self, role: Role) -> None:
        self.machine = XenbusMachine(role)
        self.inbox: deque[str | None] = deque()
        self.todo: Step | None = None
        self.done: list[Action] = []
        self.rings = False  # published (initiator) or mapped (target)
        self.coalesce = False
        self.other: End

    def take(self, step: Step | None) -> None:
        self.todo = step or self.todo

    def enter(self, state: XenbusState) -> None:
        self.todo = None
        step = self.machine.enter(state)
        self.other.inbox.append(state.node)
        self.take(step)

    def work(self) -> bool:
        step, self.todo = self.todo, None
        if step is None:
            return False
        self.done.append(step.action)
        EFFECTS.get(step.action, lambda end: None)(self)
        if step.next is not None:
            self.enter(step.next)
        return True

    def hear(self) -> bool:
        if not self.inbox:
            return False
        text = self.inbox.popleft()
        while self.coalesce and self.inbox:  # an end that looks at the store now and then sees the last state only
            text = self.inbox.popleft()
        self.take(self.machine.peer_wrote(text))
        return True


def _published(end: End) -> None:
    end.rings = True


def _connected(end: End) -> None:
    assert end.other.rings, "connected before the other end had rings"
    end.rings = True


def _unmapped(end: End) -> None:
    end.rings = False


def _released(end: End) -> None:
    assert not end.other.rings, "released rings that the target still maps"
    end.rings = False


EFFECTS = {
    Action.PUBLISH: _published,
    Action.CONNECT: _connected,
    Action.RECONNECT: _unmapped,
    Action.DISCONNECT: _unmapped,
    Action.RELEASE: _released,
}


def pair(*, coalesce: bool = False) -> tuple[End, End]:
    initiator, target = End(Role.INITIATOR), End(Role.TARGET)
    target.coalesce = coalesce
    initiator.other, target.other = target, initiator
    target.inbox.append(S.INITIALISING.node)
    initiator.take(initiator.machine.begin())
    target.take(target.machine.begin())
    return initiator, target


def settle(*ends: End) -> None:
    for _ in range(200):
        moved = [end.hear() or end.work() for end in ends]
        if not any(moved):
            return
    raise AssertionError("the two never come to rest")


def test_start() -> None:
    initiator, target = pair()
    settle(initiator, target)
    assert initiator.done == [Action.PUBLISH, Action.CONNECT]
    assert target.done == [Action.PREPARE, Action.CONNECT]
    assert initiator.machine.state == target.machine.state == S.CONNECTED


ORDER = st.lists(st.sampled_from(["ih", "iw", "th", "tw"]), max_size=40)


def interleave(order: list[str], initiator: End, target: End) -> None:
    for move in order:
        end = initiator if move[0] == "i" else target
        (end.hear if move[1] == "h" else end.work)()


@given(ORDER, st.booleans())
def test_start_in_any_order(order: list[str], coalesce: bool) -> None:
    initiator, target = pair(coalesce=coalesce)
    interleave(order, initiator, target)
    settle(initiator, target)
    assert initiator.machine.state == target.machine.state == S.CONNECTED
    assert initiator.rings
    assert target.rings


@given(ORDER, ORDER, st.lists(st.sampled_from(["i", "t"]), min_size=1, max_size=2, unique=True), st.booleans())
def test_close_from_either_or_both_ends_at_any_moment(
    before: list[str], between: list[str], who: list[str], coalesce: bool
) -> None:
    initiator, target = pair(coalesce=coalesce)
    interleave(before, initiator, target)
    for name in who:
        end = initiator if name == "i" else target
        target.machine.online = target.machine.online and end is initiator
        if end.machine.state not in (S.CLOSING, S.CLOSED):
            end.enter(S.CLOSING)
        interleave(between, initiator, target)
    settle(initiator, target)
    assert initiator.machine.state == S.CLOSED
    assert target.machine.state == S.CLOSED
    assert not target.rings
    assert not initiator.rings
    if initiator.done[-1] is not Action.LOST:
        assert initiator.done[-1] is Action.RELEASE
        assert initiator.done.count(Action.RELEASE) == 1


@given(ORDER, ORDER, st.booleans(), st.booleans())
def test_reconnect(closing: list[str], order: list[str], patient: bool, coalesce: bool) -> None:
    initiator, target = pair(coalesce=coalesce)
    settle(initiator, target)
    initiator.enter(S.CLOSING)
    interleave(closing, initiator, target)
    if patient or initiator.machine.state is not S.CLOSED:
        settle(initiator, target)
    initiator.enter(S.INITIALISING)
    interleave(order, initiator, target)
    settle(initiator, target)
    assert initiator.machine.state == target.machine.state == S.CONNECTED
    assert target.done.count(Action.DISCONNECT) == 1
    assert target.done.count(Action.CONNECT) == 2


@given(ORDER, st.booleans())
def test_resume_publishes_new_rings_without_closing(order: list[str], coalesce: bool) -> None:
    initiator, target = pair(coalesce=coalesce)
    settle(initiator, target)
    initiator.enter(S.INITIALISED)
    interleave(order, initiator, target)
    settle(initiator, target)
    assert target.done[2:] == [Action.RECONNECT, Action.CONNECT]
    assert initiator.machine.state == target.machine.state == S.CONNECTED


def test_a_target_that_goes_offline_does_not_serve_again() -> None:
    initiator, target = pair()
    settle(initiator, target)
    target.machine.online = False
    target.enter(S.CLOSING)
    settle(initiator, target)
    initiator.enter(S.INITIALISING)
    settle(initiator, target)
    assert (initiator.machine.state, target.machine.state) == (S.INITIALISING, S.CLOSED)
    target.machine.online = True
    target.take(target.machine.begin())
    settle(initiator, target)
    assert initiator.machine.state == target.machine.state == S.CONNECTED


def test_initiator_that_begins_again_without_closing() -> None:
    initiator, target = pair()
    settle(initiator, target)
    again = End(Role.INITIATOR)
    again.other, target.other = target, again
    again.inbox.append(S.CONNECTED.node)
    target.inbox.append(S.INITIALISING.node)
    settle(again, target)
    assert target.done[2:] == [Action.DISCONNECT, Action.PREPARE, Action.CONNECT]
    assert again.machine.state == target.machine.state == S.CONNECTED


def test_properties_announced_again_are_read_again() -> None:
    initiator, target = pair()
    settle(initiator, target)
    for _ in range(2):
        target.enter(S.CONNECTED)
        settle(initiator, target)
    assert initiator.done[2:] == [Action.UPDATE, Action.UPDATE]
    assert initiator.machine.state == S.CONNECTED


def test_closing_waits_while_the_initiator_is_in_use() -> None:
    initiator, target = pair()
    settle(initiator, target)
    target.enter(S.CLOSING)
    initiator.hear()
    assert initiator.todo == Step(Action.CLOSE, S.CLOSING)
    initiator.work()
    target.hear()
    assert not target.work()
    assert target.rings
    assert initiator.todo == Step(Action.FINISH, S.CLOSED)
    initiator.work()
    settle(initiator, target)
    assert not target.rings


@pytest.mark.parametrize("state", [S.CLOSING, S.CLOSED])
def test_refused_at_once_is_lost(state: XenbusState) -> None:
    machine = XenbusMachine(Role.INITIATOR)
    assert machine.peer_wrote(state.node) == Step(Action.LOST, S.CLOSED)


def test_removed_nodes_end_a_device_on_both_sides() -> None:
    initiator, target = pair()
    settle(initiator, target)
    assert initiator.machine.peer_wrote(None) == Step(Action.LOST, S.CLOSED)
    assert target.machine.peer_wrote(None) == Step(Action.DISCONNECT, S.CLOSED)


def test_a_step_is_asked_for_once() -> None:
    machine = XenbusMachine(Role.TARGET)
    assert machine.begin() == Step(Action.PREPARE, S.INIT_WAIT)
    assert machine.begin() is None
    assert machine.enter(S.INIT_WAIT) is None
    assert machine.peer_wrote("3") == Step(Action.CONNECT, S.CONNECTED)
    assert machine.peer_wrote("3") is None
    assert machine.peer_wrote("5") == Step(Action.CLOSE, S.CLOSING)


@pytest.mark.parametrize("text", ["", "9", "-1", "04", "4 ", "\u0664", "connected", "1" * 5000])
def test_text_that_is_no_state(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="state"):
        XenbusMachine(Role.TARGET).peer_wrote(text)


def test_moves_a_role_may_not_make() -> None:
    with pytest.raises(LocalProtocolError, match="target cannot go from INITIALISING to CONNECTED"):
        XenbusMachine(Role.TARGET).enter(S.CONNECTED)
    with pytest.raises(LocalProtocolError, match="initiator cannot go from INITIALISING to INIT_WAIT"):
        XenbusMachine(Role.INITIATOR).enter(S.INIT_WAIT)


@given(st.sampled_from(Role), st.lists(st.one_of(st.none(), st.sampled_from([s.node for s in S])), max_size=30))
def test_whatever_the_peer_writes_steps_can_be_taken(role: Role, writes: list[str | None]) -> None:
    machine = XenbusMachine(role)
    step = machine.begin()
    for text in writes:
        step = machine.peer_wrote(text)
        taken = 0
        while step is not None and step.next is not None:
            step = machine.enter(step.next)
            taken += 1
            assert taken < 4, "steps that never end"


def test_states_are_xens() -> None:
    assert [s.node for s in S] == list("012345678")
    assert (S.CONNECTED, S.CLOSED) == (4, 6)
