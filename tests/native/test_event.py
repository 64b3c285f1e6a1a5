# SPDX-License-Identifier: BSD-2-Clause
"""Event channels: signals merge, storms are bounded, a peer's death is told, nothing ever blocks.

The peer holds one end as a descriptor of its own, and does with it whatever a socket allows.
"""

import array
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from vscsi.native import ffi, lib

EPIPE, EBADF, ENOTSOCK = -32, -9, -88


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    ends = ffi.new("int[2]")
    assert lib.vscsi_event_pair(ends) == 0
    yield ends[0], ends[1]
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            assert fd == ends[1], "only the peer's end is closed by tests"


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_pair_is_close_on_exec(pair: tuple[int, int]) -> None:
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in pair)


def test_signal_wakes_and_is_taken(pair: tuple[int, int]) -> None:
    ours, peers = pair
    assert not readable(ours)
    assert lib.vscsi_event_drain_fd(ours) == 0
    assert lib.vscsi_event_send_fd(peers) == 0
    assert readable(ours)
    assert lib.vscsi_event_drain_fd(ours) == 1
    assert not readable(ours)


def test_signals_that_find_no_room_are_pending_already(pair: tuple[int, int]) -> None:
    """Ten thousand signals to one that sleeps: every one succeeds at once, and few are kept."""
    ours, peers = pair
    start = time.monotonic()
    assert all(lib.vscsi_event_send_fd(peers) == 0 for _ in range(10_000))
    assert time.monotonic() - start < 5
    taken = 0
    while n := lib.vscsi_event_drain_fd(ours):
        assert 1 <= n <= 64
        taken += n
    assert 1 <= taken <= 64, "the queue is as small as the kernel makes it"


def test_storm_is_drained_in_bounded_portions(pair: tuple[int, int]) -> None:
    """A peer may enlarge its own queue; we still take no more than 64 a time, and what is left stays pending."""
    ours, peers = pair
    peer = socket.socket(fileno=os.dup(peers))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for _ in range(200):
        peer.send(b"x" * 100, socket.MSG_DONTWAIT)
    assert [lib.vscsi_event_drain_fd(ours) for _ in range(4)] == [64, 64, 64, 8]
    assert not readable(ours)
    peer.close()


def test_message_of_any_length_is_one_signal(pair: tuple[int, int]) -> None:
    ours, peers = pair
    os.write(peers, b"x" * 1000)
    os.write(peers, b"y")
    assert lib.vscsi_event_drain_fd(ours) == 2


def test_descriptors_sent_along_are_dropped(pair: tuple[int, int]) -> None:
    """A peer cannot fill our descriptor table through an event channel."""
    ours, peers = pair
    peer = socket.socket(fileno=os.dup(peers))
    reader, writer = os.pipe()
    peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))])
    os.close(writer)
    assert not readable(reader), "it is under way, and holds the pipe open"
    assert lib.vscsi_event_drain_fd(ours) == 1
    assert readable(reader) and os.read(reader, 1) == b"", "nobody holds the pipe's other end any more"
    os.close(reader)
    peer.close()


def test_peer_gone(pair: tuple[int, int]) -> None:
    ours, peers = pair
    os.close(peers)
    assert lib.vscsi_event_drain_fd(ours) == EPIPE
    assert lib.vscsi_event_send_fd(ours) == EPIPE


def test_peer_gone_with_signals_unread(pair: tuple[int, int]) -> None:
    """The kernel tells of unread messages as ECONNRESET; it is the same death."""
    ours, peers = pair
    assert lib.vscsi_event_send_fd(ours) == 0
    os.close(peers)
    assert lib.vscsi_event_send_fd(ours) == EPIPE
    assert lib.vscsi_event_drain_fd(ours) == EPIPE


def test_peer_that_shuts_down_is_gone(pair: tuple[int, int]) -> None:
    ours, peers = pair
    peer = socket.socket(fileno=os.dup(peers))
    peer.shutdown(socket.SHUT_RDWR)
    assert lib.vscsi_event_send_fd(ours) == EPIPE
    assert lib.vscsi_event_drain_fd(ours) == EPIPE
    peer.close()


def test_empty_message_ends_the_channel(pair: tuple[int, int]) -> None:
    """Not to be told from the end of the stream; no honest peer sends one."""
    ours, peers = pair
    peer = socket.socket(fileno=os.dup(peers))
    peer.send(b"")
    assert lib.vscsi_event_drain_fd(ours) == EPIPE
    peer.close()


def test_peer_cannot_make_us_block(pair: tuple[int, int]) -> None:
    """Blocking mode on both descriptors, as a hostile peer might set on whatever it shares: no call waits."""
    ours = pair[0]
    for fd in pair:
        os.set_blocking(fd, True)
    signal.alarm(20)
    try:
        assert lib.vscsi_event_drain_fd(ours) == 0
        assert all(lib.vscsi_event_send_fd(ours) == 0 for _ in range(1000))
    finally:
        signal.alarm(0)


def test_no_sigpipe() -> None:
    """With the signal's default action, which Python itself switches off."""
    program = (
        "import os, signal\n"
        "from vscsi.native import ffi, lib\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "ends = ffi.new('int[2]')\n"
        "assert lib.vscsi_event_pair(ends) == 0\n"
        "os.close(ends[1])\n"
        "print(lib.vscsi_event_send_fd(ends[0]))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode, done.stdout) == (0, f"{EPIPE}\n")


def test_wrong_descriptor_is_an_error() -> None:
    reader, writer = os.pipe()
    assert lib.vscsi_event_send_fd(writer) == ENOTSOCK
    assert lib.vscsi_event_drain_fd(reader) == ENOTSOCK
    os.close(reader)
    os.close(writer)
    assert lib.vscsi_event_send_fd(1 << 20) == EBADF
