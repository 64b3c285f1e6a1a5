# SPDX-License-Identifier: BSD-2-Clause
"""The same LUN through this project's SG_IO door: a program that knows nothing of it, in `vscsi-initiator run`."""

from __future__ import annotations

import sys
from pathlib import Path

from comparison.workloads import Workload

from .fio import FioPeer
from .peer import Site, register


class Door(FioPeer):
    """fio behind the preloaded library; the parent that owns the rings is not told apart from fio."""

    kind = "ours"
    node = ""
    engine = ""

    def supports(self, workload: Workload) -> bool:
        return super().supports(workload) and workload.queue_depth == 1

    def start(self, site: Site) -> None:
        program = Path(sys.executable).parent / "vscsi-initiator"
        self.prefix = [str(program), "--uri", site.uri, "run", "--"]
        self.options = [f"--filename={self.node}", f"--ioengine={self.engine}", "--allow_file_create=0"]
        self.extra_pid = site.target_pid


@register
class DoorSg(Door):
    """SG_IO on the character device."""

    name = "door-sg"
    title = "vscsi-initiator run, fio's sg engine"
    node, engine = "/dev/vscsi0", "sg"
    settings = ("ioengine=sg on /dev/vscsi0, one command at a time",)


@register
class DoorBlock(Door):
    """pread(2) on the block device."""

    name = "door-psync"
    title = "vscsi-initiator run, fio psync"
    node, engine = "/dev/vscsi0b", "psync"
    settings = ("ioengine=psync on /dev/vscsi0b",)
