# SPDX-License-Identifier: BSD-2-Clause
"""What a peer can say on the socket and do to its memory, against a real target process: XenBus states in all orders,
nodes that are garbage, floods of bytes, memory that changes its seals and holes under the target.
Knows nodes and frames; knows no IU but login and a read.
"""

import contextlib
import ctypes
import fcntl
import itertools
import json
import random
import socket
import struct
import time

import oracle_srp as oracle
import pytest
from bus_initiator import INFO, RawSrp, RawVbd
from hostile_field import LONG
from real_server import TEST_UNIT_READY, read_10

from vscsi.bus.local import BusError
from vscsi.native import lib
from vscsi.nodes import SrpInitiatorNodes

F_SEAL_FUTURE_WRITE = 0x10
FALLOC_PUNCH = 3
SECONDS = 10.0 if LONG else 0.7

SRP_GARBAGE = [
    {"ring-page-order": "99"},
    {"ring-page-order": "-1"},
    {"ring-ref0": "-1"},
    {"ring-ref0": "7"},
    {"ring-ref0": "99999999999999999999999"},
    {"ring-ref0": "4294967295"},
    {"ring-ref0": "0x20"},
    {"ring-ref1": None},
    {"reverse-ring-ref": ""},
    {"reverse-ring-ref": "4294967296"},
    {"event-channel": "0"},
    {"event-channel": "77777"},
    {"event-channel": "9" * 1000},
    {"reverse-event-channel": None},
    {"protocol": "srp-r16a-999"},
    {"feature-persistent": "2"},
    {"max-transfer": "-5"},
    {"max-transfer": "\u0661"},
]
VBD_GARBAGE = [
    {"ring-ref": "-1", "ring-ref0": "-1"},
    {"event-channel": "1e3"},
    {"ring-page-order": "99"},
    {"num-ring-pages": "3"},
    {"multi-queue-num-queues": "100000"},
    {"multi-queue-num-queues": "4"},
    {"protocol": "x86_32-abi"},
]


def test_garbage_in_the_nodes_ends_the_device_with_one_line(field):
    raw = field.raw()
    for change in SRP_GARBAGE:
        channel = RawSrp(raw, 3, connect=False)
        said = len(field.log())
        channel.connect(lambda own, change=change: own | change)
        assert channel.state == 5 and channel.error, change
        assert len(field.log()) == said + 1, (change, field.log()[said:])
        channel.write({"state": "6"})
        channel.wait_state(6)
        raw.connection.write({channel.path: None})
        raw.wait(lambda channel=channel: raw.connection.store.get(f"{channel.backend}/state") is None, "removed")
    for change in VBD_GARBAGE:
        vbd = RawVbd(raw)
        said = len(field.log())
        vbd.connect(lambda own, change=change: own | change)
        assert vbd.state == 5, change
        assert len(field.log()) == said + 1, (change, field.log()[said:])
        vbd.write({"state": "6"})
        vbd.wait_state(6)
        raw.connection.write({vbd.path: None})
        vbd.wait_state(2)
    field.check()


def test_ports_of_one_device_used_for_both_rings(field):
    channel = RawSrp(field.raw(), connect=False)
    channel.connect(lambda own: own | {"reverse-event-channel": own["event-channel"]})
    assert channel.state == 5 and "shares" in (channel.error or "")
    channel = RawSrp(field.raw(), connect=False)
    channel.connect(lambda own: own | {"reverse-ring-ref": own["ring-ref0"]})
    assert channel.state == 5 and "shares" in (channel.error or "")
    field.check()


def test_states_in_every_order(field):
    """Every sequence of three states on connectable devices, and long random ones: SRP and vbd."""
    chance = random.Random(3)
    orders = list(itertools.product(range(9), repeat=3))
    if not LONG:
        orders = chance.sample(orders, 60)
    orders += [tuple(chance.choices(range(9), k=30)) for _ in range(100 if LONG else 8)]
    raw, used = field.raw(), 0
    for states in orders:
        if used == 40:
            raw.close()
            field.raws.remove(raw)
            raw, used = field.raw(), 0
        used += 1
        channel, vbd = RawSrp(raw, used, connect=False), RawVbd(raw)
        for state in states:
            with contextlib.suppress(AssertionError, BusError):
                nodes = {}
                if state == 3:
                    nodes = good_nodes(raw)
                channel.write({**nodes, "state": str(state)})
                vbd.write({**nodes, "state": str(state)})
        raw.connection.write({channel.path: None, vbd.path: None})
    assert RawSrp(raw).login() is not None, "the connection itself is still good"
    field.check()


def good_nodes(raw) -> dict[str, str]:
    from bus_initiator import RawRing

    try:
        rings = [RawRing(raw, 1, lib.VSCSI_SRP_SLOT) for _ in range(2)]
    except MemoryError:
        return {}
    return SrpInitiatorNodes(rings[0].nodes, rings[1].nodes, INFO).nodes()


