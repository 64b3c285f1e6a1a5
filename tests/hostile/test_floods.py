# SPDX-License-Identifier: BSD-2-Clause
"""Valid messages as fast as a peer can send them: store writes, requests, questions of the owner, event channels, and
connections that say hello and go. A well-behaved initiator logs in beside all of them and is served; nobody has more
than his turn before the others have theirs, and who never stops rests. Counted, not timed. Knows frames.
"""

import itertools
import socket
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from hostile_field import LONG
from real_server import Target

from initiator import Initiator
from target import calm
from vscsi.bus import local_target, wire
from vscsi.bus.local_target import FRAMES_AT_ONCE, TargetConnection

ROUNDS = 300 if LONG else 6
MESSAGES = 200_000 if LONG else 2000
"""That the flood has to bring before it counts as one."""

FLOOD = """
import fcntl, json, os, select, socket, struct, sys

def frame(**fields):
    body = json.dumps(fields).encode()
    return struct.pack("<I", len(body)) + body

def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    fd = os.memfd_create("flood", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    hello = frame(op="hello", version=1, regions=[1 << 20], **{"table-frame": 0, "table-pages": 1})
    socket.send_fds(sock, [hello], [fd])
    os.close(fd)
    return sock

def ask(name, **fields):
    return frame(op="request", id=1, name=name, fields=fields)

SAID = {
    "store": frame(op="store", set={"device/vscsi-srp/0/n": "x", "device/vscsi-srp/1": None}),
    "requests": ask("stats") + ask("info"),
    "admin": ask("admin", action="resize", lun=0) + ask("admin-result", ticket=1),
    "channels": frame(op="event-channel-close", port=1),
    "hellos": b"",
}[sys.argv[2]]
print("on", flush=True)
while not SAID:
    with connect() as sock:
        sock.recv(1)
sock = connect()
sock.setblocking(False)
data = view = memoryview(SAID * 1000)
while True:
    readable, writable, _ = select.select([sock], [sock], [])
    if readable and not sock.recv(1 << 20):
        sys.exit("turned away")
    if writable:
        view = view[sock.send(view):] or data
"""
KINDS = ("store", "requests", "admin", "channels", "hellos")


@pytest.fixture
def target(tmp_path):
    made = Target(tmp_path / "socket", "0=mem:1M")
    yield made
    made.stop()


@pytest.fixture
def flood(target):
    children = []

    def start(kind: str) -> subprocess.Popen:
        command = [sys.executable, "-P", "-c", FLOOD, str(target.path), kind]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert children[-1].stdout.readline() == "on\n"
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture
def heard(target, monkeypatch):
    """Every message that the target hears from now on: (number of the turn, connection)."""
    found: list[tuple[int, int]] = []
    turn = itertools.count()
    now = 0

    def begin():
        nonlocal now
        now = next(turn)
        return take()

    def dispatch(self, frame):
        found.append((now, self.domid))
        real(self, frame)

    take, real = target.server.turns.take_unfinished, TargetConnection._dispatch
    monkeypatch.setattr(target.server.turns, "take_unfinished", begin)
    monkeypatch.setattr(TargetConnection, "_dispatch", dispatch)
    return found


def test_valid_messages_at_full_speed_take_turns(target, flood, heard, monkeypatch):
    monkeypatch.setattr(calm, "FREE_SECONDS", 0.02)
    rests = []
    later = target.server.turns._later
    monkeypatch.setattr(target.server.turns, "_later", lambda s, f: (rests.append(s), later(s, f)))
    floods = [flood(kind) for kind in KINDS]
    done = 0
    while done < ROUNDS or len(heard) < MESSAGES or not rests:
        with Initiator(target.path, memory_nbytes=4 << 20, timeout=30) as hba:
            disk = hba.lun(0)
            disk.write(done, bytes((done,)) * 512)
            assert disk.read(done, 1) == bytes((done,)) * 512
            assert hba.connection.request("info")["luns"]
        done = (done + 1) % 2048 if LONG else done + 1
        assert [child.poll() for child in floods] == [None] * len(floods), "slowed down, not turned away"
    turns = Counter(heard)
    assert max(turns.values()) == FRAMES_AT_ONCE, "a flood has its whole turn, and nobody has more"
    assert len({domid for _, domid in heard}) > done, "each of ours was heard"


def test_a_turn_ends_when_its_time_is_over_too(target, heard, monkeypatch):
    """What takes long is not done 32 times at once; that other time goes by does not matter."""
    monkeypatch.setattr(local_target, "TURN_SECONDS", 0.0)
    raw = target.raw()
    for number in range(20):
        raw.connection.write({"device/x/0": str(number)})
    target.until(lambda: len(heard) >= 21, "all are heard")
    assert max(Counter(heard).values()) == 1


def test_what_waits_is_heard_before_the_end(target, heard):
    """Everything that came before the connection was closed counts."""
    raw = target.raw()
    target.until(lambda: len(target.server.peers) == 1, "connected")
    (peer,) = target.server.peers
    store = peer.connection.store
    batch = 10 * FRAMES_AT_ONCE
    for number in range(batch):
        raw.connection.write({"device/x/0": str(number)})
    raw.connection.close()
    target.until(lambda: not target.server.peers, "gone")
    assert store["device/x/0"] == str(batch - 1)
    assert max(Counter(heard).values()) <= FRAMES_AT_ONCE


def test_messages_cut_anywhere_do_not_count_as_one_that_never_ends(monkeypatch):
    """A peer whose messages are always cut by the end of what is read, and always go on, keeps nobody waiting."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    connection = TargetConnection(ours, 1)
    monkeypatch.setattr(connection, "_ops", {"x": lambda frame: None})
    frame = wire.encode("x")
    clock = itertools.count(1.0)
    monkeypatch.setattr("vscsi.bus.connection.time", SimpleNamespace(monotonic=lambda: next(clock)))
    theirs.send(frame[:7])
    for _ in range(10):
        assert connection.process()
        since = connection._partial_since
        assert since is not None
        theirs.send(frame[7:] + frame[:7])
        assert connection.process()
        assert connection._partial_since > since, "it is another one now"
    connection.close()
    theirs.close()
