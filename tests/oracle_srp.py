# SPDX-License-Identifier: BSD-2-Clause
"""Oracle: SRP_CMD, SRP_TSK_MGMT and SRP_RSP in Python, against which the C codecs are tested.

The same introspection of the ABI structs as vscsi.srp, plus the parts behind the fixed ones: additional CDB bytes,
data-out and data-in descriptors, response data, sense data. Never imported by the product.
"""

from dataclasses import dataclass

from vscsi.native import ffi, lib
from vscsi.srp import Iu, Layout, LocalProtocolError, RemoteProtocolError

CDB_NBYTES = 16


@dataclass(frozen=True)
class Direct:
    """A memory descriptor: grant reference `key`, byte offset `va` in its page, `len` bytes."""

    va: int
    key: int
    len: int

    NBYTES = ffi.sizeof("struct srp_direct_buf")

    def encode(self) -> bytes:
        return self.va.to_bytes(8, "big") + self.key.to_bytes(4, "big") + self.len.to_bytes(4, "big")

    @classmethod
    def decode(cls, data: bytes) -> "Direct":
        if len(data) < cls.NBYTES:
            raise RemoteProtocolError("a memory descriptor runs past the IU")
        return cls(*(int.from_bytes(data[a:b], "big") for a, b in ((0, 8), (8, 12), (12, 16))))


@dataclass(frozen=True)
class Indirect:
    """Where the whole table is, the sum of its lengths, and its first entries."""

    table: Direct
    len: int
    desc_list: tuple[Direct, ...] = ()

    HEAD = ffi.sizeof("struct srp_indirect_buf")

    def encode(self) -> bytes:
        return self.table.encode() + self.len.to_bytes(4, "big") + b"".join(d.encode() for d in self.desc_list)


Descriptor = Direct | Indirect | None
_FORMATS = {type(None): lib.SRP_FMT_NONE, Direct: lib.SRP_FMT_DIRECT, Indirect: lib.SRP_FMT_INDIRECT}


def _take(fmt: int, count: int, data: bytes) -> tuple[Descriptor, int]:
    if fmt == lib.SRP_FMT_NONE:
        return None, 0
    if fmt == lib.SRP_FMT_DIRECT:
        return Direct.decode(data), Direct.NBYTES
    if fmt != lib.SRP_FMT_INDIRECT:
        raise RemoteProtocolError(f"descriptor format {fmt}")
    end = Indirect.HEAD + count * Direct.NBYTES
    if end > len(data):
        raise RemoteProtocolError("an indirect descriptor runs past the IU")
    entries = tuple(Direct.decode(data[k:]) for k in range(Indirect.HEAD, end, Direct.NBYTES))
    return Indirect(Direct.decode(data), int.from_bytes(data[16:20], "big"), entries), end


@dataclass(frozen=True)
class _CmdHead(Iu):
    sol_not: int
    buf_fmt: int
    data_out_desc_cnt: int
    data_in_desc_cnt: int
    tag: int
    lun: bytes
    task_attr: int
    add_cdb_len: int
    cdb: bytes


@dataclass(frozen=True)
class Cmd:
    """`cdb` is padded to 16 bytes; what is longer goes to the additional CDB bytes (a multiple of 4)."""

    tag: int
    lun: bytes
    cdb: bytes
    data_out: Descriptor = None
    data_in: Descriptor = None
    task_attr: int = 0
    sol_not: int = 0


@dataclass(frozen=True)
class TskMgmt(Iu):
    sol_not: int
    tag: int
    lun: bytes
    tsk_mgmt_func: int
    task_tag: int


@dataclass(frozen=True)
class Rsp(Iu):
    sol_not: int
    req_lim_delta: int
    tag: int
    flags: int
    status: int
    data_out_res_cnt: int
    data_in_res_cnt: int
    response_data: bytes
    sense_data: bytes


_CMD = Layout(_CmdHead, "srp_cmd", lib.SRP_CMD)
_TSK_MGMT = Layout(TskMgmt, "srp_tsk_mgmt", lib.SRP_TSK_MGMT)
_RSP = Layout(Rsp, "srp_rsp", lib.SRP_RSP, {"response_data": "resp_data_len", "sense_data": "sense_data_len"})


def encode_cmd(cmd: Cmd) -> bytes:
    extra = cmd.cdb[CDB_NBYTES:]
    if len(extra) % 4 or len(extra) > 252:
        raise LocalProtocolError(f"{len(extra)} additional CDB bytes")
    counts = [len(d.desc_list) if isinstance(d, Indirect) else 0 for d in (cmd.data_out, cmd.data_in)]
    head = _CmdHead(
        sol_not=cmd.sol_not,
        buf_fmt=_FORMATS[type(cmd.data_out)] << 4 | _FORMATS[type(cmd.data_in)],
        data_out_desc_cnt=counts[0],
        data_in_desc_cnt=counts[1],
        tag=cmd.tag,
        lun=cmd.lun,
        task_attr=cmd.task_attr,
        add_cdb_len=len(extra),
        cdb=cmd.cdb[:CDB_NBYTES].ljust(CDB_NBYTES, b"\0"),
    )
    return _CMD.encode(head) + extra + b"".join(d.encode() for d in (cmd.data_out, cmd.data_in) if d is not None)


def decode_cmd(data: bytes) -> Cmd:
    head = _CMD.decode(data)
    extra_nbytes = head.add_cdb_len & 0xFC
    offset = _CMD.nbytes + extra_nbytes
    if offset > len(data):
        raise RemoteProtocolError("additional CDB bytes run past the IU")
    data_out, used = _take(head.buf_fmt >> 4, head.data_out_desc_cnt, data[offset:])
    data_in, _ = _take(head.buf_fmt & 15, head.data_in_desc_cnt, data[offset + used :])
    cdb = head.cdb + bytes(data[_CMD.nbytes : offset])
    return Cmd(head.tag, head.lun, cdb, data_out, data_in, head.task_attr & 7, head.sol_not)


encode_tsk_mgmt, decode_tsk_mgmt = _TSK_MGMT.encode, _TSK_MGMT.decode
encode_rsp, decode_rsp = _RSP.encode, _RSP.decode

DECODERS = {lib.SRP_CMD: decode_cmd, lib.SRP_TSK_MGMT: decode_tsk_mgmt, lib.SRP_RSP: decode_rsp}
ENCODERS = {Cmd: encode_cmd, TskMgmt: encode_tsk_mgmt, Rsp: encode_rsp}


def encode(iu: Cmd | TskMgmt | Rsp) -> bytes:
    return ENCODERS[type(iu)](iu)


def decode(data: bytes) -> Cmd | TskMgmt | Rsp:
    if not data or data[0] not in DECODERS:
        raise RemoteProtocolError("not a hot IU")
    return DECODERS[data[0]](data)
