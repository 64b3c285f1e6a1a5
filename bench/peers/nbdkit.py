# SPDX-License-Identifier: BSD-2-Clause
"""nbdkit over a Unix socket, driven by fio's nbd engine."""

from __future__ import annotations

from .fio import FioPeer
from .peer import Site, register


@register
class Nbdkit(FioPeer):
    """The file plugin with its default of 16 threads."""

    name = "nbdkit"
    title = "nbdkit, fio's nbd engine"
    kind = "socket"
    commands = ("nbdkit", "fio")
    packages = ("nbdkit", "fio")
    settings = ("nbdkit file, 16 threads, Unix socket", "fio ioengine=nbd")

    def start(self, site: Site) -> None:
        socket = site.folder / "nbdkit.sock"
        self.serve(
            ["nbdkit", "--foreground", "--exit-with-parent", "--threads", "16", "-U", str(socket), "file",
             str(site.image)],
            socket.exists, site.folder / "nbdkit.log",
        )  # fmt: skip
        self.options = ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}"]
