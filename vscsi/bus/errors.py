# SPDX-License-Identifier: BSD-2-Clause
"""What can go wrong on a bus, in two families: our side cannot do it, or the peer broke the rules."""

from vscsi.errors import RemoteProtocolError


class BusError(Exception):
    """The bus cannot do what was asked; the text is one clear line for a person."""


class ProtocolError(BusError, RemoteProtocolError):
    """The peer broke the bus protocol. Ends that one connection; may also be raised by a callback that finds out."""
