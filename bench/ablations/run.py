# SPDX-License-Identifier: BSD-2-Clause
"""Each choice in paired rounds against the default. A target that does something otherwise has a copy of the image.

Knows rooms, targets and lanes. What cannot be had here is left out with its reason.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison import statistics
from comparison.image import heat
from comparison.measure import MismatchError, Series
from comparison.room import SPIN_US, Room
from comparison.server import PrivateTarget, ServerError, stored

from initiator.errors import InitiatorError
from vscsi.cli import CliError, ExitStatus

from .choices import CHOICES, Choice, Ring, Served
from .lane import AblationLane

DEFAULT, OTHER = "default", "otherwise"


def measure(room: Room, names: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON's `ablations`. CliError for a name that no choice has."""
    known = [choice.name for choice in CHOICES]
    for name in names:
        if name not in known:
            raise CliError(f"there is no ablation '{name}' (known: {', '.join(known)})", ExitStatus.SYNTAX)
    rows = []
    with contextlib.ExitStack() as stack:
        copy = room.folder / "otherwise.img"
        stack.callback(copy.unlink, missing_ok=True)
        shutil.copyfile(room.image, copy)
        for choice in CHOICES:
            if not names or choice.name in names:
                room.tell(f"ablation {choice.name}")
                rows.append(_row(room, copy, choice))
    return {"ablations": rows}


def _target(room: Room, stack: contextlib.ExitStack, image: Path, name: str, served: Served) -> PrivateTarget:
    folder = room.folder / f"ablation-{name}"
    folder.mkdir(exist_ok=True)
    spin_us = SPIN_US if served.spin else 0
    target = PrivateTarget([stored(image) + served.keys], folder, spin_us=spin_us, options=served.options)
    stack.callback(target.close)
    return target


def _row(room: Room, copy: Path, choice: Choice) -> dict[str, Any]:
    row = {
        "name": choice.name,
        "title": choice.words,
        "workload": choice.workload.name,
        "block_size": choice.workload.block_nbytes,
        "queue_depth": choice.workload.queue_depth,
    }
    try:
        with contextlib.ExitStack() as stack:
            first = _target(room, stack, room.image, DEFAULT, Served())
            second = first
            if choice.served != Served():
                heat(copy, room.span_nbytes)
                second = _target(room, stack, copy, OTHER, choice.served)
            lanes = []
            for name, target, ring in ((DEFAULT, first, Ring()), (OTHER, second, choice.ring)):
                lanes.append(AblationLane(name, target.socket, ring))
                stack.callback(lanes[-1].close)
            series = room.compare(lanes, choice.workload)
    except (ServerError, MismatchError, InitiatorError) as error:
        return row | {"skipped": str(error)}
    return row | to_json(series[DEFAULT], series[OTHER])


def to_json(default: Series, other: Series) -> dict[str, Any]:
    """What was measured for a choice: the ratio of I/O per second, and both sides' numbers without their histograms."""
    sides = {name: one.to_json() for name, one in (("default", default), ("otherwise", other))}
    for side in sides.values():
        del side["histogram"]
    return {"ratio": statistics.ratio(other.iops, default.iops), **sides}
