# SPDX-License-Identifier: BSD-2-Clause
"""The same LUN as a file, by `vscsi-initiator mount`, driven by fio."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from .fio import FioPeer
from .peer import PeerError, Site, find, register


@register
class Mount(FioPeer):
    """direct_io: every read goes to the target, instead of to the page cache of the mounted file."""

    name = "mount"
    title = "vscsi-initiator mount, fio io_uring"
    kind = "ours"
    commands = ("fusermount3", "fio")
    packages = ("fuse3", "fio")
    settings = ("mount --direct-io", "ioengine=io_uring on the mounted file")

    def __init__(self) -> None:
        super().__init__()
        self._folder: Path | None = None

    def missing(self) -> str:
        if absent := super().missing():
            return absent
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            return "no access to /dev/fuse"
        return "" if importlib.util.find_spec("mfusepy") or importlib.util.find_spec("fuse") else "no FUSE for Python"

    def start(self, site: Site) -> None:
        self._folder = site.folder / "mount"
        self._folder.mkdir()
        program = Path(sys.executable).parent / "vscsi-initiator"
        file = self._folder / "lun0"
        command = [str(program), "--uri", site.uri, "mount", "--foreground", "--direct-io", str(self._folder)]
        self.serve(command, file.exists, site.folder / "mount.log")
        self.options = [f"--filename={file}", "--ioengine=io_uring"]
        self.extra_pid = site.target_pid

    def close(self) -> None:
        if self._servers and self._folder is not None and os.path.ismount(self._folder):
            done = subprocess.run([find("fusermount3") or "fusermount3", "-u", str(self._folder)], check=False)
            if done.returncode:
                raise PeerError(f"{self._folder} is still mounted")
        super().close()
