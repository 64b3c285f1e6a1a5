# SPDX-License-Identifier: BSD-2-Clause
"""Masks, read-only initiators and permitted ports, as initiators on real rings meet them."""

import os

import pytest
from bus_initiator import RawVbd
from fake_device import FakeDevice
from real_server import Target

from initiator import Initiator
from target.access import fits, port_pattern, redacted
from target.commands.extended_copy import names_of
from target.lunspec import LunSpecError, parse
from target.options import build_parser
from target.rod_tokens import Tokens
from vscsi import srp
from vscsi.bus.local import Listener
from vscsi.native import lib
from vscsi.scsi.reservations import encode_srp_transportid
from vscsi.scsi.sense import CheckCondition

A, B = b"a" * 16, b"b" * 16
MASK = f"1=mem:1M,initiators={A.hex()}"
TUR, INQUIRY = "00" * 6, "12 00 00 00 24 00"
REPORT_LUNS = "a0 00 00 00 00 00 00 00 01 00 00 00"
WRITE, READ = "2a 00 00 00 00 00 00 00 01 00", "28 00 00 00 00 00 00 00 01 00"
NOT_SUPPORTED = (5, 0x25, 0)


class Node:
    """An initiator port. Unit attentions are taken on `luns` first."""

    def __init__(self, target: Target, port_id: bytes, *luns: int) -> None:
        self.initiator = Initiator(target.path, port_id=port_id, memory_nbytes=4 << 20)
        for lun in luns:
            assert self.sense(TUR, lun)[0] == 6

    def send(self, cdb: str, lun: int = 0, data: bytes = b"", data_in: int = 0):
        return self.initiator.execute(lun, bytes.fromhex(cdb), data_out=data, data_in=data_in)

    def sense(self, cdb: str, lun: int = 0, data: bytes = b"") -> tuple[int, int, int] | None:
        done = self.send(cdb, lun, data)
        return (done.sense[2] & 15, done.sense[12], done.sense[13]) if done.status == 2 else None

    def luns(self) -> list[int]:
        data = bytes(self.send(REPORT_LUNS, data_in=256).data_in)
        return [data[at + 1] for at in range(8, 8 + int.from_bytes(data[:4]), 8)]


@pytest.fixture
def serve(tmp_path):
    targets = []

    def start(*luns: str, **options) -> Target:
        targets.append(Target(tmp_path / "socket", *luns, **options))
        return targets[-1]

    nodes: list[Node] = []
    start.node = lambda *args: nodes.append(Node(targets[-1], *args)) or nodes[-1]
    yield start
    for node in nodes:
        node.initiator.close()
    for target in targets:
        target.stop()


def test_a_masked_unit_does_not_exist_for_others(serve):
    serve("0=mem:1M", MASK)
    a, b = serve.node(A, 0, 1), serve.node(B, 0)
    assert (a.luns(), b.luns()) == ([0, 1], [0])
    assert a.sense(WRITE, 1, bytes(512)) is None
    for cdb, data in ((TUR, b""), (READ, b""), (WRITE, b"x" * 512), ("5e 00 00 00 00 00 00 00 08 00", b"")):
        assert b.sense(cdb, 1, data) == NOT_SUPPORTED
    assert bytes(b.send(INQUIRY, 1, data_in=36).data_in)[0] == 0x7F
    assert bytes(a.send(INQUIRY, 1, data_in=36).data_in)[0] == 0
    assert bytes(a.send(READ, 1, data_in=512).data_in) == bytes(512)


def test_a_hidden_unit_answers_like_one_that_is_not_there(serve):
    serve("0=mem:1M", MASK)
    b = serve.node(B, 0)
    for cdb in (TUR, READ, INQUIRY, "03 00 00 00 fc 00", REPORT_LUNS, "1a 00 3f 00 fc 00", "ff" * 6):
        hidden, absent = (b.send(cdb, lun, data_in=252) for lun in (1, 2))
        shown = [(x.status, bytes(x.sense), bytes(x.data_in or b"")) for x in (hidden, absent)]
        assert shown[0] == shown[1], cdb


