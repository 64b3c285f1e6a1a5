# SPDX-License-Identifier: BSD-2-Clause
"""The target's recorder: a thread that takes what the native tap saw and writes it to a capture.

The loops never wait for it: what it is too slow for is lost, and said. Knows SRP's IUs; how they look in the file is
vscsi.pcap's. Must not know commands or devices.
"""

import collections
import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from vscsi import srp
from vscsi.errors import RemoteProtocolError
from vscsi.native import ffi as shared_ffi
from vscsi.native import lib as shared
from vscsi.pcap import Capture, Stream
from vscsi.pcapfile import PcapFile

log = logging.getLogger("vscsi.pcap")

RING_NBYTES = 16 << 20
"""Of each loop: what may wait for this thread. The largest command's data fits."""
READ_NBYTES = 1 << 20
WAIT_MS = 500
LAST_SECONDS = 2.0
"""How long a slow reader is waited for at the end."""
SAY_SECONDS = 5.0


class _Struct:
    """Fields of an ABI struct as numbers and bytes."""

    def __init__(self, name: str) -> None:
        ctype = shared_ffi.typeof(f"struct {name}")
        self.nbytes = shared_ffi.sizeof(ctype)
        self._at = {field: slice(f.offset, f.offset + shared_ffi.sizeof(f.type)) for field, f in ctype.fields}

    def raw(self, iu: bytes, field: str) -> bytes:
        return iu[self._at[field]]

    def number(self, iu: bytes, field: str) -> int:
        return int.from_bytes(iu[self._at[field]], "big")


CMD, TSK_MGMT, RSP = _Struct("srp_cmd"), _Struct("srp_tsk_mgmt"), _Struct("srp_rsp")


class _Record(NamedTuple):
    """What happened on a channel. `kind` is the tap's, or NOTED or REMOVED."""

    ns: int
    kind: int
    channel: int
    out_nbytes: int
    in_nbytes: int
    iu: bytes
    data: bytes


NOTED, REMOVED = -1, -2


