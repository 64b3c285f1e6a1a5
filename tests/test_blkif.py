# SPDX-License-Identifier: BSD-2-Clause
"""blkif's nodes and virtual-device numbers, read and written by both ends; and the nodes SRP shares with them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi import blkif, nodes
from vscsi.blkif import Limits, Properties, Request, VirtualDevice
from vscsi.errors import RemoteProtocolError
from vscsi.native import lib
from vscsi.nodes import PeerInfo, RingNodes, SrpInitiatorNodes, SrpTargetNodes


# Numbers as Xen's tools and Linux print them.
@pytest.mark.parametrize(
    ("name", "devid"),
    [
        ("xvda", 51712), ("xvdb", 51728), ("xvda1", 51713), ("xvdp", 51952), ("xvdp15", 51967),
        ("xvdq", 268439552), ("xvdaa", (1 << 28) | 26 << 8), ("xvda16", (1 << 28) | 16),
        ("sda", 2048), ("sdb2", 2066), ("hda", 768), ("hdb", 832), ("hdc", 5632), ("hdd3", 5699),
    ],
)  # fmt: skip
def test_virtual_device_numbers(name, devid):
    device = VirtualDevice.from_name(name)
    assert device.devid == devid
    assert VirtualDevice.from_devid(devid) == device
    assert device.name == name


@pytest.mark.parametrize(
    "name", ["", "xvd", "xvdA", "xvda0", "xvda01", "sdq", "sda16", "hde", "hda64", "vda", "xvda256"]
)
def test_names_outside_the_scheme(name):
    with pytest.raises(ValueError):
        VirtualDevice.from_name(name)


@pytest.mark.parametrize("devid", [0, 1, 51711 - 256 * 200, 2 << 28, 770 + 128, 203 << 8, -1])
def test_numbers_outside_the_scheme(devid):
    with pytest.raises(ValueError):
        VirtualDevice.from_devid(devid)


def test_devid_of_lun_both_ways():
    for lun in (0, 1, 15, 16, 255, 256, 16383):
        assert blkif.devid_of_lun(lun) == (202 << 8 | lun << 4 if lun < 16 else 1 << 28 | lun << 8)
        assert blkif.lun_of_devid(blkif.devid_of_lun(lun)) == lun


@pytest.mark.parametrize("devid", [51713, 2048, (1 << 28) | 1, 1 << 28, 7])
def test_no_lun_under_partitions_other_families_or_a_second_spelling(devid):
    with pytest.raises(ValueError):
        blkif.lun_of_devid(devid)


@given(st.integers(0, 2**32))
def test_any_number_is_refused_or_comes_back(devid):
    with contextlib.suppress(ValueError):
        device = VirtualDevice.from_devid(devid)
        assert VirtualDevice.from_name(device.name) == device


def test_limits_and_defaults():
    assert Limits.parse({}) == Limits(0, 1, 0)
    full = Limits(4, 4, 256)
    assert Limits.parse(full.nodes()) == full
    assert "feature-max-indirect-segments" not in Limits(max_indirect_segments=0).nodes()
    assert Limits.parse({"max-ring-pages": "8"}).max_ring_page_order == 3
    huge = {"max-ring-page-order": "9", "multi-queue-max-queues": "999", "feature-max-indirect-segments": "99999"}
    assert Limits.parse(huge) == Limits(4, blkif.MAX_QUEUES, 4096)


def test_properties_round_trip():
    disk = Properties(2048, 512, 4096, lib.VDISK_READONLY | lib.VDISK_CDROM, True, True, True, True, 4096, 512, True)
    assert Properties.parse(disk.nodes()) == disk
    assert disk.nodes()["mode"] == "r" and disk.readonly
    assert Properties(1).nodes()["mode"] == "w"
    assert Properties.parse({"sectors": "8", "sector-size": "512", "mode": "r"}).readonly


@pytest.mark.parametrize(
    "wrong",
    [
        {"sectors": "-1"}, {"sectors": "1e3"}, {"sectors": str(2**63)}, {"sectors": " 8"}, {"sectors": "٣"},
        {"sector-size": "0"}, {"sector-size": "513"}, {"sector-size": "768"}, {"sector-size": "8192"},
        {"physical-sector-size": "256"}, {"physical-sector-size": "1000"}, {"feature-barrier": "2"},
        {"info": "x"}, {"discard-granularity": "9" * 25}, {"sectors": ""},
    ],
)  # fmt: skip
def test_properties_out_of_bounds(wrong):
    with pytest.raises(RemoteProtocolError) as caught:
        Properties.parse({"sectors": "8", "sector-size": "512"} | wrong)
    assert next(iter(wrong)) in str(caught.value)


def test_missing_sizes_are_refused():
    for missing in ("sectors", "sector-size"):
        with pytest.raises(RemoteProtocolError, match=missing):
            Properties.parse({k: v for k, v in {"sectors": "8", "sector-size": "512"}.items() if k != missing})


LIMITS = Limits(4, 4, 256)


def test_request_of_one_page_is_spelled_as_linux_does():
    assert Request((RingNodes((8,), 3),)).nodes() == {
        "ring-ref": "8",
        "event-channel": "3",
        "protocol": "x86_64-abi",
        "feature-persistent": "1",
    }


@pytest.mark.parametrize(
    "request_",
    [
        Request((RingNodes((8,), 3),)),
        Request((RingNodes(tuple(range(8, 16)), 3),), persistent=False, large_sector_size=True),
        Request((RingNodes((8, 9), 1), RingNodes((10, 11), 2), RingNodes((12, 13), 3))),
    ],
)
def test_request_round_trip(request_):
    assert Request.parse(request_.nodes(), LIMITS) == request_


def test_ring_ref0_alone_and_queue_0_alone_are_read_too():
    assert Request.parse({"ring-ref0": "8", "event-channel": "1"}, LIMITS).queues == (RingNodes((8,), 1),)
    alone = {"multi-queue-num-queues": "1", "queue-0/ring-ref": "8", "queue-0/event-channel": "1"}
    assert Request.parse(alone, LIMITS).queues == (RingNodes((8,), 1),)
    legacy = {"num-ring-pages": "2", "ring-ref0": "8", "ring-ref1": "9", "event-channel": "1"}
    assert Request.parse(legacy, LIMITS).queues == (RingNodes((8, 9), 1),)


GOOD = Request((RingNodes((8, 9), 1), RingNodes((10, 11), 2))).nodes()


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"ring-page-order": "5"}, "ring-page-order"),
        ({"ring-page-order": "-1"}, "ring-page-order"),
        ({"multi-queue-num-queues": "5"}, "multi-queue-num-queues"),
        ({"multi-queue-num-queues": "0"}, "multi-queue-num-queues"),
        ({"queue-1/ring-ref1": "7"}, "queue-1/ring-ref1"),
        ({"queue-1/ring-ref1": str(2**32)}, "queue-1/ring-ref1"),
        ({"queue-1/ring-ref1": "10"}, "queue-1/ring-ref0"),
        ({"queue-1/ring-ref1": "8"}, "share"),
        ({"queue-1/event-channel": "1"}, "share"),
        ({"queue-1/event-channel": "0"}, "queue-1/event-channel"),
        ({"queue-0/event-channel": None}, "queue-0/event-channel"),
        ({"queue-0/ring-ref0": None}, "queue-0/ring-ref0"),
        ({"protocol": "x86_32-abi"}, "x86_32-abi"),
        ({"feature-persistent": "yes"}, "feature-persistent"),
        ({"multi-queue-num-queues": None, "queue-0/event-channel": None}, "ring-ref0"),
    ],
)
def test_requests_out_of_bounds(wrong, names):
    changed = {k: v for k, v in (GOOD | wrong).items() if v is not None}
    with pytest.raises(RemoteProtocolError, match=names):
        Request.parse(changed, LIMITS)


def test_num_ring_pages_must_be_a_power_of_two():
    with pytest.raises(RemoteProtocolError, match="num-ring-pages"):
        Request.parse({"num-ring-pages": "3"}, LIMITS)


def test_plan_stays_within_limits():
    assert blkif.plan(LIMITS, 8, 2) == (8, 2)
    assert blkif.plan(LIMITS, 64, 9) == (16, 4)
    assert blkif.plan(Limits(0, 1, 0), 8, 2) == (1, 1)
    assert blkif.plan(LIMITS, 7, 0) == (4, 1)
    assert blkif.segments_per_request(Limits(0, 1, 0)) == 11
    assert blkif.segments_per_request(LIMITS) == 256


# ---- SRP's nodes and peer information ----

INFO = PeerInfo("box", "0.1", "Linux 6.1", 8 << 20)


def test_srp_nodes_round_trip():
    target = SrpTargetNodes(bytes(range(16)), INFO)
    assert SrpTargetNodes.parse(target.nodes()) == target
    initiator = SrpInitiatorNodes(RingNodes(tuple(range(20, 36)), 1), RingNodes((40,), 2), INFO)
    assert SrpInitiatorNodes.parse(initiator.nodes()) == initiator


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "srp-r16a-256"}, {"reverse-ring-ref": "20"}, {"reverse-event-channel": "1"},
        {"reverse-ring-ref": None}, {"max-transfer": "-4"}, {"ring-page-order": "1"}, {"event-channel": None},
    ],
)  # fmt: skip
def test_srp_initiator_nodes_out_of_bounds(wrong):
    good = SrpInitiatorNodes(RingNodes((20,), 1), RingNodes((40,), 2), INFO).nodes()
    with pytest.raises(RemoteProtocolError):
        SrpInitiatorNodes.parse({k: v for k, v in (good | wrong).items() if v is not None})


@pytest.mark.parametrize("raw", ["", "00", "zz" * 16, "0 " * 16, "00" * 17])
def test_target_port_id_must_be_sixteen_bytes(raw):
    with pytest.raises(RemoteProtocolError, match="target-port-id"):
        SrpTargetNodes.parse(SrpTargetNodes(bytes(16), INFO).nodes() | {"target-port-id": raw})


def test_peer_words_are_made_safe_to_log():
    info = PeerInfo.parse({"name": "a\nb\x1b[31mé" + "x" * 500, "max-transfer": "5"})
    assert info.name.startswith("a?b?[31m?xx") and len(info.name) == nodes.MAX_TEXT
    assert info == PeerInfo(info.name, "unknown", "unknown", 5)
    assert nodes.own_info("me").max_transfer_nbytes == lib.VSCSI_MAX_TRANSFER


NAMES = st.sampled_from([*GOOD, *Properties(1, discard=True).nodes(), *Limits().nodes(), "ring-ref", "ring-ref0",
                         "event-channel", "num-ring-pages", "reverse-ring-ref", "reverse-event-channel",
                         "target-port-id", "max-transfer"])  # fmt: skip
VALUES = st.one_of(st.integers(-1, 20).map(str), st.integers().map(str), st.text(max_size=40))


@given(st.dictionaries(NAMES, VALUES))
def test_any_nodes_parse_or_raise_remote_protocol_error(store):
    for parse in (
        lambda: Request.parse(store, LIMITS),
        lambda: Limits.parse(store),
        lambda: Properties.parse(store),
        lambda: SrpInitiatorNodes.parse(store),
        lambda: SrpTargetNodes.parse(store),
    ):
        with contextlib.suppress(RemoteProtocolError):
            parse()
