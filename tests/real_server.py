# SPDX-License-Identifier: BSD-2-Clause
"""A Server with its C loops and Python workers, running in a thread, for tests that play the initiator."""

import threading
import time
from pathlib import Path

from bus_initiator import SECONDS, Raw, RawSrp

from target.lu import open_lu
from target.lunspec import parse
from target.server import Server, ServerOptions
from vscsi.bus.local import Listener

A, B = b"initiator port A", b"initiator port B"
TEST_UNIT_READY = bytes(6)
INQUIRY = bytes((0x12, 0, 0, 0, 96, 0))
CHECK_CONDITION = 2


def read_10(lba: int, blocks: int) -> bytes:
    return b"\x28\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


class Target:
    """A Server in a thread of this process."""

    def __init__(self, path: Path, *luns: str, listener: dict | None = None, **options) -> None:
        self.path = path
        self.server = Server(
            Listener(path, **(listener or {})), [open_lu(parse(lun)) for lun in luns], ServerOptions(**options)
        )
        ready = threading.Event()
        self.server.on_ready = ready.set
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert ready.wait(10)
        self.raws: list[Raw] = []

    def raw(self) -> Raw:
        self.raws.append(Raw(self.path))
        return self.raws[-1]

    def do(self, function):
        done, result = threading.Event(), []
        self.server.call(lambda: (result.append(function()), done.set()))
        assert done.wait(SECONDS)
        return result[0]

    def until(self, predicate, what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.do(predicate):
            assert time.monotonic() < deadline, what
            time.sleep(0.005)

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        for raw in self.raws:
            raw.close()


def absorb_attention(channel: RawSrp, lun: bytes = bytes(8)) -> bytes:
    answer = channel.command(TEST_UNIT_READY, lun=lun, tag=900)
    assert answer.status == CHECK_CONDITION
    return answer.sense_data
