# SPDX-License-Identifier: BSD-2-Clause
"""Latency histograms as an interval log (.hlog, format version 1.3) that HdrHistogram's own tools merge and plot.

Knows HdrHistogram's buckets and its V2 encoding. A histogram is {"ns": [...], "count": [...]} as everywhere in the
report; knows no protocol, no file, no row of the JSON.
"""

from __future__ import annotations

import base64
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

Histogram = dict[str, list[int]]

V2_COOKIE = 0x1C849303 | 0x10
V2_COMPRESSED_COOKIE = 0x1C849304 | 0x10
DIGITS = 3
"""Significant decimal digits: each value is kept to a thousandth or better."""
HALF_BITS = 10
"""log2 of half the number of sub-buckets: 2048 is the first power of two that holds 2 * 10^DIGITS steps."""
LOWEST = 1
HIGHEST = 3600 * 10**9
"""What histograms say they can hold, in ns: an hour, more if a value is larger. Merging wants it the same in all."""
HEADER = struct.Struct(">iiiiqqd")
OUTER = struct.Struct(">ii")
NS_PER_MS = 1e6
"""The log's column of maxima is in milliseconds where values are in nanoseconds."""


@dataclass(frozen=True)
class Interval:
    """What was measured from `start`, in seconds since the epoch, on. `tag` may not hold commas or spaces."""

    tag: str
    start: float
    seconds: float
    histogram: Histogram


def index(value: int) -> int:
    """The number of the count that a value belongs to: 2048 steps of 1, then 1024 steps to each doubling."""
    shift = max(value.bit_length() - HALF_BITS - 1, 0)
    return (shift << HALF_BITS) + (value >> shift)


def varint(value: int) -> bytes:
    """ZigZag, then LEB128 of seven bits a byte; the ninth byte, if there is one, has eight."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 0x7F and len(out) < 8:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def _counts(histogram: Histogram) -> Iterator[int]:
    """Counts by rising index; a run of empty ones is one negative number."""
    pairs = zip(histogram["ns"], histogram["count"], strict=True)
    following = 0
    for place, group in groupby(pairs, key=lambda pair: index(pair[0])):
        if place > following:
            yield following - place
        yield sum(count for _, count in group)
        following = place + 1


def encode(histogram: Histogram) -> bytes:
    """A histogram in the compressed V2 encoding."""
    payload = b"".join(map(varint, _counts(histogram)))
    highest = max([HIGHEST, *histogram["ns"]])
    plain = HEADER.pack(V2_COOKIE, len(payload), 0, DIGITS, LOWEST, highest, 1.0) + payload
    packed = zlib.compress(plain)
    return OUTER.pack(V2_COMPRESSED_COOKIE, len(packed)) + packed


def log(intervals: Iterable[Interval], heading: str) -> str:
    """The log: times count from that of the first interval, lines are in the order of their starts."""
    rows = sorted(intervals, key=lambda one: (one.start, one.tag))
    began = rows[0].start if rows else 0.0
    date = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(began))
    out = [
        f"#[{heading}]",
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {began:.3f} (seconds since epoch), {date}]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for one in rows:
        largest = max(one.histogram["ns"], default=0) / NS_PER_MS
        encoded = base64.b64encode(encode(one.histogram)).decode()
        out.append(f"Tag={one.tag},{one.start - began:.3f},{one.seconds:.3f},{largest:.6f},{encoded}")
    return "\n".join(out) + "\n"
