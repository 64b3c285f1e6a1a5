# SPDX-License-Identifier: BSD-2-Clause
"""What a store that lies on another store hands on to it as it is. Knows no kind of store; must not know SCSI."""

from collections.abc import Iterator

from target.stores import Store


class LayeredStore(Store):
    """A subclass sets `_inner`, and says itself how bytes are read and written."""

    _inner: Store

    def measure(self) -> int:
        return self._inner.measure()

    def resize(self, nbytes: int) -> None:
        self._inner.resize(nbytes)

    def flush(self) -> None:
        self._inner.flush()

    def lost(self, error: OSError) -> bool:
        return self._inner.lost(error)

    def trim(self, offset: int, nbytes: int) -> None:
        self._inner.trim(offset, nbytes)

    def extents(self, offset: int, nbytes: int) -> Iterator[tuple[int, int, bool]]:
        return self._inner.extents(offset, nbytes)
