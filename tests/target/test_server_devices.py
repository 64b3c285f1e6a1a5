# SPDX-License-Identifier: BSD-2-Clause
"""XenBus conversations, vbds, requests and the end, with loops of Python in place of C's."""

import time

import pytest
from bus_initiator import RawVbd
from python_loops import A, B, Running, running_server

from vscsi import srp
from vscsi.bus.local import BusError
from vscsi.native import lib

running = pytest.fixture(running_server)


# ---- XenBus ----


def test_reconnect_on_the_same_device(running):
    channel = running.raw().srp()
    for _ in range(3):
        channel.login(A)
        channel.close()
        assert not running.lib.channels
        channel.connect()
    assert running.attentions() == [0x2900, 0x2907, 0x2907]


def test_closed_without_closing_and_device_removed(running):
    raw = running.raw()
    channel = raw.srp()
    channel.login(A)
    channel.write({"state": "6"})
    channel.wait_state(6)
    raw.connection.write({channel.path: None})
    raw.wait(lambda: not raw.connection.store.children("backend/vscsi-srp"), "nodes removed")
    channel.connect()
    assert isinstance(channel.login(A), srp.LoginRsp)


def test_started_anew_without_closing(running):
    channel = running.raw().srp()
    channel.login(A)
    channel.connect()
    assert len(running.lib.channels) == 1
    assert isinstance(channel.login(A), srp.LoginRsp)


def test_vanished_peer_is_released_only_after_its_channels_stopped(running):
    raw = running.raw()
    raw.srp().login(A)
    mapper_released = []
    connection = running.do(lambda: next(iter(running.server.peers)).connection)
    release = connection.release
    connection.release = lambda: (mapper_released.append(dict(running.lib.channels)), release())
    running.lib.hold_stops = True
    raw.close()
    running.until(lambda: running.lib.named("vt_channel_stop"), "stop")
    assert mapper_released == []
    running.lib.hold_stops = False
    running.lib.finish_stop(next(iter(running.lib.channels)))
    running.until(lambda: not running.server.peers, "gone")
    assert mapper_released == [{}]


def test_many_connections_come_and_go(running):
    for _ in range(20):
        raw = running.raw()
        raw.srp().login(A)
        raw.close()
    running.until(lambda: not running.server.peers and not running.lib.channels, "all gone")


# ---- blkif ----


def test_vbds_are_on_offer_at_once(running):
    raw = running.raw()
    disk, readonly = RawVbd(raw, 0), RawVbd(raw, 3)
    disk.wait_state(2)
    readonly.wait_state(2)
    assert (disk.read("lun"), readonly.read("lun")) == ("0", "3")
    assert disk.read("max-ring-page-order") == "4"
    disk.connect()
    assert disk.state == 4
    assert {n: disk.read(n) for n in ("sectors", "sector-size", "physical-sector-size", "info", "mode")} == {
        "sectors": "2048", "sector-size": "512", "physical-sector-size": "4096", "info": "0", "mode": "w",
    }  # fmt: skip
    assert disk.read("feature-discard") == "1"
    readonly.connect()
    assert (readonly.read("info"), readonly.read("mode"), readonly.read("feature-discard")) == ("4", "r", "0")
    assert disk.flush()[:9] == (77).to_bytes(8, "little") + b"\x03"


def test_vbd_with_several_queues(running):
    vbd = RawVbd(running.raw(), 0, queues=3, pages=8)
    vbd.connect()
    assert len(running.lib.channels) == 3
    assert all(vbd.flush(queue) for queue in range(3))
    vbd.write({"state": "5"})
    vbd.wait_state(5)
    assert vbd.flush(1), "a vbd that closes is served until it has closed"
    vbd.write({"state": "6"})
    vbd.wait_state(6)
    assert not running.lib.channels
    nexuses = len(running.lib.nexuses)
    vbd.connect()
    assert vbd.flush(2) and len(running.lib.nexuses) == nexuses + 1


def test_vbd_error_of_one_queue_ends_the_vbd_and_nothing_else(running):
    raw = running.raw()
    vbd, channel = RawVbd(raw, 0, queues=2), raw.srp()
    vbd.connect()
    channel.login(A)
    vbd.rings[1].header.req_prod = 1 << 30
    vbd.wait_state(5)
    assert vbd.read("error") == "ring indexes out of range"
    assert channel.command(bytes(16)).status == 0
    vbd.write({"state": "6"})
    vbd.wait_state(6)
    vbd.connect()
    assert vbd.state == 4 and vbd.read("error") is None and vbd.flush()


