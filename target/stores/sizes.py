# SPDX-License-Identifier: BSD-2-Clause
"""Sizes as people write them: 512, 64k, 100M, 2G, 1T (powers of 1024). Knows nothing else."""

import re

_MULTIPLIERS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]+)([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
SIZE_MAX = (1 << 63) - 1


def parse_size(text: str) -> int:
    """Bytes. ValueError with a line that says what is accepted."""
    match = _SIZE.fullmatch(text)
    value = int(match[1]) * _MULTIPLIERS[match[2].lower()] if match and len(match[1]) < 20 else -1
    if not 0 <= value <= SIZE_MAX:
        raise ValueError(f"'{text}' is not a size (a number, with k, M, G or T for powers of 1024)")
    return value


def format_size(nbytes: int) -> str:
    """The same for people, rounded: 100.0 MiB."""
    value = float(nbytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{nbytes} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
