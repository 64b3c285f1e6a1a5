# SPDX-License-Identifier: BSD-2-Clause
"""fio on the image itself, without any target: what the kernel alone can do."""

from __future__ import annotations

from comparison.workloads import Workload

from .fio import FioPeer
from .peer import Site, register


@register
class Psync(FioPeer):
    """One pread(2) at a time."""

    name = "file-psync"
    title = "the file itself, fio psync"
    kind = "file"
    settings = ("ioengine=psync", "numjobs=1")

    def supports(self, workload: Workload) -> bool:
        return super().supports(workload) and workload.queue_depth == 1

    def start(self, site: Site) -> None:
        self.options = [f"--filename={site.image}", "--ioengine=psync"]


@register
class IoUring(FioPeer):
    """io_uring from one process."""

    name = "file-uring"
    title = "the file itself, fio io_uring"
    kind = "file"
    settings = ("ioengine=io_uring", "numjobs=1")

    def start(self, site: Site) -> None:
        self.options = [f"--filename={site.image}", "--ioengine=io_uring"]


@register
class IoUringTwo(FioPeer):
    """io_uring from two processes: as many as a ring's two ends."""

    name = "file-uring-2"
    title = "the file itself, fio io_uring, numjobs=2"
    kind = "file"
    settings = ("ioengine=io_uring", "numjobs=2", "iodepth for each job")

    def supports(self, workload: Workload) -> bool:
        return super().supports(workload) and workload.queue_depth > 1

    def start(self, site: Site) -> None:
        self.options = [f"--filename={site.image}", "--ioengine=io_uring", "--numjobs=2"]
