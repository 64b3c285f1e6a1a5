# SPDX-License-Identifier: BSD-2-Clause
"""A vscsi-target for the time of the bench: started on a private socket, stopped at the end. Knows its options."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 20.0


class ServerError(Exception):
    """One line about a target that did not come up."""


def stored(image: Path) -> str:
    """An image's path as --lun takes it."""
    return str(image).replace(",", ",,")


class PrivateTarget:
    """A target that serves these stores (as --lun takes them) as LUNs 0, 1, ...; it dies with the bench."""

    def __init__(
        self, stores: Sequence[str], folder: Path, *, spin_us: int | None, options: Sequence[str] = ()
    ) -> None:
        self.socket = folder / "target.sock"
        pidfile = folder / "target.pid"
        pidfile.unlink(missing_ok=True)
        self._log = folder / "target.log"
        program = Path(sys.executable).parent / "vscsi-target"
        command = [str(program), "-U", str(self.socket), "--pidfile", str(pidfile), "--exit-with-parent"]
        for lun, store in enumerate(stores):
            command += ["--lun", f"{lun}={store}"]
        command += options
        if spin_us is not None:
            command += ["--spin-us", str(spin_us)]
        started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._process.pid
        while not pidfile.exists():
            if self._process.poll() is not None:
                raise ServerError(f"vscsi-target ended with status {self._process.returncode}: {self.said()}")
            if time.monotonic() > started + START_SECONDS:
                self.close()
                raise ServerError(f"vscsi-target was not ready within {START_SECONDS:g} s: {self.said()}")
            time.sleep(0.002)
        self.ready_ms = (time.monotonic() - started) * 1000

    def said(self) -> str:
        """The last line of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """Stop it in an orderly way; kill it if it does not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
