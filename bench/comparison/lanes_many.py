# SPDX-License-Identifier: BSD-2-Clause
"""A lane of several SRP channels, of one nexus or of many, driven by one load thread.

Knows how the library opens them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from initiator import Initiator
from initiator.native import ffi as initiator_ffi
from initiator.native import lib as initiator_lib
from vscsi.native import ffi
from vscsi.scsi import lun as lun_field

from .environment import process_cpu_ns
from .lanes import SRP_RING_PAGES
from .measure import MismatchError, Round
from .workloads import Workload

MEMORY_NBYTES = 8 << 20
BUFFERS_NBYTES = 2 << 20


class ManyLane:
    """`depth` of the workload on each channel. `luns` has one LUN for each; `nexuses`: each channel its own nexus."""

    def __init__(self, name: str, socket: Path, luns: Sequence[int], *, spin_us: int, nexuses: bool = False) -> None:
        self.name = name
        self._devices: list[Any] = []
        each = 1 if nexuses else len(luns)
        try:
            for _ in range(len(luns) // each):
                self._devices.append(
                    Initiator(
                        socket,
                        ring_pages=SRP_RING_PAGES,
                        channels=each,
                        spin_us=spin_us,
                        memory_nbytes=MEMORY_NBYTES,
                    )
                )
            channels = [native for device in self._devices for native in device.natives]
            units = [self._devices[n // each].lun(lun) for n, lun in enumerate(luns)]
        except BaseException:
            self.close()
            raise
        self._channels = initiator_ffi.new("struct vi_channel *[]", channels)
        self._luns = b"".join(lun_field.encode(lun) for lun in luns)
        self._block_nbytes = units[0].block_nbytes
        self.nbytes = min(unit.blocks * unit.block_nbytes for unit in units)
        self.target_pid = self._devices[0].connection.peer.pid
        # Memories of one layout: the same offset is free in all.
        offsets = set()
        for device in self._devices:
            offsets.add(device.memory.alloc(BUFFERS_NBYTES))
            device.memory.grant(max(offsets), BUFFERS_NBYTES)
        (self._offset,) = offsets

    def run(self, spec: Any) -> Round:
        """Run the load in the calling thread."""
        if spec.queue_depth * spec.block_nbytes * len(self._channels) > BUFFERS_NBYTES:
            raise ValueError("more outstanding than there is memory for")
        result = ffi.new("struct vscsi_load_result *")
        cpu = process_cpu_ns(self.target_pid)
        status = initiator_lib.vi_load(
            self._channels, len(self._channels), self._luns, self._block_nbytes, self._offset, spec, result
        )
        if status < 0:
            raise MismatchError(f"{self.name}: {os.strerror(-status)}")
        used = process_cpu_ns(self.target_pid) - cpu
        return Round(result, target_cpu_ns=used, initiator_cpu_ns=int(result.cpu_ns))

    @property
    def port_id(self) -> bytes:
        """The initiator port of the first nexus."""
        return bytes(self._devices[0].port_id)

    def first(self, name: str, lun: int) -> ManyLane:
        """The first channel alone, on that LUN and with all the memory. Not to be closed."""
        one = copy.copy(self)
        one.name = name
        one._luns = lun_field.encode(lun)
        one.nbytes = (unit := self._devices[0].lun(lun)).blocks * unit.block_nbytes  # takes the unit attention, too
        one._channels = initiator_ffi.new("struct vi_channel *[1]", [self._channels[0]])
        return one

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """One channel's lane has verified the same path."""

    def close(self) -> None:
        """Log out and disconnect."""
        for device in self._devices:
            device.close()
