# SPDX-License-Identifier: BSD-2-Clause
"""Backing stores: opening, creating, locking, holes; and the logical unit's opening of them."""

import ctypes
import logging
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from target import stores
from target.lu import LogicalUnit, open_lu
from target.lunspec import parse
from target.native import lib
from target.stores import Can, Store, StoreError, StoreSpec, open_store, schemes


def opened(text: str, **wanted: object) -> Store:
    return open_store(text, StoreSpec("", **wanted))  # type: ignore[arg-type]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes([7]) * 65536)
    return path


def fails(text: str, **wanted: object) -> str:
    with pytest.raises(StoreError) as caught:
        opened(text, **wanted).close()
    line = str(caught.value)
    assert "\n" not in line
    return line


# ---- files ----


def test_file(image: Path) -> None:
    store = opened(str(image))
    assert (store.nbytes, store.is_block_device, store.is_direct) == (65536, False, False)
    assert Can.WRITE in store.can and Can.FLUSH in store.can
    buffer = memoryview(bytearray(1024))
    store.readinto(buffer, 512)
    assert bytes(buffer) == bytes([7]) * 1024
    store.write(memoryview(b"x" * 512), 512, fua=True)
    store.flush()
    store.close()
    store.close()
    assert image.read_bytes()[:1536] == bytes([7]) * 512 + b"x" * 512 + bytes([7]) * 512


