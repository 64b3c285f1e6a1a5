# SPDX-License-Identifier: BSD-2-Clause
"""qemu-storage-daemon's NBD server over a Unix socket, driven by fio's nbd engine."""

from __future__ import annotations

from .fio import FioPeer
from .peer import Site, register


@register
class QemuStorageDaemon(FioPeer):
    """In its main loop: version 7.2 asserts when a client leaves an export that has an I/O thread of its own."""

    name = "qemu-storage-daemon"
    title = "qemu-storage-daemon (NBD), fio's nbd engine"
    kind = "socket"
    commands = ("qemu-storage-daemon", "fio")
    packages = ("qemu-system-common", "fio")
    settings = ("aio=io_uring, cache.direct=off, Unix socket, main loop", "fio ioengine=nbd")

    def start(self, site: Site) -> None:
        socket = site.folder / "qemu.sock"
        image = str(site.image).replace(",", ",,")
        self.serve(
            ["qemu-storage-daemon",
             "--blockdev", f"driver=file,node-name=image,filename={image},aio=io_uring,cache.direct=off,locking=off",
             "--nbd-server", f"addr.type=unix,addr.path={socket}",
             "--export", "type=nbd,id=bench,node-name=image,name=bench,writable=on"],
            socket.exists, site.folder / "qemu.log",
        )  # fmt: skip
        self.options = ["--ioengine=nbd", f"--uri=nbd+unix:///bench?socket={socket}"]
