# SPDX-License-Identifier: BSD-2-Clause
"""A target killed while a write of it is with the kernel: that write may still land, long after the process is dead.

It holds the image open until then, and with it the image's lock. No other target gets the image before, so that nothing
newer can be overtaken, and an initiator that sends its writes again has to wait. The kernel's part is shown with an
image whose writes are held by a FUSE file system below it: as a file, and past the page cache through a loop device.
"""

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest
from programs import BIN, Target, run, tool

from crash.folder import Folder, mounted
from crash.log import Log
from initiator import Backoff
from initiator.vbd import READ, WRITE, Vbd

SECONDS = 30.0
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.1, seconds=SECONDS)
NBYTES = 1 << 20
OLD, NEW = b"HELD" * 1024, b"NEW!" * 1024


class Holding(Folder):
    """A write that begins with HELD waits, with the kernel's request, until it is let go."""

    def __init__(self):
        super().__init__(Log(), hesitate=0)
        self.held, self.gate = threading.Event(), threading.Event()

    def write(self, path, data, offset, fi):
        if bytes(data[:4]) == OLD[:4]:
            self.held.set()
            assert self.gate.wait(SECONDS)
        return super().write(path, data, offset, fi)


@contextlib.contextmanager
def loop_device(path):
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    words = [tool("losetup"), "--show", "-f", "--direct-io=on", path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device is to be had here: {done.stderr}")
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run([tool("losetup"), "-d", done.stdout.strip()], check=True)


@pytest.mark.parametrize(("engine", "loop"), [("pool", False), ("pool", True), ("io_uring", True)])
def test_nobody_gets_the_image_before_the_last_write_has_ended(engine, loop, tmp_path):
    folder = Holding()
    folder.make("disk.img", NBYTES)
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(mounted(folder, tmp_path / "m")) / "disk.img"
        if loop:
            image = stack.enter_context(loop_device(image))
        lun = f"0={image}" + (",cache=none" if loop else "")
        target = Target(tmp_path, lun, options=("--engine", engine))
        stack.callback(lambda: (target.process.kill(), target.process.wait()))
        stack.callback(folder.gate.set)
        vbd = stack.enter_context(Vbd(target.socket, reconnect=QUICK, timeout=SECONDS))
        vbd.submit(WRITE, 0, data_out=OLD, cookie="old")
        assert folder.held.wait(SECONDS)

        target.process.kill()
        killed = target
        (tmp_path / "t.pid").unlink()
        if engine == "io_uring":  # dead and gone: only the kernel still knows of the write
            killed.process.wait(SECONDS)
            assert not (Path("/proc") / str(killed.process.pid)).exists()
        done = run(BIN / "vscsi-target", "-U", tmp_path / "t.sock", "--lun", lun)
        assert done.status != 0 and "the I/O of one that is dead has not ended" in done.err, done.err
        assert not vbd.reap(timeout=0), "the write has ended with a target that is dead and none that serves"
        assert bytes(folder.files["/disk.img"].data[:4096]) == bytes(4096)

        folder.gate.set()
        killed.process.wait(SECONDS)
        target = started(tmp_path, lun, engine)
        vbd.submit(WRITE, 0, data_out=NEW, cookie="new")  # behind the old one, which is sent again
        found = []
        while len(found) < 2:
            found += vbd.reap(timeout=SECONDS)
        assert {one.cookie: one.error for one in found} == {"old": None, "new": None}
        vbd.submit(READ, 0, data_in=4096)
        assert vbd.reap()[0].data_in in (OLD, NEW), "they were under way together"
        vbd.write(0, NEW)
        vbd.flush()
        assert vbd.read(0, 8) == bytes(folder.files["/disk.img"].data[:4096]) == NEW


def started(folder, lun, engine):
    """The lock goes with the last reference, which the kernel lets go of a moment after the write."""
    for _ in range(200):
        try:
            return Target(folder, lun, options=("--engine", engine))
        except AssertionError as error:
            assert "has not ended" in str(error)
    raise AssertionError("the image stays locked")
