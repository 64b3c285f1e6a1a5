#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Several initiators on one simulated disk, with and without the target's scheduler: a table, JSON, a picture.

The way in: finds the project's Python. What is measured is in `sharing/`; lanes and statistics are compare.py's.
Run it from a checkout after `make setup`; nothing has to be activated.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from compare import _enter_venv

    _enter_venv()
    from sharing.main import main

    sys.exit(main())
