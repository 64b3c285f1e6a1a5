# SPDX-License-Identifier: BSD-2-Clause
"""Histograms as the report has them: against the native quantiles, and as the text that plotters read."""

import bench_document  # noqa: F401  (finds bench/)
from hypothesis import given
from hypothesis import strategies as st
from report import histogram

from vscsi.native import ffi, lib


def native(counts):
    result = ffi.new("struct vscsi_load_result *")
    for bucket, n in counts.items():
        result.histogram[bucket] += n
        result.ios += n
        result.max_ns = max(result.max_ns, lib.vscsi_hist_value(bucket))
    return result


buckets = st.dictionaries(st.integers(0, 1500), st.integers(1, 50), min_size=1, max_size=30)


@given(buckets, st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_quantiles_are_the_native_ones(counts, q):
    result = native(counts)
    assert histogram.quantile(histogram.of_native([result]), q) == lib.vscsi_hist_quantile(result, q)


@given(buckets)
def test_the_text_ends_at_the_largest_value_and_counts_all(counts):
    made = histogram.of_native([native(counts)])
    assert made["ns"] == sorted(made["ns"])
    rows = [line.split() for line in histogram.hgrm(made).splitlines()[2:] if not line.startswith("#")]
    values, shares, below = ([float(row[k]) for row in rows] for k in range(3))
    for column in (values, shares, below):
        assert column == sorted(column)
    assert shares[-1] == 1.0
    assert below[-1] == sum(counts.values())
    assert values[-1] == round(made["ns"][-1] / 1000, 3)


def test_the_text_is_what_plotters_expect():
    text = histogram.hgrm({"ns": [1000, 2000, 5000], "count": [50, 49, 1]})
    lines = text.splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert lines[2].split() == ["1.000", "0.000000000000", "50", "1.00"]
    assert "       5.000 1.000000000000        100" in lines
    assert "#[Mean    =        1.530, StdDeviation   =        0.608]" in lines
    assert "#[Max     =        5.000, Total count    =          100]" in lines


def test_the_largest_value_is_kept_exactly():
    result = native({600: 3})
    result.max_ns = lib.vscsi_hist_value(600) + 1
    made = histogram.of_native([result])
    assert made == {"ns": [result.max_ns - 1, result.max_ns], "count": [2, 1]}


def test_nothing_measured():
    empty = {"ns": [], "count": []}
    assert histogram.quantile(empty, 0.5) == 0
    assert histogram.curve(empty) == []
    assert "Total count    =            0" in histogram.hgrm(empty)
