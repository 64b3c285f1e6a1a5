# SPDX-License-Identifier: BSD-2-Clause
"""What Python makes durable of a unit: flushes, and writes that are durable by themselves. A loss is remembered.

Beside the native core's own (target/native/durable.c), as the kernel tells an open file of lost data once. Knows stores
and errors; must not know commands.
"""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from target.protection import Protection
from vscsi.scsi import sense

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger(__name__)


class Durable:
    """Of one unit. Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        self._unit = unit
        self._lock = threading.Lock()
        self.failed = False
        """Data may be lost: nothing succeeds any more."""

    def flush(self) -> None:
        """Makes everything written durable. Once it has failed it fails for ever: data may be lost (CheckCondition)."""
        self._run(self._flush)

    def write(self, buffer: memoryview, offset: int) -> None:
        """Writes to the store; it is durable on return. OSError; CheckCondition if other data may be lost with it."""
        refused: list[OSError] = []

        def run() -> None:
            try:
                self._unit.store.write(buffer, offset, True)
            except OSError as error:
                if self._unit.store.lost(error):
                    raise
                refused.append(error)

        self._run(run)
        if refused:
            raise refused[0]

    def _flush(self) -> None:
        self._unit.store.flush()
        self._unit.part(Protection).flush()

    def _run(self, run: Callable[[], None]) -> None:
        unit = self._unit
        with self._lock:
            try:
                if not self.failed:
                    run() if unit.device is None else unit.device.sync(unit, run)
                    return
            except OSError as error:
                self.failed = True
                log.error("lun %d: flush failed (%s): every further flush is refused", unit.lun, error)
            raise sense.WRITE_ERROR.error()
