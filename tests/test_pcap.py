# SPDX-License-Identifier: BSD-2-Clause
"""The encoder of captures: what goes in comes out again through a reader that shares no code with it."""

import itertools
import os
import stat
import threading

import pcap_reader
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.native import lib
from vscsi.pcap import PIECE_NBYTES, Capture
from vscsi.pcapfile import PcapFile

PORT = bytes(range(16))
LUN3 = b"\0\3" + bytes(6)
INQUIRY = bytes((0x12, 0, 0, 0, 96, 0))
COMMAND, MANAGE, LOGIN, DATA_OUT, LOGOUT = 0x01, 0x02, 0x03, 0x05, 0x06
RESPONSE, MANAGED, LOGGED_IN, DATA_IN, LOGGED_OUT, EVENT = 0x21, 0x22, 0x23, 0x25, 0x26, 0x32


def capture(*steps, snap=0):
    """What a reader finds after these steps on one stream; each is a method's name and its arguments."""
    made = Capture(snap)
    stream = made.stream(PORT)
    data = made.header()
    for ns, (name, *arguments) in enumerate(steps, 1_700_000_000_123_456_789):
        data += getattr(stream, name)(ns, *arguments)
    found = pcap_reader.read(data)
    assert found.left == b""
    return found


def test_a_command_with_data_in():
    found = capture(
        ("command", 7, LUN3, INQUIRY, lib.SRP_TSK_ORDERED, 0, 96),
        ("data_in", 7, b"x" * 36, 36),
        ("response", 7, 0, b"", 0, 60),
    )
    command, data, response = found.pdus
    assert [pdu.opcode for pdu in found.pdus] == [COMMAND, DATA_IN, RESPONSE]
    assert command.head[1] == 0x80 | 0x40 | 2, "final, read, ordered"
    assert command.head[8:16] == LUN3 == data.head[8:16]
    assert command.number(20) == 96
    assert command.head[32:48] == INQUIRY + bytes(10)
    assert data.data == b"x" * 36
    assert response.head[1] == 0x80 | 2 and response.number(44) == 60, "60 bytes under"
    assert command.tag == data.tag == response.tag == 7
    assert response.number(36) == 1, "one Data-In came before"
    assert [pdu.ns - command.ns for pdu in found.pdus] == [0, 1, 2]
    assert found.packets == 6, "and the three packets that open a connection"


def test_large_data_comes_in_pieces():
    data = os.urandom(3 * PIECE_NBYTES + 5)
    found = capture(
        ("command", 1, LUN3, b"\x2a" + bytes(9), 0, len(data), 0),
        ("data_out", 1, data, len(data)),
        ("response", 1, 0),
    )
    pieces = [pdu for pdu in found.pdus if pdu.opcode == DATA_OUT]
    assert b"".join(pdu.data for pdu in pieces) == data
    assert [pdu.number(40) for pdu in pieces] == [k * PIECE_NBYTES for k in range(4)]
    assert [pdu.number(36) for pdu in pieces] == [0, 1, 2, 3]
    assert [pdu.head[1] for pdu in pieces] == [0, 0, 0, 0x80]


def test_sense_and_overflow():
    sense = bytes.fromhex("70000500000000 0a 00000000 2100 00000000".replace(" ", ""))
    found = capture(("command", 1, LUN3, b"\x28" + bytes(9), 0, 0, 512), ("response", 1, 2, sense, 0, -512))
    response = found.pdus[-1]
    assert response.head[3] == 2
    assert response.head[1] == 0x80 | 4 and response.number(44) == 512
    assert response.data == len(sense).to_bytes(2, "big") + sense


