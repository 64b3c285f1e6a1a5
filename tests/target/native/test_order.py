# SPDX-License-Identifier: BSD-2-Clause
"""Order among many channels, loops and nexuses that feed one logical unit; of data, under restricted reordering.

Order is the order of dequeue: of two channels nobody knows whose command came first, of one channel everybody does.
Must not know how the core decides.
"""

import os
import random
from collections import Counter

import pytest
import schedulers
from raw_initiator import PAGE
from raw_wire import HEAD_OF_QUEUE, ORDERED, SIMPLE, code, direct, parse_rsp, read10, srp_cmd, write10
from task_sets import SLOW, ended_quietly

from target.native import ffi, lib

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "0"))
OVERLAPPED = 0x0B4E00


def numbered(tag: int) -> bytes:
    return b"\x41\0" + tag.to_bytes(4, "big") + bytes(4)


def next_request(rig):
    """Number and request of a command that runs now; None: none."""
    request = ffi.new("struct vt_request *")
    if lib.vt_request_next(rig.t, request, 0) != 1:
        return None
    return int.from_bytes(bytes(request.cdb[2:6]), "big"), request


def check_begins(running: dict[int, int], number: int, pending: dict[int, int]) -> None:
    """`number` runs now beside `running`; `pending`: what of its channel has not ended, in order (number: attribute).

    HEAD OF QUEUE commands are beside everything that had been enabled before they came.
    """
    attribute = pending[number]
    older = {n: a for n, a in pending.items() if n < number}
    if attribute == ORDERED:
        assert set(running.values()) <= {HEAD_OF_QUEUE}, f"ORDERED {number} runs beside {running}"
        assert not older, f"ORDERED {number} has overtaken an older one of its channel"
    elif attribute == SIMPLE:
        assert ORDERED not in running.values(), f"SIMPLE {number} runs beside {running}"
        assert ORDERED not in older.values(), f"SIMPLE {number} has overtaken an ORDERED one"


@pytest.mark.parametrize("seed", range(3))
def test_many_channels_feed_one_unit(make_rig, seed):
    """Three nexuses with two channels each, on two loops, send at the same time."""
    rig, choose = make_rig(loops=2), random.Random(seed)
    rig.lu(flags=4)
    first = [rig.srp(loop=n % 2) for n in range(3)]
    channels = first + [rig.srp(c.memory, nexus=c.nexus, loop=1 - n % 2) for n, c in enumerate(first)]
    pending: dict[int, dict[int, int]] = {}  # number: what of its channel has not ended
    of_channel = {c.id: {} for c in channels}
    running: dict[int, int] = {}
    held: dict[int, object] = {}
    ended, answered = set(), Counter()
    left, number = 300 + int(SECONDS * 300), 0
    while left or running or sum(answered.values()) < number:
        channel = choose.choice(channels)
        if left and channel.sent - channel.received < 100 and choose.random() < 0.3:
            attributes = choose.choices((SIMPLE, ORDERED, HEAD_OF_QUEUE), (6, 3, 1), k=choose.randrange(1, 9))
            burst = dict(enumerate(attributes, number))
            number += len(burst)
            left = max(0, left - len(burst))
            of_channel[channel.id].update(burst)
            pending.update(dict.fromkeys(burst, of_channel[channel.id]))
            channel.send(*(srp_cmd(n, numbered(n), attribute=a) for n, a in burst.items()))
        while (found := next_request(rig)) is not None:
            n, request = found
            held[n] = request
            check_begins(running, n, pending[n])
            running[n] = pending[n][n]
        if running:
            done = choose.choice(sorted(running))
            del running[done]
            del pending.pop(done)[done]
            ended.add(done)
            rig.complete(held.pop(done))
        for channel in channels:
            for iu in channel.receive_all():
                rsp = parse_rsp(iu)
                assert rsp.status == 0 and rsp.tag in ended
                answered[rsp.tag] += 1
    assert set(answered.values()) == {1} and len(answered) == number


