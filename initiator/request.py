# SPDX-License-Identifier: BSD-2-Clause
"""A command with its buffer, from the moment it is built until its completion has been read. Knows no SCSI."""

import math
from typing import Any

from initiator.buffers import Buffer
from initiator.channel import Call
from initiator.hba import SrpChannel
from initiator.link import Link


class Request:
    """`in_offset` and `in_nbytes` say where data-in comes to; `tapped` is its tag in a capture, 0: there is none.

    It has `seconds`, and is late at `deadline` (time.monotonic); `late` is what to tell if it then ends with an error.
    """

    __slots__ = (
        "buffer", "call", "channel", "cookie", "deadline", "in_nbytes", "in_offset", "into", "late", "link", "lun",
        "seconds", "tag", "tapped",
    )  # fmt: skip

    def __init__(
        self, link: Link, channel: SrpChannel, lun: int, call: Call, buffer: Buffer | None, seconds: float, cookie: Any
    ) -> None:
        self.link, self.lun = link, lun
        self.channel, self.call, self.buffer, self.cookie = channel, call, buffer, cookie
        self.in_offset = self.in_nbytes = 0
        self.into: memoryview | None = None
        self.tag = self.tapped = 0
        self.seconds = seconds
        self.deadline = math.inf
        self.late: str | None = None
