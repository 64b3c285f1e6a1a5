# SPDX-License-Identifier: BSD-2-Clause
"""Debian's tgt as an iSCSI target on the loopback interface, driven by libiscsi's iscsi-perf."""

from __future__ import annotations

import os
import re
import resource
import socket as sockets
from typing import Any

from comparison.measure import Round
from comparison.workloads import Workload

from .peer import Peer, PeerError, Site, call, register, round_of

IQN = "iqn.2006-08.example:bench"
SECTOR = 512


def parse(text: str) -> float:
    """The average that iscsi-perf prints last, in I/Os a second. PeerError."""
    found = re.findall(r"iops average\s+(\d+)", text)
    if not found:
        raise PeerError("iscsi-perf printed no average")
    return float(found[-1])


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@register
class Tgt(Peer):
    """tgtd with its file store; iscsi-perf measures whole seconds, reads only, and tells no latencies."""

    name = "tgt"
    title = "tgt over loopback iSCSI, iscsi-perf"
    kind = "socket"
    commands = ("tgtd", "tgtadm", "iscsi-perf")
    packages = ("tgt", "libiscsi-bin")
    settings = ("tgtd: bstype=rdwr, 16 I/O threads, TCP on 127.0.0.1", "iscsi-perf: whole seconds")

    def supports(self, workload: Workload) -> bool:
        return super().supports(workload) and workload.read_percent == 100

    def start(self, site: Site) -> None:
        port = free_port()
        control = site.folder / "tgt"
        # It keeps its control socket where only root may write, unless told otherwise.
        environment = os.environ | {"TGT_IPC_SOCKET": str(control)}
        command = ["tgtd", "-f", "--nr_iothreads", "16", "--iscsi", f"portal=127.0.0.1:{port}"]
        self.serve(command, lambda: _listens(port), site.folder / "tgt.log", env=environment)
        for words in (
            ["--mode", "target", "--op", "new", "--tid", "1", "-T", IQN],
            ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", str(site.image),
             "--bstype", "rdwr"],
            ["--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"],
        ):  # fmt: skip
            call(["tgtadm", "--lld", "iscsi", *words], seconds=10, env=environment)
        self._url = f"iscsi://127.0.0.1:{port}/{IQN}/1"

    def run(self, spec: Any) -> Round:
        seconds = max(1, round(spec.duration_ns / 1e9))
        command = [
            "iscsi-perf",
            "-m",
            str(spec.queue_depth),
            "-b",
            str(spec.block_nbytes // SECTOR),
            "-t",
            str(seconds),
        ]
        before, client = self.cpu_ns(), _children_cpu_ns()
        iops = parse(call([*command, *(["-r"] if spec.random else []), self._url], seconds=seconds + 30))
        return round_of(
            round(iops * seconds), seconds, client_ns=_children_cpu_ns() - client, server_ns=self.cpu_ns() - before
        )

    def close(self) -> None:
        # tgtd does not end on SIGTERM while it has a target; nothing of it is worth keeping.
        for process in self._servers:
            process.kill()
        super().close()


def _listens(port: int) -> bool:
    with sockets.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _children_cpu_ns() -> int:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((used.ru_utime + used.ru_stime) * 1e9)
