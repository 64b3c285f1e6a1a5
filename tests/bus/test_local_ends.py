# SPDX-License-Identifier: BSD-2-Clause
"""How connections of the local bus end: death of either side, close, time-outs, forks; and that nothing leaks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vscsi.bus.local import BusError, InitiatorConnection

MEMORY = 1 << 20
Serve = Callable[..., Any]


def child(code: str, *args: object) -> subprocess.Popen[str]:
    """Another Python process, which has said one line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


INITIATOR = """
import sys, pathlib
from vscsi.bus.local import InitiatorConnection
c = InitiatorConnection(pathlib.Path(sys.argv[1]), memory_nbytes=1 << 20)
port, fd = c.event_channel()
c.write({"device/x/state": "1"})
print("ready", flush=True)
sys.stdin.read()
"""

TARGET = """
import sys, pathlib, select, os
from vscsi.bus.local import Listener
l = Listener(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
c = None
while True:
    select.select([x for x in (l, c) if x], [], [])
    c = c or l.accept()
    c and c.process()
"""


def test_the_death_of_the_target_is_noticed(path: Path, wait_until: Callable[..., None]) -> None:
    target = child(TARGET, path)
    told: list[str] = []
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.on_close = told.append
    initiator.start()
    target.send_signal(signal.SIGKILL)
    target.wait()
    with pytest.raises(BusError, match="the target is gone"):
        initiator.wait_for(lambda: False, 5, "nothing")
    wait_until(lambda: bool(told))
    assert told == ["the target is gone"]
    assert initiator.closed
    assert initiator.error is None
    with pytest.raises(BusError, match="the target is gone"):
        initiator.request("stats")
    initiator.write({"device/x": "1"})
    initiator.close()
    assert told == ["the target is gone"]


def test_the_death_of_an_initiator_is_noticed(serve: Serve, path: Path, wait_until: Callable[..., None]) -> None:
    target = serve()
    initiator = child(INITIATOR, path)
    wait_until(lambda: "device/x/state" in target.connections[0].store)
    assert target.connections[0].peer.pid == initiator.pid
    initiator.send_signal(signal.SIGKILL)
    initiator.wait()
    wait_until(lambda: target.ended == [None])


def test_a_loss_before_on_close_was_set_is_told_at_once(path: Path, wait_until: Callable[..., None]) -> None:
    target = child(TARGET, path)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.start()
    target.kill()
    target.wait()
    wait_until(lambda: initiator.closed)
    told: list[str] = []
    wait_until(lambda: initiator._lost)
    initiator.on_close = told.append
    assert told == ["the target is gone"]
    initiator.close()


def test_our_own_close_is_not_told(serve: Serve, path: Path) -> None:
    serve()
    told: list[str] = []
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.on_close = told.append
    initiator.start()
    initiator.close()
    initiator.close()
    assert told == []
    assert initiator.closed
    assert initiator.fileno() == -1
    assert not initiator.process()


def test_close_may_be_called_by_on_close(path: Path, wait_until: Callable[..., None]) -> None:
    target = child(TARGET, path)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.on_close = lambda reason: initiator.close()
    initiator.start()
    target.kill()
    target.wait()
    wait_until(lambda: initiator.fileno() == -1)


def test_waiting_has_an_end(serve: Serve, path: Path) -> None:
    serve()
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(BusError, match=r"not answered within 0\.1 s; waited for the moon"):
            initiator.wait_for(lambda: False, 0.1, "the moon")
        assert time.monotonic() - began < 2
        initiator.start()
    initiator.close()


def test_a_target_that_never_answers(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(BusError, match=r"not answered within 0\.2 s; waited for welcome"):
            InitiatorConnection(path, memory_nbytes=MEMORY, timeout=0.2)


def test_a_forked_child_cannot_use_the_handles_and_does_not_disturb_them(serve: Serve, path: Path) -> None:
    target = serve()
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.start()
    initiator.memory.alloc(4096)
    attempts: list[Callable[[], object]] = [
        lambda: initiator.write({"device/x": "1"}),
        lambda: initiator.process(),
        lambda: initiator.request("stats"),
        lambda: initiator.event_channel(),
        lambda: initiator.wait_for(lambda: True, 1, "x"),
        lambda: initiator.start(),
        lambda: initiator.memory.alloc(1),
        lambda: initiator.memory.free(4096),
        lambda: initiator.memory.grant(4096, 1),
        lambda: initiator.memory.view,
        lambda: target.connections[0].write({"backend/x": "1"}),
        lambda: target.connections[0].release(),
    ]
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            for number, attempt in enumerate(attempts, 1):
                try:
                    attempt()
                    code = number
                except BusError as error:
                    if "forked child must connect for itself" not in str(error):
                        code = number
            initiator.close()
            target.connections[0].close()
            target.listener.close()
        except BaseException:
            code = 99
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert path.exists()
    initiator.event_channel()
    initiator.close()


def test_a_forked_child_does_not_have_the_memory() -> None:
    from vscsi.bus.local import Memory

    memory = Memory(MEMORY)
    maps = f"{memory.address:x}-"
    assert maps in Path("/proc/self/maps").read_text()
    pid = os.fork()
    if pid == 0:
        os._exit(maps in Path("/proc/self/maps").read_text())
    _, status = os.waitpid(pid, 0)
    memory.close()
    assert os.waitstatus_to_exitcode(status) == 0


def test_no_descriptor_leaks(serve: Serve, path: Path, open_fds: Callable[[], dict[int, str]]) -> None:
    target = serve()

    def cycle() -> None:
        initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
        initiator.start()
        initiator.event_channel()
        initiator.write({"device/x": "1"})
        initiator.close()
        while target.connections:
            time.sleep(0.0005)

    def memory_mappings() -> int:
        return Path("/proc/self/maps").read_text().count("/memfd:vscsi")

    cycle()
    before, mapped = open_fds(), memory_mappings()
    for _ in range(200):
        cycle()
    assert len(open_fds()) == len(before), (before, open_fds())
    assert memory_mappings() == mapped == 0
    assert len(target.ended) == 201


def test_descriptors_are_close_on_exec(serve: Serve, path: Path, open_fds: Callable[[], dict[int, str]]) -> None:
    before = set(open_fds())
    serve()
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.event_channel()
    ours = {fd: name for fd, name in open_fds().items() if fd not in before and not name.startswith("/proc")}
    assert len(ours) >= 8
    assert [name for fd, name in ours.items() if os.get_inheritable(fd)] == []
    initiator.close()
