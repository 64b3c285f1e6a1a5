# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: a started C target that is taken down, and checked for leaks, at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_initiator import Rig


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**kw) -> Rig:
        rigs.append(Rig(tmp_path, **kw))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig) -> Rig:
    return make_rig()
