# SPDX-License-Identifier: BSD-2-Clause
"""The file door as users have it: FUSE, plain programs, and file systems that the kernel mounts through a loop device.

Without /dev/fuse, loop devices or root the tests that need them are skipped, and say what was missing.
"""

import contextlib
import errno
import hashlib
import importlib.util
import mmap
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from programs import BIN, Target, one_line, run, tool

SIZE = "320M"  # mkfs.xfs makes none smaller
SECONDS = 30

# File system: how it is made, how it is checked without changing anything.
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], ["e2fsck", "-f", "-n"]),
    "xfs": (["mkfs.xfs", "-q", "-f"], ["xfs_repair", "-n"]),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], ["btrfs", "check", "--readonly"]),
}


def until(predicate, what):
    end = time.monotonic() + SECONDS
    while not predicate():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def is_mounted(folder):
    return any(line.split()[4] == str(folder) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.fixture
def mount(folder):
    """Mounts a target's LUNs and unmounts them after the test."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not to be had here")
    if importlib.util.find_spec("mfusepy") is None:
        pytest.skip("mfusepy is not installed")
    mounted = []

    def start(target, *options, status=0, **keywords):
        place = folder / f"m{len(mounted)}"
        place.mkdir()
        done = target.initiator(*options, "mount", place, **keywords)
        if done.status == 15 and "cannot be mounted" in done.err:
            pytest.skip(f"FUSE mounts are refused here: {done.err}")
        assert done.status == status, done.err
        mounted.append(place)
        assert is_mounted(place)
        return place

    yield start
    for place in mounted:
        if is_mounted(place):
            unmount(place)


def unmount(place):
    subprocess.run([tool("fusermount3"), "-u", place], check=True)
    assert not is_mounted(place)


@pytest.fixture
def loop(folder):
    """Mounts a file through a loop device, and unmounts it after the test."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    if subprocess.run([tool("losetup"), "-f"], capture_output=True, check=False).returncode:
        pytest.skip("no loop device is to be had here")
    place = folder / "fs"
    place.mkdir()

    def start(file, kind):
        done = subprocess.run([tool("mount"), "-t", kind, "-o", "loop", file, place], capture_output=True, check=False)
        if done.returncode:
            unknown = b"unknown filesystem type" in done.stderr or b"wrong fs type" in done.stderr
            known = kind in Path("/proc/filesystems").read_text()
            if unknown and not known:
                pytest.skip(f"this kernel has no {kind}")
            pytest.fail(done.stderr.decode())
        return place

    yield start
    if is_mounted(place):
        subprocess.run([tool("umount"), place], check=True)


def make(kind, file):
    words, _ = FILE_SYSTEMS[kind]
    subprocess.run([tool(words[0]), *words[1:], file], check=True, capture_output=True)


def check(kind, file):
    _, words = FILE_SYSTEMS[kind]
    done = subprocess.run([tool(words[0]), *words[1:], file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tree(folder):
    """Every file below it and the hash of its content."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- file systems ----


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_made_and_checked(kind, serve, mount, folder):
    """mkfs and fsck through the door; then fsck on the image itself, once the target has stopped."""
    image = folder / "d.img"
    target = serve(f"0={image},size={SIZE}")
    place = mount(target)
    make(kind, place / "lun0")
    check(kind, place / "lun0")
    unmount(place)
    assert target.stop() == 0
    check(kind, image)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_mounted_written_trimmed(kind, serve, mount, loop, folder):
    image = folder / "d.img"
    target = serve(f"0={image},size={SIZE}")
    place = mount(target)
    make(kind, place / "lun0")
    source = folder / "source"
    source.mkdir()
    for number in range(20):
        (source / f"f{number}").write_bytes(os.urandom(1 + number * 40_001))
    ballast = os.urandom(24 << 20)

    root = loop(place / "lun0", kind)
    shutil.copytree(source, root / "copy")
    (root / "ballast").write_bytes(ballast)
    os.sync()
    full = image.stat().st_blocks * 512
    assert full > len(ballast)
    (root / "ballast").unlink()
    os.sync()

    def trimmed():
        # XFS frees what was unlinked when it finds the time.
        os.sync()
        subprocess.run([tool("fstrim"), root], check=True)
        return image.stat().st_blocks * 512 < full - len(ballast) // 2

    until(trimmed, "trimmed blocks stay in the image")
    assert tree(root / "copy") == tree(source)
    subprocess.run([tool("umount"), root], check=True)
    check(kind, place / "lun0")
    assert tree(loop(place / "lun0", kind) / "copy") == tree(source)
    subprocess.run([tool("umount"), root], check=True)
    unmount(place)
    assert target.stop() == 0
    check(kind, image)


# ---- plain programs ----


def test_plain_programs(serve, mount, folder):
    target = serve(f"0={folder / 'd.img'},size=8M", "3=mem:1M,ro", "7=mem:64k,bs=4096")
    place = mount(target)
    assert {path.name: path.stat().st_size for path in place.iterdir()} == {
        "lun0": 8 << 20,
        "lun3": 1 << 20,
        "lun7": 65536,
    }
    data = os.urandom(8 << 20)
    (folder / "data").write_bytes(data)
    subprocess.run(["sh", "-c", f"cat {folder}/data > {place}/lun0"], check=True)
    subprocess.run(["dd", f"if={place}/lun0", f"of={folder}/copy", "bs=100000"], check=True, capture_output=True)
    assert (folder / "copy").read_bytes() == data
    assert target.initiator("--lun", "0", "read").out == data
    with (place / "lun7").open("r+b") as file:
        file.seek(4000)
        file.write(b"across")
        file.flush()
        os.fsync(file.fileno())
    assert target.initiator("--lun", "7", "read").out[3999:4007] == b"\0across\0"
    with pytest.raises(OSError) as info:
        (place / "lun3").open("r+b")
    assert info.value.errno == errno.EROFS
    done = run("sh", "-c", f"echo x > {place}/new")
    assert done.status != 0 and "not permitted" in done.err


def test_one_lun_only(serve, mount):
    target = serve("0=mem:1M", "3=mem:2M")
    assert [path.name for path in mount(target, "--lun", "3").iterdir()] == ["lun3"]


def test_mmap_and_direct(serve, mount, folder):
    target = serve(f"0={folder / 'd.img'},size=1M")
    place = mount(target)
    with (place / "lun0").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[10_000:10_005] = b"hello"
        memory.flush()
        os.fsync(file.fileno())
    assert target.initiator("read").out[9_999:10_006] == b"\0hello\0"
    fd = os.open(place / "lun0", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        assert os.preadv(fd, [page], 8192) == 4096
        assert page[10_000 - 8192 :][:5] == b"hello"
    os.close(fd)


def test_seek_and_punch(serve, mount, folder):
    image = folder / "d.img"
    target = serve(f"0={image},size=8M")
    place = mount(target)
    with (place / "lun0").open("r+b") as file:
        file.write(b"x" * (8 << 20))
        os.fsync(file.fileno())
        full = image.stat().st_blocks
        command = ["fallocate", "--punch-hole", "--offset", "1M", "--length", "4M", place / "lun0"]
        subprocess.run([tool("fallocate"), *command[1:]], check=True)
        assert image.stat().st_blocks <= full - 2 * 4096 + 64
        assert os.pread(file.fileno(), 4 << 20, 1 << 20) == bytes(4 << 20)
        assert os.pread(file.fileno(), 1, (1 << 20) - 1) == b"x"
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 1 << 20
        assert os.lseek(file.fileno(), 1 << 20, os.SEEK_DATA) == 5 << 20
        with pytest.raises(OSError) as info:
            os.ftruncate(file.fileno(), 5)
        assert info.value.errno == errno.EINVAL
        with pytest.raises(OSError) as info:
            os.pwrite(file.fileno(), b"x", 8 << 20)
        assert info.value.errno == errno.ENOSPC


def test_many_writers(serve, mount):
    """Odd pieces side by side from several threads: every byte ends where it belongs."""
    target = serve("0=mem:1M,bs=4096")
    place = mount(target)
    piece, count = 1000, 100

    def work(k):
        with (place / "lun0").open("r+b", buffering=0) as file:
            for n in range(k, count, 4):
                file.seek(n * piece)
                file.write(bytes((n,)) * piece)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.initiator("read").out[: piece * count] == b"".join(bytes((n,)) * piece for n in range(count))


def test_a_disk_that_grows(serve, mount, folder):
    image = folder / "d.img"
    target = serve(f"0={image},size=1M")
    place = mount(target)
    assert (place / "lun0").stat().st_size == 1 << 20
    done = run(BIN / "vscsi-admin", "-U", target.socket, "resize", "0", "--size", "2M")
    assert done.status == 0, done.err
    until(lambda: (place / "lun0").stat().st_size == 2 << 20, "the file does not grow")


# ---- the program ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_unmount(number, serve, mount, folder):
    target = serve("0=mem:1M")
    place = folder / "f"
    place.mkdir()
    mount(target)  # is it possible at all?
    read, write = os.pipe()
    command = [BIN / "vscsi-initiator", "--socket", target.socket, "mount", "-f", "--ready-fd", str(write), place]
    process = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert os.read(read, 100) == b"mounted\n"
    assert os.read(read, 100) == b""
    os.close(read)
    assert is_mounted(place)
    (place / "lun0").write_bytes(b"x" * 512)
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert not is_mounted(place)
    assert err == f"vscsi-initiator: mount: lun0 at {place}\n"


def test_a_killed_target(serve, mount):
    target = serve("0=mem:1M")
    place = mount(target, "--timeout", "0.3")
    with (place / "lun0").open("r+b", buffering=0) as file:
        target.process.kill()
        target.process.wait()
        for use in (lambda: file.read(1), lambda: file.write(b"x"), lambda: os.fsync(file.fileno())):
            with pytest.raises(OSError) as info:
                use()
            assert info.value.errno == errno.EIO
    assert (place / "lun0").stat().st_size == 1 << 20
    unmount(place)


def test_a_target_that_is_started_anew(folder, mount):
    """What was synced is there; what was not is told of by the next fsync, once; uses in between wait."""
    lun = f"0={folder / 'disk.img'},size=1M"
    target = Target(folder, lun)
    place = mount(target)
    file = (place / "lun0").open("r+b", buffering=0)
    fd = file.fileno()
    assert os.pwrite(fd, b"synced" * 1000, 0) == 6000
    os.fsync(fd)
    os.pwrite(fd, b"not synced", 65536)
    target.process.kill()
    target.process.wait()
    target.pidfile.unlink()
    again = Target(folder, lun)
    try:
        with file:
            assert os.pread(fd, 6000, 0) == b"synced" * 1000
            with pytest.raises(OSError) as info:
                os.fsync(fd)
            assert info.value.errno == errno.EIO
            os.pwrite(fd, b"written again", 65536)
            os.fsync(fd)
            assert (folder / "disk.img").read_bytes()[65536:].startswith(b"written again")
        unmount(place)
    finally:
        assert again.stop() == 0


def test_what_goes_through_is_captured(serve, mount, folder):
    target = serve("0=mem:1M")
    path = folder / "m.pcap"
    place = mount(target, "--pcap", path)
    (place / "lun0").write_bytes(b"data of mine" * 1000)
    unmount(place)
    until(lambda: b"data of mine" in path.read_bytes(), "nothing is captured")


def test_mistakes_are_one_line(serve, folder):
    target = serve("0=mem:1M")
    one_line(target.initiator("mount", folder / "none"), 15, "not a directory")
    stub = folder / "stub"
    stub.mkdir()
    (stub / "mfusepy.py").write_text("raise ImportError('no')\n")
    one_line(target.initiator("mount", folder, env={"PYTHONPATH": str(stub)}), 15, "mfusepy", "pip install")
    (stub / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')\n")
    one_line(target.initiator("mount", folder, env={"PYTHONPATH": str(stub)}), 15, "libfuse", "apt-get install fuse3")


def test_no_target_is_said_by_the_parent_too(folder, mount):
    with contextlib.suppress(FileExistsError):
        (folder / "x").mkdir()
    done = run(BIN / "vscsi-initiator", "--socket", folder / "nobody", "mount", folder / "x")
    one_line(done, 15, "nobody")
    done = run(BIN / "vscsi-initiator", "--socket", folder / "nobody", "mount", "--foreground", folder / "x")
    one_line(done, 15, "nobody")


def test_a_medium_that_comes_and_goes(serve, mount, folder):
    target = serve("0=mem:1M", f"1={folder / 'cd.img'},size=1M,removable=on")
    admin = [BIN / "vscsi-admin", "-U", target.socket]
    place = mount(target)
    assert (place / "lun1").stat().st_size == 1 << 20
    assert run(*admin, "eject", "1").status == 0
    until(lambda: (place / "lun1").stat().st_size == 0, "an ejected medium has a size")
    with pytest.raises(OSError) as info:
        (place / "lun1").open("rb")
    assert info.value.errno == errno.ENOMEDIUM
    assert {path.name for path in place.iterdir()} == {"lun0", "lun1"}
    assert run(*admin, "load", "1").status == 0
    until(lambda: (place / "lun1").stat().st_size == 1 << 20, "the medium does not come back")
    (place / "lun1").write_bytes(b"x" * 512)
