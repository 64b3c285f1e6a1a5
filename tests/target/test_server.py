# SPDX-License-Identifier: BSD-2-Clause
"""The whole target end to end: a Server with its C loops and Python workers, and raw initiators on the local bus."""

import logging
from pathlib import Path

import oracle_srp as oracle
import pytest
from bus_initiator import RawVbd
from real_server import CHECK_CONDITION, INQUIRY, TEST_UNIT_READY, A, B, Target, absorb_attention, read_10

from target.srp_device import grow_credits, send_async_event
from vscsi import srp
from vscsi.native import ffi, lib

LUN3 = bytes((0, 3)) + bytes(6)


@pytest.fixture
def target(tmp_path, request):
    marker = request.node.get_closest_marker("options")
    image = tmp_path / "disk.img"
    image.write_bytes(b"".join(bytes((n & 0xFF,)) * 512 for n in range(2048)))
    made = Target(tmp_path / "socket", f"0={image}", "3=mem:1M,ro", **(marker.kwargs if marker else {}))
    yield made
    made.stop()


def test_login_inquiry_read_logout(target):
    channel = target.raw().srp()
    login = channel.login(A)
    assert isinstance(login, srp.LoginRsp) and login.req_lim_delta == 30
    answer = channel.command(INQUIRY, data_in=96)
    assert (answer.status, answer.req_lim_delta, channel.data[0], channel.data[8:16]) == (0, 1, 0, b"VSCSI   ")
    sense = absorb_attention(channel)
    assert (sense[2] & 15, sense[12], sense[13]) == (6, 0x29, 0x00)
    assert channel.command(TEST_UNIT_READY).status == 0
    assert channel.command(read_10(7, 2), data_in=1024).status == 0
    assert channel.data == b"\x07" * 512 + b"\x08" * 512
    channel.ring.send(channel.session.send(srp.ILogout(9)))
    channel.wait_state(5)
    assert channel.target_request(0.05) is None and channel.error is None
    channel.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"req_it_iu_len": 63}, 0x10002),
        ({"req_it_iu_len": 1 << 31}, 0x10002),
        ({"target_port_id": bytes(16)}, 0x10003),
        ({"req_buf_fmt": 0x08}, 0x10004),
        ({"req_flags": 3}, 0x10000),
    ],
)
def test_login_rejected_and_tried_again(target, changes, reason):
    channel = target.raw().srp()
    assert channel.login(A, **changes) == srp.LoginRej(reason, 0x1122334455667788, 6)
    channel.wait_state(5)
    channel.close()
    channel.connect()
    assert isinstance(channel.login(A), srp.LoginRsp)


@pytest.mark.options(max_channels=1)
def test_several_channels_not_supported(target):
    raw = target.raw()
    raw.srp().login(A)
    assert raw.srp(1).login(A, req_flags=1).reason == 0x10005


@pytest.mark.options(max_channels=1)
def test_channel_limit_does_not_hinder_a_takeover(target):
    raw = target.raw()
    first = raw.srp()
    first.login(A)
    assert raw.srp(1).login(A).rsp_flags == 1
    first.expect_t_logout(4)


@pytest.mark.options(max_channels=2)
def test_channel_limit(target):
    raw = target.raw()
    raw.srp().login(A)
    raw.srp(1).login(A, req_flags=1)
    assert raw.srp(2).login(A, req_flags=1).reason == 0x10006


def test_no_nexus_left(target):
    for _ in range(target.server.native.VT_MAX_NEXUSES):
        if target.do(lambda: target.server.native.vt_nexus_add(target.server.target)) < 0:
            break
    assert target.raw().srp().login(A).reason == 0x10001


def test_two_nexuses_and_two_channels_of_one(target):
    raw = target.raw()
    first, second, other = raw.srp(0), raw.srp(1), raw.srp(2)
    assert first.login(A).rsp_flags == 0
    assert second.login(A, req_flags=1).rsp_flags == 2
    assert other.login(B).rsp_flags == 0
    assert absorb_attention(first)[12] == 0x29
    assert second.command(TEST_UNIT_READY).status == 0, "one unit attention for a nexus, not for each channel"
    assert absorb_attention(other)[12] == 0x29
    assert absorb_attention(second, LUN3)[12] == 0x29
    third = raw.srp(3)
    assert third.login(A).rsp_flags == 1
    for channel in (first, second):
        channel.expect_t_logout(4)
        channel.wait_state(5)
    sense = absorb_attention(third)
    assert (sense[12], sense[13]) == (0x29, 0x07)
    assert other.command(TEST_UNIT_READY).status == 0


