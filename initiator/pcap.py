# SPDX-License-Identifier: BSD-2-Clause
"""The initiator's tap: what goes to the native layer and comes from it, written to a capture. Any thread.

Sits where Python hands a command over and takes its completion. Knows requests and completions; how they look in the
file is vscsi.pcap's. A command that waits for a credit stands in the file before it stands in the ring.
"""

import errno
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

from vscsi import srp
from vscsi.pcap import Capture, Stream
from vscsi.pcapfile import PcapFile
from vscsi.scsi import lun as lun_

if TYPE_CHECKING:
    from initiator.done import Done


class Tap:
    """One capture of any number of initiators. `snap_nbytes` of every packet are kept; 0: all. OSError."""

    def __init__(self, path: str, snap_nbytes: int = 0) -> None:
        self._file = PcapFile(path)
        self._capture = Capture(snap_nbytes)
        self._numbers = itertools.count(1)
        self.lock = threading.Lock()
        self._file.write(self._capture.header())

    def channel(self, port_id: bytes) -> "ChannelTap":
        """A new channel of that initiator port."""
        with self.lock:
            return ChannelTap(self, self._capture.stream(port_id))

    def number(self) -> int:
        """A tag for the file: the native layer tells its own only once a command has been sent."""
        return next(self._numbers)

    def put(self, packets: bytes) -> None:
        """Appends; under the lock."""
        self._file.write(packets)

    def close(self) -> None:
        """What has been written stays."""
        with self.lock:
            self._file.close()


class ChannelTap:
    """One channel."""

    def __init__(self, tap: Tap, stream: Stream) -> None:
        self._tap, self._stream = tap, stream
        self._known: dict[int, int] = {}
        self._session_tag = 0

    def _put(self, make: Any, *arguments: Any) -> None:
        with self._tap.lock:
            self._tap.put(make(time.time_ns(), *arguments))

    # ---- session ----

    def login(self, request: srp.LoginReq) -> None:
        self._session_tag = self._tap.number()
        self._put(self._stream.login, self._session_tag, request.initiator_port_id, request.target_port_id)

    def login_answered(self, answer: srp.Iu | None) -> None:
        if isinstance(answer, srp.LoginRsp):
            self._put(self._stream.login_done, self._session_tag)
        elif isinstance(answer, srp.LoginRej):
            self._put(self._stream.login_refused, self._session_tag, answer.reason)

    def asked(self, request: srp.Iu) -> None:
        """What the target asks by itself."""
        if isinstance(request, srp.TLogout):
            self._put(self._stream.logout_asked)
        elif isinstance(request, srp.AerReq):
            self._put(self._stream.reported, request.lun, request.sense_data)

    def logout(self) -> None:
        self._put(self._stream.logout, self._tap.number())

    def close(self) -> None:
        self._put(self._stream.close)

    # ---- commands ----

    def command(self, lun: int, cdb: bytes, attribute: int, data_out: Any, in_nbytes: int) -> int:
        """The file's tag of the command."""
        number = self._tap.number()
        data = bytes(data_out)
        with self._tap.lock:
            now, stream = time.time_ns(), self._stream
            packets = stream.command(now, number, lun_.encode(lun), bytes(cdb), attribute, len(data), in_nbytes)
            self._tap.put(packets + stream.data_out(now, number, data, len(data)))
        return number

    def sent_as(self, number: int, tag: int) -> None:
        """The native layer's tag of a command, by which a task management function may name it."""
        with self._tap.lock:
            self._known[tag] = number

    def done(self, number: int, done: "Done", rc: int, response_code: int) -> None:
        """A completion, whose transport error is `rc`."""
        with self._tap.lock:
            self._known.pop(done.tag, None)
            now, stream = time.time_ns(), self._stream
            if rc == 0:
                packets = stream.data_in(now, number, bytes(done.data_in), len(done.data_in))
                packets += stream.response(now, number, done.status, done.sense, done.out_residual, done.in_residual)
            elif rc in (-errno.ECANCELED, -errno.EIO):
                packets = stream.ended(now, number, response_code)
            else:
                return
            self._tap.put(packets)

    def manage(self, function: int, lun: int, tag: int) -> int:
        """A task management function; the file's tag of it."""
        number = self._tap.number()
        with self._tap.lock:
            task = self._known.get(tag, tag)
            self._tap.put(self._stream.manage(time.time_ns(), number, lun_.encode(lun), function, task))
        return number

    def managed(self, number: int, code: int) -> None:
        self._put(self._stream.ended, number, code)
