# SPDX-License-Identifier: BSD-2-Clause
"""ROD tokens: what stands for ranges of blocks of a logical unit, for any nexus that can show it.

Access upon reference (SPC-4 5.17.6.4): a token names blocks, and stands for what they hold when it is used. Knows how
a token is made, recognised and forgotten. Must not know CDBs, nor move data.
"""

import hashlib
import hmac
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsi.scsi import sense, token
from vscsi.scsi.token import RodType

if TYPE_CHECKING:
    from target.lu import LogicalUnit

MAX_TOKENS = 256
DEFAULT_SECONDS, MAX_SECONDS = 60, 600
_MAGIC = b"vscsi ROD token\0"
_ID_NBYTES, _KEY_NBYTES = 32, 32
_GONE = 1024
"""How many names of tokens that are no more are remembered, to say what became of them."""


@dataclass(eq=False)
class Rod:
    """What one token stands for: (lba, blocks) of a unit, in order. `expires` by the device's clock."""

    unit: "LogicalUnit"
    ranges: list[tuple[int, int]]
    seconds: int
    expires: float

    @property
    def blocks(self) -> int:
        return sum(blocks for _, blocks in self.ranges)

    def at(self, offset: int, blocks: int) -> list[tuple[int, int]]:
        """(lba, blocks) of that part of it, in blocks from its beginning."""
        found = []
        for lba, count in self.ranges:
            if offset >= count:
                offset -= count
                continue
            take = min(count - offset, blocks)
            if take <= 0:
                break
            found.append((lba + offset, take))
            offset, blocks = 0, blocks - take
        return found


class Tokens:
    """Every token of the target. Any thread may call; `now` is the device's monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key = os.urandom(_KEY_NBYTES)
        self._rods: dict[bytes, Rod] = {}
        self._gone: dict[bytes, sense.Sense] = {}

    def create(self, unit: "LogicalUnit", ranges: list[tuple[int, int]], seconds: int, now: float) -> bytes:
        """A new token, 512 bytes, that lives until it has not been used for so long. CheckCondition if there is no
        room for another."""
        with self._lock:
            self._expire(now)
            if len(self._rods) >= MAX_TOKENS:
                raise sense.INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN.error()
            name = os.urandom(_ID_NBYTES)
            self._rods[name] = Rod(unit, ranges, seconds, now + seconds)
        return self._encode(name)

    def find(self, data: bytes, now: float) -> Rod:
        """What a token stands for; that it was used keeps it alive. CheckCondition (23/xx) says what is wrong."""
        name = self._decode(data)
        with self._lock:
            self._expire(now)
            rod = self._rods.get(name)
            if rod is None:
                raise self._gone.get(name, sense.TOKEN_UNKNOWN).error()
            rod.expires = now + rod.seconds
            return rod

    def delete(self, data: bytes) -> None:
        """The token has been used up (DEL_TKN)."""
        with self._lock:
            self._forget(self._decode(data), sense.TOKEN_DELETED)

    def revoke(self, unit: "LogicalUnit") -> None:
        """The blocks of a unit are not what they were: every token of it is void."""
        with self._lock:
            for name in [name for name, rod in self._rods.items() if rod.unit is unit]:
                self._forget(name, sense.TOKEN_REVOKED)

    def living(self, now: float, sees: "Callable[[LogicalUnit], bool]" = lambda unit: True) -> list[bytes]:
        """Every token there is of units that the asker sees."""
        with self._lock:
            self._expire(now)
            return [self._encode(name) for name, rod in self._rods.items() if sees(rod.unit)]

    def _expire(self, now: float) -> None:
        for name in [name for name, rod in self._rods.items() if rod.expires <= now]:
            self._forget(name, sense.TOKEN_EXPIRED)

    def _forget(self, name: bytes, why: sense.Sense) -> None:
        if self._rods.pop(name, None) is None:
            return
        self._gone[name] = why
        while len(self._gone) > _GONE:
            del self._gone[next(iter(self._gone))]

    def _mac(self, name: bytes) -> bytes:
        return hmac.digest(self._key, name, hashlib.sha256)

    def _encode(self, name: bytes) -> bytes:
        head = token.TOKEN.build(rod_type=RodType.ACCESS_UPON_REFERENCE, rod_token_length=token.TOKEN_LENGTH)
        return (head[:8] + _MAGIC + name + self._mac(name)).ljust(token.TOKEN_NBYTES, b"\0")

    def _decode(self, data: bytes) -> bytes:
        """The name in a token. CheckCondition if it is none of ours."""
        fields = token.TOKEN.numbers(data)
        if fields["rod_token_length"] != token.TOKEN_LENGTH:
            raise sense.TOKEN_LENGTH_INVALID.error()
        if fields["rod_type"] != RodType.ACCESS_UPON_REFERENCE:
            raise sense.TOKEN_TYPE_UNSUPPORTED.error()
        start = 8 + len(_MAGIC)
        if data[8:start] != _MAGIC:
            raise sense.REMOTE_TOKEN_USAGE_NOT_SUPPORTED.error()
        name, mac = data[start : start + _ID_NBYTES], data[start + _ID_NBYTES :][: hashlib.sha256().digest_size]
        if not hmac.compare_digest(mac, self._mac(name)):
            # Made before the target was started anew, or not by it at all.
            raise sense.TOKEN_UNKNOWN.error()
        if any(data[start + _ID_NBYTES + len(mac) :]):
            raise sense.TOKEN_CORRUPT.error()
        return name
