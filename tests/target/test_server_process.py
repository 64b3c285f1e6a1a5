# SPDX-License-Identifier: BSD-2-Clause
"""Target and initiator as processes of their own: signals, and the death of either."""

import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from bus_initiator import SECONDS, Raw
from real_server import INQUIRY, A, Target, absorb_attention


@pytest.fixture
def target(tmp_path):
    made = Target(tmp_path / "socket", "0=mem:1M")
    yield made
    made.stop()


def test_vanished_initiator_leaves_nothing_behind(target, caplog):
    code = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from bus_initiator import Raw
        channel = Raw(Path(sys.argv[1])).srp()
        channel.login(b"initiator port A")
        print("in", flush=True)
        import oracle_srp as oracle
        iu = oracle.encode_cmd(oracle.Cmd(1, bytes(8), bytes(6)))
        while True:
            channel.ring.send(iu)
            channel.ring.take(1)
        """
    )
    tests = str(Path(__file__).resolve().parents[1])
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(target.path), tests], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "in\n"
        time.sleep(0.1)
        assert target.do(lambda: len(target.server.channels)) == 1
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    target.until(lambda: not target.server.channels and not target.server.peers, "everything is released")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING], "a death is told once, and is no error"
    channel = target.raw().srp()
    channel.login(A)
    assert absorb_attention(channel)[12:14] == b"\x29\x07"


SERVE = """
import logging, signal, sys
from pathlib import Path
from target.lu import open_lu
from target.lunspec import parse
from target.server import Server
from vscsi.bus.local import Listener
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
server = Server(Listener(Path(sys.argv[1])), [open_lu(parse("0=" + sys.argv[2]))])
signal.signal(signal.SIGTERM, lambda *_: server.stop())
server.on_ready = lambda: print("ready", flush=True)
server.run()
"""


def test_sigterm_logs_out_and_leaves_in_order(tmp_path):
    path, image = tmp_path / "socket", tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", SERVE, str(path), str(image)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    raw = Raw(path)
    channel = raw.srp()
    channel.login(A)
    channel.command(INQUIRY, data_in=96)
    child.send_signal(signal.SIGTERM)
    channel.expect_t_logout(0)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 0, errors
    assert "Traceback" not in errors and "raw-initiator 1 on test, 1048576 bytes at most" in errors
    assert not path.exists()
    raw.close()


def test_target_killed_is_noticed(tmp_path):
    path = tmp_path / "socket"
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", SERVE, str(path), "null:1M"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    raw = Raw(path)
    raw.srp().login(A)
    gone = threading.Event()
    raw.connection.on_close = lambda reason: gone.set()
    child.kill()
    child.communicate()
    assert gone.wait(SECONDS)
    raw.close()
    again = Target(path, "0=mem:1M")
    again.raw().srp().login(A)
    again.stop()
