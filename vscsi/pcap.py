# SPDX-License-Identifier: BSD-2-Clause
"""SRP traffic as a pcap file that stock Wireshark decodes: one TCP stream a channel, one iSCSI PDU a packet.

No dissector knows SRP; Wireshark's iSCSI dissector shows CDBs, data and sense, and links answers to requests. Sans-IO:
every method returns the bytes that are to be appended to the file. Must not know files, clocks or threads.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vscsi import iscsi
from vscsi.iscsi import Sequence
from vscsi.native import lib

LINKTYPE_RAW = 101
MAGIC_NS = 0xA1B23C4D
MAX_PACKET = 65535
PIECE_NBYTES = 32768
"""Data in one PDU at most: an IP packet has to hold it."""
ISCSI_PORT = 3260
FIRST_PORT, PORTS = 49152, 16384
NETWORK = 10 << 24
"""Made-up addresses: 10.0.0.1 is the target, initiator ports follow."""

_FILE = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_IP = struct.Struct(">BBHHHBBHII")
_TCP = struct.Struct(">HHIIBBHHH")
HEADERS_NBYTES = _IP.size + _TCP.size
FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10

# SRP's numbers in iSCSI's words.
ATTRIBUTES = {lib.SRP_TSK_SIMPLE: 1, lib.SRP_TSK_ORDERED: 2, lib.SRP_TSK_HEAD_OF_QUEUE: 3, lib.SRP_TSK_ACA: 4}
FUNCTIONS = {
    lib.SRP_TMF_ABORT_TASK: 1,
    lib.SRP_TMF_ABORT_TASK_SET: 2,
    lib.SRP_TMF_CLEAR_ACA: 3,
    lib.SRP_TMF_CLEAR_TASK_SET: 4,
    lib.SRP_TMF_LUN_RESET: 5,
}
ANSWERS = {lib.SRP_RESP_COMPLETE: 0, lib.SRP_RESP_FIELDS_INVALID: 2, lib.SRP_RESP_NOT_SUPPORTED: 5}
REJECTED = 255
NO_RESOURCES, NOT_ACCEPTED = (3, 2), (2, 0)
"""Status class and detail of a login that was refused."""


@dataclass(slots=True)
class _Task:
    """What has no answer yet. `tag` is iSCSI's."""

    tag: int
    lun: bytes
    out_nbytes: int
    in_nbytes: int
    function: bool = False
    out_done: bool = False
    pdus_in: int = 0


class Capture:
    """One file. `snap_nbytes` of every packet are kept; 0: all of it."""

    def __init__(self, snap_nbytes: int = 0) -> None:
        self.snap_nbytes = min(snap_nbytes or MAX_PACKET, MAX_PACKET)
        self._streams = 0
        self._nexuses: dict[bytes, int] = {}

    def header(self) -> bytes:
        """The head of the file: times in ns, packets begin with the IP header."""
        return _FILE.pack(MAGIC_NS, 2, 4, 0, 0, self.snap_nbytes, LINKTYPE_RAW)

    def stream(self, port_id: bytes) -> "Stream":
        """A new channel of that initiator port. The same port has the same address."""
        number = self._nexuses.setdefault(port_id, len(self._nexuses))
        self._streams += 1
        return Stream(self, NETWORK + 2 + number % 0xFFFFF0, FIRST_PORT + (self._streams - 1) % PORTS, self._streams)


