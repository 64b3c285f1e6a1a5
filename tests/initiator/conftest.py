# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the initiator's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer
from fake_target import FakeTarget
from programs import Restarting

from initiator import Initiator


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


@pytest.fixture
def restarting(tmp_path: Path) -> Iterator[Restarting]:
    """A target in a process of its own, that can be killed and started anew."""
    made = Restarting(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    """A target played in Python."""
    made = FakeServer(tmp_path / "s")
    yield made
    made.close()


@pytest.fixture
def connect(server: FakeServer) -> Iterator[Callable[..., Initiator]]:
    """Logs in to it, as often as wanted."""
    made: list[Initiator] = []

    def make(memory_nbytes: int = 8 << 20, **options: object) -> Initiator:
        made.append(Initiator(server.path, memory_nbytes=memory_nbytes, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for initiator in made:
        initiator.close()
