# SPDX-License-Identifier: BSD-2-Clause
"""Helper: SG_IO from Python, as a program would do it: headers of versions 3 and 4 by ctypes and fcntl.ioctl.

Written from scsi/sg.h and linux/bsg.h, not from the door's sources.
"""

import ctypes
import fcntl
from ctypes import POINTER, addressof, c_char, c_int32, c_ubyte, c_uint32, c_uint64, c_ushort, c_void_p

SG_IO = 0x2285
NONE, TO_DEV, FROM_DEV, TO_FROM_DEV = -1, -2, -3, -4


class Iovec(ctypes.Structure):
    _fields_ = (("base", c_void_p), ("nbytes", ctypes.c_size_t))


class V3(ctypes.Structure):
    """sg_io_hdr, 88 bytes."""

    _fields_ = (
        ("interface_id", c_int32),
        ("dxfer_direction", c_int32),
        ("cmd_len", c_ubyte),
        ("mx_sb_len", c_ubyte),
        ("iovec_count", c_ushort),
        ("dxfer_len", c_uint32),
        ("dxferp", c_void_p),
        ("cmdp", c_void_p),
        ("sbp", c_void_p),
        ("timeout", c_uint32),
        ("flags", c_uint32),
        ("pack_id", c_int32),
        ("usr_ptr", c_void_p),
        ("status", c_ubyte),
        ("masked_status", c_ubyte),
        ("msg_status", c_ubyte),
        ("sb_len_wr", c_ubyte),
        ("host_status", c_ushort),
        ("driver_status", c_ushort),
        ("resid", c_int32),
        ("duration", c_uint32),
        ("info", c_uint32),
    )


class V4(ctypes.Structure):
    """sg_io_v4, 160 bytes."""

    _fields_ = (
        ("guard", c_int32),
        ("protocol", c_uint32),
        ("subprotocol", c_uint32),
        ("request_len", c_uint32),
        ("request", c_uint64),
        ("request_tag", c_uint64),
        ("request_attr", c_uint32),
        ("request_priority", c_uint32),
        ("request_extra", c_uint32),
        ("max_response_len", c_uint32),
        ("response", c_uint64),
        ("dout_iovec_count", c_uint32),
        ("dout_xfer_len", c_uint32),
        ("din_iovec_count", c_uint32),
        ("din_xfer_len", c_uint32),
        ("dout_xferp", c_uint64),
        ("din_xferp", c_uint64),
        ("timeout", c_uint32),
        ("flags", c_uint32),
        ("usr_ptr", c_uint64),
        ("spare_in", c_uint32),
        ("driver_status", c_uint32),
        ("transport_status", c_uint32),
        ("device_status", c_uint32),
        ("retry_delay", c_uint32),
        ("info", c_uint32),
        ("duration", c_uint32),
        ("response_len", c_uint32),
        ("din_resid", c_int32),
        ("dout_resid", c_int32),
        ("generated_tag", c_uint64),
        ("spare_out", c_uint32),
        ("padding", c_uint32),
    )


assert (ctypes.sizeof(V3), ctypes.sizeof(V4)) == (88, 160)

SENSE_NBYTES = 96


class Command:
    """A header with everything it points to. `parts`: lengths of an iovec over the data, or none."""

    def __init__(self, cdb, *, data_out=b"", room=0, parts=(), direction=None, timeout_ms=20000, pack_id=0):
        self.cdb = (c_ubyte * len(cdb))(*cdb)
        self.sense_buffer = (c_ubyte * SENSE_NBYTES)()
        nbytes = len(data_out) or room
        # A canary behind the data: nothing may be written there.
        self.data = (c_char * (nbytes + 64)).from_buffer_copy((data_out or b"\xee" * room) + b"\xcc" * 64)
        self.nbytes = nbytes
        self.header = V3(
            interface_id=ord("S"),
            dxfer_direction=direction or (TO_DEV if data_out else FROM_DEV if room else NONE),
            cmd_len=len(cdb),
            mx_sb_len=SENSE_NBYTES,
            dxfer_len=nbytes,
            dxferp=addressof(self.data),
            cmdp=addressof(self.cdb),
            sbp=addressof(self.sense_buffer),
            timeout=timeout_ms,
            pack_id=pack_id,
        )
        if parts:
            self.parts = iovecs(self.data, parts)
            self.header.iovec_count, self.header.dxferp = len(parts), addressof(self.parts)

    def run(self, fd):
        """Self, after ioctl(SG_IO)."""
        fcntl.ioctl(fd, SG_IO, self.header)
        self.check()
        return self

    def check(self):
        """The canary lives."""
        assert bytes(self.data)[self.nbytes :] == b"\xcc" * 64

    @property
    def content(self):
        return bytes(self.data)[: self.nbytes]

    @property
    def sense(self):
        return bytes(self.sense_buffer)[: self.header.sb_len_wr]


def iovecs(data, parts):
    """An array of iovecs of these lengths, one behind the other over `data`."""
    made, at = (Iovec * len(parts))(), addressof(data)
    for i, nbytes in enumerate(parts):
        made[i] = Iovec(at, nbytes)
        at += nbytes
    return made


def v4(fd, cdb, *, data_out=b"", room=0, out_parts=(), in_parts=(), timeout_ms=20000):
    """One command by version 4: the header, data-in, sense."""
    c = (c_ubyte * len(cdb))(*cdb)
    sense = (c_ubyte * SENSE_NBYTES)()
    out = (c_char * max(len(data_out), 1)).from_buffer_copy(data_out or b"\0")
    inward = (c_char * (room + 64)).from_buffer_copy(b"\xee" * room + b"\xcc" * 64)
    header = V4(
        guard=ord("Q"),
        request_len=len(cdb),
        request=addressof(c),
        max_response_len=SENSE_NBYTES,
        response=addressof(sense),
        dout_xfer_len=len(data_out),
        dout_xferp=addressof(out) if data_out else 0,
        din_xfer_len=room,
        din_xferp=addressof(inward) if room else 0,
        timeout=timeout_ms,
    )
    if out_parts:
        out_array = iovecs(out, out_parts)
        header.dout_iovec_count, header.dout_xferp = len(out_parts), addressof(out_array)
    if in_parts:
        in_array = iovecs(inward, in_parts)
        header.din_iovec_count, header.din_xferp = len(in_parts), addressof(in_array)
    fcntl.ioctl(fd, SG_IO, header)
    assert bytes(inward)[room:] == b"\xcc" * 64
    return header, bytes(inward)[:room], bytes(sense)[: header.response_len]


def read_10(lba, blocks):
    return bytes((0x28, 0, *lba.to_bytes(4, "big"), 0, *blocks.to_bytes(2, "big"), 0))


def write_10(lba, blocks):
    return bytes((0x2A, 0, *lba.to_bytes(4, "big"), 0, *blocks.to_bytes(2, "big"), 0))


def pointer_to(structure):
    return ctypes.cast(POINTER(type(structure))(structure), c_void_p)
