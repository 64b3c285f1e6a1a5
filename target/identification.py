# SPDX-License-Identifier: BSD-2-Clause
"""Identifying information of a logical unit: what users write on it so that they find it again. Kept like its blocks.

Knows types and their limits. Must not know CDBs.
"""

import logging
import threading
from typing import TYPE_CHECKING

from target.part import Part
from vscsi.scsi.reports import MAX_INFORMATION_NBYTES

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger(__name__)

_STATE = "identification"


class Identification(Part):
    """Information by type (SPC-4 5.6). Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._lock = threading.Lock()
        self._information = dict.fromkeys(MAX_INFORMATION_NBYTES, b"")
        for kind, text in (unit.state.load(_STATE) or {}).items():
            try:
                number, data = int(kind), bytes.fromhex(text)
            except (TypeError, ValueError):
                log.error("lun %d: saved identifying information cannot be understood", unit.lun)
                continue
            if number in self._information and len(data) <= MAX_INFORMATION_NBYTES[number]:
                self._information[number] = data

    def get(self, kind: int) -> bytes:
        """Empty if it was never set."""
        return self._information[kind]

    def set(self, kind: int, information: bytes) -> bool:
        """Durable on return, as far as anything of the unit is; whether it was another before. OSError: nothing has
        changed."""
        with self._lock:
            wanted = {**self._information, kind: information}
            if wanted == self._information:
                return False
            self.unit.state.save(_STATE, {str(k): data.hex() for k, data in wanted.items()})
            self._information = wanted
            return True
