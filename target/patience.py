# SPDX-License-Identifier: BSD-2-Clause
"""Calls that may never return, made in threads of their own and waited for only so long. Knows nothing else."""

import threading
import time
from collections.abc import Callable, Iterable


def unfinished(calls: Iterable[tuple[str, Callable[[], object]]], seconds: float) -> list[str]:
    """Makes all of these calls at once; the names of those that have not returned in time, which go on."""
    end = time.monotonic() + seconds
    threads = [(name, threading.Thread(target=call, name=f"vscsi-{name}", daemon=True)) for name, call in calls]
    for _, thread in threads:
        thread.start()
    for _, thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [name for name, thread in threads if thread.is_alive()]
