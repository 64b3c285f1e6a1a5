# SPDX-License-Identifier: BSD-2-Clause
"""A command with its buffer, from the moment it is built until its completion has been read. Knows no SCSI."""

from typing import Any

from initiator.buffers import Buffer
from initiator.channel import Call
from initiator.hba import SrpChannel
from initiator.link import Link


class Request:
    """`in_offset` and `in_nbytes` say where data-in comes to; `tapped` is its tag in a capture, 0: there is none."""

    __slots__ = ("buffer", "call", "channel", "cookie", "in_nbytes", "in_offset", "into", "link", "lun", "tapped")

    def __init__(
        self, link: Link, channel: SrpChannel, lun: int, call: Call, buffer: Buffer | None, cookie: Any
    ) -> None:
        self.link, self.lun = link, lun
        self.channel, self.call, self.buffer, self.cookie = channel, call, buffer, cookie
        self.in_offset = self.in_nbytes = 0
        self.into: memoryview | None = None
        self.tapped = 0
