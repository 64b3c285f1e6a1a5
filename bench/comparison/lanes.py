# SPDX-License-Identifier: BSD-2-Clause
"""The two lanes over a ring: SRP and blkif. Same slots, same memory, same load generator; only the protocol differs.

Knows how the initiator library opens each. Payload is written and looked at only in `verify`, never in a timed round.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from initiator import Initiator
from initiator.native import ffi as initiator_ffi
from initiator.native import lib as initiator_lib
from initiator.vbd import Vbd
from vscsi.native import ffi
from vscsi.scsi import lun as lun_field

from .environment import process_cpu_ns
from .measure import MismatchError, Round, check, load_spec
from .workloads import Workload

SRP_RING_PAGES = 16
BLKIF_RING_PAGES = 8
MEMORY_NBYTES = 96 << 20
VERIFY_SECONDS = 60.0


class RingLane:
    """Load through a channel of the initiator library. Subclasses open it."""

    name = ""

    def __init__(self, device: Any, lun: int, logical_block_nbytes: int) -> None:
        self._device = device
        self._lun = lun_field.encode(lun)
        self._block_nbytes = logical_block_nbytes
        (self._channel,) = device.natives
        self._memory = device.memory
        self.target_pid = device.connection.peer.pid
        self._buffers: tuple[int, int] | None = None

    @property
    def slots(self) -> int:
        """Slots of the ring."""
        return int(initiator_lib.vi_channel_slots(self._channel))

    def _buffer(self, nbytes: int) -> int:
        """Room for `nbytes` in granted memory; the last one is kept, since every round asks for the same."""
        if self._buffers and self._buffers[1] == nbytes:
            return self._buffers[0]
        if self._buffers:
            self._memory.free(self._buffers[0])
            self._buffers = None
        offset: int = self._memory.alloc(nbytes)
        self._grant(offset, nbytes)
        self._buffers = offset, nbytes
        return offset

    def _grant(self, offset: int, nbytes: int) -> None:
        self._memory.grant(offset, nbytes)

    def _piece_nbytes(self, block_nbytes: int) -> int:
        """How much of a block lies in one run of memory."""
        return block_nbytes

    def run(self, spec: Any) -> Round:
        """Run the load in the calling thread."""
        offset = self._buffer(spec.queue_depth * spec.block_nbytes)
        result = ffi.new("struct vscsi_load_result *")
        channels = initiator_ffi.new("struct vi_channel *[1]", [self._channel])
        kicks = self._target_kicks()
        cpu = process_cpu_ns(self.target_pid)
        status = initiator_lib.vi_load(channels, 1, self._lun, self._block_nbytes, offset, spec, result)
        if status < 0:
            raise MismatchError(f"{self.name}: {os.strerror(-status)}")
        return Round(
            result,
            target_cpu_ns=process_cpu_ns(self.target_pid) - cpu,
            target_kicks=self._target_kicks() - kicks,
            initiator_cpu_ns=int(result.cpu_ns),
        )

    def _target_kicks(self) -> int:
        """Kicks this channel has got from the target so far."""
        stats = initiator_ffi.new("struct vi_stats *")
        initiator_lib.vi_channel_stats(self._channel, stats)
        return int(stats.kicks_received)

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """Write blocks whose content is known by the load generator itself, read them by it, and compare."""
        block = workload.block_nbytes
        count = min(workload.queue_depth, span_nbytes // block)
        part = Workload(workload.name, block, count, 0, False)
        offset = self._buffer(count * block)
        view = self._memory.view[offset : offset + count * block]
        written = []
        for index in range(count):
            seed = hashlib.sha256(f"{self.name} {workload.label} {index}".encode() + os.urandom(8)).digest()
            data = seed * (block // len(seed))
            written.append(data)
            view[index * block : (index + 1) * block] = data
        check(self, self.run(load_spec(part, count * block, VERIFY_SECONDS, seed=0, max_ios=count)))
        view[:] = bytes(len(view))
        part = Workload(workload.name, block, count, 100, False)
        check(self, self.run(load_spec(part, count * block, VERIFY_SECONDS, seed=0, max_ios=count)))
        piece = self._piece_nbytes(block)
        read = [bytes(view[at : at + piece]) for at in range(0, len(view), piece)]
        pieces = [data[at : at + piece] for data in written for at in range(0, block, piece)]
        # Which buffer gets which block is the load generator's business.
        if sorted(read) != sorted(pieces):
            wrong = sum(1 for data in read if data not in pieces)
            raise MismatchError(
                f"{self.name}: {wrong} of {len(read)} blocks read back otherwise than they were written"
            )

    def close(self) -> None:
        """Log out and disconnect."""
        self._device.close()


class SrpLane(RingLane):
    """SCSI over SRP."""

    name = "srp"

    def __init__(self, socket: Path, lun: int, spin_us: int) -> None:
        initiator = Initiator(socket, ring_pages=SRP_RING_PAGES, spin_us=spin_us, memory_nbytes=MEMORY_NBYTES)
        unit = initiator.lun(lun)
        super().__init__(initiator, lun, unit.block_nbytes)
        self.nbytes = unit.blocks * unit.block_nbytes


class BlkifLane(RingLane):
    """Native blkif."""

    name = "blkif"

    def __init__(self, socket: Path, lun: int, spin_us: int) -> None:
        disk = Vbd(socket, lun=lun, ring_pages=BLKIF_RING_PAGES, spin_us=spin_us, memory_nbytes=MEMORY_NBYTES)
        super().__init__(disk, lun, disk.block_nbytes)
        self.nbytes = disk.blocks * disk.block_nbytes
