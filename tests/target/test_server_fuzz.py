# SPDX-License-Identifier: BSD-2-Clause
"""A malicious peer at random: nodes, IUs, ring indexes and kicks. It may only ever hurt itself."""

import contextlib

import pytest
from bus_initiator import INFO, Raw, RawRing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_server import TEST_UNIT_READY, A, Target, absorb_attention

from vscsi.bus.local import BusError
from vscsi.native import ffi, lib
from vscsi.nodes import RingNodes, SrpInitiatorNodes

DEVICES = ["vscsi-srp/0", "vscsi-srp/1", "vbd/51712", "vbd/51760", "vscsi-srp/64", "other/0"]
GOOD = SrpInitiatorNodes(RingNodes((20,), 1), RingNodes((40,), 2), INFO).nodes()
NAMES = st.sampled_from([*GOOD, "state", "ring-ref0", "ring-ref1", "multi-queue-num-queues", "queue-0/ring-ref"])
VALUES = st.one_of(st.integers(0, 8).map(str), st.integers(0, 3000).map(str), st.text("0123x-", max_size=4), st.none())
INDEX = st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1))

ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(DEVICES), st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)),
    st.tuples(st.just("state"), st.sampled_from(DEVICES[:4]), st.integers(0, 8)),
    st.tuples(st.just("connect"), st.sampled_from(DEVICES[:4]), st.integers(0, 2)),
    st.tuples(st.just("remove"), st.sampled_from(DEVICES), st.none()),
    st.tuples(st.just("iu"), st.sampled_from([0, 1, 2, 3, 0x41, 0x42, 0x80, 0xC1, 0xFF]), st.binary(max_size=247)),
    st.tuples(st.just("index"), st.sampled_from(["req_prod", "rsp_prod", "req_event", "rsp_event"]), INDEX),
    st.tuples(st.just("reverse"), st.sampled_from(["req_prod", "rsp_prod"]), INDEX),
    st.tuples(st.just("kick"), st.none(), st.none()),
)


class Malice:
    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.ring = RawRing(raw, 1, lib.VSCSI_SRP_SLOT)
        self.reverse = RawRing(raw, 1, lib.VSCSI_SRP_SLOT, answering=True)

    def write(self, device: str, nodes: dict) -> None:
        self.raw.connection.write({f"device/{device}/{name}": value for name, value in nodes.items()})

    def state(self, device: str, state: int) -> None:
        self.write(device, {"state": str(state)})

    def connect(self, device: str, _order: int) -> None:
        good = SrpInitiatorNodes(self.ring.nodes, self.reverse.nodes, INFO).nodes()
        if device.startswith("vbd"):
            good.pop("protocol")
        self.write(device, {"state": "1"})
        self.write(device, {**good, "state": "3"})

    def remove(self, device: str, _none: None) -> None:
        self.raw.connection.write({f"device/{device}": None})

    def iu(self, opcode: int, data: bytes) -> None:
        with contextlib.suppress(AssertionError):
            self.ring.send(bytes((opcode,)) + data)

    def index(self, name: str, value: int) -> None:
        setattr(self.ring.header, name, value)
        self.kick()

    def reverse_index(self, name: str, value: int) -> None:
        setattr(self.reverse.header, name, value)
        self.kick()

    def kick(self, *_: None) -> None:
        lib.vscsi_event_send_fd(self.ring.fd)
        lib.vscsi_event_send_fd(self.reverse.fd)

    def do(self, action: tuple) -> None:
        name, *arguments = action
        {"reverse": self.reverse_index}.get(name, getattr(self, name, None))(*arguments)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    made = Target(tmp_path_factory.mktemp("fuzz") / "socket", "0=mem:1M", "3=null:1M")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bystander(target):
    channel = target.raw().srp()
    channel.login(A)
    absorb_attention(channel)
    return channel


@pytest.mark.fuzz
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=1, max_size=25))
def test_a_malicious_peer_hurts_only_itself(target, bystander, caplog, actions):
    raw = target.raw()
    malice = Malice(raw)
    for action in actions:
        with contextlib.suppress(BusError):
            malice.do(action)
    assert bystander.command(TEST_UNIT_READY).status == 0
    raw.close()
    target.raws.remove(raw)
    target.until(lambda: len(target.server.peers) == 1 and len(target.server.channels) == 1, "nothing is left of it")
    assert not [r for r in caplog.records if r.exc_info], "no internal error"


def test_fuzz_reaches_the_rings(target, bystander):
    """The malice above is worth something only if its rings do get connected."""
    raw = target.raw()
    Malice(raw).connect("vscsi-srp/0", 0)
    raw.wait(lambda: raw.connection.store.get("backend/vscsi-srp/0/state") == "4", "Connected")
    assert ffi.sizeof("struct vscsi_sring") == 64
