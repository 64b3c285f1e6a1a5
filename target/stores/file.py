# SPDX-License-Identifier: BSD-2-Clause
"""Raw image files and block devices.

Knows how to open, create, lock and measure them. A lock keeps two targets from writing the same image. Never creates
over, grows or shrinks what exists. Must not know SCSI.
"""

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from target.native import lib
from target.stores import Can, DescriptorStore, StoreError, StoreSpec, store
from target.stores.sizes import format_size

_DEAD = "or the I/O of one that is dead has not ended"
_BLKSSZGET = 0x1268
_BLKPBSZGET = 0x127B
_MAGICS = {
    b"QFI\xfb": "qcow2",
    b"QED\0": "QED",
    b"KDMV": "VMDK",
    b"conectix": "VHD",
    b"vhdxfile": "VHDX",
}


@store("file", help="file:PATH  raw image file or block device; 'file:' may be left out")
class FileStore(DescriptorStore):
    """An image file, or a block device."""

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__()
        if not spec.rest:
            raise StoreError("a path is missing")
        self._path = spec.rest
        self.is_direct = spec.cache == "none"
        self.fd = -1
        try:
            self._open(spec)
            self._lock(spec)
            self._measure(spec)
            self.witnessed()
        except BaseException:
            self.abandon()
            self.close()
            raise

    def abandon(self) -> None:
        """An image that was made for a target that never served it would only be in the way."""
        if self.created:
            Path(self._path).unlink(missing_ok=True)

    def free(self) -> int | None:
        """What the file system would give; others may take it."""
        if self.is_block_device or self.fd < 0:
            return None
        space = os.fstatvfs(self.fd)
        return space.f_bavail * space.f_frsize

    def _fail(self, why: str) -> StoreError:
        return StoreError(f"{self._path}: {why}")

    def _open(self, spec: StoreSpec) -> None:
        flags = os.O_CLOEXEC | (os.O_RDONLY if spec.readonly else os.O_RDWR)
        try:
            kind = Path(self._path).stat().st_mode
        except FileNotFoundError:
            self._create(spec, flags)
            return
        except (OSError, ValueError) as error:
            raise self._fail(_words(error)) from error
        # Looked at before it is opened: opening a FIFO would wait, and O_NONBLOCK would change how io_uring treats it.
        self.is_block_device = stat.S_ISBLK(kind)
        if not self.is_block_device and not stat.S_ISREG(kind):
            raise self._fail("neither a file nor a block device")
        if self.is_block_device and not spec.readonly:
            flags |= os.O_EXCL  # refuses a device that is mounted
        try:
            self.fd = os.open(self._path, flags | (os.O_DIRECT if self.is_direct else 0))
        except OSError as error:
            raise self._fail(self._explain(error, spec)) from error

    def _explain(self, error: OSError, spec: StoreSpec) -> str:
        if error.errno == errno.EINVAL and self.is_direct:
            return "this file system has no O_DIRECT: leave out cache=none"
        if error.errno == errno.EBUSY:
            return f"the device is in use: mounted, or another target has it open, {_DEAD}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and not spec.readonly:
            return f"{_words(error)} (to serve it read-only, add ',ro')"
        return _words(error)

    def _create(self, spec: StoreSpec, flags: int) -> None:
        if spec.size is None:
            raise self._fail("no such file (to create an image there, add ',size=SIZE')")
        if spec.readonly:
            raise self._fail("no such file, and with 'ro' none is created")
        try:
            self.fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise self._fail(f"cannot be created: {_words(error)}") from error
        self.created = True
        try:
            if spec.discard:
                os.ftruncate(self.fd, spec.size)
            else:
                os.posix_fallocate(self.fd, 0, spec.size)  # thick: no write will ever lack space
            if self.is_direct:
                os.close(self.fd)
                self.fd = os.open(self._path, flags | os.O_DIRECT)
        except OSError as error:
            raise self._fail(f"cannot be created: {self._explain(error, spec)}") from error

    def _lock(self, spec: StoreSpec) -> None:
        kind = fcntl.F_RDLCK if spec.readonly else fcntl.F_WRLCK
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise self._fail(
                    f"locked: another target, another LUN or a virtual machine has it open, {_DEAD}"
                ) from error
            self.warnings.append(f"{self._path}: cannot be locked ({_words(error)}); nothing keeps others away")

    def _measure(self, spec: StoreSpec) -> None:
        status = os.fstat(self.fd)
        self.nbytes = os.lseek(self.fd, 0, os.SEEK_END)
        if spec.size is not None and spec.size != self.nbytes:
            self.warnings.append(
                f"{self._path}: exists with {self.nbytes} bytes ({format_size(self.nbytes)}); size= is not applied"
            )
        self.identity = f"file:{status.st_ino}:{Path(self._path).resolve()}"
        self.physical_nbytes = 4096
        self.device = f"dev:{status.st_rdev if self.is_block_device else status.st_dev}"
        if not self.is_block_device:
            self.path = Path(self._path).absolute()
        self.can = Can(0) if spec.readonly else Can.WRITE
        self.can |= Can.FLUSH
        if self.is_block_device:
            self._measure_device(status.st_rdev, spec)
        elif spec.discard and (spec.readonly or self._punches_holes()):
            self.can |= Can.TRIM | Can.ZERO
            self.trim_nbytes = os.fstatvfs(self.fd).f_frsize
        self._probe(spec)

    def _measure_device(self, device: int, spec: StoreSpec) -> None:
        self.identity = f"device:{os.major(device)}:{os.minor(device)}:{Path(self._path).resolve()}"
        sector = self._ioctl_int(_BLKSSZGET) or 512
        if spec.block_nbytes < sector:
            raise self._fail(f"the device has sectors of {sector} bytes: use bs={sector}")
        self.physical_nbytes = self._ioctl_int(_BLKPBSZGET) or sector
        queue = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue")
        if not queue.exists():  # a partition
            queue = queue.parent.parent / "queue"
        rotational = _number(queue / "rotational")
        self.rotational = None if rotational is None else bool(rotational)
        if not spec.readonly and spec.discard and _number(queue / "discard_max_bytes"):
            self.trim_nbytes = _number(queue / "discard_granularity") or 0
            self.can |= Can.TRIM  # what BLKDISCARD leaves behind is the device's choice

    def _ioctl_int(self, request: int) -> int:
        try:
            return int(struct.unpack("I", fcntl.ioctl(self.fd, request, bytes(4)))[0])
        except OSError:
            return 0

    def _punches_holes(self) -> bool:
        """Whether holes can be punched here: tried behind the end, where there is nothing to lose."""
        end = (self.nbytes + 0xFFFF) & ~0xFFFF
        return bool(lib.vt_discard(self.fd, 0, end, 65536) == 0)

    def _probe(self, spec: StoreSpec) -> None:
        """Reads the first block: tells a wrong block size for O_DIRECT from a foreign image format."""
        buffer = self.buffer(spec.block_nbytes)
        if self.nbytes < spec.block_nbytes:
            return
        try:
            self.readinto(buffer, 0)
        except OSError as error:
            if error.errno == errno.EINVAL and self.is_direct:
                raise self._fail(f"cache=none does not work with bs={spec.block_nbytes} here: use bs=4096") from error
            raise self._fail(f"cannot be read: {_words(error)}") from error
        for magic, name in _MAGICS.items():
            if buffer[: len(magic)] == magic:
                self.warnings.append(f"{self._path}: looks like a {name} image, served as raw bytes all the same")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()
