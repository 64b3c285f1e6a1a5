# SPDX-License-Identifier: BSD-2-Clause
"""A target with nothing to do sleeps: no thread of it makes a context switch, alone or with initiators connected. And
what it must notice then wakes it: a file that others change, a command, a connection that says nothing.
"""

import contextlib
import os
import re
import socket
import time
from pathlib import Path

import pytest
import real_server
from bus_initiator import Raw, RawVbd
from programs import Target
from real_server import TEST_UNIT_READY, absorb_attention

from initiator import Initiator
from initiator.vbd import Vbd
from target.sizes import LOOK_SECONDS
from vscsi.bus import local_target

WINDOW_SECONDS = 10.0 if os.environ.get("VSCSI_FUZZ") == "long" else 2.0
WINDOWS = 8
"""How many are tried: it may take a while until the last second's work and the kernel's own threads are over."""


def switches(pid: int) -> dict[str, int]:
    """Context switches of every thread, voluntary or not, by its name and number.

    io_uring's own workers are left out: once a request had to wait, the kernel keeps one of them, which looks whether
    it is needed every 5 s.
    """
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        name = f"{(task / 'comm').read_text().strip()} {task.name}"
        if name.startswith("iou-wrk"):
            continue
        found[name] = sum(map(int, re.findall(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)))
    return found


def sleep(*pids: int) -> None:
    """A whole window passes in which no thread that lives through it has run."""
    for _ in range(WINDOWS):
        before = {pid: switches(pid) for pid in pids}
        time.sleep(WINDOW_SECONDS)
        after = {pid: switches(pid) for pid in pids}
        ran = [
            (pid, name, after[pid][name] - count)
            for pid in pids
            for name, count in before[pid].items()
            if after[pid].get(name, count) != count
        ]
        if not ran:
            return
    pytest.fail(f"threads that ran in every one of {WINDOWS} windows, the last time: {ran}")


def test_an_idle_target_makes_no_context_switch(tmp_path):
    targets = []
    with contextlib.ExitStack() as stack:
        for engine in ("io_uring", "pool"):
            (folder := tmp_path / engine).mkdir()
            (folder / "disk.img").write_bytes(bytes(1 << 20))
            luns = (f"0={folder}/disk.img", "1=mem:1M")
            targets.append(Target(folder, *luns, options=("--engine", engine, "--loops", "2")))
            stack.callback(targets[-1].stop)
        pids = [target.process.pid for target in targets]
        sleep(*pids)
        disks = []
        for target in targets:
            for _ in range(2):
                hba = stack.enter_context(Initiator(target.socket, memory_nbytes=4 << 20))
                hba.lun(0).write(0, bytes(4096))
                hba.lun(1).read(0, 8)
                disks.append(hba.lun(0))
            stack.enter_context(Vbd(target.socket, lun=0)).read(0, 8)
        time.sleep(LOOK_SECONDS)
        sleep(*pids)
        assert [disk.read(0, 8) for disk in disks] == [bytes(4096)] * 4


@pytest.fixture
def served(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    made = real_server.Target(tmp_path / "socket", f"0={tmp_path}/disk.img", "1=mem:1M")
    yield made
    made.stop()


def resting(served) -> None:
    served.until(lambda: not served.server.sizes._looking, "it goes on looking")


def test_a_file_that_others_change_wakes_it(served, tmp_path):
    raw = served.raw()
    vbd = RawVbd(raw)
    vbd.connect()
    for nbytes in (1 << 21, 1 << 19):
        resting(served)
        os.truncate(tmp_path / "disk.img", nbytes)
        raw.wait(lambda nbytes=nbytes: vbd.read("sectors") == str(nbytes // 512), "the new size")
    raw.close()


def test_a_command_wakes_it_where_files_cannot_be_watched(served, tmp_path):
    server = served.server
    served.do(server.sizes.close)
    served.do(server.somebody)
    channel = served.raw().srp()
    channel.login()
    absorb_attention(channel)
    resting(served)
    os.truncate(tmp_path / "disk.img", 1 << 21)
    channel.command(TEST_UNIT_READY)  # it may be served before or after the look that it causes
    served.until(lambda: server.units[0].blocks == 4096, "the new size was not noticed")


def test_nobody_looks_while_nobody_is_connected(served, tmp_path):
    raw = served.raw()
    raw.srp()
    raw.close()
    served.until(lambda: not served.server.peers, "gone")
    resting(served)
    os.truncate(tmp_path / "disk.img", 1 << 21)
    os.truncate(tmp_path / "disk.img", 1 << 22)
    assert served.do(lambda: served.server.sizes._looking) is False
    assert served.server.units[0].blocks == 2048
    served.raw()
    assert served.do(lambda: served.server.units[0].blocks) == 8192, "whoever comes finds it right"


def test_somebody_silent_wakes_it_when_his_time_is_over(served, monkeypatch):
    monkeypatch.setattr(local_target, "HELLO_SECONDS", 0.3)
    monkeypatch.setattr(local_target, "FRAME_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as slow:
        for sock in (silent, slow):
            sock.settimeout(10)
            sock.connect(str(served.path))
        slow.send(b"\x50\0")
        assert silent.recv(100) == slow.recv(100) == b""
    served.until(lambda: not served.server.peers, "gone")
    late = Raw(served.path)
    late.connection._sock.send(b"\x50\0")
    late.connection.wait_for(lambda: late.connection.closed, 10, "the end of a message that never comes")
    late.close()
