# SPDX-License-Identifier: BSD-2-Clause
"""Helper: reads a capture by the rules of pcap, IP, TCP and RFC 7143, sharing no code with what wrote it.

Checks what every capture must keep: running sequence numbers, right checksums, sizes that agree.
"""

import struct
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Pdu:
    """One iSCSI PDU as it stands in a packet; `data` may have been cut by the snap length, `nbytes` says its size."""

    ns: int
    stream: tuple
    from_target: bool
    head: bytes
    ahs: bytes
    data: bytes
    nbytes: int

    @property
    def opcode(self):
        return self.head[0] & 0x3F

    def number(self, at, nbytes=4):
        return int.from_bytes(self.head[at : at + nbytes], "big")

    @property
    def tag(self):
        return self.number(16)


@dataclass
class Read:
    """What a file holds."""

    snap: int
    pdus: list[Pdu] = field(default_factory=list)
    packets: int = 0
    cut: int = 0
    left: bytes = b""


def read(data):
    """The capture; a last packet that is not whole stays in `left`."""
    magic, major, minor, zone, _, snap, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, zone, link) == (0xA1B23C4D, 2, 4, 0, 101)
    found, at, expected = Read(snap), 24, defaultdict(dict)
    while len(data) - at >= 16:
        seconds, ns, kept, full = struct.unpack_from("<IIII", data, at)
        assert ns < 10**9
        if at + 16 + kept > len(data):
            break
        _packet(found, expected, seconds * 10**9 + ns, data[at + 16 : at + 16 + kept], full)
        at += 16 + kept
    found.left = data[at:]
    return found


def _packet(found, expected, ns, packet, full):
    assert len(packet) == min(full, found.snap) or len(packet) < full
    assert len(packet) <= found.snap
    found.packets += 1
    found.cut += len(packet) < full
    if len(packet) < 40:
        return
    assert packet[0] == 0x45 and packet[9] == 6
    assert int.from_bytes(packet[2:4], "big") == full
    words = sum(struct.unpack(">10H", packet[:20]))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    assert words == 0xFFFF
    source_port, target_port, seq, ack, offset, flags = struct.unpack_from(">HHIIBB", packet, 20)
    assert offset == 0x50
    source, target = (packet[12:16], source_port), (packet[16:20], target_port)
    assert 3260 in (source_port, target_port)
    from_target = source_port == 3260
    stream = (target, source) if from_target else (source, target)
    counters = expected[stream]
    if flags & 0x02:
        counters[from_target] = seq
    assert counters[from_target] == seq
    if flags & 0x10:
        assert counters[not from_target] == ack
    payload = packet[40:]
    counters[from_target] = (seq + full - 40 + bool(flags & 0x03)) & 0xFFFFFFFF
    if full > 40 and len(payload) >= 48:
        head = payload[:48]
        ahs = head[4] * 4
        nbytes = int.from_bytes(head[5:8], "big")
        assert full == 40 + 48 + ahs + nbytes + -nbytes % 4, "one PDU, and nothing else, in a packet"
        data = payload[48 + ahs : 48 + ahs + nbytes]
        found.pdus.append(Pdu(ns, stream, from_target, head, payload[48 : 48 + ahs], data, nbytes))
