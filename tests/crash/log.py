# SPDX-License-Identifier: BSD-2-Clause
"""One sequence of everything that counts: operations on files as they begin and end, commands as they go and are
answered. Knows order, and nothing of what follows from it.
"""

import threading
from dataclasses import dataclass
from typing import Any

SECTOR = 512


@dataclass(eq=False)
class Op:
    """One operation. kind: write, punch (zeros), truncate (to `offset`), flush; create, rename, flush names.

    `begin` and `end` are places in the log; durable: a write that is on the medium when it has ended.
    """

    kind: str
    file: str
    offset: int = 0
    data: bytes = b""
    durable: bool = False
    begin: int = -1
    end: int | None = None


class Log:
    """Any thread may add. entries: (what, Op or command or note) with what in begin, end, sent, acked, note."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []
        self.lock = threading.RLock()

    def add(self, what: str, thing: Any) -> int:
        """Its place."""
        with self.lock:
            self.entries.append((what, thing))
            return len(self.entries) - 1

    def begin(self, op: Op) -> Op:
        with self.lock:
            op.begin = self.add("begin", op)
        return op

    def end(self, op: Op) -> None:
        with self.lock:
            op.end = self.add("end", op)

    def operations(self) -> list[Op]:
        return [thing for what, thing in self.entries if what == "begin"]

    def count(self) -> str:
        """What was recorded, in words."""
        ops = self.operations()
        kinds = {kind: sum(op.kind == kind for op in ops) for kind in sorted({op.kind for op in ops})}
        durable = sum(op.durable for op in ops)
        acked = sum(what == "acked" for what, _ in self.entries)
        words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return f"{len(ops)} operations ({words}; {durable} durable writes), {acked} answers"

    def without(self, kind: str, durable: bool = False) -> "Log":
        """The same, as if the target had never asked for these: to see whether their loss is found."""
        less = Log()
        for what, thing in self.entries:
            if what in ("begin", "end") and thing.kind == kind and not durable:
                continue
            if what == "begin":
                copy = Op(thing.kind, thing.file, thing.offset, thing.data, thing.durable and not durable)
                less._copies[id(thing)] = copy
                less.begin(copy)
            elif what == "end":
                less.end(less._copies[id(thing)])
            else:
                less.add(what, thing)
        return less

    @property
    def _copies(self) -> dict[int, Op]:
        return self.__dict__.setdefault("copies", {})
