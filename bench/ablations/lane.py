# SPDX-License-Identifier: BSD-2-Clause
"""SRP over a ring that is set up as a row of the table says. Knows the initiator library; no choice by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comparison.lanes import MEMORY_NBYTES, RingLane
from comparison.measure import Round
from comparison.room import SPIN_US

from initiator import Initiator
from initiator.native import lib
from vscsi.bus.memory import PAGE

from .choices import Ring


class AblationLane(RingLane):
    """`name` tells the two lanes of a comparison apart."""

    def __init__(self, name: str, socket: Path, ring: Ring) -> None:
        self.name, self._ring = name, ring
        initiator = Initiator(
            socket,
            ring_pages=ring.pages,
            persistent=ring.persistent,
            spin_us=SPIN_US if ring.spin else 0,
            memory_nbytes=MEMORY_NBYTES,
        )
        unit = initiator.lun(0)
        super().__init__(initiator, 0, unit.block_nbytes)
        if ring.eager_events:
            lib.vi_channel_eager_events(self._channel)

    def _grant(self, offset: int, nbytes: int) -> None:
        if self._ring.persistent:
            super()._grant(offset, nbytes)

    def _piece_nbytes(self, block_nbytes: int) -> int:
        # Where pages lie apart, those of one block are not one run of memory.
        return PAGE if self._ring.scatter else block_nbytes

    def run(self, spec: Any) -> Round:
        """As every lane, with the buffers laid out as this one has them."""
        spec.scatter = self._ring.scatter
        return super().run(spec)
