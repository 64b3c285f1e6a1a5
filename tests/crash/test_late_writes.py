# SPDX-License-Identifier: BSD-2-Clause
"""A write of a connection that is gone, still on its way to the image: nothing that comes later may see it come.

Whoever connects after the loss, the same initiator or another one, reads and writes as if the old write had ended
before; other blocks are served meanwhile.
"""

import contextlib
import socket
import threading
import time

import pytest

from crash.hold import HELD, holding
from initiator import Initiator, InitiatorError
from initiator.recovery import Backoff
from initiator.vbd import Vbd

SECONDS = 30.0
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.1, seconds=SECONDS)
BLOCK = 512
OLD, NEW, BESIDE = HELD * 128, b"NEW!" * 128, b"----" * 128
PORT_ID = b"late writes port"


def cut(connection):
    connection._sock.shutdown(socket.SHUT_RDWR)


def until(predicate, what):
    end = time.monotonic() + SECONDS
    while not predicate():
        assert time.monotonic() < end, what
        time.sleep(0.005)


class Blkif:
    def __init__(self, path, reconnect=False):
        self.disk = self.session = Vbd(path, timeout=SECONDS, reconnect=reconnect)


class Srp:
    def __init__(self, path, reconnect=False, port_id=None):
        self.session = Initiator(path, timeout=SECONDS, port_id=port_id, reconnect=reconnect)
        self.disk = self.session.lun(0)


def same_port(path, reconnect=False):
    return Srp(path, reconnect, PORT_ID)


def in_thread(function, *arguments):
    """A thread that is running, and where its result will be."""
    results = []

    def run():
        with contextlib.suppress(InitiatorError):
            results.append(function(*arguments))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


WHO = [(Blkif, Blkif, 1), (Blkif, Blkif, 2), (Srp, Srp, 2), (Blkif, Srp, 1), (Srp, Blkif, 1)]


@pytest.mark.parametrize(("before", "after", "loops"), WHO)
def test_nobody_who_comes_later_is_overtaken(before, after, loops, tmp_path):
    with holding(tmp_path, options=("--loops", str(loops))) as held:
        one = before(held.target.socket)
        writer, _ = in_thread(one.disk.write, 5, OLD * 3)
        held.wait()
        cut(one.session.connection)
        two = after(held.target.socket)
        late, _ = in_thread(two.disk.write, 6, NEW)
        reader, read = in_thread(two.disk.read, 5, 1)
        for k in range(5):  # what comes after them on the same ring is served
            two.disk.write(8 + k, BESIDE)
            assert two.disk.read(8 + k, 1) == BESIDE
        held.let_go()
        for thread in (writer, late, reader):
            thread.join(SECONDS)
        assert two.disk.read(5, 3) == OLD + NEW + OLD
        assert read == [OLD], "a read saw what was there before a write that came later"
        one.session.close()
        two.session.close()


@pytest.mark.parametrize("kind", [Blkif, same_port])
def test_what_is_sent_again_is_not_overtaken_by_what_was_sent_first(kind, tmp_path):
    with holding(tmp_path) as held:
        one = kind(held.target.socket, QUICK)
        writer, _ = in_thread(one.disk.write, 5, OLD)
        held.wait()
        cut(one.session.connection)
        recovery = one.session.recovery
        until(lambda: recovery.recovered or not recovery.live, "the loss is noticed")
        held.let_go()
        held.wait()  # it has been sent again
        held.let_go()
        writer.join(SECONDS)
        one.disk.write(5, NEW)
        assert one.disk.read(5, 1) == NEW
        one.session.close()


def test_a_stuck_write_keeps_its_initiator_from_nothing_else(tmp_path, caplog):
    """Every step of escalation fails; a login is let in all the same, and only the blocks of that write wait."""
    caplog.set_level("WARNING", "vscsi.initiator")
    with holding(tmp_path, "", "1=mem:1M", options=("--loops", "2")) as held:
        one = same_port(held.target.socket, QUICK)
        other = one.session.lun(1)
        other.write(0, BESIDE)
        one.disk.read(5, 1)
        one.session.timeout = 0.3
        writer, _ = in_thread(one.disk.write, 5, OLD)
        held.wait()
        writer.join(SECONDS)
        one.session.timeout = SECONDS
        assert other.read(0, 1) == BESIDE
        one.disk.write(9, BESIDE)
        assert one.disk.read(9, 1) == BESIDE
        late, _ = in_thread(one.disk.write, 5, NEW)
        other.write(0, NEW)
        held.let_go()
        late.join(SECONDS)
        assert one.disk.read(5, 1) == NEW
        one.session.close()
    for step in ("ABORT TASK of tag", "LOGICAL UNIT RESET of tag", "logging out", "connected again"):
        assert step in caplog.text
    assert held.target.log.read_text().count("have not ended") == 1
