# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the hostile tests: a real target with a well-behaved initiator beside the attacker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_field import Field


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[Callable[..., Field]]:
    """Makes the target and its bystander."""
    made: list[Field] = []

    def make(*options: str) -> Field:
        made.append(Field(tmp_path, options))
        return made[-1]

    yield make
    for field in made:
        field.close()


@pytest.fixture
def field(attack: Callable[..., Field]) -> Field:
    return attack()
