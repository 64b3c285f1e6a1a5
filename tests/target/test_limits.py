# SPDX-License-Identifier: BSD-2-Clause
"""What one initiator, or one user, may have of the target's channels, nexuses and memory, with real rings: the refusal
says which limit, is logged once with who it was, and everything comes back.
"""

import os
import threading

import oracle_srp as oracle
import pytest
from bus_initiator import Raw, RawSrp, RawVbd
from real_server import INQUIRY, Target, absorb_attention

from target.limits import Limits
from vscsi import srp
from vscsi.bus.connection import Peer
from vscsi.bus.errors import BusError
from vscsi.native import lib

OTHER_USER = 4242
BUSY = 8


@pytest.fixture
def serve(tmp_path):
    targets = []

    def start(*, listener=None, **limits) -> Target:
        luns = ("0=mem:1M", "1=mem:1M")
        targets.append(Target(tmp_path / "socket", *luns, listener=listener, limits=Limits(**limits)))
        return targets[-1]

    yield start
    for target in targets:
        target.stop()


def complaints(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_channels_of_one_initiator(serve, caplog):
    target = serve(initiator_channels=3)
    raw = target.raw()
    channels = [raw.srp(devid) for devid in range(3)]
    refused = RawSrp(raw, 3)
    assert (refused.state, refused.error) == (5, "no more than 3 channels for one connection")
    assert complaints(caplog) == [f"initiator 1 (pid {os.getpid()}) vscsi-srp/3: {refused.error}"]
    vbd = RawVbd(raw, queues=4)
    vbd.connect()
    assert vbd.state == 5, "its queues are channels, too"
    assert target.raw().srp().state == 4, "another connection has its own"
    channels[0].close()
    target.until(lambda: target.server.channel_shares.held() == 3, "given back")
    refused.write({"state": "6"})
    refused.wait_state(6)
    refused.connect()
    assert refused.state == 4
    for one in target.raws:
        one.close()
    target.until(lambda: target.server.channel_shares.held() == 0, "all given back")


def test_nexuses_of_one_initiator(serve, caplog):
    target = serve(initiator_nexuses=2)
    raw = target.raw()
    first, second, third, again = (raw.srp(devid) for devid in range(4))
    for channel, port in ((first, b"1"), (second, b"2")):
        assert isinstance(channel.login(port * 16), srp.LoginRsp)
    assert third.login(b"3" * 16).reason == lib.SRP_REJ_INSUFFICIENT_RESOURCES
    third.wait_state(5)
    assert third.error.endswith(" (no more than 2 nexuses for one connection)")
    assert len(complaints(caplog)) == 1
    assert isinstance(again.login(b"1" * 16, req_flags=1), srp.LoginRsp), "one more channel is no more nexuses"
    vbd = RawVbd(raw)
    vbd.connect()
    assert (vbd.state, vbd.read("error")) == (5, "no more than 2 nexuses for one connection")
    first.close()
    assert target.do(target.server.nexus_shares.held) == 2, "the nexus has another channel"
    again.close()
    target.until(lambda: target.server.nexus_shares.held() == 1, "given back")
    vbd.write({"state": "6"})
    vbd.wait_state(6)
    vbd.connect()
    assert vbd.state == 4
    raw.close()
    target.until(lambda: target.server.nexus_shares.held() == 0, "all given back")


def test_a_nexus_of_two_connections_counts_for_both(serve):
    target = serve(initiator_nexuses=1)
    one, other = target.raw(), target.raw()
    assert isinstance(one.srp().login(b"1" * 16), srp.LoginRsp)
    assert isinstance(other.srp().login(b"1" * 16, req_flags=1), srp.LoginRsp)
    assert target.do(target.server.nexus_shares.held) == 2
    one.close()
    target.until(lambda: target.server.nexus_shares.held() == 1, "the other one's is left")
    other.close()
    target.until(lambda: target.server.nexus_shares.held() == 0, "all given back")


def test_a_login_that_fails_for_another_reason_books_nothing(serve):
    target = serve()
    channel = target.raw().srp()
    assert isinstance(channel.login(req_it_iu_len=1), srp.LoginRej)
    assert target.do(target.server.nexus_shares.held) == 0


def test_one_user_cannot_take_all_channels_and_nexuses(serve, monkeypatch):
    target = serve()
    mallory = target.raw()
    peer = target.do(lambda: next(iter(target.server.peers)))
    monkeypatch.setattr(peer.connection, "peer", Peer(1, OTHER_USER, 1))
    for shares in (target.server.channel_shares, target.server.nexus_shares):
        shares.each = shares.total  # of several connections' limits only the user's is left
        shared = shares.total - 64 * shares.kept
        target.do(lambda shares=shares, n=shares.kept + shared * 3 // 4: shares.take("theirs", OTHER_USER, n))
    channels, nexuses = target.server.channel_shares.kept, target.server.nexus_shares.kept
    assert (channels, nexuses) == (32, 4)
    opened = [RawSrp(mallory, devid) for devid in range(channels)]
    assert {channel.state for channel in opened} == {4}
    assert RawSrp(mallory, channels).error == f"user {OTHER_USER} has as many channels as one user may have"
    answers = [channel.login(bytes([devid]) * 16) for devid, channel in enumerate(opened[: nexuses + 1])]
    assert [type(answer) for answer in answers] == [srp.LoginRsp] * nexuses + [srp.LoginRej]
    opened[nexuses].wait_state(5)
    assert opened[nexuses].error.endswith(f"(user {OTHER_USER} has as many nexuses as one user may have)")
    channel = target.raw().srp()
    assert isinstance(channel.login(b"owner's port id!"), srp.LoginRsp)


def test_memory_of_one_initiator_and_of_all(serve, tmp_path, caplog):
    mib = 1 << 20
    target = serve(
        listener={"max_connections": 4, "max_memory_nbytes": 12 * mib, "total_memory_nbytes": 32 * mib},
    )
    with pytest.raises(BusError, match="more memory than the 12582912 bytes"):
        Raw(target.path, 13 * mib)
    first, _second = (Raw(target.path, 12 * mib) for _ in range(2))
    with pytest.raises(BusError, match="no more bytes of memory than those that it keeps for others"):
        Raw(target.path, 12 * mib)
    target.until(lambda: len(complaints(caplog)) == 2, "both are logged")
    assert all(f"(pid {os.getpid()}, uid {os.getuid()})" in line for line in complaints(caplog))
    third = Raw(target.path, 4 * mib)
    first.close()
    shares = target.server.listener._memory
    target.until(lambda: shares.held() == 16 * mib, "given back")
    target.raws += [third, _second, Raw(target.path, 12 * mib)]


def test_event_channels_of_all(serve):
    target = serve()
    target.server.listener._event_channels.total = target.server.listener._event_channels._free_to_all = 0
    target.server.listener._event_channels.kept = 1
    raw = target.raw()
    raw.connection.event_channel()
    with pytest.raises(BusError, match="no more event channels than those that it keeps for others"):
        raw.connection.event_channel()


def test_commands_in_the_background_of_one_connection(serve, monkeypatch):
    from target import worker
    from target.commands import Background, Result

    go_on = threading.Event()
    target = serve()
    first, second = target.raw().srp(), target.raw().srp()
    for channel, port in ((first, b"1" * 16), (second, b"2" * 16)):
        channel.login(port)
        absorb_attention(channel)
    monkeypatch.setattr(worker, "execute", lambda *_, **__: Background(lambda: (go_on.wait(), Result(0))[1]))
    most = worker.MAX_CONNECTION_BACKGROUND
    for tag in range(most + 1):
        first.ring.send(oracle.encode_cmd(oracle.Cmd(tag, bytes(8), INQUIRY)))
    busy = oracle.decode_rsp(first.ring.take())
    assert busy.status == BUSY, "whichever of them came last to its worker"
    second.ring.send(oracle.encode_cmd(oracle.Cmd(77, bytes(8), INQUIRY)))
    shares = target.server.workers._background_shares
    target.until(lambda: shares.held() == most + 1, "another connection's runs beside them")
    go_on.set()
    answers = [oracle.decode_rsp(first.ring.take()) for _ in range(most)]
    assert sorted(answer.tag for answer in [busy, *answers]) == list(range(most + 1))
    assert oracle.decode_rsp(second.ring.take()).status == 0
    assert shares.held() == 0


def test_a_remembered_nexus_makes_room_for_one_that_is_used(serve):
    target = serve()
    raw = target.raw()
    channel = raw.srp()
    channel.login(b"remembered port!")
    channel.close()
    registry, native = target.server.nexuses, target.server.native
    target.until(lambda: not target.server.channels, "gone")

    def fill() -> list[int]:
        made = []
        while (index := native.vt_nexus_add(target.server.target)) >= 0:
            made.append(index)
        return made

    made = target.do(fill)
    assert len(made) == native.VT_MAX_NEXUSES - 1
    channel = raw.srp(1)
    assert isinstance(channel.login(b"a new one's port"), srp.LoginRsp)
    assert [str(nexus) for nexus in registry.known()] == [b"a new one's port".hex()]
    refused = raw.srp(2)
    assert refused.login(b"one too many....").reason == lib.SRP_REJ_INSUFFICIENT_RESOURCES
    assert target.do(target.server.nexus_shares.held) == 1
    target.do(lambda: [native.vt_nexus_remove(target.server.target, index) for index in made])