def test_a_bidirectional_command_with_a_long_cdb():
    cdb = bytes((0x7F,)) + bytes(range(1, 32))
    found = capture(("command", 1, LUN3, cdb, 0, 1024, 512), ("response", 1, 0, b"", 24, 12))
    command, response = found.pdus
    assert command.head[1] & 0x60 == 0x60
    assert command.number(20) == 1024
    assert command.head[32:48] + command.ahs[4:20] == cdb
    assert command.ahs[:3] == b"\0\x11\1", "16 bytes more, and one that is reserved"
    assert command.ahs[20:23] == b"\0\5\2" and command.ahs[24:28] == (512).to_bytes(4, "big")
    assert response.head[1] == 0x80 | 2 | 8
    assert (response.number(44), response.number(40)) == (24, 12)


def test_session_and_task_management():
    found = capture(
        ("login", 1, PORT, PORT[::-1]),
        ("login_done", 1),
        ("command", 0x123456789, LUN3, bytes(6), 0, 0, 0),
        ("manage", 2, LUN3, lib.SRP_TMF_ABORT_TASK, 0x123456789),
        ("ended", 0x123456789, lib.SRP_RESP_COMPLETE),
        ("ended", 2, lib.SRP_RESP_COMPLETE),
        ("manage", 3, LUN3, lib.SRP_TMF_LUN_RESET, 0),
        ("ended", 3, lib.SRP_RESP_FAILED),
        ("reported", LUN3, b"\x70sense"),
        ("logout_asked",),
        ("logout", 4),
        ("close",),
        ("close",),
    )
    assert [pdu.opcode for pdu in found.pdus] == [
        LOGIN, LOGGED_IN, COMMAND, MANAGE, MANAGED, MANAGE, MANAGED, EVENT, EVENT, LOGOUT, LOGGED_OUT,
    ]  # fmt: skip
    login, _, command, abort, aborted, reset, failed = found.pdus[:7]
    assert f"InitiatorName=srp.{PORT.hex()}\0".encode() in login.data
    assert abort.head[1] == 0x81 and abort.number(20) == command.tag == 0x23456789
    assert aborted.head[2] == 0
    assert reset.head[1] == 0x85 and reset.number(20) == 0xFFFFFFFF
    assert failed.head[2] == 255
    statuses = [pdu.number(24) for pdu in found.pdus if pdu.from_target]
    assert statuses == list(range(1, len(statuses) + 1))
    assert found.packets == 3 + len(found.pdus) + 3, "opened and closed, once"


def test_refused_login_and_malformed_command():
    found = capture(
        ("login", 1, PORT, PORT),
        ("login_refused", 1, lib.SRP_REJ_INSUFFICIENT_RESOURCES),
        ("command", 2, LUN3, bytes(6), 0, 0, 0),
        ("ended", 2, lib.SRP_RESP_FIELDS_INVALID),
    )
    assert found.pdus[1].head[36:38] == b"\3\2"
    assert found.pdus[3].opcode == RESPONSE and found.pdus[3].head[2] == 1


def test_one_stream_a_channel_one_address_a_port():
    made = Capture()
    data = made.header()
    for port in (PORT, PORT, PORT[::-1]):
        data += made.stream(port).command(0, 1, LUN3, bytes(6), 0, 0, 0)
    initiators = [pdu.stream[0] for pdu in pcap_reader.read(data).pdus]
    assert len(set(initiators)) == 3
    addresses = [address for address, _ in initiators]
    assert addresses[0] == addresses[1] != addresses[2]


def test_tags_that_share_their_low_half_stay_apart():
    found = capture(
        ("command", 1 << 32 | 5, LUN3, bytes(6), 0, 0, 0),
        ("command", 2 << 32 | 5, LUN3, bytes(6), 0, 0, 0),
        ("command", 0xFFFFFFFF, LUN3, bytes(6), 0, 0, 0),
        ("response", 2 << 32 | 5, 0),
        ("response", 1 << 32 | 5, 0),
        ("command", 3 << 32 | 5, LUN3, bytes(6), 0, 0, 0),
    )
    first, second, third, answer_2, answer_1, again = (pdu.tag for pdu in found.pdus)
    assert len({first, second, third, 0xFFFFFFFF}) == 4
    assert (answer_2, answer_1) == (second, first)
    assert again == 5


