# SPDX-License-Identifier: BSD-2-Clause
"""The local bus: two processes of one machine, introduced by a Unix socket. The names that others use.

The parts: `places` (where), `wire` (frames), `store`, `memory`, `connection` (both ends), `local_listener`,
`local_target`, `local_initiator`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection, Peer
    from .errors import BusError, ProtocolError
    from .local_initiator import InitiatorConnection
    from .local_listener import Listener
    from .local_target import TargetConnection
    from .memory import Memory
    from .places import default_socket_path
    from .store import Store

_WHERE = {
    "Connection": "connection",
    "Peer": "connection",
    "BusError": "errors",
    "ProtocolError": "errors",
    "InitiatorConnection": "local_initiator",
    "Listener": "local_listener",
    "TargetConnection": "local_target",
    "Memory": "memory",
    "default_socket_path": "places",
    "Store": "store",
}


def __getattr__(name: str) -> Any:
    """Neither end loads what only the other needs: a part is loaded when a name of it is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__package__}.{_WHERE[name]}"), name)


__all__ = [
    "BusError",
    "Connection",
    "InitiatorConnection",
    "Listener",
    "Memory",
    "Peer",
    "ProtocolError",
    "Store",
    "TargetConnection",
    "default_socket_path",
]