def test_a_slow_store_hides_its_descriptor(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-D store.slow: what is measured is Python's way to an image that the native core could read itself."""
    store = opened(str(image))
    try:
        assert store.native_fd == store.fd is not None
        monkeypatch.setattr(stores.SLOW, "value", 1)
        assert store.native_fd is None
        buffer = bytearray(512)
        store.readinto(memoryview(buffer), 0)
        assert buffer == image.read_bytes()[:512]
    finally:
        store.close()


def test_the_scheme_may_be_left_out(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(f"file:{image}").close()
    monkeypatch.chdir(image.parent)
    opened("disk.img").close()
    (image.parent / "odd:name").write_bytes(bytes(512))
    opened("odd:name").close()


def test_truncated_image_is_an_error_and_no_loop(image: Path) -> None:
    store = opened(str(image))
    os.truncate(image, 1000)
    with pytest.raises(OSError, match="truncated"):
        store.readinto(memoryview(bytearray(1024)), 512)
    store.close()


def test_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "none.img"
    assert "no such file (to create an image there, add ',size=SIZE')" in fails(str(path))
    assert "with 'ro' none is created" in fails(str(path), size=512, readonly=True)
    assert not path.exists()
    assert "cannot be created: no such file or directory" in fails(str(tmp_path / "no" / "x"), size=512)
    assert "a path is missing" in fails("file:")


@pytest.mark.parametrize("name", ["mem", "null"])
def test_a_size_beside_a_size_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match=rf"^{name}:1M: has its size already: leave out size=$"):
        open_store(f"{name}:1M", StoreSpec("", size=1 << 21))


def test_size_creates_a_sparse_image(tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    store = opened(str(path), size=1 << 30)
    assert store.nbytes == 1 << 30
    assert not store.warnings
    store.close()
    status = path.stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 < 1 << 20


def test_size_never_touches_what_exists(image: Path) -> None:
    before = image.read_bytes()
    for size in (512, 1 << 20):
        store = opened(str(image), size=size)
        assert store.nbytes == 65536
        assert "size= is not applied" in store.warnings[0]
        store.close()
    assert image.read_bytes() == before
    store = opened(str(image), size=65536)
    assert not store.warnings
    store.close()


def test_foreign_places(tmp_path: Path) -> None:
    assert "neither a file nor a block device" in fails(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    assert "neither a file nor a block device" in fails(str(tmp_path / "fifo"))
    assert "neither a file nor a block device" in fails("/dev/null")
    assert "no store is called 'rbd' (stores: crypt, file, mem, null, sim)" in fails("rbd:pool/image")
    assert fails("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_image_as_a_user(image: Path) -> None:
    image.chmod(0o400)
    assert "to serve it read-only, add ',ro'" in fails(str(image))


# ---- locks ----


def test_two_writers_are_refused(image: Path) -> None:
    store = opened(str(image))
    assert "locked" in fails(str(image))
    assert "locked" in fails(str(image), readonly=True)
    store.close()
    opened(str(image)).close()


def test_readers_share(image: Path) -> None:
    one, two = opened(str(image), readonly=True), opened(str(image), readonly=True)
    assert "locked" in fails(str(image))
    assert Can.WRITE not in one.can
    one.close()
    two.close()


def test_the_lock_holds_against_another_process(image: Path) -> None:
    store = opened(str(image))
    code = "import sys; from target.stores import *; open_store(sys.argv[1], StoreSpec(''))"
    done = subprocess.run([sys.executable, "-P", "-c", code, str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "locked: another target" in done.stderr
    store.close()


# ---- holes, formats, direct I/O ----


def test_trim_gives_space_back_and_leaves_zeros(image: Path) -> None:
    store = opened(str(image))
    if Can.TRIM not in store.can:
        pytest.skip("this file system punches no holes")
    assert image.stat().st_size == 65536, "probing must not change the image"
    store.trim(4096, 8192)
    assert image.read_bytes() == bytes([7]) * 4096 + bytes(8192) + bytes([7]) * (65536 - 12288)
    assert image.stat().st_size == 65536
    store.close()


def test_discard_off_trims_nothing(image: Path) -> None:
    store = opened(str(image), discard=False)
    assert Can.TRIM not in store.can
    store.close()


def test_a_file_that_is_only_read_has_holes_all_the_same(image: Path) -> None:
    store = opened(str(image), readonly=True)
    assert Can.TRIM in store.can and Can.WRITE not in store.can
    with pytest.raises(OSError, match="Bad file descriptor"):
        store.trim(0, 4096)
    store.close()


def test_extents_of_a_file(image: Path) -> None:
    store = opened(str(image))
    if Can.TRIM not in store.can:
        pytest.skip("this file system punches no holes")
    assert list(store.extents(0, 65536)) == [(0, 65536, True)]
    store.trim(8192, 4096)
    store.trim(61440, 4096)
    assert list(store.extents(0, 65536)) == [
        (0, 8192, True), (8192, 4096, False), (12288, 49152, True), (61440, 4096, False),
    ]  # fmt: skip
    assert list(store.extents(512, 1024)) == [(512, 1024, True)]
    assert list(store.extents(8192 + 512, 4096)) == [(8704, 3584, False), (12288, 512, True)]
    assert list(store.extents(61440, 4096)) == [(61440, 4096, False)]
    store.is_block_device = True  # of a device nothing can be told
    assert list(store.extents(0, 65536)) == [(0, 65536, True)]
    store.close()


def test_extents_where_holes_cannot_be_asked_for(image: Path) -> None:
    store = opened(str(image))
    assert store.fd is not None
    ends = os.pipe()
    os.dup2(ends[0], store.fd)
    assert list(store.extents(0, 65536)) == [(0, 65536, True)]
    store.close()
    for end in ends:
        os.close(end)


def test_prefetch_and_evict(image: Path) -> None:
    """mincore tells what the page cache holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    store = opened(str(image))
    assert store.fd is not None
    store.flush()
    view = mmap.mmap(store.fd, 65536)
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))

    def cached() -> int:
        pages = (ctypes.c_ubyte * 16)()
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(65536), pages) == 0
        return sum(page & 1 for page in pages)

    store.evict(0, 65536)
    if cached() == 16:
        pytest.skip("this file system lives in memory")
    store.prefetch(0, 65536)
    buffer = memoryview(bytearray(512))
    store.readinto(buffer, 0)  # waits for what has been asked for
    assert cached() > 1
    store.close()
    store.prefetch(0, 65536)
    store.evict(0, 65536)


@pytest.mark.parametrize(("magic", "name"), [(b"QFI\xfb", "qcow2"), (b"KDMV", "VMDK")])
def test_foreign_formats_are_warned_of(image: Path, magic: bytes, name: str) -> None:
    image.write_bytes(magic + bytes(4092))
    store = opened(str(image))
    assert f"looks like a {name} image" in store.warnings[0]
    store.close()


def test_direct(image: Path) -> None:
    try:
        store = opened(str(image), cache="none", block_nbytes=4096)
    except StoreError as error:
        assert "O_DIRECT" in str(error)
        pytest.skip("no O_DIRECT here")
    buffer = store.buffer(4096)
    store.readinto(buffer, 4096)
    assert bytes(buffer) == bytes([7]) * 4096
    buffer[:] = b"d" * 4096
    store.write(buffer, 0)
    store.close()
    assert image.read_bytes()[:4097] == b"d" * 4096 + bytes([7])


# ---- other stores ----


def test_mem() -> None:
    store = opened("mem:64k")
    assert store.nbytes == 65536
    store.write(memoryview(b"m" * 512), 65024)
    buffer = memoryview(bytearray(512))
    store.readinto(buffer, 65024)
    assert bytes(buffer) == b"m" * 512
    store.trim(65024, 512)
    store.readinto(buffer, 65024)
    assert bytes(buffer) == bytes(512)
    store.close()
    assert "is not a size" in fails("mem:big")
    assert "no O_DIRECT" in fails("mem:1M", cache="none")


def test_null() -> None:
    store = opened("null:1T")
    assert (store.nbytes, store.fd, store.is_null) == (1 << 40, None, True)
    buffer = memoryview(bytearray(b"x" * 512))
    store.write(buffer, 0)
    store.readinto(buffer, 0)
    assert bytes(buffer) == bytes(512)
    assert "is not a size" in fails("null:")


def test_every_store_has_a_line_of_help() -> None:
    assert list(schemes()) == ["crypt", "file", "mem", "null", "sim"]
    assert all(scheme.help for scheme in schemes().values())


def test_a_store_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "other"

        @staticmethod
        def load() -> None:
            stores.store("other", "other:ANYTHING")(lambda spec: opened(f"mem:{spec.rest}"))

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point] if group == "vscsi.stores" else [])
    monkeypatch.setattr(stores, "_SCHEMES", dict(stores._SCHEMES))
    store = opened("other:4k")
    assert store.nbytes == 4096
    store.close()


def test_a_broken_store_of_another_package(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Point:
        name = "broken"

        @staticmethod
        def load() -> None:
            raise ImportError("no module named librados")

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point])
    assert "no store is called 'broken'" in fails("broken:4k")
    assert "store 'broken' cannot be loaded: no module named librados" in caplog.text
    assert "broken" not in schemes()


# ---- the logical unit ----


def unit(text: str) -> LogicalUnit:
    return open_lu(parse(text))


def test_unit_of_a_file(image: Path) -> None:
    lu = unit(f"5={image},bs=4096,cache=wt,serial=ABC")
    assert (lu.lun, lu.blocks, lu.block_nbytes, lu.serial, lu.write_cache) == (5, 16, 4096, "ABC", False)
    config = lu.native_config()
    assert (config.lun, config.blocks, config.block_nbytes, config.fd) == (5, 16, 4096, lu.store.fd)
    assert config.max_transfer_blocks == (8 << 20) // 4096
    assert not config.flags & (lib.VT_LU_WRITE_CACHE | lib.VT_LU_NULL | lib.VT_LU_SLOW_STORE | lib.VT_LU_DIRECT)
    assert config.write_protect == 0
    assert "16 blocks of 4096 bytes" in lu.describe()
    lu.close()
    lu.close()


def test_native_flags(image: Path) -> None:
    lu = unit(f"0={image},ro")
    assert lu.native_config().write_protect == lib.VT_SENSE_WRITE_PROTECTED
    assert not lu.native_config().flags & lib.VT_LU_DISCARD
    lu.close()
    config = unit("0=null:1M").native_config()
    assert config.fd == -1
    assert config.flags == lib.VT_LU_WRITE_CACHE | lib.VT_LU_NULL | lib.VT_LU_DISCARD
    config = unit("0=null:8T").native_config()
    assert config.flags & lib.VT_LU_DESCRIPTOR_SENSE


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(1000))
    with pytest.raises(StoreError, match=r"its 1000 bytes are not a multiple of bs=512"):
        unit(f"0={path}")
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="is empty"):
        unit(f"0={path}")
    path.write_bytes(bytes(4608))
    with pytest.raises(StoreError, match="bs=4096"):
        unit(f"0={path},bs=4096")
    unit(f"0={path}").close()  # what was refused must not stay locked


def test_identity_follows_the_image(image: Path) -> None:
    serials = []
    for text in (f"0={image}", f"7={image}", f"0=file:{image},ro"):
        lu = unit(text)
        serials.append(lu.serial)
        lu.close()
    assert len(set(serials)) == 1
    other = image.with_name("other.img")
    other.write_bytes(bytes(512))
    lu = unit(f"0={other}")
    assert lu.serial != serials[0]
    lu.close()


def test_warnings_are_logged(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    image.write_bytes(b"QFI\xfb" + bytes(508))
    with caplog.at_level(logging.WARNING):
        unit(f"4={image}").close()
    assert "lun 4:" in caplog.text
    assert "qcow2" in caplog.text
