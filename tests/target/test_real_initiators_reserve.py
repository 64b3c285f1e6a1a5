# SPDX-License-Identifier: BSD-2-Clause
"""What cluster software of Windows and ESXi sends to reserve a disk, as CDBs and parameter lists, byte by byte.

Two nodes on SRP rings. The sequences are those of Windows' storage validation and failover clustering (persistent
reservations of types 5 and 6, APTPL=0) and of VMFS without ATS (RESERVE(6) around metadata updates).
"""

import pytest
from programs import Target

from initiator import Initiator

GOOD, CONFLICT, CHECK = 0x00, 0x18, 0x02
TUR = "00 00 00 00 00 00"
READ_CAPACITY = "25 00 00 00 00 00 00 00 00 00"
INQUIRY = "12 00 00 00 24 00"
READ = "28 00 00 00 00 00 00 00 01 00"
WRITE = "2a 00 00 00 00 00 00 00 01 00"
MODE_SENSE = "1a 00 08 00 c0 00"
READ_KEYS = "5e 00 00 00 00 00 00 01 00 00"
READ_RESERVATION = "5e 01 00 00 00 00 00 01 00 00"
RESERVE_6, RELEASE_6 = "16 00 00 00 00 00", "17 00 00 00 00 00"

# Windows makes a node's key of a random part and the node's number.
KEY = {"one": "4c f8 12 6a 01 73 6d 62", "two": "4c f8 12 6a 02 73 6d 62"}
NONE = "00 00 00 00 00 00 00 00"
TAIL = "00 00 00 00 00 00 00 00"


def list_of(key: str, new: str = NONE) -> str:
    return f"{key} {new} {TAIL}"


def pr_out(action: int, kind: int = 0) -> str:
    return f"5f {action:02x} {kind:02x} 00 00 00 00 00 18 00"


class Node:
    def __init__(self, target: Target, name: str) -> None:
        self.initiator = Initiator(target.socket, port_id=name.encode().ljust(16, b"."), memory_nbytes=4 << 20)
        self.name, self.key = name, KEY[name]

    def send(self, cdb: str, data: str = "", data_in: int = 512) -> int:
        raw, out = bytes.fromhex(cdb), bytes.fromhex(data)
        if raw[0] == 0x2A:
            out = self.name.encode().ljust(512)
        wanted = data_in if raw[0] in (0x12, 0x1A, 0x25, 0x28, 0x5E) else 0
        self.done = self.initiator.execute(0, raw, data_out=out, data_in=wanted)
        self.data = bytes(self.done.data_in)[: wanted - self.done.in_residual] if wanted else b""
        return self.done.status

    def sense(self) -> str:
        """The next TEST UNIT READY's key and codes."""
        status = self.send(TUR)
        return f"{self.done.sense[2]:x} {self.done.sense[12]:02x}/{self.done.sense[13]:02x}" if status == CHECK else ""


@pytest.fixture
def nodes(tmp_path):
    target = Target(tmp_path, "0=mem:1M")
    made = Node(target, "one"), Node(target, "two")
    assert [node.sense() for node in made] == ["6 29/00"] * 2
    yield made
    for node in made:
        node.initiator.close()
    assert target.stop() == 0


@pytest.mark.parametrize("kind", [5, 6])
def test_windows_cluster_takes_keeps_and_loses_a_disk(nodes, kind):
    one, two = nodes
    # The owner clears the disk of whatever was there and takes it.
    assert one.send(READ_KEYS) == GOOD
    assert one.data == bytes(8)
    assert one.send(pr_out(6), list_of(NONE, one.key)) == GOOD
    assert one.send(pr_out(1, kind), list_of(one.key)) == GOOD
    assert one.send(READ_RESERVATION) == GOOD
    assert one.data.hex(" ") == f"00 00 00 01 00 00 00 10 {one.key} 00 00 00 00 00 0{kind} 00 00"
    # Another node: neither in nor blind.
    for cdb in (TUR, READ_CAPACITY, INQUIRY, READ_KEYS, READ_RESERVATION):
        assert two.send(cdb) == GOOD, cdb
    assert two.send(READ) == (GOOD if kind == 5 else CONFLICT)
    assert two.send(WRITE) == CONFLICT
    assert two.send(pr_out(1, kind), list_of(two.key)) == CONFLICT, "not registered"
    # It registers: a wrong key first, as validation does.
    assert two.send(pr_out(0), list_of(one.key, two.key)) == CONFLICT
    assert two.send(pr_out(0), list_of(NONE, two.key)) == GOOD
    assert two.send(WRITE) == two.send(READ) == GOOD
    assert two.send(pr_out(1, kind), list_of(two.key)) == CONFLICT, "somebody holds it"
    assert two.send(pr_out(2, kind), list_of(two.key)) == GOOD, "released by who does not hold it: no effect"
    assert two.send(READ_KEYS) == GOOD
    assert two.data.hex(" ") == f"00 00 00 02 00 00 00 10 {one.key} {two.key}"
    # The owner defends: it registers again with its own key, every three seconds.
    assert one.send(pr_out(0), list_of(one.key, one.key)) == GOOD
    # The challenger finds it dead, preempts, and owns the disk.
    assert two.send(pr_out(5, kind), list_of(two.key, one.key)) == GOOD
    assert two.send(READ_RESERVATION) == GOOD
    assert two.data.hex(" ") == f"00 00 00 04 00 00 00 10 {two.key} 00 00 00 00 00 0{kind} 00 00"
    # The former owner wakes up: it may not write, is told once, and its registration is gone.
    assert one.send(WRITE) == CONFLICT
    assert one.sense() == "6 2a/05"
    assert one.sense() == ""
    assert one.send(WRITE) == CONFLICT
    assert one.send(pr_out(0), list_of(one.key, one.key)) == CONFLICT
    # An orderly move: registered again, released, reserved by the other; the rest is told of the release.
    assert one.send(pr_out(6), list_of(NONE, one.key)) == GOOD
    assert two.send(pr_out(2, kind), list_of(two.key)) == GOOD
    assert one.sense() == "6 2a/04"
    assert one.send(pr_out(1, kind), list_of(one.key)) == GOOD
    assert two.send(pr_out(4, kind), list_of(two.key, one.key)) == GOOD
    assert one.sense() == "6 2a/05"
    # Cleared at the end.
    assert two.send(pr_out(3), list_of(two.key)) == GOOD
    assert two.send(READ_KEYS) == GOOD
    assert two.data.hex(" ") == "00 00 00 07 00 00 00 00"
    assert one.send(WRITE) == GOOD


