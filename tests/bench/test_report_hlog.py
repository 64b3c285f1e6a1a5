# SPDX-License-Identifier: BSD-2-Clause
"""The interval log, read by a HdrHistogram that is not ours: same counts, same quantiles, times and tags.

Values are any that a log can hold, and rows those of `bench_document`, as the bench writes them.
"""

import base64
import json
from pathlib import Path

from bench_document import document, result
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report import histogram, hlog, write

HOUR = 3600 * 10**9
values = st.one_of(st.integers(0, 5000), st.integers(0, HOUR))
some = st.dictionaries(values, st.one_of(st.integers(1, 300), st.integers(1, 2**40)), min_size=1, max_size=40)


def made(counts):
    return {"ns": sorted(counts), "count": [counts[value] for value in sorted(counts)]}


def decoded(counts):
    return HdrHistogram.decode(base64.b64encode(hlog.encode(made(counts))))


@settings(max_examples=20)
@given(some)
@example({0: 1})
@example({2047: 1, 2048: 2, 2049: 3, 4095: 4, 4096: 5})
@example({HOUR: 2**40})
def test_another_decoder_finds_what_was_measured(counts):
    """The same values recorded there give the same counts at the same places, and the two can be merged."""
    other = HdrHistogram(hlog.LOWEST, hlog.HIGHEST, hlog.DIGITS)
    for value, n in counts.items():
        assert other.record_value(value, n)
    seen = decoded(counts)
    assert other.equals(seen)
    assert seen.get_total_count() == sum(counts.values())
    assert seen.values_are_equivalent(seen.get_max_value(), max(counts))
    other.add(seen)
    assert other.get_total_count() == 2 * sum(counts.values())


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_of_any_length(number):
    """Read back as the format describes it: seven bits a byte, eight in the ninth, then ZigZag."""
    written = hlog.varint(number)
    assert len(written) <= 9
    rest = sum((byte if k == 8 else byte & 0x7F) << 7 * k for k, byte in enumerate(written))
    assert (rest >> 1 if rest % 2 == 0 else -(rest + 1 >> 1)) == number


def read(path: Path):
    """Tag, start and end in seconds since the epoch, and histogram of every line."""
    reader = HistogramLogReader(str(path), HdrHistogram(hlog.LOWEST, hlog.HIGHEST, hlog.DIGITS))
    found = []
    while (one := reader.get_next_interval_histogram()) is not None:
        found.append((one.get_tag(), one.get_start_time_stamp() / 1000, one.get_end_time_stamp() / 1000, one))
    reader.close()
    return found


def stamped():
    """A document whose rows know when they ran, the last one first, and one peer with a name that no tag can have."""
    out = document(depths=(1, 32), blocks=(4096,))
    for number, row in enumerate(out["results"]):
        row |= {"started": 1_760_000_500.25 - number, "lasted": 3.5}
    odd = result() | {"protocol": "srp, sleeping", "started": 1_760_000_600.0, "lasted": 1.0}
    return out | {"peer_results": [odd]}


def test_the_log_of_a_report(tmp_path):
    whole = stamped()
    write.report(whole, tmp_path)
    found = read(tmp_path / "histograms" / "latency.hlog")
    rows = {tag: (start, end, seen) for tag, start, end, seen in found}
    assert len(rows) == len(found) == len(whole["results"]) + 1
    assert {path.stem for path in (tmp_path / "histograms").glob("*.hgrm")} == set(rows)
    assert [start for _, start, _, _ in found] == sorted(start for _, start, _, _ in found)
    assert "peers-randread-4k-qd32-srp-sleeping" in rows
    first = whole["results"][0]
    start, end, seen = rows["randread-4k-qd1-srp"]
    assert (start, end) == (first["started"], first["started"] + first["lasted"])
    assert seen.get_total_count() == sum(first["histogram"]["count"])
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        ours, theirs = histogram.quantile(first["histogram"], share), seen.get_value_at_percentile(share * 100)
        assert seen.values_are_equivalent(ours, theirs), share


def test_lines_say_what_they_hold_without_being_decoded(tmp_path):
    write.report(stamped(), tmp_path)
    lines = (tmp_path / "histograms" / "latency.hlog").read_text().splitlines()
    assert lines[0].startswith("#[bench/compare.py, latencies in ns; A CPU <of> some kind")
    assert lines[1] == "#[Histogram log format version 1.3]"
    assert lines[2].startswith("#[StartTime: 17600004")
    assert lines[3] == '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    row = stamped()["results"][0]
    line = next(line for line in lines if line.startswith("Tag=randread-4k-qd1-srp,"))
    _, _, length, largest, encoded = line.split(",")
    assert (float(length), float(largest)) == (3.5, max(row["histogram"]["ns"]) / 1e6)
    assert encoded.startswith("HISTF")


def test_rows_that_do_not_know_when_they_ran(tmp_path):
    """JSON of an earlier version: the beginning of the run stands for all."""
    write.report(document(depths=(32,), blocks=(), rate=0), tmp_path)
    found = read(tmp_path / "histograms" / "latency.hlog")
    assert {(start, end) for _, start, end, _ in found} == {(1767323045.0, 1767323045.5)}


def test_nothing_measured(tmp_path):
    write.report(json.loads(json.dumps(document())) | {"results": []}, tmp_path)
    assert list((tmp_path / "histograms").iterdir()) == []
