# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is, by itself: the test is device and clock. What docs/scheduling.md promises, as properties."""

import random
from collections import Counter

import pytest
from schedulers import NEVER, MiB, Queue

OVERTAKERS = 128


def disk_ns(head, where, nbytes) -> int:
    return (0 if head == where else 10_000_000) + nbytes * 7


# ---- examples ----


def test_nothing_waits():
    q = Queue()
    assert q.next() is None and q.again[0] == NEVER


def test_the_elevator_goes_up_and_begins_anew():
    q = Queue()
    places = [50, 30, 90, 70, 10]
    numbers = [q.put(0, MiB * place) for place in places]
    first = q.serve(1)
    assert first == [numbers[0]]  # it was idle: what comes first
    assert [q.requests[n][1] // MiB for n in q.serve()] == [70, 90, 10, 30]


def test_up_is_nearer_than_down_whosever_it_is():
    q = Queue(depth=2)
    first, second = q.put(0, 50 * MiB), q.put(1, 51 * MiB)
    assert {q.next(), q.next()} == {first, second}
    down, up = q.put(0, 45 * MiB), q.put(1, 90 * MiB)
    q.done(first)
    q.done(second)
    assert q.serve() == [up, down]


def test_who_was_away_gets_nothing_back():
    q = Queue()
    q.put(0, 0)
    q.put(1, 1 << 40)
    q.serve()
    for i in range(200):
        q.put(0, i * 7 * MiB % (1 << 36))
    q.serve(100)
    for i in range(200):
        q.put(1, (1 << 40) + i * 7 * MiB % (1 << 36))
    served = Counter(q.requests[n][0] for n in q.serve(80))
    assert served[0] >= 25


def test_a_run_ahead_does_not_starve_what_lies_behind():
    q = Queue()
    q.put(0, 100 * MiB)
    first = q.next()
    behind = q.put(0, 0)
    q.done(first)
    for i in range(8):
        q.put(0, 100 * MiB + 4096 + i * 4096)
    served = []
    for i in range(8, 300):
        served.append(q.next())
        q.done(served[-1], 1000)
        q.put(0, 100 * MiB + 4096 + i * 4096)
    assert served.index(behind) == OVERTAKERS


def test_without_a_head_to_move_first_come_first_served():
    q = Queue(rotational=0, depth=100)
    numbers = [q.put(0, MiB * place) for place in (50, 10, 90, 70, 30)]
    assert q.serve() == numbers


def test_two_runs_are_not_cut_to_pieces():
    q = Queue()
    served, turns, last = Counter(), 0, None
    for nexus in (0, 1):
        for i in range(400):
            q.put(nexus, (nexus << 36) + i * 65536, 65536)
    for _ in range(400):
        number = q.next()
        nexus = q.requests[number][0]
        turns += nexus != last
        served[nexus] += 1
        q.done(number, 500_000 if nexus == last else 10_000_000)
        last = nexus
    assert turns <= 8 and min(served.values()) > 120


def test_an_idle_one_goes_first():
    q = Queue()
    for i in range(256):
        q.put(0, i * 65536, 65536)
    running = q.next()
    polite = q.put(1, 1 << 40)
    assert q.next() is None  # no run goes on while somebody waits who was idle
    q.done(running)
    assert q.next() == polite


def test_head_of_queue_goes_first_and_counts():
    q = Queue()
    for i in range(10):
        q.put(0, i * MiB)
    urgent = [q.put(1, 0, urgent=1), q.put(0, 99 * MiB, urgent=1), q.put(1, MiB, urgent=1)]
    q.now += 1
    assert q.next() in urgent


@pytest.mark.parametrize("rotational", [0, 1])
def test_nobody_gets_more_by_head_of_queue(rotational):
    q = Queue(rotational=rotational)
    served = Counter()
    for i in range(16):
        q.put(0, i * MiB, urgent=1)
        q.put(1, (100 + i) * MiB)
    for _ in range(4000):
        number = q.next()
        nexus, at, _ = q.requests[number]
        q.done(number)
        served[nexus] += 1
        q.put(nexus, at, urgent=not nexus)
    assert served[1] > 0.3 * served[0]


def test_limits_hold_head_of_queue_back_too():
    q = Queue()
    q.share(0, iops=10)
    for i in range(3):
        q.put(0, i * MiB, urgent=1)
    assert len(q.serve()) < 3
    q.now = q.again[0]
    assert len(q.serve(took_ns=0)) >= 1


def test_rides_are_bounded():
    q = Queue()
    for i in range(64):
        q.put(0, i * 32768, 32768)
    numbers = []
    while (number := q.next()) is not None:
        numbers.append(number)
    assert len(numbers) == 8 and len(q.riding) == 7  # 256 KiB with the first
    q.done(numbers[1])
    assert q.next() is None
    q.done(numbers[0])
    assert q.next() is not None


def test_riders_are_counted_too():
    q = Queue()
    for i in range(64):
        q.put(0, i * 512, 512)
    assert len([None for _ in range(64) if q.next() is not None]) == 17


def test_reads_and_writes_do_not_ride_with_each_other():
    q = Queue()
    q.put(0, 0)
    q.put(0, 4096, write=1)
    assert q.next() is not None and q.next() is None


def test_a_lifted_limit_is_forgotten():
    q = Queue()
    q.share(0, bytes_per_s=1024)
    q.put(0, 0, 8 * MiB)
    q.put(0, 16 * MiB, 8 * MiB)
    q.done(q.next())
    assert q.next() is None and q.again[0] > q.now + 8000 * 10**9
    q.share(0, bytes_per_s=1 << 40)
    assert q.next() is not None


def test_what_a_limit_kept_from_somebody_is_not_given_to_him_later():
    q = Queue()
    q.share(0, iops=1)
    for i in range(200):
        q.put(0, i << 30)
        q.put(1, (1000 + i) << 30)
    for _ in range(60):
        q.done(q.next(), 10_000_000)
    q.share(0, iops=0)
    served = Counter(q.requests[n][0] for n in q.serve(60, 10_000_000))
    assert served[0] <= 40


def test_one_long_request_is_not_held_against_its_nexus_for_ever():
    q = Queue(nexuses=2)
    q.put(0, 0)
    q.put(1, 1 << 40)
    q.done(q.next(), 3600 * 10**9)  # the device hung for an hour
    served = q.keep(until_ns=q.now + 4 * 10**9, took=disk_ns)
    assert min(served[0], served[1]) > 0.3 * max(served[0], served[1])


@pytest.mark.parametrize("rotational", [0, 1])
@pytest.mark.parametrize("ratio", [(1, 2, 4), (100, 100, 100), (10000, 5000, 100)])
def test_shares_follow_weights(rotational, ratio):
    q = Queue(rotational=rotational, depth=1 if rotational else 16)
    for nexus, weight in enumerate(ratio):
        q.share(nexus, weight=weight)
    served = q.keep(
        until_ns=q.now + 60 * 10**9,
        took=lambda head, where, nbytes: 5_000_000,
        nexuses=range(len(ratio)),
        depth=16,
        place=lambda rng: rng.randrange(1 << 24) * 4096,
        nbytes=4096,
    )
    total = sum(served.values())
    for nexus, weight in enumerate(ratio):
        assert served[nexus] / total == pytest.approx(weight / sum(ratio), abs=0.02)


def test_time_is_shared_not_bytes():
    """A random reader and a sequential one get as much of the disk: the sequential one moves far more."""
    q, busy, head = Queue(), Counter(), 0
    rng = random.Random(1)
    ends = {0: 0}
    for _ in range(16):
        q.put(0, ends[0], 65536)
        ends[0] += 65536
        q.put(1, rng.randrange(1 << 36, 1 << 37), 4096)
    for _ in range(3000):
        number = q.next()
        nexus, where, size = q.requests[number]
        took = disk_ns(head, where, size)
        q.done(number, took)
        busy[nexus] += took
        head = where + size
        if nexus:
            q.put(1, rng.randrange(1 << 36, 1 << 37), 4096)
        else:
            q.put(0, ends[0], 65536)
            ends[0] += 65536
    assert busy[0] / busy[1] == pytest.approx(1, abs=0.1)


# ---- waiting for the next request of a stream ----

THINKS_NS = 200_000


def streams(q: Queue, until_ns: int, nexuses=(0, 1), thinks_ns=THINKS_NS) -> tuple[Counter, int]:
    """Nexuses that each send the next 64 KiB some time after the last came: bytes by nexus, and the longest wait."""
    end, coming = q.now + until_ns, [(q.now, nexus, nexus << 36) for nexus in nexuses]
    since, served, longest, head = {}, Counter(), 0, 0

    def come(now) -> None:
        for request in sorted(one for one in coming if one[0] <= now):
            coming.remove(request)
            q.now, nexus, place = request
            q.put(nexus, place, 65536)
            since[nexus] = q.now
        q.now = now

    while q.now < end:
        come(q.now)
        number = q.next()
        if number is None:
            come(min([q.again[0], *(one[0] for one in coming)]))
            continue
        nexus, where, nbytes = q.requests[number]
        longest = max(longest, q.now - since[nexus])
        come(q.now + disk_ns(head, where, nbytes))
        q.done(number, 0)
        head = where + nbytes
        served[nexus] += nbytes
        coming.append((q.now + thinks_ns, nexus, head))
    return served, longest


def test_streams_at_depth_1_run_when_the_head_waits_for_them():
    """Without: a seek for each request. With: a run each, as fair as before; neither waits longer than a run takes."""
    plain, _ = streams(Queue(), 2_000_000_000)
    waiting, longest = streams(Queue(idle_us=2000), 2_000_000_000)
    assert sum(waiting.values()) > 5 * sum(plain.values())
    assert min(waiting.values()) > 0.8 * max(waiting.values())
    assert longest < 100_000_000


def test_the_head_does_not_wait_for_who_thinks_too_long():
    """But for a few times, until that is known."""
    slow, _ = streams(Queue(idle_us=2000), 2_000_000_000, thinks_ns=30_000_000)
    plain, _ = streams(Queue(), 2_000_000_000, thinks_ns=30_000_000)
    assert sum(slow.values()) >= 0.9 * sum(plain.values())


def test_the_head_waits_a_bounded_time_and_never_for_places_at_random():
    q = Queue(idle_us=2000)
    for i in range(4):
        q.put(0, i * 4096)
        q.serve()
    q.put(1, 1 << 40)
    q.put(1, 1 << 41)
    assert q.next() is not None, "whoever comes anew is served at once"
    q = Queue(idle_us=2000)
    for nexus in (1, 0):
        for i in range(12):
            q.put(nexus, (nexus << 40) + i * 4096)
            q.serve(took_ns=100_000)
    second = q.put(1, (1 << 40) + 12 * 4096)
    assert q.next() is None and q.now < q.again[0] <= q.now + 2_000_000
    q.now = q.again[0]
    assert q.next() == second
    for i in range(20):
        q = Queue(idle_us=2000)
        q.put(0, i * 7 * MiB)
        q.serve()
        q.put(1, MiB)
        assert q.next() is not None


def test_an_interactive_one_is_not_kept_waiting_for_a_stream():
    q = Queue(idle_us=2000, nexuses=3)
    for i in range(4):
        q.put(0, i * 4096)
        q.serve()
    other = q.put(2, 5 << 40)
    assert q.next() == other
