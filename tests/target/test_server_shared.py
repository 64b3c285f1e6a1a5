# SPDX-License-Identifier: BSD-2-Clause
"""A peer that names one thing twice: event channels and pages of two devices, of two rings, of ring and data.

Knows the store's nodes; the raw rings are in bus_initiator. It may only ever hurt itself.
"""

from pathlib import Path

import oracle_srp as oracle
import pytest
from bus_initiator import INFO, RawSrp, RawVbd
from real_server import INQUIRY, TEST_UNIT_READY, A, B, Target, absorb_attention, read_10

from vscsi.native import lib
from vscsi.nodes import SrpInitiatorNodes


@pytest.fixture
def target(tmp_path):
    made = Target(tmp_path / "socket", "0=mem:1M", "1=mem:1M")
    yield made
    made.stop()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def second(channel: RawSrp, **nodes: str) -> RawSrp:
    """Another device of the same connection, whose nodes are partly those of `channel`."""
    other = RawSrp(channel.raw, 1, connect=False)
    other.connect(lambda own: own | nodes)
    return other


def newcomers_are_served(target: Target, count: int = 6) -> None:
    """Descriptor numbers that were closed behind the server's back would come back with them."""
    for k in range(count):
        channel = target.raw().srp()
        channel.login(bytes((k,)) * 16)
        absorb_attention(channel)


@pytest.mark.parametrize("mine", ["event-channel", "reverse-event-channel"])
@pytest.mark.parametrize("theirs", ["event-channel", "reverse-event-channel"])
def test_event_channel_of_another_device(target, caplog, mine, theirs):
    raw = target.raw()
    first = raw.srp()
    first.login(A)
    absorb_attention(first)
    ports = {"event-channel": first.ring.port, "reverse-event-channel": first.reverse.port}
    other = second(first, **{mine: str(ports[theirs])})
    assert other.state == 5 and "event channel" in (other.error or "")
    assert first.command(TEST_UNIT_READY).status == 0, "the device that had it first keeps it"
    raw.close()
    newcomers_are_served(target)
    assert not [r for r in caplog.records if r.exc_info], "no internal error"


def test_event_channel_of_another_vbd(target, caplog):
    raw = target.raw()
    first = RawVbd(raw, 0)
    first.connect()
    other = RawVbd(raw, 1)
    other.connect(lambda own: own | {"event-channel": str(first.rings[0].port)})
    assert other.state == 5 and "event channel" in (other.read("error") or "")
    assert first.flush() is not None
    raw.close()
    newcomers_are_served(target)
    assert not [r for r in caplog.records if r.exc_info], "no internal error"


def test_two_devices_on_one_ring(target, caplog):
    """Both consume the same requests and answer in the same slots: nonsense, and nobody else's business."""
    good = target.raw().srp()
    good.login(B)
    absorb_attention(good)
    first = target.raw().srp()
    nodes = SrpInitiatorNodes(first.ring.nodes, first.reverse.nodes, INFO).nodes()
    second(first, **{name: value for name, value in nodes.items() if "ref" in name or "order" in name})
    for k in range(12):
        first.ring.send(bytes((k,)) * 64)
        assert good.command(TEST_UNIT_READY).status == 0
    assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize("where", ["ring", "reverse", "table"])
def test_data_into_pages_that_have_another_use(target, caplog, where):
    """READ into the ring itself, the reverse ring and the grant table: the peer's own state goes, nothing else."""
    good = target.raw().srp()
    good.login(B)
    absorb_attention(good)
    good_again = good.command(INQUIRY, data_in=96)
    bad = target.raw().srp()
    bad.login(A)
    absorb_attention(bad)
    memory = bad.raw.connection.memory
    if where == "table":
        gref = memory.gref(memory.first_frame + 50)
        assert lib.vscsi_granter_grant(memory.granter, gref, 0, 0, False) in (0, -16)
        memory.view[gref * 8 : gref * 8 + 8] = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    else:
        gref = {"ring": bad.ring, "reverse": bad.reverse}[where].grefs[0]
    command = oracle.encode_cmd(oracle.Cmd(7, bytes(8), read_10(0, 8), data_in=oracle.Direct(0, gref, 4096)))
    for _ in range(4):
        bad.ring.send(command)
    for _ in range(20):
        assert good.command(INQUIRY, data_in=96).status == good_again.status == 0
    bad.raw.close()
    target.until(lambda: len(target.server.channels) == 1, "it is gone")
    assert not [r for r in caplog.records if r.exc_info]


def test_hundreds_of_devices_in_one_connection(target, caplog):
    good = target.raw().srp()
    good.login(B)
    absorb_attention(good)
    before = descriptors()
    raw = target.raw()
    raw.connection.write({f"device/vscsi-srp/{k}/state": "1" for k in range(500)})
    raw.wait(lambda: "63" in raw.connection.store.children("backend/vscsi-srp"), "64 devices")
    assert len(raw.connection.store.children("backend/vscsi-srp")) == 64
    channels = []
    for k in range(20):
        channels.append(raw.srp(k, ring_pages=1))
        channels[-1].login(bytes((k, 1)) * 8)
    assert good.command(TEST_UNIT_READY).status == 0
    raw.close()
    target.until(lambda: len(target.server.channels) == 1 and len(target.server.peers) == 1, "everything is released")
    assert descriptors() <= before
    assert not [r for r in caplog.records if r.exc_info]
