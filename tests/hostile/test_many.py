# SPDX-License-Identifier: BSD-2-Clause
"""More of everything than there is, against a real target process: thousands of connections at once, initiators that
take whatever they can get. The others get what is theirs, the log stays short, and everything comes back.
Knows sockets and frames; knows no IU but login.
"""

import contextlib
import resource
import socket

from hostile_field import LONG, Footprint
from real_server import TEST_UNIT_READY

from target.limits import Limits
from vscsi import srp
from vscsi.bus.complaints import BURST
from vscsi.native import lib

CONNECTIONS = 20000 if LONG else 3000
GREEDY = 40 if LONG else 8
IN_HAND = 200
"""Sockets that the attacker holds open at a time, all of them beyond the limit."""


def test_thousands_of_connections(field):
    """Each beyond the limit hears why, and is gone from the target; what it says about that is bounded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    limit = Limits().connections
    answers: dict[bytes, int] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(limit):  # silent ones, until their time to say hello is over
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(field.socket))
        for _ in range(CONNECTIONS // IN_HAND):
            with contextlib.ExitStack() as hand:
                socks = [hand.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(IN_HAND)]
                for sock in socks:
                    sock.connect(str(field.socket))  # waits for room in the backlog
                    sock.settimeout(20)
                for sock in socks:
                    answer = sock.recv(4096)[4:]
                    answers[answer] = answers.get(answer, 0) + 1
        assert Footprint.of(field.pid).descriptors < field.before.descriptors + 2 * limit, (
            "nothing is kept for those that were refused"
        )
        field.bystander.alive()
    refused = b'{"op":"refused","reason":"this target has %d connections already, as many as it takes"}' % limit
    assert answers.get(refused, 0) > CONNECTIONS * 9 // 10, answers
    assert len(field.log()) < 2 * BURST + limit
    field.check()
    assert field.srp().command(TEST_UNIT_READY).status == 0, "there is room again"
    field.check()


def test_initiators_that_take_whatever_they_can_get(field):
    """Event channels, rings, nexuses and memory until refused, on many connections; a newcomer still gets his."""
    logins = []
    for number in range(GREEDY):
        raw = field.raw(memory_nbytes=64 << 20)
        for devid in range(64):
            channel = raw.srp(devid, ring_pages=1)
            if channel.state != 4:
                break
            answer = channel.login(number.to_bytes(8, "big") + devid.to_bytes(8, "big"))
            logins.append(type(answer))
            if isinstance(answer, srp.LoginRej):
                assert answer.reason == lib.SRP_REJ_INSUFFICIENT_RESOURCES
                break
    assert srp.LoginRej in logins
    assert logins.count(srp.LoginRsp) >= 256, "what nobody else wants is to be had"
    assert "no more nexuses than those that it keeps for others" in " ".join(field.log())
    newcomer = field.srp(b"the newcomer's..")
    assert newcomer.command(TEST_UNIT_READY).status == 0
    field.bystander.alive()
    field.check(slack_kb=64 << 10)  # tables of a few hundred channels, before malloc gives them back
