# SPDX-License-Identifier: BSD-2-Clause
"""Every group of goals by name, and a run through them. Knows which there are; a new one is a row here.

The modules are imported when they are run: the command line only needs the names.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from .room import Room

SCENES = {
    "image": ("scenes_image", "throughput"),
    "sleeping": ("scenes_image", "sleeping"),
    "null": ("scenes_protocol", "null_store"),
    "fio": ("scenes_image", "against_fio"),
    "o-direct": ("scenes_image", "o_direct"),
    "channels": ("scenes_many", "two_channels"),
    "nexuses": ("scenes_many", "many_nexuses"),
    "counts": ("scenes_protocol", "counts"),
    "starting": ("scenes_many", "starting"),
}


def run(room: Room, names: Sequence[str]) -> dict[str, Any]:
    """The `goals` of the JSON: rows and lines of the scenes with these names, of all if there are none."""
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    for name, (module, function) in SCENES.items():
        if names and name not in names:
            continue
        done = getattr(importlib.import_module(f".{module}", __package__), function)(room)
        rows += [verdict.to_json() for verdict in done.verdicts]
        lines += done.lines
    return {"rows": rows, "lines": lines}


def missed(goals: dict[str, Any]) -> bool:
    """Whether a goal of a run was not met."""
    return any(row["met"] is False for row in goals["rows"])
