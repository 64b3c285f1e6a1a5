# SPDX-License-Identifier: BSD-2-Clause
"""The two ways a protocol is broken: by us, which is a bug, or by the peer, which ends the channel.

Shared by SRP, blkif and the store's nodes. Knows no protocol.
"""


class ProtocolError(Exception):
    """A rule was broken. `reason` is SRP's T_LOGOUT reason that names it, or 0."""

    def __init__(self, text: str, reason: int = 0) -> None:
        super().__init__(text)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """We were about to break it: our bug."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it."""
