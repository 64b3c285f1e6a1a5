# SPDX-License-Identifier: BSD-2-Clause
"""Where the target's messages go and what they look like. Knows logging and nothing else."""

import logging
import os
import sys

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_SYSLOG = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class _Formatter(logging.Formatter):
    """`vscsi-target: words`; under systemd `<4>words`, since the journal adds name and time by itself."""

    def __init__(self, prog: str, *, journal: bool) -> None:
        super().__init__("%(message)s")
        self._prog, self._journal = prog, journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if self._journal:
            level = next((number for least, number in _SYSLOG if record.levelno >= least), 7)
            return "\n".join(f"<{level}>{line}" for line in text.splitlines())
        kind = "warning: " if record.levelno == logging.WARNING else "error: " if record.levelno > 30 else ""
        return f"{self._prog}: {kind}{text}"


def configure(prog: str, where: str, verbose: int, *, debug: bool = False) -> None:
    """Sends messages to stderr or nowhere ("null"). `verbose` 0 shows warnings; debug flags show what they ask for."""
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "vscsi", False):
            root.removeHandler(old)
    handler: logging.Handler = logging.NullHandler() if where == "null" else logging.StreamHandler(sys.stderr)
    handler.vscsi = True  # type: ignore[attr-defined]
    handler.setFormatter(_Formatter(prog, journal="JOURNAL_STREAM" in os.environ))
    root.addHandler(handler)
    root.setLevel(_LEVELS[min(max(verbose, int(debug)), 2)])
