# SPDX-License-Identifier: BSD-2-Clause
"""No image: reads give zeros, writes go nowhere; for measuring what everything else costs. Must not know SCSI."""

from collections.abc import Iterator

from target.stores import Can, Store, StoreError, StoreSpec, store
from target.stores.sizes import parse_size


@store("null", help="null:SIZE  reads zeros, forgets writes")
class NullStore(Store):
    """Any size, no content."""

    is_null = True
    is_volatile = True

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__()
        if spec.size is not None:
            raise StoreError(f"null:{spec.rest}: has its size already: leave out size=")
        try:
            self.nbytes = parse_size(spec.rest)
        except ValueError as error:
            raise StoreError(f"null:{spec.rest}: {error}") from error
        self.physical_nbytes = 4096
        self.can = Can.FLUSH | Can.TRIM | Can.ZERO
        if not spec.readonly:
            self.can |= Can.WRITE

    def readinto(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = bytes(len(buffer))

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        pass

    def extents(self, offset: int, nbytes: int) -> Iterator[tuple[int, int, bool]]:
        yield offset, nbytes, False

    def trim(self, offset: int, nbytes: int) -> None:
        pass
