# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the file door's tests."""

import pytest
from mount_door import Door


@pytest.fixture
def door(tmp_path):
    made = []

    def make(*luns, **options):
        made.append(Door(tmp_path, *luns, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
