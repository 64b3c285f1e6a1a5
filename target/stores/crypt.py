# SPDX-License-Identifier: BSD-2-Clause
"""Raw image files whose bytes are encrypted: AES-256-XTS, a 512-byte sector at a time, numbered from the image's start.

The key lies in the folder beside the image; throwing it away makes every byte meaningless at once, which is what
CRYPTOGRAPHIC ERASE does. A sector of zeros in the file was never written, or was given back, and reads as
zeros: no key makes that of anything, except once in 2^4096 sectors. Knows bytes and keys. Must not know SCSI.
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from target.state import State, set_aside
from target.stores import Can, StoreError, StoreSpec, store
from target.stores.file import FileStore
from target.stores.layered import LayeredStore

SECTOR = 512
KEY_NBYTES = 64
_DOCUMENT = "key"
_HOLE = bytes(SECTOR)

Cipher = Callable[[bytes | memoryview, int], bytes]
"""From whole sectors and the number of the first to as many bytes."""


@store("crypt", help="crypt:PATH  raw image file, encrypted; its key lies beside it in PATH.vscsi and can be erased")
class CryptStore(LayeredStore):
    """An encrypted image file, served through Python."""

    _inner: FileStore

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__()
        self._ciphers = _ciphers()
        self._inner = FileStore(spec)
        self._lock = threading.Lock()
        try:
            self._open(spec)
        except BaseException:
            self._inner.abandon()
            self._inner.close()
            raise

    def _open(self, spec: StoreSpec) -> None:
        inner = self._inner
        if inner.is_block_device or inner.path is None:
            raise StoreError(f"crypt:{spec.rest}: only a file can be encrypted")
        self.nbytes, self.physical_nbytes, self.rotational = inner.nbytes, inner.physical_nbytes, inner.rotational
        self.identity, self.path, self.is_direct = f"crypt:{inner.identity}", inner.path, inner.is_direct
        self.warnings = inner.warnings
        self.can, self.trim_nbytes = inner.can, inner.trim_nbytes
        if Can.WRITE in self.can:
            self.can |= Can.ERASE_KEY
        folder = Path(f"{inner.path}.vscsi")
        if inner.created:
            set_aside(folder)  # now: the key is the first that the new image keeps there
        self._state = State(folder)
        document = self._state.load(_DOCUMENT)
        if document is not None:
            self._use(_key_of(document, inner.path))
        elif inner.created:
            self.erase_key()
        else:
            raise StoreError(
                f"{inner.path}: there is no key for it in {inner.path}.vscsi: it is not an encrypted image"
            )

    def _use(self, key: bytes) -> None:
        encrypt, decrypt = self._ciphers
        self._encrypt, self._decrypt = encrypt(key), decrypt(key)

    def erase_key(self) -> None:
        """Everything written so far is noise from now on, durably. OSError: nothing has changed."""
        key = os.urandom(KEY_NBYTES)
        with self._lock:
            self._state.save(_DOCUMENT, {"cipher": "aes-256-xts", "sector_nbytes": SECTOR, "key": key.hex()})
            self._use(key)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        self._inner.readinto(buffer, offset)
        buffer[:] = self._decrypt(buffer, offset // SECTOR)

    def write(self, buffer: memoryview, offset: int, fua: bool = False) -> None:
        data = self._encrypt(buffer, offset // SECTOR)
        copy = self._inner.buffer(len(data))
        copy[:] = data
        self._inner.write(copy, offset, fua)

    def conceal(self, data: bytes, offset: int) -> bytes:
        return self._encrypt(data, offset // SECTOR)

    def reveal(self, data: bytes, offset: int) -> bytes:
        return self._decrypt(data, offset // SECTOR)

    def reserve(self, offset: int, nbytes: int) -> None:
        self._inner.reserve(offset, nbytes)

    def used(self) -> int | None:
        return self._inner.used()

    def free(self) -> int | None:
        return self._inner.free()

    def prefetch(self, offset: int, nbytes: int) -> None:
        self._inner.prefetch(offset, nbytes)

    def evict(self, offset: int, nbytes: int) -> None:
        self._inner.evict(offset, nbytes)

    def buffer(self, nbytes: int) -> memoryview:
        return self._inner.buffer(nbytes)

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        if self._inner.created:
            self._state.remove(_DOCUMENT)
        self._inner.abandon()


def _key_of(document: dict[str, object], path: Path) -> bytes:
    try:
        key = bytes.fromhex(str(document["key"]))
        if document.get("cipher") != "aes-256-xts" or document.get("sector_nbytes") != SECTOR or len(key) != KEY_NBYTES:
            raise ValueError("not a key of this program")
    except (KeyError, ValueError) as error:
        raise StoreError(f"{path}: its key cannot be understood") from error
    return key


def _ciphers() -> tuple[Callable[[bytes], Cipher], Callable[[bytes], Cipher]]:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher as Xts
        from cryptography.hazmat.primitives.ciphers import CipherContext, algorithms, modes
    except ImportError as error:
        raise StoreError("encrypted images need the package 'cryptography': pip install 'vscsi[crypt]'") from error

    def maker(begin: Callable[[Xts[modes.XTS]], CipherContext], *, holes: bool) -> Callable[[bytes], Cipher]:
        def with_key(key: bytes) -> Cipher:
            algorithm = algorithms.AES(key)

            def run(data: bytes | memoryview, sector: int) -> bytes:
                if len(data) % SECTOR:
                    raise OSError(errno.EINVAL, "not a whole number of sectors")
                parts = []
                for start in range(0, len(data), SECTOR):
                    tweak = (sector + start // SECTOR).to_bytes(16, "little")
                    part = data[start : start + SECTOR]
                    parts.append(
                        part if holes and part == _HOLE else begin(Xts(algorithm, modes.XTS(tweak))).update(part)
                    )
                return b"".join(parts)

            return run

        return with_key

    return maker(lambda xts: xts.encryptor(), holes=False), maker(lambda xts: xts.decryptor(), holes=True)