def test_connected_and_torn_down_as_fast_as_it_goes(field):
    """The state is rewritten while channels still stop; the same port and the same pages come again."""
    raw = field.raw()
    deadline, rounds = time.monotonic() + SECONDS, 0
    nodes = good_nodes(raw)
    while time.monotonic() < deadline:
        for state in ("1", "3", "4", "5", "6", "3", "1", "3", "2"):
            raw.connection.write({f"device/vscsi-srp/0/{k}": v for k, v in {**nodes, "state": state}.items()})
        raw.connection.write({"device/vscsi-srp/0": None})
        rounds += 1
    field.bystander.alive()
    assert rounds > 5
    field.check()


def frames() -> list[bytes]:
    def frame(value: object) -> bytes:
        body = json.dumps(value).encode()
        return struct.pack("<I", len(body)) + body

    return [
        b"GET / HTTP/1.0\r\n\r\n" * 100,
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<I", 1 << 20) + b"[" * (1 << 20),
        frame([]),
        frame({"op": "hello"}),
        frame({"op": ["hello"]}),
        frame({"op": "hello", "version": 1, "regions": [1 << 62], "table-frame": -1, "table-pages": 1 << 70}),
        struct.pack("<I", 5) + b"\xff\xfe\xfd\xfc\xfb",
        struct.pack("<I", 60000) + b'{"a":' * 12000,
        struct.pack("<I", 5000) + b"1" * 5000,
    ]


def test_socket_floods(field):
    """Garbage at full speed on many sockets; connections that say nothing; more of them than are allowed."""
    silent = []
    for _ in range(20):
        silent.append(socket.socket(socket.AF_UNIX))
        silent[-1].connect(str(field.socket))
    deadline = time.monotonic() + SECONDS
    for garbage in itertools.cycle(frames()):
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(2)
            with contextlib.suppress(OSError):
                one.connect(str(field.socket))
                for _ in range(5):
                    one.sendall(garbage)
        if time.monotonic() > deadline:
            break
    field.bystander.alive()
    for one in silent:
        one.close()
    field.check(slack_kb=16 << 10)  # messages of 1 MiB, several at a time


def test_store_and_requests_flooded(field):
    """Thousands of nodes written over and over, statistics asked for and never read."""
    raw = field.raw()
    deadline, count = time.monotonic() + SECONDS, 0
    with contextlib.suppress(BusError):
        while time.monotonic() < deadline:
            batch = {f"device/vscsi-srp/{count % 64}/x{k}": "v" * 1000 for k in range(100)}
            raw.connection.write(batch | {f"device/vscsi-srp/{count % 64}/state": str(count % 9)})
            count += 1
    assert count > 20
    field.bystander.alive()
    field.check(slack_kb=32 << 10)


def test_memory_that_changes_under_the_target(field, monkeypatch):
    """Holes punched, a seal against new writers set after hello: nothing faults, and nobody else suffers."""
    add_seals = fcntl.fcntl
    monkeypatch.setattr("fcntl.fcntl", lambda fd, op, seals: add_seals(fd, op, seals & fcntl.F_SEAL_SHRINK))
    channel = field.srp()
    monkeypatch.undo()
    memory = channel.raw.connection.memory
    offset = memory.alloc(64 << 12)
    gref = memory.grant(offset, 64 << 12)[0]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    for tag in range(40):
        read = oracle.Cmd(tag, bytes(8), read_10(0, 512), data_in=oracle.Direct(0, gref, 512 * 512))
        channel.ring.send(oracle.encode_cmd(read))
        assert libc.fallocate(memory.fd, FALLOC_PUNCH, offset, 64 << 12) == 0
        assert channel.ring.take() is not None
    fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
    later = RawSrp(channel.raw, 1)
    assert later.state == 5 and "cannot be mapped" in (later.error or "")
    assert channel.command(TEST_UNIT_READY, tag=99).status == 0
    # The whole of it gone, rings and grant table too.
    other = field.srp(b"another attacker")
    memory = other.raw.connection.memory
    assert libc.fallocate(memory.fd, FALLOC_PUNCH, 0, memory.nbytes) == 0
    lib.vscsi_event_send_fd(other.ring.fd)
    field.bystander.alive()
    field.check()


@pytest.mark.parametrize("lone", [0, 1])
def test_never_answers_the_last_words(field, lone):
    """T_LOGOUT is sent and nobody reads it, closes or goes away: the target waits for nothing."""
    channels = [field.srp(bytes((lone, k)) * 8) for k in range(4)]
    for channel in channels:
        channel.ring.send(b"\x55" * 248 if lone else bytes(248))
    field.bystander.alive()
    for channel in channels:
        channel.raw.wait(lambda channel=channel: channel.state == 5, "Closing")
    field.bystander.alive()
    field.check()
