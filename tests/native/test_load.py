# SPDX-License-Identifier: BSD-2-Clause
"""What the load generators share: the latency histogram against a sorted list, and the pattern of offsets."""

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.native import ffi, lib

QUANTILES = (0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)


def quantiles(program: Path, values: list[int]) -> tuple[list[int], int, int]:
    command = [str(program), *map(str, QUANTILES)]
    done = subprocess.run(command, input="\n".join(map(str, values)), capture_output=True, text=True, check=True)
    *found, last = done.stdout.splitlines()
    largest, count = map(int, last.split())
    return list(map(int, found)), largest, count


def exact(values: list[int], q: float) -> int:
    """The smallest value that at least the fraction q of all values does not exceed."""
    rank = next(k for k in range(1, len(values) + 1) if k >= q * len(values))
    return sorted(values)[rank - 1]


SAMPLES = {
    "small": [*range(200)],
    "one": [123_456_789],
    "microseconds": [random.Random(1).randrange(3_000, 90_000) for _ in range(5000)],
    "long tail": [int(random.Random(i).expovariate(1e-5)) for i in range(5000)],
    "powers": [1 << i for i in range(45)],
    "just below powers": [(1 << i) - 1 for i in range(1, 45)],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_histogram_against_a_sorted_list(compile_c, name: str) -> None:  # type: ignore[no-untyped-def]
    """Exact below 64 ns, within 1/128 above; count and maximum exact; no quantile beyond the maximum."""
    values = SAMPLES[name]
    found, largest, count = quantiles(compile_c("hist.c"), values)
    assert (largest, count) == (max(values), len(values))
    for q, value in zip(QUANTILES, found, strict=True):
        right = exact(values, q)
        assert abs(value - right) <= (right / 128 if right >= 64 else 0), q
        assert value <= largest


def test_latency_beyond_the_last_bucket_is_kept(compile_c) -> None:  # type: ignore[no-untyped-def]
    found, largest, count = quantiles(compile_c("hist.c"), [1, (1 << 64) - 1])
    assert (largest, count) == ((1 << 64) - 1, 2)
    assert found[-1] > 1 << 44


def test_empty_histogram_has_no_quantiles() -> None:
    result = ffi.new("struct vscsi_load_result *")
    assert [lib.vscsi_hist_quantile(result, q) for q in QUANTILES] == [0] * len(QUANTILES)


@given(st.lists(st.integers(0, 2559), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_of_buckets(buckets: list[int], q: float) -> None:
    """The quantile lies in the bucket that holds the value of that rank."""
    result = ffi.new("struct vscsi_load_result *")
    for bucket in buckets:
        result.histogram[bucket] += 1
    bucket = exact(buckets, q)
    low, width = (bucket, 1) if bucket < 64 else ((bucket % 64 + 64) << (bucket // 64 - 1), 1 << (bucket // 64 - 1))
    assert low <= lib.vscsi_hist_quantile(result, q) < low + width


def test_merge_adds_and_takes_the_largest() -> None:
    into = ffi.new("struct vscsi_load_result *")
    other = ffi.new("struct vscsi_load_result *")
    fields = ["ios", "errors", "elapsed_ns", "cpu_ns", "kicks", "sleeps", "max_ns"]
    for number, name in enumerate(fields):
        setattr(into, name, 100 + number)
        setattr(other, name, 1000 + number)
    into.histogram[7], other.histogram[7], other.histogram[2559] = 1, 2, 3
    lib.vscsi_load_merge(into, other)
    for number, name in enumerate(fields):
        expected = 1000 + number if name in ("elapsed_ns", "max_ns") else 1100 + 2 * number
        assert getattr(into, name) == expected, name
    assert (into.histogram[7], into.histogram[2559]) == (3, 3)
