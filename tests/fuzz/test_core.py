# SPDX-License-Identifier: BSD-2-Clause
"""Random and half-right IUs on a live ring: the target survives, every other channel goes on, no grant leaks.

The contract: whatever a slot holds, the request gets one response, or the channel ends with an error event.
"""

import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_initiator import Channel, Rig
from raw_wire import direct, indirect, parse_rsp, read10, srp_cmd, tsk_mgmt, write10

from target.native import ffi, lib
from vscsi.native import lib as vlib

ROUNDS = 2000 if os.environ.get("VSCSI_FUZZ") == "long" else 60
PATIENCE = 0.2
"""Seconds without any answer after which an ACA condition may be what commands wait for."""
LUN_RESET = 8


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, loops=2)
    made.lu(fd=made.file(), flags=1 | 32)
    yield made
    made.close()


def mutate(rng: random.Random, iu: bytes, slot: int) -> bytes:
    data = bytearray(iu.ljust(slot, b"\0"))
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(data), len(iu) + 8))
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def srp_iu(rng: random.Random, gref: int) -> bytes:
    buffer = rng.choice(
        (
            lambda: b"",
            lambda: direct(gref + rng.randrange(12), rng.randrange(20000), rng.choice((0, 5, 4095, 1 << 33))),
            lambda: indirect([direct(gref + rng.randrange(10), rng.randrange(5000)) for _ in range(rng.randrange(9))]),
            lambda: indirect(
                [direct(gref, 512)] * 4, inline=0, table=struct.pack(">QII", rng.randrange(5000), gref, 64)
            ),
        )
    )()
    cdb = rng.choice(
        (
            read10(rng.randrange(4096), rng.randrange(40)),
            write10(rng.randrange(4096), rng.randrange(40)),
            b"\x35" + bytes(9),
            b"\x41" + bytes(9),
            bytes(6),
            rng.randbytes(16),
            b"\x12\0\0\0\x60\0",
        )
    )
    if rng.random() < 0.1:
        return tsk_mgmt(rng.randrange(64), rng.choice((1, 2, 4, 8, 0x40, 99)), task_tag=rng.randrange(64))
    direction = {rng.choice(("out", "in_")): buffer}
    return srp_cmd(rng.randrange(64), cdb, attribute=rng.choice((0, 0, 0, 1, 2, 4, 7)), **direction)


def blkif_request(rng: random.Random, gref: int) -> bytes:
    segments = b"".join(
        struct.pack("<IBBH", gref + rng.randrange(12), rng.randrange(9), rng.randrange(9), 0)
        for _ in range(rng.randrange(12))
    )
    if rng.random() < 0.2:
        return struct.pack(
            "<BBHIQQHH8II",
            6,
            rng.randrange(3),
            rng.randrange(600),
            0,
            1,
            rng.randrange(2100),
            0,
            0,
            *(gref + rng.randrange(10) for _ in range(8)),
            0,
        )
    return struct.pack("<BBHIQQ", rng.randrange(8), len(segments) // 8, 0, 0, 1, rng.randrange(2100)) + segments


class Rescuer:
    """Another nexus: its LOGICAL UNIT RESET ends an ACA condition that the fuzzed one has made and does not clear."""

    def __init__(self, channel) -> None:
        self.channel, self.asked, self.seen = channel, 0, -1
        self.since = time.monotonic()

    def watch(self, answered: int) -> bool:
        """True while a reset is unanswered; asks for one when `answered` has not changed for a while."""
        self.channel.poll()
        if answered != self.seen or len(self.channel.ready) < self.asked:
            self.seen, self.since = answered, time.monotonic()
        elif time.monotonic() > self.since + PATIENCE:
            self.asked += 1
            self.channel.send(tsk_mgmt(self.asked, LUN_RESET))
        return len(self.channel.ready) < self.asked

    def close(self) -> None:
        assert all(parse_rsp(rsp).response == bytes(4) for rsp in self.channel.ready)
        self.channel.ready.clear()


def drive(
    rig: Rig, rng: random.Random, make: Callable, iu_of: Callable[[random.Random, int], bytes], good: Channel
) -> None:
    """Sends a burst, answers slow commands, and waits until everything is answered or the channel has failed."""
    rescuer = Rescuer(good)
    channel = make()
    memory = channel.memory
    frame = memory.alloc(10)
    memory.write(frame, rng.randbytes(4096))
    burst = [mutate(rng, iu_of(rng, frame + 8), channel.slot) for _ in range(rng.randrange(1, 60))]
    channel.send(*burst)
    request, event = ffi.new("struct vt_request *"), ffi.new("struct vt_event *")
    until = time.monotonic() + 5
    failed = logged_out = False
    while rescuer.watch(len(channel.ready)) or not (len(channel.ready) == len(burst) or failed or logged_out):
        assert time.monotonic() < until, "neither answered nor failed"
        while lib.vt_request_next(rig.t, request, 1) == 1:
            rig.complete(request, status=rng.choice((0, 0, 8)), in_=rng.randrange(1 << 20))
        while lib.vt_event_next(rig.t, event) == 1:
            assert event.channel == channel.id
            failed |= event.type == 2
            logged_out |= event.type == 1 and event.iu[0] == 3
        channel.poll()
    rescuer.close()
    lib.vt_channel_stop(rig.t, channel.id)
    while True:
        assert time.monotonic() < until, "does not stop"
        while lib.vt_request_next(rig.t, request, 1) == 1:
            rig.complete(request)
        if lib.vt_event_next(rig.t, event) == 1 and event.type == 3:
            break
    channel.poll()
    assert len(channel.ready) <= len(burst)
    assert vlib.vscsi_mapper_in_use(memory.mapper) <= channel.pages or channel.persistent
    channel.remove()
    vlib.vscsi_mapper_free(memory.mapper)
    os.close(memory.fd)
    os.close(channel.fd)
    rig.memories.remove(memory)
    rig.channels.remove(channel)
    lib.vt_nexus_remove(rig.t, channel.nexus)


@pytest.mark.parametrize("protocol", ["srp", "blkif"])
def test_fuzz_live_channel(rig, protocol):
    good = rig.srp()
    # Resets by the peer under test reach the good nexus as unit attentions; that is theirs to do.
    for seed in range(ROUNDS):
        rng = random.Random(f"{protocol} {seed}")
        persistent = rng.random() < 0.5
        if protocol == "srp":
            drive(rig, rng, lambda p=persistent: rig.srp(persistent=p), srp_iu, good)
        else:
            features = {"barrier": 1, "flush": 1, "discard": 1, "max_indirect_segments": 256}
            drive(rig, rng, lambda p=persistent, f=features: rig.blkif(persistent=p, **f), blkif_request, good)
        for _ in range(20):
            rsp = good.command(read10(0, 0))
            if rsp.status == 0:
                break
        assert rsp.status == 0, seed
