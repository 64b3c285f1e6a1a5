# SPDX-License-Identifier: BSD-2-Clause
"""Ten thousand reconnects leave nothing behind, in the target or in the initiator: memory, grants, files, threads.

Ended in turn by an orderly logout, by a cut socket and, now and then, by killing a whole initiator process. Short in
`make test`; `make stress` goes on for VSCSI_STRESS_SECONDS, and for 10,000 reconnects at least.
"""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from programs import Target

from initiator import Initiator, TransportError
from initiator.vbd import Vbd
from vscsi.scsi import cdb

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0"))
LEAST = 200 if SECONDS == 0 else 10_000
WARM = 60
CHILD_EVERY = 50
MEMORY_NBYTES = 8 << 20
PATIENCE = 30.0
RSS_NBYTES_MORE = 6 << 20
"""How much allocators may keep, however many reconnects there were."""
CHILD = """
import os, sys
from initiator import Initiator
initiator = Initiator(sys.argv[1], memory_nbytes=2 << 20)
for k in range(8):
    initiator.submit(0, bytes.fromhex("28000000000000000100"), data_in=512)
print("ready", flush=True)
sys.stdin.read()
"""


def state(pid):
    """Files, threads, mappings of ours and resident bytes of a process."""
    proc = Path("/proc") / str(pid)
    maps = [line for line in (proc / "maps").read_text().splitlines() if "memfd:" in line]
    rss = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "files": len(list((proc / "fd").iterdir())),
        "threads": len(list((proc / "task").iterdir())),
        "shared mappings": len(maps),
    }, rss


def settled(pid, wanted):
    """The counts of a process once they are `wanted`, or after a while."""
    end = time.monotonic() + PATIENCE
    while (found := state(pid)[0]) != wanted and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    return found


def cut(connection):
    connection._sock.shutdown(socket.SHUT_RDWR)


def kill_a_child(target):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, target.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    )
    try:
        assert child.stdout.readline() == b"ready\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()


def one(target, initiator, turn):
    """One reconnect of a kind that depends on the turn."""
    if turn % CHILD_EVERY == CHILD_EVERY - 1:
        kill_a_child(target)
    elif turn % 4 == 3:
        with Vbd(target.socket, memory_nbytes=MEMORY_NBYTES) as vbd:
            vbd.read(0, 1)
            if turn % 8 == 3:
                cut(vbd.connection)
    elif turn % 4 == 2:
        with Initiator(target.socket, memory_nbytes=MEMORY_NBYTES, channels=2) as other:  # a port of its own each time
            other.execute(0, cdb.TEST_UNIT_READY.build())
    else:
        tags = [initiator.submit(0, cdb.READ_10.build(transfer_length=1), data_in=512) for _ in range(4)]
        if turn % 2:
            cut(initiator.connection)
        initiator.reconnect()
        found = initiator.reap(max=len(tags), min=len(tags), timeout=PATIENCE)
        assert len(found) == len(tags), found
        assert all(isinstance(done.error, TransportError) or done.status in (0, 2) for done in found)


@pytest.mark.stress
@pytest.mark.timeout(SECONDS * 4 + 3600 if SECONDS else 240)
def test_reconnects_leave_nothing_behind(tmp_path, capsys):
    target = Target(tmp_path, f"0={tmp_path / 'disk.img'},size=8M")
    try:
        with Initiator(target.socket, memory_nbytes=MEMORY_NBYTES) as initiator:
            # The target remembers 256 idle nexuses: what they need is not a leak, but must have an end.
            warm = WARM if SECONDS == 0 else 2000
            for turn in range(warm):
                one(target, initiator, turn)
            gc.collect()
            time.sleep(0.2)
            pids = {"target": target.process.pid, "initiator": os.getpid()}
            before = {name: state(pid) for name, pid in pids.items()}
            end, turn = time.monotonic() + SECONDS, 0
            while turn < LEAST or time.monotonic() < end:
                one(target, initiator, turn)
                turn += 1
            for name, pid in pids.items():
                assert settled(pid, before[name][0]) == before[name][0], name
                more = state(pid)[1] - before[name][1]
                assert more < RSS_NBYTES_MORE, f"the {name} has {more} bytes more after {turn} reconnects"
            assert initiator.stats()["outstanding"] == 0
            assert not initiator._buffers.lost
            stats = initiator.connection.request("stats")
            assert len(stats["channels"]) == 1, "channels of initiators that are gone"
        with capsys.disabled():
            if SECONDS:
                print(f"\n{turn} reconnects survived, nothing left behind")
    finally:
        assert target.stop() == 0, target.log.read_text()
    assert "Traceback" not in target.log.read_text(), target.log.read_text()
    assert not [thread for thread in threading.enumerate() if thread.name == "vscsi-reconnect"]
