# SPDX-License-Identifier: BSD-2-Clause
"""A logical unit formatted with protection information: where it is kept, and what is checked when (SBC-3 4.22).

It lies in a file `pi` beside the unit's other state, 8 bytes a block, inverted, so that a hole stands for blocks that
are not checked. Knows units and tuples (`target.pi`). Must not know CDBs.

Data and its protection information are two writes. A block's is invalidated first, so that a kill leaves the blocks
of the interrupted command unchecked, never wrong. A power loss may leave a mismatch in blocks written since the last
flush; reading those is an error until they are written again.
"""

import errno
import os
import threading
from typing import TYPE_CHECKING

from target import errors, pi
from target.native import lib
from target.part import Part, part
from target.pi import ALL, ESCAPE, NO_APP, NO_REF, NONE, PI_NBYTES, Checks, Data, Tags
from target.state import sync_folder
from target.stores import StoreError

if TYPE_CHECKING:
    from target.lu import LogicalUnit

DOCUMENT = "format"
SIDE_FILE = "pi"
SUPPORTED_TYPES = 7
"""SPT: a unit can be formatted with types 1, 2 and 3."""


@part
class Protection(Part):
    """`ato` and `dpicz` are those of the Control mode page."""

    start_rank = -1  # others may already write when they start

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self.ato = self.dpicz = False
        self._fd = -1
        self._lock = threading.Lock()

    # ---- the format ----

    def format_of(self, wanted: int | None) -> int:
        """The type that the unit has been formatted with, or shall have as a new one. StoreError: not what is wanted,
        or it cannot be."""
        unit = self.unit
        document = unit.state.load(DOCUMENT)
        found = None if document is None else document.get("protection")
        if found not in (None, 0, 1, 2, 3):
            raise StoreError(f"{unit.name}: formatted with protection type {found}, which is unknown")
        if found is not None and wanted is not None and found != wanted:
            raise StoreError(
                f"{unit.name}: protection={wanted}, but it is formatted with type {found}: leave out the key, "
                "and use FORMAT UNIT to change it"
            )
        if wanted and unit.store.is_null:
            raise StoreError(f"{unit.name}: protection={wanted}: there is nothing to protect")
        if wanted and found is None and unit.readonly:
            raise StoreError(f"{unit.name}: protection={wanted}: a read-only image cannot be formatted")
        return int(found or wanted or 0)

    @property
    def possible(self) -> bool:
        """Whether FORMAT UNIT can give the unit protection information."""
        return not self.unit.store.is_null

    def set_type(self, type_: int) -> None:
        """The unit is of this type from now on, durably; every block is unchecked. OSError."""
        self.forget_all()
        self.unit.state.save(DOCUMENT, {"protection": type_})
        self.unit.set_protection(type_)
        if self.unit.device is not None:
            self.unit.device.refresh(self.unit)

    def start(self) -> None:
        unit = self.unit
        type_ = self.format_of(unit.protection_type or None)
        if type_ != unit.protection_type:
            unit.set_protection(type_)
            assert unit.device is not None
            unit.device.refresh(unit)
        if type_ and unit.state.load(DOCUMENT) is None:
            self.set_type(type_)

    def sanitized(self) -> None:
        self.forget_all()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if not self.unit.readonly:
                    os.fdatasync(fd)
            finally:
                os.close(fd)

    # ---- what is expected ----

    def tags(self, lba: int) -> Tags:
        """Without a CDB that names them: only type 1 says what the reference tag is."""
        return Tags(lba & NO_REF) if self.unit.protection_type == 1 else Tags()

    def check(self, data: Data, info: Data, lba: int, checks: Checks, tags: Tags, *, escape: bool = False) -> None:
        """ABORTED COMMAND names the first wrong block. With `escape`, as for what comes from the medium, blocks whose
        tags say so are not checked."""
        try:
            pi.check(data, info, self.unit.block_nbytes, self.unit.protection_type, checks, tags, escape=escape)
        except pi.Fault as fault:
            raise fault.sense.error(information=lba + fault.index) from fault

    def generate(self, data: Data, lba: int) -> bytearray:
        """For data that comes without any (SBC-3 table of WRPROTECT, 000b)."""
        type_ = self.unit.protection_type
        app = NO_APP if self.ato or type_ == 2 else 0
        ref = lba & NO_REF if type_ == 1 else NO_REF
        return pi.generate(data, self.unit.block_nbytes, app=app, ref=ref, count=type_ == 1)

    # ---- data with its information ----

    def read_into(self, buffer: memoryview, lba: int, checks: Checks | None = None, tags: Tags | None = None) -> bytes:
        """Reads blocks and their information, and checks it: as for RDPROTECT 000b, unless told otherwise."""
        self.unit.read_raw(buffer, lba)
        info = self.load(lba, len(buffer) // self.unit.block_nbytes)
        checks = checks or (NONE if self.dpicz else ALL)
        self.check(buffer, info, lba, checks, tags or self.tags(lba), escape=True)
        return info

    def write(self, data: Data, lba: int, *, info: Data | None = None, fua: bool = False) -> None:
        """Writes blocks with their information; without any, it is generated."""
        info = info or self.generate(data, lba)
        self.store(ESCAPE * (len(info) // PI_NBYTES), lba)
        self.unit.write_raw(memoryview(data), lba, fua=fua)
        self.store(info, lba, fua=fua)

    # ---- the file ----

    def load(self, lba: int, blocks: int) -> bytes:
        """What is kept for these blocks."""
        try:
            kept = os.pread(self._open(), blocks * PI_NBYTES, lba * PI_NBYTES)
        except OSError as error:
            raise errors.check_condition(error, writing=False, lba=lba) from error
        return _inverted(kept.ljust(blocks * PI_NBYTES, b"\0"))

    def store(self, info: Data, lba: int, *, fua: bool = False) -> None:
        """Keeps it for the blocks from `lba` on."""
        view, offset = memoryview(_inverted(info)), lba * PI_NBYTES
        try:
            while view:
                count = os.pwritev(self._open(), [view], offset, os.RWF_DSYNC if fua else 0)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise errors.check_condition(error, writing=True) from error

    def forget(self, lba: int, blocks: int) -> None:
        """These blocks are not checked any more, until they are written."""
        try:
            rc = lib.vt_discard(self._open(), 0, lba * PI_NBYTES, blocks * PI_NBYTES)
            if rc == -errno.EOPNOTSUPP:
                self._overwrite(lba, blocks)
            elif rc < 0:
                raise OSError(-rc, os.strerror(-rc))
        except OSError as error:
            raise errors.check_condition(error, writing=True) from error

    def _overwrite(self, lba: int, blocks: int) -> None:
        while blocks:
            step = min(blocks, 1 << 16)
            self.store(ESCAPE * step, lba)
            lba, blocks = lba + step, blocks - step

    def forget_all(self) -> None:
        """No block is checked any more, durably. OSError."""
        if self._fd < 0 and not self.unit.protection_type and not self._exists():
            return
        fd = self._open()
        os.ftruncate(fd, 0)
        os.ftruncate(fd, self.unit.blocks * PI_NBYTES)
        os.fsync(fd)

    def resize(self) -> None:
        """The unit has another number of blocks: those that come back some day are new. OSError."""
        if self.unit.protection_type:
            os.ftruncate(self._open(), self.unit.blocks * PI_NBYTES)

    def flush(self) -> None:
        """Makes everything stored durable. OSError."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def _exists(self) -> bool:
        path = self.unit.state.path(SIDE_FILE)
        return path is not None and path.exists()

    def _open(self) -> int:
        if self._fd < 0:
            with self._lock:
                if self._fd < 0:
                    self._fd = self._open_file()
        return self._fd

    def _open_file(self) -> int:
        if self.unit.readonly and self._exists():
            path = self.unit.state.path(SIDE_FILE)
            assert path is not None
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        path = None if self.unit.readonly else self.unit.state.make_path(SIDE_FILE)
        if path is None:
            return os.memfd_create("vscsi-pi", os.MFD_CLOEXEC)
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if new:
            sync_folder(path.parent)
        if os.fstat(fd).st_size > self.unit.blocks * PI_NBYTES:
            os.ftruncate(fd, self.unit.blocks * PI_NBYTES)  # the image has shrunk: what comes back will be new
        return fd


_INVERT = bytes(255 - i for i in range(256))


def _inverted(data: Data) -> bytes:
    return bytes(data).translate(_INVERT)