def test_resets_and_reservations_of_a_hidden_unit_stay_unknown_and_are_out_of_reach(serve):
    target = serve("0=mem:1M", MASK)
    a, b = serve.node(A, 0, 1), serve.node(B, 0)
    assert a.sense("16 00 00 00 00 00", 1) is None  # RESERVE(6)
    resets = [b.initiator.task_management(lib.SRP_TMF_LUN_RESET, lun) for lun in (1, 2)]
    assert resets == [lib.SRP_RESP_FIELDS_INVALID] * 2
    assert a.sense(TUR, 1) is None
    target.do(lambda: target.server.nexuses.luns_changed())
    target.do(lambda: target.server.unit_resized(target.server.units[1]))
    assert b.sense(TUR, 1) == NOT_SUPPORTED
    assert b.sense(TUR, 0) == (6, 0x3F, 0x0E)
    assert b.sense(TUR, 0) is None
    assert [a.sense(TUR, 1)[1:], a.sense(TUR, 1)[1:]] == [(0x3F, 0x0E), (0x2A, 0x09)]


def test_read_only_for_one_initiator(serve):
    serve(f"0=mem:1M,ro-initiators={B.hex()[:6]}")
    a, b = serve.node(A, 0), serve.node(B, 0)
    assert a.sense(WRITE, 0, b"w" * 512) is None
    unmap, same = "42 00 00 00 00 00 00 00 00 00", "93 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00"
    for cdb, data in ((WRITE, b"x" * 512), (unmap, b""), (same, b"x" * 512), ("04 00 00 00 00 00", b"")):
        assert b.sense(cdb, 0, data) == (7, 0x27, 0), cdb
    assert bytes(b.send(READ, data_in=512).data_in) == b"w" * 512
    for cdb, at in (("1a 08 3f 00 fc 00", 2), ("5a 08 3f 00 00 00 00 00 fc 00", 3)):
        assert [bytes(n.send(cdb, data_in=252).data_in)[at] & 0x80 for n in (a, b)] == [0, 0x80]


def test_blkif_sees_no_masked_unit_and_writes_to_no_restricted_one(serve):
    target = serve("0=mem:1M", MASK, f"2=mem:1M,ro-initiators={B.hex()}")
    raw = target.raw()
    plain, hidden, restricted = (RawVbd(raw, lun) for lun in (0, 1, 2))
    raw.wait(lambda: restricted.read("info") is not None, "the vbd")
    assert (plain.read("info"), hidden.read("info"), hidden.read("sectors")) == ("0", None, None)
    assert int(restricted.read("info")) & lib.VDISK_READONLY


def test_only_permitted_initiator_ports_log_in_and_no_vbd_is_offered(serve):
    target = serve("0=mem:1M", allow_initiators=(port_pattern("6161*61"),))
    raw = target.raw()
    refused, admitted = raw.srp(0).login(B), raw.srp(1).login(A)
    assert isinstance(refused, srp.LoginRej)
    assert refused.reason == lib.SRP_REJ_UNABLE_TO_ESTABLISH_CHANNEL
    assert isinstance(admitted, srp.LoginRsp)
    assert RawVbd(raw, 0).read("info") is None


def test_a_forgotten_nexus_leaves_nothing_to_the_next_with_its_number(serve):
    target = serve("0=mem:1M", MASK)
    a = serve.node(A, 0, 1)
    index = target.do(lambda: target.server.nexuses.known()[0].index)
    target.server.nexuses._max_idle = 0
    a.initiator.close()
    target.until(lambda: not len(target.server.nexuses), "forgotten")
    b = serve.node(B, 0)
    assert target.do(lambda: target.server.nexuses.known()[0].index) == index
    assert b.sense(TUR, 1) == NOT_SUPPORTED


# ---- by commands on other units ----


@pytest.fixture
def device():
    made = FakeDevice("0=mem:1M", MASK)
    made.connect(1, A), made.connect(2, B)
    yield made
    for unit in made.units.values():
        unit.close()


def task_of(device, nexus):
    from target.commands.task import Task
    from vscsi.scsi import cdb

    return Task(None, device, cdb.TEST_UNIT_READY, bytes(6), lu=device.units[0], lun=bytes(8), nexus=nexus)


def test_a_copy_finds_no_hidden_unit(device):
    from target.commands.extended_copy import _cscds, _List

    _, _, kind, naa = next(name for name in names_of(device.units[1]) if name[2] == 3)
    raw = bytes((0xE4, 0, 0, 0, 1, kind, 0, len(naa))) + naa.ljust(20, b"\0") + bytes(4)
    found = [_cscds(task_of(device, nexus), _List({}, raw, b"", 16, 48)) for nexus in (1, 2)]
    assert found == [[device.units[1]], [None]]