@pytest.mark.parametrize("changes", [{"ring-ref": "3"}, {"ring-ref": "99999"}, {"multi-queue-num-queues": "5"}])
def test_vbd_with_bad_nodes(running, changes):
    vbd = RawVbd(running.raw(), 0)
    vbd.connect(lambda nodes: {**nodes, **changes})
    assert vbd.state == 5 and vbd.read("error")
    assert not running.lib.channels and not running.lib.nexuses


def test_closing_is_refused_while_in_use(running):
    vbd = RawVbd(running.raw(), 0)
    vbd.connect()
    peer = running.do(lambda: next(iter(running.server.peers)))
    running.do(lambda: peer.devices["vbd", vbd.devid].request_close())
    vbd.wait_state(5)
    assert vbd.read("online") == "0"
    assert vbd.flush(), "the initiator has it open and keeps state 4: it stays in service"
    vbd.write({"state": "5"})
    assert vbd.flush()
    vbd.write({"state": "6"})
    vbd.raw.wait(lambda: vbd.state == 0, "an offline vbd is removed once closed")
    assert not running.lib.channels


def test_resumed_with_other_rings(running):
    vbd = RawVbd(running.raw(), 0)
    vbd.connect()
    old = vbd.rings
    vbd.rings = [type(old[0])(vbd.raw, 1, lib.VSCSI_BLKIF_SLOT)]
    vbd.write({**vbd.rings[0].nodes.nodes(), "state": "3"})
    running.until(lambda: len(running.lib.named("vt_channel_stop")) == 1, "stale ring is dropped")
    vbd.raw.wait(lambda: vbd.state == 4, "Connected again")
    assert vbd.flush()
    assert len(running.lib.channels) == 1


def test_resize_reaches_vbds_and_nexuses(running):
    vbd = RawVbd(running.raw(), 0)
    vbd.connect()
    running.units[0].blocks = 4096
    running.do(lambda: running.server.unit_resized(running.units[0]))
    vbd.raw.wait(lambda: vbd.read("sectors") == "4096", "new size")
    assert vbd.state == 4 and running.attentions() == [0x2A09]


# ---- requests, and the end ----


def test_stats_and_info(running):
    raw = running.raw()
    raw.srp().login(A)
    RawVbd(raw, 3).connect()
    stats = raw.connection.request("stats")
    assert [(c["protocol"], c["device"]) for c in stats["channels"]] == [("srp", "vscsi-srp/0"), ("blkif", "vbd/51760")]
    assert set(stats["channels"][0]) >= {"requests", "kicks_sent", "kicks_received", "outstanding", "request_limit"}
    assert set(stats["loops"][0]) >= {"cpu_ns", "thread_id", "passes"}
    assert [lun["lun"] for lun in stats["luns"]] == [0, 3]
    assert stats["process"]["rss_anon_nbytes"] > 1 << 20
    info = raw.connection.request("info")
    assert info["target_port_id"] == raw.target_port_id.hex()
    assert info["initiators"][0]["name"] == "raw-initiator"
    assert info["initiators"][0]["initiator_port_id"] == A.hex()
    with pytest.raises(BusError):
        raw.connection.request("format-everything")


def test_orderly_stop_logs_everybody_out(tmp_path):
    running = Running(tmp_path)
    raws = [running.raw() for _ in range(2)]
    channels = [raw.srp() for raw in raws]
    for channel, port in zip(channels, (A, B), strict=True):
        channel.login(port)
    vbd = RawVbd(raws[0], 0)
    vbd.connect()
    running.server.stop()
    for channel in channels:
        channel.expect_t_logout(0)
    running.stop()
    assert not running.path.exists()
    assert all(unit.closed for unit in running.units)
    assert not running.lib.channels


def test_stop_does_not_wait_for_ever(tmp_path):
    running = Running(tmp_path)
    running.raw().srp().login(A)
    running.lib.hold_stops = True
    begin = time.monotonic()
    running.stop()
    assert time.monotonic() - begin < 3
    running.server.stop()
