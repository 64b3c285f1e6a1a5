# SPDX-License-Identifier: BSD-2-Clause
"""A RAM disk in a memfd: zeros at start, gone when the target ends. Must not know SCSI."""

import mmap
import os

from target.stores import Can, DescriptorStore, StoreError, StoreSpec, store
from target.stores.sizes import parse_size


@store("mem", help="mem:SIZE   RAM disk")
class MemStore(DescriptorStore):
    """A memfd: the native core serves it like a file."""

    is_volatile = True

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__()
        if spec.size is not None:
            raise StoreError(f"mem:{spec.rest}: has its size already: leave out size=")
        if spec.cache == "none":
            raise StoreError(f"mem:{spec.rest}: a RAM disk has no O_DIRECT: leave out cache=none")
        try:
            self.nbytes = parse_size(spec.rest)
            self.fd = os.memfd_create("vscsi-mem", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, self.nbytes)
            self.witnessed()
        except (ValueError, OSError) as error:
            raise StoreError(f"mem:{spec.rest}: {error}") from error
        self.physical_nbytes = 4096
        self.trim_nbytes = mmap.PAGESIZE
        self.can = Can.FLUSH | Can.TRIM | Can.ZERO
        if not spec.readonly:
            self.can |= Can.WRITE