class Stream:
    """One channel as a TCP connection to port 3260. `ns` is the time since the epoch in ns; LUNs have 8 bytes."""

    def __init__(self, capture: Capture, address: int, port: int, session: int) -> None:
        self._snap = capture.snap_nbytes
        self._ends = ((address, port), (NETWORK + 1, ISCSI_PORT))
        self._sent = [0, 0]
        self._number = 0
        self._session = session
        self._cmd_sn = self._stat_sn = 1
        self._tasks: dict[int, _Task] = {}
        self._used: set[int] = {iscsi.NO_TAG}
        self._opened = self._closed = False

    # ---- packets ----

    def _packet(self, ns: int, side: int, flags: int, payload: bytes, nbytes: int | None = None) -> bytes:
        """`nbytes` of payload from `side` (0: initiator), of which `payload` was captured."""
        full = len(payload) if nbytes is None else nbytes
        (source, source_port), (target, target_port) = self._ends[side], self._ends[1 - side]
        total = HEADERS_NBYTES + full
        self._number = (self._number + 1) & 0xFFFF
        head = [0x45, 0, total, self._number, 0x4000, 64, 6, 0, source, target]
        words = struct.unpack(">10H", _IP.pack(*head))
        folded = sum(words)
        folded = (folded & 0xFFFF) + (folded >> 16)
        head[7] = ~((folded & 0xFFFF) + (folded >> 16)) & 0xFFFF
        sequence, acknowledged = self._sent[side], self._sent[1 - side]
        tcp = _TCP.pack(source_port, target_port, sequence, acknowledged, 0x50, flags, 0xFFFF, 0, 0)
        self._sent[side] = (sequence + full + bool(flags & (SYN | FIN))) & 0xFFFFFFFF
        kept = (_IP.pack(*head) + tcp + payload)[: self._snap]
        return _RECORD.pack(ns // 1_000_000_000, ns % 1_000_000_000, len(kept), total) + kept

    def _send(self, ns: int, side: int, pdu: bytes, data: bytes = b"", nbytes: int | None = None) -> bytes:
        """A PDU with its data segment of `nbytes`, of which `data` was captured. Opens the connection first."""
        out = b""
        if not self._opened:
            self._opened = True
            out += self._packet(ns, 0, SYN, b"")
            out += self._packet(ns, 1, SYN | ACK, b"")
            out += self._packet(ns, 0, ACK, b"")
        full = len(data) if nbytes is None else nbytes
        padding = -full % 4
        if len(data) == full:
            data += bytes(padding)
        return out + self._packet(ns, side, PSH | ACK, pdu + data, len(pdu) + full + padding)

    def _next_status(self) -> Sequence:
        seq = Sequence(self._cmd_sn, self._stat_sn)
        self._stat_sn = (self._stat_sn + 1) & 0xFFFFFFFF
        return seq

    @property
    def _seq(self) -> Sequence:
        return Sequence(self._cmd_sn, self._stat_sn)

    # ---- tags ----

    def _enter(self, tag: int, lun: bytes, out_nbytes: int = 0, in_nbytes: int = 0, *, function: bool = False) -> int:
        """iSCSI's tags have 32 bits, SRP's 64: the low half, unless an unanswered task has that already."""
        old = self._tasks.pop(tag, None)
        if old is not None:
            self._used.discard(old.tag)
        short = tag & 0xFFFFFFFF
        while short in self._used:
            short = (short + 1) & 0xFFFFFFFF
        self._used.add(short)
        self._tasks[tag] = _Task(short, lun, out_nbytes, in_nbytes, function)
        return short

    def _leave(self, tag: int) -> _Task:
        """The task that an answer ends; a made-up one where its request was not captured."""
        task = self._tasks.pop(tag, None)
        if task is None:
            return _Task(tag & 0xFFFFFFFF, bytes(8), 0, 0)
        self._used.discard(task.tag)
        return task

    # ---- session ----

    def login(self, ns: int, tag: int, initiator_port_id: bytes, target_port_id: bytes) -> bytes:
        """SRP_LOGIN_REQ."""
        lines = (
            f"InitiatorName=srp.{initiator_port_id.hex()}",
            f"TargetName=srp.{target_port_id.hex()}",
            "SessionType=Normal",
            "HeaderDigest=None",
            "DataDigest=None",
            f"MaxRecvDataSegmentLength={PIECE_NBYTES}",
        )
        text = "".join(f"{line}\0" for line in lines).encode()
        itt = self._enter(tag, bytes(8))
        return self._send(ns, 0, iscsi.login(self._seq, itt, self._session, text), text)

    def login_done(self, ns: int, tag: int) -> bytes:
        """SRP_LOGIN_RSP."""
        text = b"TargetPortalGroupTag=1\0HeaderDigest=None\0DataDigest=None\0InitialR2T=No\0"
        itt = self._leave(tag).tag
        return self._send(ns, 1, iscsi.logged_in(self._next_status(), itt, self._session, (0, 0), text), text)

    def login_refused(self, ns: int, tag: int, reason: int) -> bytes:
        """SRP_LOGIN_REJ."""
        status = NO_RESOURCES if reason == lib.SRP_REJ_INSUFFICIENT_RESOURCES else NOT_ACCEPTED
        itt = self._leave(tag).tag
        return self._send(ns, 1, iscsi.logged_in(self._next_status(), itt, self._session, status, b""))

    def logout(self, ns: int, tag: int) -> bytes:
        """SRP_I_LOGOUT, which has no answer in SRP: iSCSI's is made up."""
        itt = self._enter(tag, bytes(8))
        out = self._send(ns, 0, iscsi.logout(self._seq, itt))
        return out + self._send(ns, 1, iscsi.logged_out(self._next_status(), self._leave(tag).tag))

    def logout_asked(self, ns: int) -> bytes:
        """SRP_T_LOGOUT."""
        return self._send(ns, 1, iscsi.event(self._next_status(), bytes(8), 1, 0))

    def reported(self, ns: int, lun: bytes, sense: bytes) -> bytes:
        """SRP_AER_REQ."""
        data = len(sense).to_bytes(2, "big") + sense
        return self._send(ns, 1, iscsi.event(self._next_status(), lun, 0, len(data)), data)

    def close(self, ns: int) -> bytes:
        """The channel is gone."""
        if not self._opened or self._closed:
            return b""
        self._closed = True
        out = self._packet(ns, 1, FIN | ACK, b"") + self._packet(ns, 0, FIN | ACK, b"")
        return out + self._packet(ns, 1, ACK, b"")

    # ---- commands ----

    def command(
        self, ns: int, tag: int, lun: bytes, cdb: bytes, attribute: int, out_nbytes: int, in_nbytes: int
    ) -> bytes:
        """SRP_CMD. `attribute` is SRP's; the sizes are those of the initiator's buffers."""
        out_nbytes, in_nbytes = min(out_nbytes, 0xFFFFFFFF), min(in_nbytes, 0xFFFFFFFF)
        cdb = _trimmed(cdb)
        itt = self._enter(tag, lun, out_nbytes, in_nbytes)
        pdu = iscsi.command(self._seq, itt, lun, cdb, ATTRIBUTES.get(attribute, 1), out_nbytes, in_nbytes)
        self._cmd_sn = (self._cmd_sn + 1) & 0xFFFFFFFF
        return self._send(ns, 0, pdu)

    def _pieces(
        self, ns: int, side: int, task: _Task, data: bytes | memoryview, nbytes: int, make: Callable[..., bytes]
    ) -> Iterator[bytes]:
        for number, at in enumerate(range(0, nbytes, PIECE_NBYTES)):
            size = min(PIECE_NBYTES, nbytes - at)
            pdu = make(self._seq, task.tag, task.lun, number, at, size, last=at + size == nbytes)
            yield self._send(ns, side, pdu, bytes(data[at : at + size]), size)

    def data_out(self, ns: int, tag: int, data: bytes | memoryview, nbytes: int) -> bytes:
        """The data of a command on its way to the target: `nbytes`, of which `data` was captured."""
        task = self._tasks.get(tag)
        if task is None or task.out_done:
            return b""
        task.out_done = True
        return b"".join(self._pieces(ns, 0, task, data, nbytes, iscsi.data_out))

    def data_in(self, ns: int, tag: int, data: bytes | memoryview, nbytes: int) -> bytes:
        """The data of a command on its way to the initiator."""
        task = self._tasks.get(tag)
        if task is None:
            return b""
        task.pdus_in = -(-nbytes // PIECE_NBYTES)
        return b"".join(self._pieces(ns, 1, task, data, nbytes, iscsi.data_in))

    def response(
        self, ns: int, tag: int, status: int, sense: bytes = b"", out_residual: int = 0, in_residual: int = 0
    ) -> bytes:
        """SRP_RSP with a status. Residuals in bytes: positive UNDER, negative OVER."""
        task = self._leave(tag)
        data = len(sense).to_bytes(2, "big") + sense if sense else b""
        both = task.out_nbytes and task.in_nbytes
        flags = 0
        residual = out_residual if both else out_residual or in_residual
        if residual:
            flags |= iscsi.UNDER if residual > 0 else iscsi.OVER
        if both and in_residual:
            flags |= iscsi.BIDI_UNDER if in_residual > 0 else iscsi.BIDI_OVER
        pdu = iscsi.response(
            self._next_status(),
            task.tag,
            status,
            flags=flags,
            residual=min(abs(residual), 0xFFFFFFFF),
            in_residual=min(abs(in_residual), 0xFFFFFFFF) if both else 0,
            pdus=task.pdus_in,
            nbytes=len(data),
        )
        return self._send(ns, 1, pdu, data)

    def ended(self, ns: int, tag: int, code: int) -> bytes:
        """SRP_RSP with a response code instead of a status.

        A task management function's answer; or the end of a command: malformed, or aborted, which iSCSI tells by
        sending nothing.
        """
        task = self._leave(tag)
        if task.function:
            return self._send(ns, 1, iscsi.managed(self._next_status(), task.tag, ANSWERS.get(code, REJECTED)))
        if code == lib.SRP_RESP_COMPLETE:
            return b""
        return self._send(ns, 1, iscsi.response(self._next_status(), task.tag, 0, code=1))

    def manage(self, ns: int, tag: int, lun: bytes, function: int, task_tag: int) -> bytes:
        """SRP_TSK_MGMT."""
        named = self._tasks.get(task_tag)
        referenced = named.tag if named else task_tag & 0xFFFFFFFF
        if function != lib.SRP_TMF_ABORT_TASK:
            referenced = iscsi.NO_TAG
        itt = self._enter(tag, lun, function=True)
        return self._send(ns, 0, iscsi.manage(self._seq, itt, lun, FUNCTIONS.get(function, 0x7F), referenced))


def _trimmed(cdb: bytes) -> bytes:
    """A CDB has at least 16 bytes in SRP and in iSCSI; more of them come in units of four."""
    return cdb if len(cdb) >= 16 else cdb + bytes(16 - len(cdb))
