# SPDX-License-Identifier: BSD-2-Clause
"""Page allocator: contiguous runs of pages out of one arena, first fit, free neighbours joined.

Knows page numbers only; owns no memory and no lock.
"""

from bisect import bisect_left


class PageAllocator:
    """Hands out runs of pages [first, first + count)."""

    def __init__(self, first: int, count: int) -> None:
        self._starts = [first] if count else []
        self._sizes = [count] if count else []
        self._taken: dict[int, int] = {}

    @property
    def free_pages(self) -> int:
        """Pages not handed out."""
        return sum(self._sizes)

    def size(self, start: int) -> int:
        """Pages in the run that begins at `start`; KeyError if none was handed out there."""
        return self._taken[start]

    def alloc(self, count: int) -> int:
        """First page of a run of `count` >= 1 pages. MemoryError."""
        index = next((index for index, size in enumerate(self._sizes) if size >= count), None)
        if index is None:
            raise MemoryError(f"no {count} contiguous pages left")
        start = self._starts[index]
        if self._sizes[index] == count:
            del self._starts[index], self._sizes[index]
        else:
            self._starts[index] += count
            self._sizes[index] -= count
        self._taken[start] = count
        return start

    def free(self, start: int) -> None:
        """Give back the run that begins at `start`. KeyError if none was handed out there."""
        count = self._taken.pop(start)
        index = bisect_left(self._starts, start)
        if index < len(self._starts) and start + count == self._starts[index]:
            count += self._sizes[index]
            del self._starts[index], self._sizes[index]
        if index and self._starts[index - 1] + self._sizes[index - 1] == start:
            self._sizes[index - 1] += count
        else:
            self._starts.insert(index, start)
            self._sizes.insert(index, count)
