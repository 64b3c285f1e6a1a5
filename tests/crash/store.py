# SPDX-License-Identifier: BSD-2-Clause
"""A backing store in Python that records what the target's slow path asks of it: for machines without /dev/fuse, and
for stores without a descriptor. `--lun 0=recorded:NAME`, while SCHEME is registered. Knows the Store contract.
"""

from crash.log import Log, Op
from target.stores import Can, Scheme, Store, StoreSpec

LOGS: dict[str, Log] = {}
"""By the name in the LUN specification; the file in the log is called so, too."""
FORGETFUL: set[str] = set()
"""Stores that answer a flush at once, and ask the medium for nothing: what the harness has to find."""
NBYTES = 1 << 20


class Recorded(Store):
    can = Can.WRITE | Can.FLUSH | Can.TRIM | Can.ZERO

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__()
        self.name, self.log = spec.rest, LOGS[spec.rest]
        self.nbytes = NBYTES
        self.data = bytearray(NBYTES)

    def _bring(self, op: Op) -> None:
        self.log.begin(op)
        with self.log.lock:
            self.data[op.offset : op.offset + len(op.data)] = op.data
            self.log.end(op)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        self._bring(Op("write", self.name, offset, bytes(buffer), fua))

    def trim(self, offset: int, nbytes: int) -> None:
        self._bring(Op("punch", self.name, offset, bytes(nbytes)))

    def flush(self) -> None:
        if self.name not in FORGETFUL:
            self.log.end(self.log.begin(Op("flush", self.name)))


SCHEME = Scheme("recorded", "recorded:NAME  memory that records, for tests", Recorded)
