# SPDX-License-Identifier: BSD-2-Clause
"""A real vscsi-target process under attack, a well-behaved initiator beside it that checks its data all the while, and
what the target holds, by /proc, before and after. Knows no attack; the attacks are in the tests.
"""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bus_initiator import Raw, RawSrp
from programs import Target
from real_server import absorb_attention

from initiator import Initiator
from initiator.vbd import Vbd

MIB = 1 << 20
LONG = os.environ.get("VSCSI_FUZZ") == "long"
ASAN = "asan" in os.environ.get("LD_PRELOAD", "")
SLACK_KB = 4096
"""Private memory that may be kept after an attack: caches of Python's and malloc's, warmed by it."""


@dataclass(frozen=True)
class Footprint:
    """What a process holds: kB of anonymous memory, descriptors, threads, mapped memfds."""

    anon_kb: int
    descriptors: int
    threads: int
    memfds: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        proc = Path(f"/proc/{pid}")
        fields = dict(re.findall(r"^(\w+):\s+(\d+)", (proc / "status").read_text(), re.MULTILINE))
        memfds = (proc / "maps").read_text().count("/memfd:")
        # io_uring's own workers come and go as the kernel likes.
        names = [(task / "comm").read_text() for task in (proc / "task").iterdir()]
        threads = sum(not name.startswith("iou-") for name in names)
        return cls(int(fields["RssAnon"]), len(list((proc / "fd").iterdir())), threads, memfds)


class Bystander:
    """Writes and reads back its half of LUN 0 until stopped; an error or a wrong byte is kept for `stop` to raise."""

    def __init__(self, socket: Path) -> None:
        self.socket, self.rounds, self.slowest = socket, 0, 0.0
        self._stop, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with Initiator(self.socket, memory_nbytes=8 * MIB, timeout=20) as hba:
                disk = hba.lun(0)
                half = disk.blocks // 2
                while not self._stop.is_set():
                    lba, data = half + self.rounds * 64 % (half - 64), os.urandom(16384)
                    start = time.monotonic()
                    disk.write(lba, data)
                    assert disk.read(lba, 32) == data, f"wrong data at {lba}"
                    self.slowest = max(self.slowest, time.monotonic() - start)
                    self.rounds += 1
        except BaseException as error:
            self._error = error

    def alive(self) -> None:
        """It has done some rounds since, without an error."""
        before, deadline = self.rounds, time.monotonic() + 20
        while self.rounds < before + 3 and self._error is None:
            assert time.monotonic() < deadline, "the well-behaved initiator is not served"
            time.sleep(0.005)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


class Field:
    """The target, its bystander, and the attackers' tools."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        (folder / "disk.img").write_bytes(bytes(4 * MIB))
        self.target = Target(folder, f"0={folder / 'disk.img'}", "1=mem:4M", options=options)
        self.pid, self.socket = self.target.process.pid, self.target.socket
        # Once through everything, so that what stays for good is there before we count.
        with Initiator(self.socket, memory_nbytes=4 * MIB) as hba:
            hba.lun(0).write(0, bytes(MIB), fua=True)
            hba.lun(0).flush()
            hba.lun(1).read(0, 2048)
        with Vbd(self.socket, memory_nbytes=4 * MIB) as vbd:
            vbd.write(0, bytes(MIB))
        self.bystander = Bystander(self.socket)
        self.bystander.alive()
        self.before = Footprint.of(self.pid)
        self.said = self.target.log.stat().st_size
        self.raws: list[Raw] = []
        self.children: list[subprocess.Popen] = []

    def log(self) -> list[str]:
        """Its log since the attack began."""
        with self.target.log.open() as file:
            file.seek(self.said)
            return file.read().splitlines()

    def raw(self, **options) -> Raw:
        self.raws.append(Raw(self.socket, **options))
        return self.raws[-1]

    def srp(self, port_id: bytes = b"attacker's port!", **options) -> RawSrp:
        channel = self.raw().srp(**options)
        channel.login(port_id)
        absorb_attention(channel)
        return channel

    def child(self, code: str, *arguments: object, **options) -> subprocess.Popen:
        words = [sys.executable, "-P", "-c", code, *(str(a) for a in arguments)]
        self.children.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options))
        return self.children[-1]

    def check(self, *, slack_kb: int = SLACK_KB) -> None:
        """After the attackers have left: the bystander is well, and the target holds what it held before."""
        self.leave()
        self.bystander.alive()
        deadline = time.monotonic() + 20
        while True:
            now, was = Footprint.of(self.pid), self.before
            grown = now.anon_kb - was.anon_kb
            same = (now.descriptors, now.threads, now.memfds) == (was.descriptors, was.threads, was.memfds)
            if same and (grown <= slack_kb or ASAN):  # it keeps freed memory back
                return
            assert time.monotonic() < deadline, (was, now)
            time.sleep(0.05)

    def leave(self) -> None:
        for raw in self.raws:
            with contextlib.suppress(Exception):
                raw.close()
        self.raws.clear()
        for child in self.children:
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()
        self.children.clear()

    def close(self) -> None:
        self.leave()
        try:
            self.bystander.stop()
        finally:
            status = self.target.stop()
        log = self.target.log.read_text()
        assert status == 0, log[-2000:]
        assert "Traceback" not in log, log[-4000:]
        assert "ERROR: AddressSanitizer" not in log and "runtime error" not in log, log[-4000:]
