# SPDX-License-Identifier: BSD-2-Clause
"""A peer that kicks without work is looked at a bounded number of times, however fast it kicks, while its neighbour is
served: counted on the channels that the loops serve and on those that Python serves.
"""

import subprocess
import sys
import time

import pytest
from bus_initiator import SECONDS as PATIENCE
from hypothesis import given
from hypothesis import strategies as st
from real_server import TEST_UNIT_READY, Target, absorb_attention

from target.calm import FIRST_SECONDS, FREE, LAST_SECONDS, Calm
from target.srp_device import SrpDevice
from vscsi import srp

LOOP_FREE, LOOP_STEPS, LOOP_LAST_SECONDS = 16, 10, 0.02048
"""Of target/native/channel.c: looks that are free, steps by which the pause grows, the longest pause."""
STORM_SECONDS = 0.6
COMMANDS = 200

STORM = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
sock.setblocking(False)

print("on", flush=True)
while True:
    try:
        sock.send(b"x")
    except BlockingIOError:
        pass
"""


@pytest.fixture
def target(tmp_path):
    made = Target(tmp_path / "socket", "0=mem:1M", spin_us=0)
    yield made
    made.stop()


@pytest.fixture
def storm():
    children = []

    def start(fd: int) -> None:
        command = [sys.executable, "-P", "-c", STORM, str(fd)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[fd]))
        assert children[-1].stdout.readline() == "on\n"

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def logged_in(target, port: bytes):
    channel = target.raw().srp()
    assert isinstance(channel.login(port * 16), srp.LoginRsp)
    absorb_attention(channel)
    return channel


def test_a_storm_on_a_channel_is_looked_at_a_bounded_number_of_times(target, storm):
    stormer = logged_in(target, b"s")
    asker = target.raw().connection

    def sleeps() -> int:
        return asker.request("stats")["loops"][0]["sleeps"]

    time.sleep(0.05)
    before, began = sleeps(), time.monotonic()
    storm(stormer.ring.fd)
    time.sleep(STORM_SECONDS)
    looks, elapsed = sleeps() - before, time.monotonic() - began
    assert looks <= 2 * (LOOP_FREE + LOOP_STEPS + elapsed / LOOP_LAST_SECONDS), "each look is a sleep that ends"
    assert looks > LOOP_FREE, "the storm was there"
    neighbour = logged_in(target, b"n")
    for tag in range(COMMANDS):
        assert neighbour.command(TEST_UNIT_READY, tag=tag).status == 0
    assert stormer.command(TEST_UNIT_READY).status == 0, "it is served, too, only later"


def test_a_storm_on_a_reverse_channel_is_looked_at_a_bounded_number_of_times(target, storm, monkeypatch):
    looks = []
    real = SrpDevice._on_reverse
    monkeypatch.setattr(SrpDevice, "_on_reverse", lambda self, mask: (looks.append(1), real(self, mask))[1])
    stormer = logged_in(target, b"s")
    began = time.monotonic()
    storm(stormer.reverse.fd)
    neighbour = logged_in(target, b"n")
    for _ in range(COMMANDS):
        assert neighbour.raw.connection.request("info")["luns"]
    time.sleep(max(0.0, STORM_SECONDS - (time.monotonic() - began)))
    steps = int(LAST_SECONDS / FIRST_SECONDS).bit_length()
    count, elapsed = len(looks), time.monotonic() - began
    assert FREE < count <= FREE + steps + elapsed / LAST_SECONDS + 2
    target.do(lambda: device_of(target, b"s").log_out(0, "a test"))
    assert isinstance(stormer.target_request(PATIENCE), srp.TLogout), "it is still talked to"


def device_of(target, port: bytes) -> SrpDevice:
    found = [device for device in target.server._devices() if isinstance(device, SrpDevice) and device.nexus]
    return next(device for device in found if device.nexus.initiator_port_id == port * 16)


def test_a_quiet_reverse_channel_hears_at_once(target):
    """Answers in between: no pause, and what was asked is answered."""
    channel = logged_in(target, b"q")
    device = target.do(lambda: device_of(target, b"q"))
    for tag in range(3 * FREE):
        target.do(lambda tag=tag: device.ask(srp.CredReq(0, 0, tag)))
        request = channel.target_request()
        assert isinstance(request, srp.CredReq)
        channel.reverse.answer(channel.session.answer(request))
        target.until(lambda: device.session.unanswered is None, "answered")
    assert device._calm._empty <= FREE


@given(st.lists(st.booleans(), max_size=200))
def test_pauses_grow_and_are_forgotten(looks):
    calm, empty = Calm(), 0
    last = 0.0
    for something in looks:
        if something:
            calm.found()
            empty, last = 0, 0.0
            continue
        empty += 1
        pause = calm.empty()
        assert (pause > 0) == (empty > FREE)
        assert last <= pause <= LAST_SECONDS
        last = pause
