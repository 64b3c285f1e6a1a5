# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for one descriptor, whatever its number: select() knows 1024 of them. Knows nothing of what is read."""

import select


def readable(fd: int, seconds: float) -> bool:
    """Whether something can be read, or its other end is gone, within this time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
