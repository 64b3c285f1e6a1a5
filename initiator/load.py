# SPDX-License-Identifier: BSD-2-Clause
"""The load generators from Python: one call drives the channels of an Initiator or a Vbd with a load in C.

Knows where buffers come from; the pattern, the clock and the histogram are vscsi/native/load.h's.
"""

import os
from typing import Any

from initiator.errors import transport_error
from initiator.initiator import Initiator
from initiator.native import ffi, lib
from initiator.vbd import Vbd
from vscsi.bus.memory import PAGE
from vscsi.scsi import lun as lun_


class Load:
    """Buffers for `queue_depth` requests of `block_nbytes` on each channel; `run` as often as wanted, then `close`."""

    def __init__(self, device: Initiator | Vbd, lun: int, *, block_nbytes: int, queue_depth: int) -> None:
        self.device, self.lun = device, lun_.encode(lun)
        self.block_nbytes, self.queue_depth = block_nbytes, queue_depth
        self._count = len(device.natives)
        self._offset: int | None = device.memory.alloc(max(PAGE, self._count * queue_depth * block_nbytes))

    def run(
        self,
        *,
        logical_block_nbytes: int,
        span_nbytes: int,
        seconds: float,
        read_percent: int = 100,
        random: bool = True,
        max_ios: int = 0,
        seed: int = 1,
        scatter: int = 0,
        rate_per_s: int = 0,
    ) -> Any:
        """A struct vscsi_load_result. Releases the GIL. ValueError for nonsense; TransportError.

        `scatter` is one of lib.VSCSI_SCATTER_*. With `rate_per_s` the loop is open: latencies count from when a request
        was due. Else it is closed.
        """
        spec = ffi.new(
            "struct vscsi_load_spec *",
            {
                "block_nbytes": self.block_nbytes,
                "queue_depth": self.queue_depth,
                "read_percent": read_percent,
                "random": int(random),
                "span_nbytes": span_nbytes,
                "duration_ns": int(seconds * 1e9),
                "max_ios": max_ios,
                "seed": seed,
                "scatter": int(scatter),
                "rate_per_s": rate_per_s,
            },
        )
        result = ffi.new("struct vscsi_load_result *")
        channels = ffi.new("struct vi_channel *[]", list(self.device.natives))
        rc = lib.vi_load(
            channels, self._count, self.lun * self._count, logical_block_nbytes, self._offset, spec, result
        )
        if rc in (-22, -16):
            raise ValueError(f"load: {os.strerror(-rc)}")
        if rc:
            raise transport_error(rc)
        return result

    def close(self) -> None:
        """Gives the buffers back. Idempotent."""
        if self._offset is not None:
            self.device.memory.free(self._offset)
            self._offset = None
