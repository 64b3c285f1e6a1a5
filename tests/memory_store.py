# SPDX-License-Identifier: BSD-2-Clause
"""A backing store without a descriptor that remembers what was asked of it, fails and waits on demand."""

import threading
from collections.abc import Iterator

from target.stores import Can, Store

SIZE = 512
BLOCKS = 4096


def block(n: int) -> bytes:
    """What block `n` holds at first: a wrong block is visible at a glance."""
    return bytes([1 + n % 255]) * SIZE


class Memory(Store):
    """`bad` blocks cannot be read or written, `unreadable` ones only written; `spoil` maps a block to the byte of it
    that every write gets wrong; `tear` lets one write, or with `tear_again` every one, through for so many bytes only;
    `space` is what can be reserved; `error` fails every write; `gate`, if set, lets writes through.
    """

    can = Can.WRITE | Can.FLUSH | Can.TRIM | Can.ZERO

    def __init__(self, can: Can | None = None) -> None:
        super().__init__()
        self.can = self.can if can is None else can
        self.nbytes = BLOCKS * SIZE
        self.data = bytearray(b"".join(block(n) for n in range(BLOCKS)))
        self.calls: list[str] = []
        self.bad: set[int] = set()
        self.unreadable: set[int] = set()
        self.spoil: dict[int, int] = {}
        self.tear: int | None = None
        self.tear_again = False
        self.space: int | None = None
        self.holes: list[tuple[int, int]] = []
        self.error: OSError | None = None
        self.gate: threading.Event | None = None
        self.waiting = threading.Event()

    def _check(self, offset: int, nbytes: int, more: frozenset[int] | set[int] = frozenset()) -> None:
        if (self.bad | more) & set(range(offset // SIZE, (offset + nbytes) // SIZE)):
            raise OSError(5, "Input/output error")

    def readinto(self, buffer: memoryview, offset: int) -> None:
        self._check(offset, len(buffer), self.unreadable)
        buffer[:] = self.data[offset : offset + len(buffer)]

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        if self.gate is not None:
            self.waiting.set()
            assert self.gate.wait(30)
        if self.error:
            raise self.error
        self._check(offset, len(buffer))
        if self.tear is not None:
            torn, self.tear = self.tear, self.tear if self.tear_again else None
            self.data[offset : offset + torn] = buffer[:torn]
            raise OSError(5, "Input/output error")
        self.calls.append("write fua" if fua else "write")
        self.data[offset : offset + len(buffer)] = buffer
        for number, byte in self.spoil.items():
            if offset <= number * SIZE + byte < offset + len(buffer):
                self.data[number * SIZE + byte] ^= 0xFF

    def flush(self) -> None:
        self.calls.append("flush")

    def reserve(self, offset: int, nbytes: int) -> None:
        if self.space is not None and nbytes > self.space:
            raise OSError(28, "No space left on device")

    def extents(self, offset: int, nbytes: int) -> Iterator[tuple[int, int, bool]]:
        """Mapped, but for the `holes` (offset, nbytes), which are in order."""
        end = offset + nbytes
        for start, size in self.holes:
            start, behind = max(offset, start), min(end, start + size)
            if start < behind:
                yield offset, start - offset, True
                yield start, behind - start, False
                offset = behind
        yield offset, end - offset, True

    def prefetch(self, offset: int, nbytes: int) -> None:
        self.calls.append(f"prefetch {offset // SIZE} {nbytes // SIZE}")

    def evict(self, offset: int, nbytes: int) -> None:
        self.calls.append(f"evict {offset // SIZE} {nbytes // SIZE}")

    def trim(self, offset: int, nbytes: int) -> None:
        self.calls.append(f"trim {offset // SIZE} {nbytes // SIZE}")
        self.data[offset : offset + nbytes] = bytes(nbytes)