def send_garbage(channel):
    channel.ring.send(b"\x7f" + bytes(100))


def overrun(channel):
    """Twenty commands published at once, so that none can be answered between two of them."""
    ring = channel.ring.ring
    for index in range(ring.req_prod_pvt, ring.req_prod_pvt + 20):
        iu = oracle.encode_cmd(oracle.Cmd(1000 + index, bytes(8), TEST_UNIT_READY))
        slot = channel.ring.page + lib.VSCSI_RING_HEADER + (index % ring.nr_ents) * ring.slot_nbytes
        ffi.memmove(slot, iu, len(iu))
    channel.ring.header.req_prod = ring.req_prod_pvt + 20
    lib.vscsi_event_send_fd(channel.ring.fd)


def break_indexes(channel):
    channel.ring.header.req_prod = channel.ring.header.req_prod + 1000
    lib.vscsi_event_send_fd(channel.ring.fd)


def bad_format(byte):
    def send(channel):
        iu = bytearray(oracle.encode_cmd(oracle.Cmd(1, bytes(8), TEST_UNIT_READY)))
        iu[5] = byte
        channel.ring.send(bytes(iu).ljust(100, b"\0"))

    return send


def login_again(channel):
    channel.ring.send(srp.encode(channel.login_req(A)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (send_garbage, 2),
        (break_indexes, 0),
        (bad_format(0x30), 6),
        (bad_format(0x03), 7),
        (login_again, 2),
    ],
    ids=["opcode", "indexes", "data-out format", "data-in format", "second login"],
)
def test_broken_protocol_ends_the_channel_alone(target, caplog, spoil, reason):
    other = target.raw().srp()
    other.login(B)
    absorb_attention(other)
    channel = target.raw().srp()
    channel.login(A)
    assert absorb_attention(channel)[12:14] == b"\x29\x00"
    with caplog.at_level(logging.WARNING, "vscsi.target"):
        spoil(channel)
        channel.expect_t_logout(reason)
        channel.wait_state(5)
    assert channel.error
    assert len([r for r in caplog.records if r.name == "vscsi.target" and r.levelno >= logging.WARNING]) == 1
    assert other.command(TEST_UNIT_READY).status == 0
    channel.close()
    channel.connect()
    assert isinstance(channel.login(A), srp.LoginRsp)
    assert absorb_attention(channel)[12:14] == b"\x29\x07"


@pytest.mark.options(request_limit=4)
def test_request_limit_is_enforced(target):
    channel = target.raw().srp()
    assert channel.login(A).req_lim_delta == 4
    overrun(channel)
    channel.expect_t_logout(0)
    channel.wait_state(5)
    assert channel.error == "more requests than the request limit"


def test_descriptors_do_not_leak(target):
    def once():
        raw = target.raw()
        raw.srp().login(A)
        RawVbd(raw, 3).connect()
        raw.close()
        target.until(lambda: not target.server.peers, "gone")
        return len(list(Path("/proc/self/fd").iterdir()))

    # Descriptors of other threads come and go; one that leaks is there after every turn.
    first = once()
    assert min(once() for _ in range(5)) <= first


def test_credits_and_asynchronous_events(target):
    channel = target.raw().srp()
    channel.login(A)
    absorb_attention(channel)
    device = target.do(lambda: next(iter(target.server.channels.values())))
    assert target.do(lambda: grow_credits(device, -29))
    request = channel.target_request()
    assert isinstance(request, srp.CredReq) and request.req_lim_delta == -29
    channel.reverse.answer(channel.session.answer(request))
    target.until(lambda: device.request_limit == 1, "limit lowered")
    assert channel.command(TEST_UNIT_READY).status == 0
    overrun(channel)
    channel.expect_t_logout(0)
    other = target.raw().srp()
    other.login(B)
    nexus = target.do(lambda: target.server.nexuses.find(B, target.server.rules.target_port_id))
    assert target.do(lambda: send_async_event(nexus, LUN3, b"sense"))
    event = other.target_request()
    assert isinstance(event, srp.AerReq) and event.lun == LUN3