def test_snap_length_and_data_that_was_not_captured():
    found = capture(
        ("command", 1, LUN3, INQUIRY, 0, 0, 96), ("data_in", 1, b"y" * 96, 96), ("response", 1, 0), snap=100
    )
    assert found.snap == 100 and found.cut == 1
    assert found.pdus[1].data == b"y" * 12 and found.pdus[1].nbytes == 96
    found = capture(("command", 1, LUN3, INQUIRY, 0, 0, 96), ("data_in", 1, b"", 96), ("response", 1, 0))
    assert found.pdus[1].data == b"" and found.pdus[1].nbytes == 96


# Answers may come for what was never asked, requests may never be answered, and tags may come again.
TAGS = st.integers(0, 3) | st.integers(0, (1 << 64) - 1)
STEPS = st.one_of(
    st.tuples(
        st.just("command"), TAGS, st.binary(min_size=8, max_size=8), st.binary(min_size=6, max_size=260),
        st.integers(0, 7), st.integers(0, 1 << 33), st.integers(0, 1 << 33),
    ),
    st.tuples(st.just("data_out"), TAGS, st.binary(max_size=99), st.integers(100, 70000)),
    st.tuples(st.just("data_in"), TAGS, st.binary(max_size=99), st.integers(100, 70000)),
    st.tuples(
        st.just("response"), TAGS, st.integers(0, 255), st.binary(max_size=252),
        st.integers(-(1 << 33), 1 << 33), st.integers(-(1 << 33), 1 << 33),
    ),
    st.tuples(st.just("ended"), TAGS, st.integers(0, 255)),
    st.tuples(st.just("manage"), TAGS, st.binary(min_size=8, max_size=8), st.integers(0, 255), TAGS),
    st.tuples(st.just("logout"), TAGS),
)  # fmt: skip


@given(st.lists(STEPS, max_size=30), st.integers(0, 65535))
def test_whatever_comes_the_file_is_sound(steps, snap):
    found = capture(*steps, snap=snap)
    unanswered = {}
    for pdu in found.pdus:
        if pdu.opcode in (COMMAND, MANAGE):
            assert pdu.tag != 0xFFFFFFFF
            unanswered[pdu.tag] = pdu
        elif pdu.opcode in (RESPONSE, MANAGED):
            unanswered.pop(pdu.tag, None)
    if snap == 0 or snap >= 40 + 48:
        kinds = [name for name, *_ in steps]
        assert sum(pdu.opcode == COMMAND for pdu in found.pdus) == kinds.count("command")


# ---- the file ----


def test_a_new_file_is_private_and_whole_at_any_moment(tmp_path):
    path = tmp_path / "c.pcap"
    file = PcapFile(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for k in itertools.count():
        file.write(b"0123456789")
        assert path.read_bytes() == b"0123456789" * (k + 1), "nothing waits in this process"
        if k == 3:
            break
    file.close()
    file.close()
    file.write(b"more")
    assert path.stat().st_size == 40


def test_a_reader_that_goes_ends_the_capture_and_nothing_else(tmp_path, caplog):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    came = []

    def listen():
        with path.open("rb") as reader:
            came.append(reader.read(100_000))

    thread = threading.Thread(target=listen)
    thread.start()
    file = PcapFile(str(path))
    file.write(bytes(100_000))
    thread.join()
    assert len(came[0]) == 100_000
    file.write(bytes(100_000))
    assert file.broken
    assert caplog.text.count("nobody reads it any more") == 1
    file.write(b"x")
    file.close()


def test_a_reader_that_does_not_read_is_not_waited_for_at_the_end(tmp_path, caplog):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = PcapFile(str(path))
    file.hurry(0)
    file.write(bytes(1 << 20))
    assert file.broken and "too slow" in caplog.text
    file.close()
    os.close(reader)


def test_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        PcapFile(str(tmp_path / "no" / "file"))