def test_a_token_of_a_hidden_unit_is_unknown_and_not_listed(device):
    from target.commands.token_copy import _source, report_all_rod_tokens

    tokens = device.shared(Tokens)
    token = tokens.create(device.units[1], [(0, 8)], 60, device.monotonic())
    assert _source(task_of(device, 1), token).unit is device.units[1]
    with pytest.raises(CheckCondition) as caught:
        _source(task_of(device, 2), token)
    assert caught.value.sense.code == 0x052304
    listed = [bytes(report_all_rod_tokens(task_of(device, nexus))) for nexus in (1, 2)]
    assert token[:32] in listed[0]
    assert len(listed[1]) < len(listed[0])
    assert token[:32] not in listed[1]


def test_a_registration_cannot_name_a_port_that_does_not_see_the_unit(device):
    from reserving import out

    def parameters(port: bytes) -> bytes:
        transportid = encode_srp_transportid(port)
        return bytes(8) + bytes(7) + b"k" + bytes(4) + b"\x08" + bytes(3) + len(transportid).to_bytes(4) + transportid

    out(device, 1, 0, parameters(B), lun=0)
    with pytest.raises(AssertionError, match="invalid field in parameter list, at byte 28"):
        out(device, 1, 0, parameters(B), lun=1)


# ---- words of the user ----


@pytest.mark.parametrize("text", ["", "xyz", "6" * 33, "[a]", "61+"])
def test_a_wrong_port_is_one_line(text):
    with pytest.raises(LunSpecError, match=r"^lun 0: initiators: '.*' is not an initiator port identifier"):
        parse(f"0=mem:1M,initiators={text}")


def test_patterns():
    assert fits(A, (port_pattern("0x" + A.hex().upper()),))
    assert fits(A, (port_pattern("6161"),))
    assert fits(A, (port_pattern("*61"),))
    assert not fits(A, (port_pattern("62"), port_pattern("*62"), port_pattern("?2")))


def test_options():
    args = build_parser().parse_args(
        ["--allow-uid", "7", "--allow-uid", "8", "--allow-gid", "9", "--allow-initiator", "61"]
    )
    assert (args.allow_uid, args.allow_gid, args.allow_initiator) == ([7, 8], [9], ["61*"])


# ---- other users ----


def test_what_another_user_is_told_of_the_target(serve, monkeypatch):
    target = serve("0=mem:1M", MASK)
    a = serve.node(A, 0)
    assert a is not None
    peer = target.do(lambda: next(iter(target.server.peers)))
    answer = {"luns": [{"lun": 0}, {"lun": 1}], "initiators": [{"domid": peer.connection.domid}, {"domid": 999}]}
    assert redacted(peer, answer) is answer
    monkeypatch.setattr(peer.connection, "peer", peer.connection.peer._replace(uid=os.getuid() + 4242))
    assert redacted(peer, answer) == {**answer, "initiators": answer["initiators"][:1]}
    device = next(device for device in peer.devices.values() if device.kind == "vscsi-srp")
    monkeypatch.setattr(device.nexus, "initiator_port_id", B)
    assert redacted(peer, answer)["luns"] == [{"lun": 0}]


class Theirs:
    """Stands for a connection."""

    def __init__(self, peer):
        self.peer = peer


@pytest.fixture
def listener(tmp_path):
    made = Listener(tmp_path / "l", allow_uids={0, os.getuid(), 4242}, allow_gids=[77], max_connections=8)
    yield made
    made._connections.clear()
    made.close()


def test_one_user_cannot_take_all_connections(listener):
    from vscsi.bus.connection import Peer

    theirs = Peer(1, 4242, 1)
    listener._connections |= {Theirs(theirs) for _ in range(5)}
    assert listener._objection(theirs) is None
    listener._connections.add(Theirs(theirs))
    assert listener._objection(theirs) == "user 4242 has 6 connections already, as many as one user may have here"
    assert listener._objection(Peer(1, os.getuid(), 1)) is None


def test_other_users_together_cannot_take_all_connections(listener):
    from vscsi.bus.connection import Peer

    listener.allow_uids.add(4243)
    listener._connections |= {Theirs(Peer(1, 4242, 1)) for _ in range(6)}
    listener._connections.add(Theirs(Peer(1, 4243, 1)))
    assert "other users than this target's own have 7 connections already" in listener._objection(Peer(1, 4243, 1))
    assert listener._objection(Peer(1, os.getuid(), 1)) is None


def test_users_and_groups(listener):
    from vscsi.bus.connection import Peer

    assert listener._objection(Peer(1, 4243, 77)) is None
    assert listener._objection(Peer(1, 4243, 78)) == "user 4243 may not use this target"
    assert listener.path.stat().st_mode & 0o777 == 0o666
