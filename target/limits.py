# SPDX-License-Identifier: BSD-2-Clause
"""How much initiators may have of what the target has: each limit with its default, bounds and words, one a row.

How it is shared out is `vscsi.bus.shares`' business. Must not know who enforces it.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any

from target.native import lib
from vscsi.bus.local_listener import CONNECTIONS_MAX, DOMID_MAX, TOTAL_MEMORY_NBYTES_MAX
from vscsi.bus.local_target import MEMORY_NBYTES_MAX

_PAGE = 4096


def _limit(default: int, most: int, metavar: str, help: str, *, least: int = 1) -> Any:
    row = {"least": least, "most": most, "metavar": metavar, "help": help}
    return field(default=default, metadata=row)


@dataclass(frozen=True)
class Limits:
    """Options are called --max-connections and so on. Sizes in bytes."""

    connections: int = _limit(CONNECTIONS_MAX, DOMID_MAX, "N", "initiators at a time (default: 64)")
    memory: int = _limit(
        TOTAL_MEMORY_NBYTES_MAX, 1 << 46, "SIZE", "memory that all of them may bring (default: 16G)", least=_PAGE
    )
    initiator_memory: int = _limit(
        MEMORY_NBYTES_MAX, 1 << 46, "SIZE", "memory that one of them may bring (default: 1G)", least=_PAGE
    )
    initiator_channels: int = _limit(256, lib.VT_MAX_CHANNELS, "N", "rings that one of them may have (default: 256)")
    initiator_nexuses: int = _limit(
        128, lib.VT_MAX_NEXUSES, "N", "ports and blkif devices that one of them may have logged in (default: 128)"
    )


def rows() -> Iterator[tuple[str, Field[Any]]]:
    """Each limit with the name of its option, without the dashes."""
    for row in fields(Limits):
        yield f"max-{row.name.replace('_', '-')}", row
