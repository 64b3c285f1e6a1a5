# SPDX-License-Identifier: BSD-2-Clause
"""Puts images together: what a crash at some place of the log leaves, as files that programs can look at.

Knows media and places. Must not know what is looked for.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from crash.log import SECTOR, Log
from crash.replay import Medium


def write_image(path: Path, base: bytes | bytearray, changes: dict[int, bytes]) -> None:
    """A sparse file of `base` with these sectors instead."""
    step = 1 << 16
    with path.open("wb") as file:
        file.truncate(len(base))
        empty = bytes(step)
        for at in range(0, len(base), step):
            piece = base[at : at + step]
            if piece != empty[: len(piece)]:
                os.pwrite(file.fileno(), piece, at)
        for sector, content in changes.items():
            os.pwrite(file.fileno(), content, sector * SECTOR)


def states(
    log: Log, file: str, places: set[int], rng: random.Random, piece: int, start: int = 0
) -> Iterator[tuple[int, dict[int, bytes], Callable[[], list]]]:
    """(place, sectors that differ from the base, function that gives the notes so far) for each of these places.

    What was recorded before entry `start` is in the base. The chance of an unsettled piece to be there is chosen anew
    for each state, none and all included.
    """
    medium, notes = Medium(), []
    for now, (what, thing) in enumerate(log.entries):
        if now < start:
            continue
        if what == "note":
            notes.append(thing)
        elif what in ("begin", "end") and thing.file == file and thing.begin >= start:
            (medium.begin if what == "begin" else medium.end)(thing)
        if now in places:
            chance = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
            found = list(notes)
            yield now, medium.settled | medium.state(rng, chance, piece), lambda found=found: found
