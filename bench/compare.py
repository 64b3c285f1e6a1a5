#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""blkif against SCSI over SRP, on the same ring, grants, events and image I/O: a table, and JSON with --json FILE.

The way in: finds the project's Python, reads options, prints. What is measured and how is in `comparison/`.
Run it from a checkout after `make setup`; nothing has to be activated.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("vscsi", "initiator", "target", "cffi"))


def _enter_venv() -> None:
    """Go on with the interpreter of the checkout's .venv if this one does not have the project."""
    python = ROOT / ".venv" / "bin" / "python"
    if _installed():
        return
    if python.exists() and Path(sys.prefix) != ROOT / ".venv":
        os.execv(python, [str(python), *sys.argv])
    sys.exit("compare.py: vscsi is not installed; run 'make setup' in the checkout")


if __name__ == "__main__":
    _enter_venv()
    from comparison.main import main

    sys.exit(main())
