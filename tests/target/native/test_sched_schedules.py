# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is, on random schedules: what docs/scheduling.md promises, as properties."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from schedulers import NEVER, Queue, config

from target.native import lib

OVERTAKERS = 128
ADMIT = 0.05

requests = st.tuples(
    st.just("put"), st.integers(0, 3), st.integers(0, 40), st.sampled_from([512, 4096, 4096, 65536]), st.integers(0, 9)
)
steps = st.lists(
    st.one_of(
        requests,
        requests,
        st.tuples(st.just("done"), st.integers(0, 99), st.integers(0, 30_000_000)),
        st.tuples(st.just("done"), st.integers(0, 99), st.integers(0, 30_000_000)),
        st.tuples(st.just("drop"), st.integers(0, 99)),
        st.tuples(st.just("wait"), st.integers(0, 200_000_000)),
        st.tuples(
            st.just("share"), st.integers(0, 3), st.integers(1, 10000), st.sampled_from([0, 0, 5, 200]),
            st.sampled_from([0, 0, 100_000]),
        ),
        st.tuples(st.just("depth"), st.integers(1, 5)),
    ),
    max_size=120,
)  # fmt: skip


@settings(max_examples=150)
@given(steps, st.integers(0, 1), st.integers(1, 4))
def test_every_schedule(script, rotational, depth):
    """Work-conserving, no more than the depth, nothing twice or lost, nothing passed by too many, and it all ends."""
    q = Queue(rotational=rotational, depth=depth)
    limited: set[int] = set()
    order: list[int] = []

    def look() -> None:
        while (number := q.next()) is not None:
            order.append(number)
            assert number in q.riding or len(q.running - q.riding) <= depth
            nexus = q.requests[number][0]
            older = [n for n in q.waiting if q.requests[n][0] == nexus and n < number]
            if older:
                later = [n for n in order if q.requests[n][0] == nexus and n > min(older)]
                assert len(later) <= OVERTAKERS
        places = len(q.running - q.riding)
        if places < depth:
            assert all(q.requests[n][0] in limited for n in q.waiting), "the device is idle, and somebody may go"
            if q.waiting:
                assert q.now < q.again[0] < NEVER

    for step in script:
        if step[0] == "put":
            q.put(step[1], step[2] * 4096, step[3], write=step[4] & 1, urgent=step[4] == 9)
        elif step[0] == "done" and q.running:
            q.done(sorted(q.running)[step[1] % len(q.running)], step[2])
        elif step[0] == "drop" and q.waiting:
            q.drop(sorted(q.waiting)[step[1] % len(q.waiting)])
        elif step[0] == "wait":
            q.now += step[1]
        elif step[0] == "share":
            q.share(step[1], weight=step[2], iops=step[3], bytes_per_s=step[4])
            limited = limited | {step[1]} if step[3] or step[4] else limited - {step[1]}
        elif step[0] == "depth":
            depth = step[1]
            assert lib.vt_sched_model_update(q.m, config(**q.config | {"depth": depth})) == 0
        look()
    while q.waiting or q.running:
        for number in sorted(q.running):
            q.done(number)
        if q.waiting and q.again[0] != NEVER:
            q.now = max(q.now, q.again[0])
        look()
    assert len(order) == len(set(order))


@settings(max_examples=60)
@given(st.integers(1, 400), st.sampled_from([0, 50_000, 4_000_000]), st.integers(1, 8), st.integers(0, 1 << 30))
def test_limits_are_never_exceeded(iops, bytes_per_s, depth, seed):
    q, rng = Queue(depth=depth, rotational=seed & 1), random.Random(seed)
    q.share(0, iops=iops, bytes_per_s=bytes_per_s)
    taken: list[tuple[int, int]] = []
    for _ in range(400):
        if len(q.waiting) < 20:
            q.put(0, rng.randrange(1 << 30), rng.choice([512, 65536]))
            q.put(1, rng.randrange(1 << 30), 4096)
        number = q.next()
        if number is None and q.running:
            q.done(min(q.running), rng.randrange(3_000_000))
        elif number is None:
            q.now = max(q.now + 1, q.again[0])
        elif q.requests[number][0] == 0:
            taken.append((q.now, q.requests[number][2]))
    for i, (begin, _) in enumerate(taken):
        for k in range(i, len(taken), 7):
            seconds = (taken[k][0] - begin) / 1e9
            assert k - i <= iops * (seconds + ADMIT) + 1
            if bytes_per_s:
                assert sum(n for _, n in taken[i:k]) <= bytes_per_s * (seconds + ADMIT) + 65536


@settings(max_examples=40)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=4), st.integers(0, 1), st.integers(0, 1 << 30))
def test_shares_are_fair_at_any_time(weights, rotational, seed):
    """No two busy nexuses ever differ by more than some quanta of what they should have had, by their weights."""
    q, rng, had = Queue(rotational=rotational, quantum_us=20000), random.Random(seed), Counter()
    for nexus, weight in enumerate(weights):
        q.share(nexus, weight=weight)
        for _ in range(4):
            q.put(nexus, rng.randrange(1 << 20) * 4096)
    for _ in range(600):
        number = q.next()
        nexus = q.requests[number][0]
        took = rng.randrange(1_000_000, 9_000_000)
        q.done(number, took)
        had[nexus] += took if rotational else 4096 + 16384
        q.put(nexus, rng.randrange(1 << 20) * 4096)
        spent = {n: had[n] / weights[n] for n in range(len(weights))}
        unit = 20_000_000 + 2 * 9_000_000 if rotational else 2 * (4096 + 16384)
        slack = {n: unit / weights[n] for n in range(len(weights))}
        for a in spent:
            for b in spent:
                assert spent[a] - spent[b] <= slack[a] + slack[b]
