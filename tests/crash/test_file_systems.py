# SPDX-License-Identifier: BSD-2-Clause
"""Real file systems on a LUN, mounted through the file door and a loop device while the image is recorded. At places of
the log the image is put together as a crash would have left it: the file system must recover, its own checker must
find nothing, and every file that was synced by then must be whole.

Torn are pieces of 4096 bytes, the physical block that the LUN announces: file systems rely on that much.
"""

import contextlib
import os
import random
import subprocess
from pathlib import Path

import pytest
from programs import Target, tool

from crash.folder import Folder, is_mounted, mounted
from crash.images import states, write_image
from crash.log import Log

STATES = int(os.environ.get("VSCSI_CRASH_STATES", "3"))
SEED = int(os.environ.get("VSCSI_CRASH_SEED", random.randrange(1 << 32)))
FILES = 12

FILE_SYSTEMS = {
    "ext4": ("64M", ["mkfs.ext4", "-q", "-F"], ["e2fsck", "-f", "-n"]),
    "xfs": ("320M", ["mkfs.xfs", "-q", "-f"], ["xfs_repair", "-n"]),
    "btrfs": ("128M", ["mkfs.btrfs", "-q", "-f"], ["btrfs", "check", "--readonly"]),
}


def run(*words):
    done = subprocess.run([tool(words[0]), *words[1:]], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def loop_mounted(image, place, kind):
    """The file system in a file, through a loop device."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        [tool("mount"), "-t", kind, "-o", "loop", image, place], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode and kind not in Path("/proc/filesystems").read_text():
        pytest.skip(f"this kernel has no {kind}")
    assert done.returncode == 0, done.stderr
    try:
        yield place
    finally:
        run("umount", place)


@pytest.fixture(autouse=True)
def needs():
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    if subprocess.run([tool("losetup"), "-f"], capture_output=True, check=False).returncode:
        pytest.skip("no loop device is to be had here")


def fill(root, log, rng):
    """Files that are written and synced, some of them over others by rename; a note for each that must survive."""
    for number in range(FILES):
        name, data = f"f{number % (FILES // 2)}", rng.randbytes(rng.choice((100, 4096, 70_000, 300_000)))
        with (root / f"{name}.new").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        log.add("note", ("begun", name, data))
        (root / f"{name}.new").rename(root / name)
        folder = os.open(root, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        log.add("note", ("synced", name, data))
        (root / f"loose{number}").write_bytes(rng.randbytes(50_000))  # nobody promised anything of these


def verify(root, notes):
    """Each synced file is what it was, or what was about to take its place. Returns how many were looked at."""
    may: dict[str, list[bytes]] = {}
    for what, name, data in notes:
        may[name] = [data] if what == "synced" else [*may.get(name, ()), data]
    synced = {name for what, name, _ in notes if what == "synced"}
    for name in synced:
        assert (root / name).read_bytes() in may[name], f"{name} is not what was synced"
    return len(synced)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_synced_files_survive(kind, tmp_path_factory, capsys):
    size, make, check = FILE_SYSTEMS[kind]
    log, place, rng = Log(), tmp_path_factory.mktemp("f"), random.Random(SEED)
    fresh = place / "fresh.img"
    with fresh.open("wb") as file:
        file.truncate(int(size[:-1]) << 20)
    run(*make, fresh)
    base = fresh.read_bytes()
    folder = Folder(log, hesitate=0.02, seed=SEED)
    folder.make("disk.img", 0)
    folder.files["/disk.img"].data = bytearray(base)
    with mounted(folder, place / "r") as files:
        target = Target(place, f"0={files / 'disk.img'}")
        door = place / "door"
        door.mkdir()
        try:
            done = target.initiator("mount", door)
            if done.status == 15 and "cannot be mounted" in done.err:
                pytest.skip(f"FUSE mounts are refused here: {done.err}")
            assert done.status == 0, done.err
            with loop_mounted(door / "lun0", place / "fs", kind) as root:
                fill(root, log, rng)
        finally:
            if is_mounted(door):
                run("fusermount3", "-u", door)
            target.stop()
    begins = [now for now, (what, _) in enumerate(log.entries) if what != "end"]
    places = set(rng.sample(begins, min(STATES - 1, len(begins)))) | {len(log.entries) - 1}
    looked = 0
    for now, changes, notes in states(log, "disk.img", places, rng, 8):
        image = place / "crashed.img"
        write_image(image, base, changes)
        try:
            with loop_mounted(image, place / "again", kind) as root:
                looked += verify(root, notes())
            run(*check, image)
        except AssertionError as error:
            pytest.fail(f"VSCSI_CRASH_SEED={SEED}, crash after entry {now} of {len(log.entries)}: {error}")
    with capsys.disabled():
        print(f"\n{kind}: {log.count()}: {len(places)} crashes recovered and checked, {looked} synced files, 0 losses")
    assert looked
    # Had the target never flushed, the medium might have kept nothing: then the files are missed.
    image = place / "unflushed.img"
    write_image(image, base, {})
    with loop_mounted(image, place / "again", kind) as root, pytest.raises((AssertionError, OSError)):
        verify(root, [thing for what, thing in log.entries if what == "note"])
