# SPDX-License-Identifier: BSD-2-Clause
"""Programs behind the door that use SG_IO, descriptors, processes and threads in every way they may.

What each of them does and asserts stands in tests/door_program.py and door_processes.py, which run behind the door.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from programs import BIN, Target, one_line, run, tool

PROGRAM = Path(__file__).resolve().parents[1] / "door_program.py"
LATER = PROGRAM.with_name("door_processes.py")
NAMES = [
    "version_3",
    "version_3_sense",
    "version_3_residuals",
    "version_3_iovec",
    "version_4",
    "largest",
    "mistakes",
    "generic_ioctls",
    "block_ioctls",
    "block_bytes",
    "metadata",
]
PROCESSES = [
    "threads",
    "descriptors",
    "forks",
    "forks_beside_threads",
    "executes",
    "signals",
    "asynchronous",
]


@pytest.mark.parametrize(("program", "name"), [(PROGRAM, n) for n in NAMES] + [(LATER, n) for n in PROCESSES])
def test_program(disk, program, name):
    done = disk.initiator("run", "--", sys.executable, program, name)
    assert (done.status, done.text) == (0, "done\n"), done.err


def test_target_that_dies(disk):
    done = disk.initiator("--timeout", "1", "run", "--", sys.executable, LATER, "target_killed", disk.process.pid)
    assert (done.status, done.text) == (0, "done\n"), done.err
    disk.process.wait(10)


def test_target_that_is_started_anew(tmp_path):
    lun = f"0={tmp_path / 'disk.img'},size=8M"
    target, results = Target(tmp_path, lun), []
    words = "run", "--", sys.executable, LATER, "target_restarted", target.process.pid
    thread = threading.Thread(target=lambda: results.append(target.initiator(*words)))
    thread.start()
    target.process.wait(30)
    target.pidfile.unlink()
    # Not in a thread: the target would end with it.
    again = Target(tmp_path, lun)
    try:
        thread.join(30)
        assert [(done.status, done.text) for done in results] == [(0, "done\n")], results
    finally:
        assert again.stop() == 0


def test_target_that_sleeps(disk):
    done = disk.initiator("run", "--", sys.executable, LATER, "time_out", disk.process.pid)
    assert (done.status, done.text) == (0, "done\n"), done.err


def test_parent_that_dies(disk):
    command = [BIN / "vscsi-initiator", "--socket", disk.socket, "run", "--", sys.executable, LATER, "parent_killed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.startswith("ENODEV everywhere"), done.stderr


# ---- the program's start and end ----


def test_exit_status_is_the_programs(disk):
    for line, status in (("exit 0", 0), ("exit 37", 37), ("kill -TERM $$", 128 + 15)):
        assert disk.initiator("run", "--", tool("sh"), "-c", line).status == status


def test_program_that_cannot_be_started(disk):
    one_line(disk.initiator("run", "--", "/no/such/program"), 127, "/no/such/program", "no such file")
    one_line(disk.initiator("run", "--", "/etc/passwd"), 126, "permission denied")


def test_no_target_no_program(folder):
    sign = folder / "sign"
    done = run(BIN / "vscsi-initiator", "--socket", folder / "none", "run", "--", tool("sh"), "-c", f"echo > {sign}")
    one_line(done, 15, "none")
    assert not sign.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "b"], "NAME=SOCKET"),
        (["--target", "0=/x"], "no name"),
        (["--initiator", "a=12"], "32 hex digits"),
        (["--initiator", "a=zz"], "zz"),
        (["--target", "b=/x", "--target", "b=/y"], "twice"),
    ],
)
def test_mistakes_in_options(disk, options, words):
    done = disk.initiator("run", *options, "--", "true")
    assert done.status in (1, 31)
    assert words in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_on_to_the_program(disk, number):
    line = f"trap 'echo caught; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    command = [BIN / "vscsi-initiator", "--socket", disk.socket, "run", "--", tool("sh"), "-c", line]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.read() == "caught\n"
    assert process.wait(20) == 9


def test_program_that_never_touches_a_device_is_left_alone(disk):
    line = "import os, sys; print(sorted(os.listdir('/proc/self/fd')), os.environ['LD_PRELOAD'].count('preload'))"
    with_door = disk.initiator("run", "--", sys.executable, "-c", line).text
    without = run(sys.executable, "-c", line, env={"LD_PRELOAD": ""}).text
    assert with_door == without.replace(" 0\n", " 1\n")


def test_nested_runs(disk, serve):
    other = serve("0=mem:1M,serial=INNER")
    inner = [BIN / "vscsi-initiator", "--socket", other.socket, "run", "--", tool("sg_inq"), "--page=sn", "/dev/vscsi0"]
    done = disk.initiator("run", "--", *inner)
    assert "INNER" in done.text