def test_unit_attentions_of_changes(target):
    raw = target.raw()
    channel, vbd = raw.srp(), RawVbd(raw, 0)
    channel.login(A)
    vbd.connect()
    absorb_attention(channel)
    unit = target.server.units[0]
    unit.blocks = 1024
    target.do(lambda: target.server.unit_resized(unit))
    assert absorb_attention(channel)[12:14] == b"\x2a\x09"
    raw.wait(lambda: vbd.read("sectors") == "1024", "sectors")
    assert channel.command(read_10(1024, 1), data_in=512).status == CHECK_CONDITION
    target.do(target.server.nexuses.luns_changed)
    assert absorb_attention(channel)[12:14] == b"\x3f\x0e"


def blkif_read(vbd: RawVbd, sector: int, sectors: int, queue: int = 0) -> tuple[int, bytes]:
    memory = vbd.raw.connection.memory
    offset = memory.alloc(lib.VSCSI_PAGE_SIZE)
    request = ffi.new("struct blkif_request *")
    request.operation, request.nr_segments, request.id, request.sector_number = lib.BLKIF_OP_READ, 1, 5, sector
    request.seg[0].gref = memory.grant(offset, lib.VSCSI_PAGE_SIZE)[0]
    request.seg[0].last_sect = sectors - 1
    vbd.rings[queue].send(bytes(ffi.buffer(request)))
    answer = vbd.rings[queue].take()
    assert answer is not None and int.from_bytes(answer[:8], "little") == 5
    return int.from_bytes(answer[10:12], "little", signed=True), bytes(memory.view[offset : offset + sectors * 512])


def test_blkif_next_to_srp(target):
    raw = target.raw()
    vbd = RawVbd(raw, 0, queues=2, pages=8)
    vbd.connect()
    assert vbd.state == 4
    for queue in range(2):
        assert blkif_read(vbd, 9, 2, queue) == (0, b"\x09" * 512 + b"\x0a" * 512)
    assert blkif_read(vbd, 2048, 1)[0] == -1
    channel = raw.srp()
    channel.login(A)
    absorb_attention(channel)
    vbd.rings[0].header.req_prod = 1 << 20
    lib.vscsi_event_send_fd(vbd.rings[0].fd)
    vbd.wait_state(5)
    assert vbd.read("error") == "ring indexes out of range"
    assert channel.command(read_10(0, 1), data_in=512).status == 0
    vbd.write({"state": "6"})
    vbd.wait_state(6)
    vbd.connect()
    assert blkif_read(vbd, 1, 1) == (0, b"\x01" * 512)


def test_indirect_request_is_answered_as_what_it_names(target):
    vbd = RawVbd(target.raw(), 0)
    vbd.connect()
    memory = vbd.raw.connection.memory
    pages = 16
    offset = memory.alloc((pages + 1) * lib.VSCSI_PAGE_SIZE)
    grefs = memory.grant(offset, (pages + 1) * lib.VSCSI_PAGE_SIZE)
    segments = ffi.cast("struct blkif_segment *", memory.base + offset)
    for k in range(pages):
        segments[k].gref, segments[k].first_sect, segments[k].last_sect = grefs[k + 1], 0, 7
    request = ffi.new("struct blkif_request_indirect *")
    request.operation, request.indirect_op, request.nr_segments = lib.BLKIF_OP_INDIRECT, lib.BLKIF_OP_READ, pages
    request.id, request.indirect_grefs[0] = 8, grefs[0]
    vbd.rings[0].send(bytes(ffi.buffer(request)))
    answer = vbd.rings[0].take()
    assert answer is not None
    assert (answer[0], answer[8], answer[10:12]) == (8, lib.BLKIF_OP_READ, b"\0\0")
    data = bytes(memory.view[offset + lib.VSCSI_PAGE_SIZE : offset + (pages + 1) * lib.VSCSI_PAGE_SIZE])
    assert data == b"".join(bytes((n,)) * 512 for n in range(pages * 8))


def test_stats(target):
    raw = target.raw()
    channel = raw.srp()
    channel.login(A)
    channel.command(INQUIRY, data_in=96)
    channel.command(INQUIRY, data_in=96)
    stats = raw.connection.request("stats")
    assert stats["engine"] in ("uring", "pool")
    (counted,) = stats["channels"]
    assert (counted["requests"], counted["responses"], counted["request_limit"]) == (3, 3, 30)
    (loop,) = stats["loops"]
    assert loop["cpu_ns"] > 0 and loop["channels"] == 1
    assert loop["thread_id"] in [int(task.name) for task in Path("/proc/self/task").iterdir()]
    info = raw.connection.request("info")
    assert [lun["lun"] for lun in info["luns"]] == [0, 3]