@pytest.mark.parametrize("loops", [1, 2])
def test_overlapped_tag_on_another_channel_of_the_nexus(make_rig, loops):
    """The scope of a tag is the nexus, whatever channels it has; all its commands end."""
    rig = make_rig(loops=loops)
    rig.lu(flags=4)
    one = rig.srp(loop=0)
    other, stranger = rig.srp(one.memory, nexus=one.nexus, loop=loops - 1), rig.srp(loop=0)
    one.send(srp_cmd(5, SLOW), srp_cmd(6, SLOW, attribute=ORDERED))
    mine = rig.request()
    one.taken()
    stranger.send(srp_cmd(5, SLOW))
    stranger.taken()
    other.send(srp_cmd(5, read10(0, 0)))
    rsp = other.answer()
    assert (rsp.tag, code(rsp)) == (5, OVERLAPPED)
    assert ended_quietly(one.answer(), 6)
    assert lib.vt_request_aborted(rig.t, mine.task) == 1
    rig.complete(mine)
    assert ended_quietly(one.answer(), 5)
    theirs = rig.request()
    assert lib.vt_request_aborted(rig.t, theirs.task) == 0
    rig.complete(theirs)
    assert stranger.answer().status == 0
    assert lib.vt_ua_take(rig.t, one.nexus, 0) == lib.vt_ua_take(rig.t, stranger.nexus, 0) == 0
    assert other.command(read10(0, 0)).status == 0


def as_if_ordered(rig, seconds: float = 0) -> bool:
    """READs and WRITEs of one nexus on few blocks, all SIMPLE and all at once; another nexus has other blocks. Whether
    each has read what it would have read had they come one after the other."""
    choose = random.Random(5)
    blocks, depth, good = 6, 60, True
    peers = [(rig.srp(loop=n), n * 100) for n in range(2)]
    frames = {who: who.memory.alloc(depth * 2) for who, _ in peers}
    disk = {base: [bytes(512)] * blocks for _, base in peers}
    for _ in range(8 + int(seconds * 20)):
        expected = {}
        for who, base in peers:
            batch = []
            for tag in range(depth):
                lba, count = choose.randrange(blocks), choose.randrange(1, 4)
                count = min(count, blocks - lba)
                frame = frames[who] + tag
                if choose.random() < 0.5:
                    data = [choose.randbytes(512) for _ in range(count)]
                    who.memory.write(frame, b"".join(data))
                    disk[base][lba : lba + count] = data
                    cdb, buffer = write10(base + lba, count), {"out": direct(frame + 8, 512 * count)}
                else:
                    who.memory.write(frame, bytes(PAGE))
                    expected[who, frame] = b"".join(disk[base][lba : lba + count])
                    cdb, buffer = read10(base + lba, count), {"in_": direct(frame + 8, 512 * count)}
                batch.append(srp_cmd(tag, cdb, **buffer))
            who.send(*batch)
        for who, _ in peers:
            assert all(who.answer().status == 0 for _ in range(depth))
        good &= all(who.memory.read(frame, len(data)) == data for (who, frame), data in expected.items())
    return good


@pytest.mark.parametrize("restricted", [1, 0])
@pytest.mark.parametrize("engine", ["VT_ENGINE_URING", "VT_ENGINE_POOL"])
def test_data_under_restricted_reordering_is_as_if_all_were_ordered(make_rig, engine, restricted):
    """On a device that sorts what it is given by position: unrestricted, that can be seen in the data."""
    rig = make_rig(loops=2, engine=getattr(lib, engine), nowait=0)
    if lib.vt_engine_used(rig.t) != getattr(lib, engine):
        pytest.skip("there is no io_uring here")
    rig.lu(fd=rig.file(), restricted=restricted)
    schedulers.add(rig, depth=1, rotational=1)
    assert as_if_ordered(rig, SECONDS if restricted else 0) is bool(restricted)
