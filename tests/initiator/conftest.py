# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the initiator's tests."""

from collections.abc import Callable, Iterator

import pytest
from fake_target import FakeTarget


@pytest.fixture
def fake() -> Iterator[Callable[..., FakeTarget]]:
    """Makes fake targets and closes them."""
    made: list[FakeTarget] = []

    def make(*args: object, **options: object) -> FakeTarget:
        made.append(FakeTarget(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for target in made:
        target.close()
