# SPDX-License-Identifier: BSD-2-Clause
"""Hostile IUs and data on their way into a capture: whatever either side sends, the file stays one that can be read.

Knows the recorder's handlers and the initiator's tap; what a packet is, a reader of its own says (`pcap_reader`).
"""

import struct
import tempfile
from pathlib import Path

from fuzz.python.mutation import Reader, of_items
from fuzz.python.registry import target
from initiator import pcap as initiator_pcap
from initiator.done import Done
from target import pcap
from vscsi import srp
from vscsi.errors import RemoteProtocolError
from vscsi.pcap import Capture

_home = tempfile.TemporaryDirectory(prefix="vscsi-fuzz-")
HANDLERS = (pcap._request, pcap._data_out, pcap._data_in, pcap._response)
PAGE = 248


def check(data: bytes, snap_nbytes: int) -> None:
    """Every record lies in the file and is as long as it says."""
    at = 24
    while at < len(data):
        _, _, kept, total = struct.unpack_from("<IIII", data, at)
        assert kept <= min(total, snap_nbytes) and kept >= min(total, snap_nbytes, 40)
        at += 16 + kept
    assert at == len(data)


@target("capture", mutate=of_items)
def capture(data: bytes) -> None:
    """Items are IUs with what the loops say of them, on two channels; and answers that the initiator's tap gets."""
    reader = Reader(data)
    snap_nbytes = reader.number(2)
    made = Capture(snap_nbytes)
    streams = [made.stream(b"1" * 16), made.stream(b"2" * 16)]
    out = made.header()
    path = Path(_home.name) / "pcap"
    tap = initiator_pcap.Tap(str(path), snap_nbytes)
    channel = tap.channel(bytes(16))
    for kind, body in reader.items():
        sizes, iu = Reader(body[:9]), body[9:]
        number, nbytes = sizes.number(), sizes.number(4)
        handler = HANDLERS[kind % 4]
        size = len(iu) if nbytes & 1 else nbytes % (9 << 20)
        # What the loops tell is whole, and answers are our own, well-formed ones.
        iu = iu.ljust(PAGE, b"\0")[:PAGE] if handler is pcap._request else iu
        if handler is pcap._response:
            _theirs(channel, number, iu)
            continue
        record = pcap._Record(nbytes * 1000, 0, 0, size, size, iu[:8] if handler is not pcap._request else iu, iu[8:])
        out += handler(streams[kind >> 7], record)
    check(out, made.snap_nbytes)
    channel.close()
    tap.close()
    check(path.read_bytes(), made.snap_nbytes)


def _theirs(channel: initiator_pcap.ChannelTap, number: int, iu: bytes) -> None:
    """What a target sent: the session has checked that it is an IU, the native layer that a response is one."""
    try:
        channel.asked(srp.decode(iu))
        channel.login_answered(srp.decode(iu))
    except RemoteProtocolError:
        tag = channel.command(number, iu[:16] or b"\0", number & 7, iu, len(iu))
        residual = int.from_bytes(iu[:4], "big") - (1 << 31)
        done = Done(iu[0] if iu else 0, iu[:252], iu, residual, -residual, tag=tag)
        channel.done(tag, done, (0, -125, -5, -32)[number % 4], number)
