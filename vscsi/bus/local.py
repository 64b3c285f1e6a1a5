# SPDX-License-Identifier: BSD-2-Clause
"""The local bus: two processes of one machine, introduced by a Unix socket. The names that others use.

The parts: `places` (where), `wire` (frames), `store`, `memory`, `connection` (both ends), `local_listener`,
`local_target`, `local_initiator`.
"""

from .connection import Connection, Peer
from .errors import BusError, ProtocolError
from .local_initiator import InitiatorConnection
from .local_listener import Listener
from .local_target import TargetConnection
from .memory import Memory
from .places import default_socket_path
from .store import Store

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
