# SPDX-License-Identifier: BSD-2-Clause
"""Marks and budgets that all tests share. Knows how tests are selected; knows nothing of what they test.

`make fuzz` selects the mark `fuzz`: everything under tests/fuzz, everything named so, everything that uses hypothesis.
`make stress` selects the mark `stress`: everything under tests/stress and everything named so.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# The time a case takes says nothing on a machine that is shared, or under a sanitizer.
settings.register_profile("short", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("short"), max_examples=2000)
settings.load_profile(os.environ.get("VSCSI_FUZZ", "short"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the marks `fuzz` and `stress` to the tests they belong to."""
    for item in items:
        if "fuzz" in item.nodeid or getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("fuzz")
        if "stress" in item.nodeid:
            item.add_marker("stress")