def test_windows_preempts_a_key_that_is_not_there(nodes):
    one, two = nodes
    assert one.send(pr_out(6), list_of(NONE, one.key)) == GOOD
    assert one.send(pr_out(1, 5), list_of(one.key)) == GOOD
    assert two.send(pr_out(6), list_of(NONE, two.key)) == GOOD
    assert two.send(pr_out(5, 5), list_of(two.key, "11 22 33 44 55 66 77 88")) == CONFLICT
    assert one.sense() == two.sense() == ""


def test_esxi_reserves_around_an_update_of_its_metadata(nodes):
    one, two = nodes
    for owner, other in ((one, two), (two, one)):
        assert owner.send(RESERVE_6) == GOOD
        assert owner.send(RESERVE_6) == GOOD
        assert owner.send(READ) == owner.send(WRITE) == GOOD
        for cdb in (RESERVE_6, READ, WRITE, TUR, READ_CAPACITY, MODE_SENSE):
            assert other.send(cdb) == CONFLICT, cdb
        assert other.send(INQUIRY) == GOOD
        assert other.send("03 00 00 00 12 00") == GOOD
        assert other.send("a0 00 00 00 00 00 00 00 10 00 00 00") == GOOD
        assert other.send(RELEASE_6) == GOOD
        assert other.send(WRITE) == CONFLICT, "who does not hold it releases nothing"
        assert owner.send(RELEASE_6) == GOOD
        assert other.send(READ) == other.send(WRITE) == GOOD


def test_esxi_breaks_a_lost_reservation_with_a_reset(nodes):
    one, two = nodes
    assert one.send(RESERVE_6) == GOOD
    assert two.send(WRITE) == CONFLICT
    assert two.initiator.task_management(0x08, 0) == 0
    assert two.sense() == one.sense() == "6 29/03"
    assert two.send(RESERVE_6) == GOOD
    assert one.send(WRITE) == CONFLICT
    assert two.send(RELEASE_6) == GOOD


def test_both_kinds_are_in_each_others_way(nodes):
    one, two = nodes
    assert one.send(RESERVE_6) == GOOD
    for node in nodes:
        assert node.send(pr_out(0), list_of(NONE, node.key)) == CONFLICT
        assert node.send(READ_KEYS) == CONFLICT
    assert one.send(RELEASE_6) == GOOD
    assert one.send(pr_out(0), list_of(NONE, one.key)) == GOOD
    for node in nodes:
        assert node.send(RESERVE_6) == CONFLICT
        assert node.send(RELEASE_6) == CONFLICT
    assert one.send(pr_out(1, 5), list_of(one.key)) == GOOD
    assert one.send(RESERVE_6) == GOOD, "CRH: the holder may, and nothing happens"
    assert two.send(READ) == GOOD
    assert two.send(RESERVE_6) == CONFLICT
    assert one.send(RELEASE_6) == GOOD
    assert two.send(WRITE) == CONFLICT


def test_third_parties_are_obsolete(nodes):
    one, _ = nodes
    for cdb in ("16 10 00 00 00 00", "17 10 00 00 00 00", "16 01 00 00 00 00", "56 10 00 00 00 00 00 00 00 00"):
        assert one.send(cdb) == CHECK
        assert one.done.sense[2] & 0xF == 5
        assert one.done.sense[12:14] == b"\x24\0"
        assert one.done.sense[15] & 0xC0 == 0xC0
        assert one.done.sense[16:18] == b"\0\1"
