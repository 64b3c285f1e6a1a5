# SPDX-License-Identifier: BSD-2-Clause
"""The initiator's tap where things go wrong: commands that are never answered, aborted, refused, or never sent."""

import pcap_reader
import pytest
from fake_server import LIMIT

from initiator import CommandAborted, CommandTimeout, TransportError
from initiator.native import lib
from initiator.pcap import Tap
from vscsi import srp

TUR = bytes(6)
COMMAND, MANAGE, RESPONSE, MANAGED, EVENT = 0x01, 0x02, 0x21, 0x22, 0x32


@pytest.fixture
def capture(tmp_path):
    """A tap, and what has come to its file so far, without the login."""
    path = tmp_path / "c.pcap"
    tap = Tap(str(path))
    tap.pdus = lambda: [pdu for pdu in pcap_reader.read(path.read_bytes()).pdus if pdu.opcode not in (0x03, 0x23)]
    yield tap
    tap.close()


def test_an_abort_names_its_command(server, connect, capture):
    server.command = lambda cmd, out: None
    initiator = connect(tap=capture)
    with pytest.raises(CommandTimeout):
        initiator.execute(3, TUR, timeout=0.1)
    command, abort, aborted = capture.pdus()
    assert [command.opcode, abort.opcode, aborted.opcode] == [COMMAND, MANAGE, MANAGED]
    assert abort.number(20) == command.tag
    assert abort.head[8:16] == command.head[8:16] == b"\0\3" + bytes(6)
    assert aborted.head[2] == 0


def test_an_abort_of_what_was_submitted(server, connect, capture):
    server.command = lambda cmd, out: None
    initiator = connect(tap=capture)
    first = initiator.submit(0, TUR)
    second = initiator.submit(0, TUR)
    assert initiator.task_management(lib.SRP_TMF_ABORT_TASK, 0, second) == 0
    (done,) = initiator.reap(timeout=5)
    assert isinstance(done.error, CommandAborted) and done.tag == second != first
    commands = [pdu for pdu in capture.pdus() if pdu.opcode == COMMAND]
    (abort,) = (pdu for pdu in capture.pdus() if pdu.opcode == MANAGE)
    assert abort.number(20) == commands[1].tag
    assert not any(pdu.opcode == RESPONSE for pdu in capture.pdus()), "iSCSI sends nothing for what was aborted"


def test_a_function_that_is_not_answered(server, connect, capture):
    server.management = lambda iu: None
    initiator = connect(tap=capture)
    with pytest.raises(TransportError):
        initiator.task_management(lib.SRP_TMF_LUN_RESET, 0, timeout=0.05)
    assert [pdu.opcode for pdu in capture.pdus()] == [MANAGE]


def test_a_lost_target(server, connect, capture):
    server.command = lambda cmd, out: None
    initiator = connect(tap=capture)
    for _ in range(3):
        initiator.submit(0, TUR)
    server.close()
    assert all(done.error for done in initiator.reap(min=3, timeout=5))
    assert [pdu.opcode for pdu in capture.pdus()] == [COMMAND] * 3


def test_credits_that_run_out_cost_nothing(server, connect, capture):
    """A command that finds no credit stands in the file, and a later one is told from it."""
    server.command = lambda cmd, out: None
    initiator = connect(tap=capture)
    for _ in range(LIMIT - 1):
        initiator.submit(0, TUR)
    with pytest.raises(CommandTimeout):
        initiator.submit(0, TUR, timeout=0.05)
    tags = [pdu.tag for pdu in capture.pdus()]
    assert len(set(tags)) == LIMIT


def test_what_the_target_says_by_itself(server, connect, capture):
    connect(tap=capture)
    event = srp.AerReq(0, 0, 7, bytes(8), bytes.fromhex("700006000000000a000000002a0900000000"))
    server.do(lambda device: device.reverse.ask(srp.encode(event)))
    server.until(lambda: server.reverse_answers == [srp.AerRsp(tag=7)])
    found = [pdu for pdu in capture.pdus() if pdu.opcode == EVENT]
    assert [pdu.head[36] for pdu in found] == [0]
    assert found[0].data[2:3] == b"\x70"