class Recorder:
    """One capture of the native target `t`, not started yet. `file` is open and becomes ours. OSError."""

    def __init__(self, native: Any, ffi: Any, t: Any, loops: int, file: PcapFile, snap_nbytes: int = 0) -> None:
        self._native, self._ffi, self._t, self._file = native, ffi, t, file
        rc = native.vt_tap_start(t, RING_NBYTES, snap_nbytes or RING_NBYTES)
        if rc < 0:
            raise OSError(-rc, "no memory for the capture")
        self._capture = Capture(snap_nbytes)
        self._head = ffi.sizeof("struct vt_tap_record")
        self._pending = [bytearray() for _ in range(loops)]
        self._noted: collections.deque[_Record] = collections.deque()
        self._streams: dict[int, Stream] = {}
        self._said = (0, 0)
        self._say_at = 0.0
        self._thread = threading.Thread(target=self._run, name="vscsi-pcap", daemon=True)
        self._handlers: dict[int, Callable[[Stream, _Record], bytes]] = {
            native.VT_TAP_REQUEST: _request,
            native.VT_TAP_DATA_OUT: _data_out,
            native.VT_TAP_DATA_IN: _data_in,
            native.VT_TAP_RESPONSE: _response,
            NOTED: _asked,
            REMOVED: _removed,
        }

    # ---- from the conversation ----

    def start(self) -> None:
        """Begins to write. After vt_start."""
        self._thread.start()

    def asked(self, channel: int, iu: bytes) -> None:
        """An IU that the target sends by itself, on the reverse ring."""
        self._noted.append(_Record(time.time_ns(), NOTED, channel, 0, 0, iu, b""))

    def removed(self, channel: int) -> None:
        """The channel is gone, and its number free for another."""
        self._noted.append(_Record(time.time_ns(), REMOVED, channel, 0, 0, b"", b""))

    def close(self) -> None:
        """Writes what is left and closes the file. After vt_stop, before vt_free."""
        self._file.hurry(LAST_SECONDS)
        if self._thread.ident is not None:
            self._thread.join()
            self._take()  # what was noted after the last record
            self._say(last=True)
        self._file.close()

    # ---- the thread ----

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._file.write(self._capture.header())
        while self._native.vt_tap_wait(self._t, WAIT_MS) >= 0:
            try:
                self._take()
            except Exception:
                log.exception("internal error in the capture: it ends here")
                self._file.broken = True
            self._say()

    def _take(self) -> None:
        # First what was noted: the records that came before it are all in the rings by now.
        records = [self._noted.popleft() for _ in range(len(self._noted))]
        for loop in range(len(self._pending)):
            records += self._read(loop)
        records.sort(key=lambda record: record.ns)
        self._file.write(b"".join(self._packets(record) for record in records))

    def _read(self, loop: int) -> list[_Record]:
        """The whole records of a loop that wait."""
        pending = self._pending[loop]
        room = self._ffi.new("uint8_t[]", READ_NBYTES)
        for _ in range(RING_NBYTES // READ_NBYTES + 1):
            n = self._native.vt_tap_read(self._t, loop, room, READ_NBYTES)
            pending += self._ffi.buffer(room, max(n, 0))
            if n < READ_NBYTES:
                break
        records, at = [], 0
        head = self._ffi.new("struct vt_tap_record *")
        while len(pending) - at >= self._head:
            self._ffi.memmove(head, pending[at : at + self._head], self._head)
            data_at = at + self._head + head.iu_nbytes
            end = data_at + head.data_nbytes
            if end > len(pending):
                break
            iu, data = bytes(pending[at + self._head : data_at]), bytes(pending[data_at:end])
            records.append(_Record(head.ns, head.kind, head.channel, head.out_nbytes, head.in_nbytes, iu, data))
            at = end
        del pending[:at]
        return records

    def _packets(self, record: _Record) -> bytes:
        stream = self._streams.get(record.channel)
        if stream is None:
            if record.kind < 0:
                return b""
            port_id = _port_id(record)
            stream = self._streams[record.channel] = self._capture.stream(port_id)
        if record.kind == REMOVED:
            del self._streams[record.channel]
        return self._handlers[record.kind](stream, record)

    def _say(self, *, last: bool = False) -> None:
        stats = self._ffi.new("struct vt_tap_stats *")
        if self._native.vt_tap_stats(self._t, stats) < 0:
            return
        now = (int(stats.lost), int(stats.cut))
        if now == self._said or (not last and time.monotonic() < self._say_at):
            return
        self._said, self._say_at = now, time.monotonic() + SAY_SECONDS
        log.warning(
            "%s: the capture cannot keep up: %d records are missing, %d are without their data", self._file.name, *now
        )


# ---- what each kind of record becomes ----


def _port_id(record: _Record) -> bytes:
    try:
        iu = srp.decode(record.iu)
    except RemoteProtocolError:
        return b""
    return iu.initiator_port_id if isinstance(iu, srp.LoginReq) else b""


def _request(stream: Stream, record: _Record) -> bytes:
    iu, ns = record.iu, record.ns
    if iu[0] == shared.SRP_CMD:
        additional = CMD.number(iu, "add_cdb_len") & 0xFC
        cdb = CMD.raw(iu, "cdb") + iu[CMD.nbytes : CMD.nbytes + additional]
        attribute = CMD.number(iu, "task_attr") & 7
        tag, lun = CMD.number(iu, "tag"), CMD.raw(iu, "lun")
        return stream.command(ns, tag, lun, cdb, attribute, record.out_nbytes, record.in_nbytes)
    if iu[0] == shared.SRP_TSK_MGMT:
        tag, task_tag = TSK_MGMT.number(iu, "tag"), TSK_MGMT.number(iu, "task_tag")
        return stream.manage(ns, tag, TSK_MGMT.raw(iu, "lun"), TSK_MGMT.number(iu, "tsk_mgmt_func"), task_tag)
    try:
        cold = srp.decode(iu)
    except RemoteProtocolError:
        return b""
    if isinstance(cold, srp.LoginReq):
        return stream.login(ns, cold.tag, cold.initiator_port_id, cold.target_port_id)
    return stream.logout(ns, cold.tag) if isinstance(cold, srp.ILogout) else b""


def _data_out(stream: Stream, record: _Record) -> bytes:
    # The tag, as the IU had it: big-endian.
    return stream.data_out(record.ns, int.from_bytes(record.iu, "big"), record.data, record.out_nbytes)


def _data_in(stream: Stream, record: _Record) -> bytes:
    return stream.data_in(record.ns, int.from_bytes(record.iu, "big"), record.data, record.in_nbytes)


def _residual(iu: bytes, field: str, over: int, under: int) -> int:
    count, flags = RSP.number(iu, field), RSP.number(iu, "flags")
    return count if flags & under else -count if flags & over else 0


def _response(stream: Stream, record: _Record) -> bytes:
    iu, ns = record.iu, record.ns
    if iu[0] == shared.SRP_RSP:
        tag, flags = RSP.number(iu, "tag"), RSP.number(iu, "flags")
        answer = RSP.number(iu, "resp_data_len")
        if flags & shared.SRP_RSP_RSPVALID:
            return stream.ended(ns, tag, iu[RSP.nbytes + 3])
        sense = iu[RSP.nbytes + answer :][: RSP.number(iu, "sense_data_len")]
        out_residual = _residual(iu, "data_out_res_cnt", shared.SRP_RSP_DOOVER, shared.SRP_RSP_DOUNDER)
        in_residual = _residual(iu, "data_in_res_cnt", shared.SRP_RSP_DIOVER, shared.SRP_RSP_DIUNDER)
        return stream.response(ns, tag, RSP.number(iu, "status"), sense, out_residual, in_residual)
    cold = srp.decode(iu)
    if isinstance(cold, srp.LoginRsp):
        return stream.login_done(ns, cold.tag)
    return stream.login_refused(ns, cold.tag, cold.reason) if isinstance(cold, srp.LoginRej) else b""


def _asked(stream: Stream, record: _Record) -> bytes:
    iu = srp.decode(record.iu)
    if isinstance(iu, srp.TLogout):
        return stream.logout_asked(record.ns)
    return stream.reported(record.ns, iu.lun, iu.sense_data) if isinstance(iu, srp.AerReq) else b""


def _removed(stream: Stream, record: _Record) -> bytes:
    return stream.close(record.ns)
