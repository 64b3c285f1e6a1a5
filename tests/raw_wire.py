# SPDX-License-Identifier: BSD-2-Clause
"""SRP_CMD, SRP_TSK_MGMT and SRP_RSP by struct.pack, from the standard's tables: what a raw initiator says and reads.

Knows the wire, and lets one say what no honest initiator says. Must not use the product's codecs.
"""

import struct
from collections import namedtuple

Rsp = namedtuple("Rsp", "tag delta flags status out_residual in_residual response sense")
RSPVALID, SNSVALID, DOOVER, DOUNDER, DIOVER, DIUNDER = 1, 2, 4, 8, 16, 32
SIMPLE, HEAD_OF_QUEUE, ORDERED, ACA = 0, 1, 2, 4
ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET, CLEAR_ACA = 1, 2, 4, 8, 0x40


def direct(gref: int, nbytes: int, va: int = 0) -> bytes:
    return struct.pack(">QII", va, gref, nbytes)


def indirect(
    entries: list[bytes], *, inline: int | None = None, table: bytes | None = None, total: int | None = None
) -> bytes:
    """The indirect descriptor; `inline` of the entries stand in it."""
    inline = len(entries) if inline is None else inline
    if total is None:
        total = sum(struct.unpack(">QII", e)[2] for e in entries)
    head = table if table is not None else struct.pack(">QII", 0, 0, 16 * len(entries))
    return head + struct.pack(">I", total) + b"".join(entries[:inline])


def lun_bytes(lun: int) -> bytes:
    return struct.pack(">H6x", lun if lun < 256 else 0x4000 | lun)


def srp_cmd(
    tag,
    cdb,
    *,
    lun=0,
    attribute=SIMPLE,
    out=b"",
    in_=b"",
    out_format=None,
    in_format=None,
    out_count=None,
    in_count=None,
    add_cdb=None,
    solnt=0,
) -> bytes:
    def count(descriptor):
        return (len(descriptor) - 20) // 16 if len(descriptor) >= 20 else 0

    def format_(descriptor):
        return 0 if not descriptor else 1 if len(descriptor) == 16 else 2

    cdb = cdb.ljust(16, b"\0")
    extra = cdb[16:].ljust(-(-(len(cdb) - 16) // 4) * 4, b"\0")
    of = format_(out) if out_format is None else out_format
    if_ = format_(in_) if in_format is None else in_format
    return (
        struct.pack(
            ">BB3xBBBQ4x",
            2,
            solnt,
            of << 4 | if_,
            count(out) if out_count is None else out_count,
            count(in_) if in_count is None else in_count,
            tag,
        )
        + lun_bytes(lun)
        + struct.pack(">BBBB", 0, attribute, 0, len(extra) if add_cdb is None else add_cdb)
        + cdb[:16]
        + extra
        + out
        + in_
    )


def tsk_mgmt(tag, function, *, lun=0, task_tag=0) -> bytes:
    return struct.pack(">B7xQ4x", 1, tag) + lun_bytes(lun) + struct.pack(">2xBxQ8x", function, task_tag)


def parse_rsp(iu: bytes) -> Rsp:
    opcode, delta, tag, flags, status, out_res, in_res, sense_n, resp_n = struct.unpack_from(">B3xi8s2xBBIIII", iu)
    assert opcode == 0xC1
    data = iu[36:]
    response, sense = data[:resp_n], data[resp_n : resp_n + sense_n]
    return Rsp(int.from_bytes(tag, "big"), delta, flags, status, out_res, in_res, response, sense)


def code(rsp: Rsp) -> int:
    """key << 16 | asc << 8 | ascq of fixed or descriptor sense."""
    assert rsp.status == 2 and rsp.flags & SNSVALID, rsp
    s = rsp.sense
    return s[2] << 16 | s[12] << 8 | s[13] if s[0] & 0x7F == 0x70 else s[1] << 16 | s[2] << 8 | s[3]


def read10(lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", 0x28, flags, lba, 0, blocks, 0)


def write10(lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, flags, lba, 0, blocks, 0)
