# SPDX-License-Identifier: BSD-2-Clause
"""A raw initiator in the same process: a memfd with a grant table, rings, event channels, and the C target behind them.

Knows the wire (SRP_CMD, SRP_TSK_MGMT, SRP_RSP, blkif) by struct.pack, so that it can say what no honest initiator says.
Must not use the initiator package, nor the product's codecs.
"""

import fcntl
import mmap
import os
import struct
import time
from pathlib import Path

from raw_wire import RSPVALID, Rsp, parse_rsp, srp_cmd, tsk_mgmt
from readable import readable

from target.native import ffi, lib
from vscsi.native import lib as vlib

PAGE = 4096
FRAMES = 4096
TABLE_PAGES = 9
BLOCK = 512


class Memory:
    """The initiator's memory: frames 0..8 hold the grant table; frame f is reference f + 8 once granted."""

    def __init__(self, domid: int = 0) -> None:
        self.fd = os.memfd_create("raw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, FRAMES * PAGE)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.map = mmap.mmap(self.fd, FRAMES * PAGE)
        self.base = ffi.cast("uint8_t *", ffi.addressof(ffi.from_buffer("uint8_t[]", self.map, require_writable=True)))
        self.granter = ffi.new("struct vscsi_granter *")
        self.granter.table = ffi.cast("uint64_t *", self.base)
        self.granter.nr_grants = TABLE_PAGES * PAGE // 8
        error = ffi.new("int *")
        self.mapper = lib_mapper(self.fd, domid, error)
        self.next_frame = TABLE_PAGES

    def alloc(self, pages: int, *, grant: bool = True, readonly: bool = False, domid: int = 0) -> int:
        """First frame of `pages` new frames in a row."""
        frame = self.next_frame
        self.next_frame += pages
        assert self.next_frame <= FRAMES
        for f in range(frame, frame + pages) if grant else ():
            assert vlib.vscsi_granter_grant(self.granter, f + 8, domid, f, readonly) == 0
        return frame

    def flags(self, frame: int) -> int:
        return int(vlib.vscsi_granter_flags(self.granter, frame + 8))

    def write(self, frame: int, data: bytes, offset: int = 0) -> None:
        at = frame * PAGE + offset
        self.map[at : at + len(data)] = data

    def read(self, frame: int, nbytes: int, offset: int = 0) -> bytes:
        at = frame * PAGE + offset
        return self.map[at : at + nbytes]


def lib_mapper(fd: int, domid: int, error):
    fds = ffi.new("int[1]", [fd])
    mapper = vlib.vscsi_mapper_new(fds, 1, 0, TABLE_PAGES, domid, error)
    assert mapper != ffi.NULL, error[0]
    return mapper


class Channel:
    """One ring with its event channel."""

    protocol = 0
    slot = 248

    def __init__(
        self, rig: "Rig", memory: Memory, *, pages: int = 16, persistent: bool = False, loop: int = -1, **extra
    ) -> None:
        self.rig, self.memory, self.persistent = rig, memory, persistent
        self.frame = memory.alloc(pages)
        ring = memory.base + self.frame * PAGE
        vlib.vscsi_ring_format(ring)
        self.front = ffi.new("struct vscsi_front_ring *")
        assert vlib.vscsi_ring_front(self.front, ring, pages, self.slot, 0) == 0
        self.grefs = ffi.new("uint32_t[]", [self.frame + i + 8 for i in range(pages)])
        self.pages = pages
        self.mapped = ffi.new("uint8_t **")
        assert vlib.vscsi_mapper_map_ring(memory.mapper, self.grefs, pages, self.mapped) == 0
        ends = ffi.new("int[2]")
        assert vlib.vscsi_event_pair(ends) == 0
        self.fd = ends[0]
        config = ffi.new(
            "struct vt_channel_config *",
            dict(
                protocol=self.protocol,
                event_fd=ends[1],
                mapper=memory.mapper,
                ring=self.mapped[0],
                ring_pages=pages,
                persistent=persistent,
                loop=loop,
                **extra,
            ),
        )
        self.id = lib.vt_channel_add(rig.t, config)
        os.close(ends[1])
        assert self.id >= 0, self.id
        self.buffer = ffi.new("uint8_t[]", self.slot)
        self.ready: list[bytes] = []
        self.open, self.stopped = True, False
        self.sent = self.received = 0

    def send(self, *ius: bytes, kick: bool = True) -> None:
        notify = 0
        for iu in ius:
            data = ffi.from_buffer(iu + bytes(-len(iu) % 8))
            rc = vlib.vscsi_ring_request(self.front, data, len(iu))
            assert rc >= 0, rc
            notify |= rc
        self.sent += len(ius)
        if notify and kick:
            vlib.vscsi_event_send_fd(self.fd)

    def poll(self) -> None:
        while (rc := vlib.vscsi_ring_take_response(self.front, self.buffer)) == 1:
            self.ready.append(bytes(ffi.buffer(self.buffer)))
        assert rc == 0, rc

    def receive(self, timeout: float = 5.0) -> bytes:
        until = time.monotonic() + timeout
        while True:
            self.poll()
            if self.ready:
                self.received += 1
                return self.ready.pop(0)
            left = until - time.monotonic()
            assert left > 0, "no response"
            if readable(self.fd, left):
                assert vlib.vscsi_event_drain_fd(self.fd) >= 0, "event channel closed"

    def receive_all(self) -> list[bytes]:
        """What is there already."""
        self.poll()
        there, self.ready = self.ready, []
        self.received += len(there)
        return there

    def taken(self, timeout: float = 5.0) -> None:
        """Waits until everything sent is in its task set: what others send from now on is newer."""
        until, stats = time.monotonic() + timeout, ffi.new("struct vt_channel_stats *")
        while lib.vt_channel_stats(self.rig.t, self.id, stats) == 0 and stats.requests < self.sent:
            assert time.monotonic() < until, "the target does not take the requests"
            time.sleep(0)

    def silent(self, seconds: float = 0.1) -> bool:
        time.sleep(seconds)
        self.poll()
        return not self.ready

    def stop(self) -> None:
        lib.vt_channel_stop(self.rig.t, self.id)
        self.rig.event(3, self.id)
        self.stopped = True

    def remove(self) -> None:
        assert lib.vt_channel_remove(self.rig.t, self.id) == 0
        vlib.vscsi_mapper_unmap_ring(self.memory.mapper, self.grefs, self.pages, self.mapped[0])
        self.open = False


class Srp(Channel):
    def __init__(self, rig, memory, *, nexus=None, limit=254, login=True, **kw) -> None:
        super().__init__(rig, memory, **kw)
        self.nexus = nexus
        if login:
            self.nexus = lib.vt_nexus_add(rig.t) if nexus is None else nexus
            assert lib.vt_channel_login(rig.t, self.id, self.nexus, limit) == 0
            # No LOGIN_REQ here whose answer would tell that the loop has carried it out.
            stats = ffi.new("struct vt_channel_stats *")
            until = time.monotonic() + 5
            while stats.request_limit != limit:
                assert time.monotonic() < until, "no login"
                assert lib.vt_channel_stats(rig.t, self.id, stats) == 0
        self.tag = 1000

    def command(self, cdb: bytes, *, timeout: float = 5.0, **kw) -> Rsp:
        self.tag += 1
        self.send(srp_cmd(self.tag, cdb, **kw))
        rsp = parse_rsp(self.receive(timeout))
        assert rsp.tag == self.tag and rsp.delta == 1
        return rsp

    def answer(self, timeout: float = 5.0) -> Rsp:
        return parse_rsp(self.receive(timeout))

    def task_management(self, function, **kw) -> int:
        self.tag += 1
        self.send(tsk_mgmt(self.tag, function, **kw))
        rsp = self.answer()
        assert rsp.tag == self.tag and rsp.flags == RSPVALID
        return rsp.response[3]


class Blkif(Channel):
    protocol = 1
    slot = 112

    def __init__(self, rig, memory, *, lu=0, pages=8, nexus=None, **kw) -> None:
        self.nexus = lib.vt_nexus_add(rig.t) if nexus is None else nexus
        super().__init__(rig, memory, pages=pages, nexus=self.nexus, lu=lu, **kw)

    def request(self, op, id_, sector, segments=(), *, nr=None) -> bytes:
        segs = b"".join(struct.pack("<IBBH", g, first, last, 0) for g, first, last in segments)
        return struct.pack("<BBHIQQ", op, len(segments) if nr is None else nr, 0, 0, id_, sector) + segs

    def run(self, op, sector=0, segments=(), **kw) -> int:
        self.send(self.request(op, 77, sector, segments, **kw))
        return self.status()

    def indirect(self, op, sector, count, grefs) -> int:
        grefs = list(grefs) + [0] * (8 - len(grefs))
        self.send(struct.pack("<BBHIQQHH8II", 6, op, count, 0, 77, sector, 0, 0, *grefs, 0))
        return self.status(op)

    def discard(self, sector, sectors, flag=0) -> int:
        self.send(struct.pack("<BBHIQQQ", 5, flag, 0, 0, 77, sector, sectors))
        return self.status()

    def status(self, operation=None) -> int:
        id_, op, status = struct.unpack_from("<QBxh", self.receive())
        assert id_ == 77 and operation in (None, op)
        return status


def row(opcode, nbytes=10, op=0, *, conflict=0, flags=0, lba=(2, 4), length=(7, 2), fua=0, sa=0, usage=None, escape=0):
    return ffi.new(
        "struct vt_command *",
        {
            "opcode": opcode,
            "cdb_nbytes": nbytes,
            "op": op,
            "conflict": conflict,
            "flags": flags,
            "lba_offset": lba[0],
            "lba_nbytes": lba[1],
            "length_offset": length[0],
            "length_nbytes": length[1],
            "fua_mask": fua,
            "escape_mask": escape,
            "service_action": sa,
            "usage": usage if usage is not None else bytes([opcode]) + b"\xff" * (nbytes - 1),
        },
    )


class Rig:
    """A started target with one or more LUs; everything is taken down, and checked for leaks, at the end."""

    def __init__(
        self, folder: Path, *, loops=1, spin_ns=0, engine=0, nowait=1, batch=0, abort_limit_ms=0, workers_per_lu=0
    ) -> None:
        error = ffi.new("int *")
        config = ffi.new(
            "struct vt_config *",
            {
                "loops": loops,
                "spin_ns": spin_ns,
                "engine": engine,
                "pool_threads": 2,
                "batch": batch,
                "nowait": nowait,
                "abort_limit_ms": abort_limit_ms,
                "workers_per_lu": workers_per_lu,
            },
        )
        self.t = lib.vt_new(config, error)
        assert self.t != ffi.NULL, error[0]
        self.folder = folder
        self.fds: list[int] = []
        self.channels: list[Channel] = []
        self.memories: list[Memory] = []
        self.events: list = []
        self.held: list = []
        ready, skips, writes = 4, 2, 8
        usage10 = bytes.fromhex("28 18 ffffffff 00 ffff 04")
        for r in (
            row(0x00, 6, flags=ready, usage=bytes(5) + b"\4"),
            row(0x03, 6, flags=skips),
            row(0x12, 6, flags=skips | 16),
            row(0x5F, 10),
            row(0xA0, 12, flags=skips | 16),
            row(0x08, 6, 1, lba=(1, 3), length=(4, 1), flags=ready | 32, conflict=1),
            row(0x28, 10, 1, flags=ready, conflict=1, fua=8, usage=usage10),
            row(0x88, 16, 1, flags=ready, conflict=1, fua=8, lba=(2, 8), length=(10, 4)),
            row(0x2A, 10, 2, flags=ready | writes, conflict=2, fua=8, usage=usage10),
            row(0x8A, 16, 2, flags=ready | writes, conflict=2, fua=8, lba=(2, 8), length=(10, 4)),
            row(0x35, 10, 3, flags=ready | 64, conflict=2),
            row(0x41, 10, flags=ready | writes, conflict=2),  # slow
            row(0x9E, 16, flags=ready | 1, sa=0x10),
            row(0x7F, 32, flags=ready | 1, sa=0x0009),
        ):
            assert lib.vt_command_add(self.t, r) == 0
        rc = lib.vt_start(self.t)
        assert rc == 0, rc

    def file(self, nbytes: int = 1 << 20, name: str = "image") -> int:
        fd = os.open(self.folder / f"{name}{len(self.fds)}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        os.ftruncate(fd, nbytes)
        self.fds.append(fd)
        return fd

    def lu_config(self, *, lun=0, fd=-1, block=BLOCK, blocks=2048, flags=1, write_protect=0, max_transfer=0, **policy):
        return ffi.new(
            "struct vt_lu_config *",
            {
                "lun": lun,
                "fd": fd,
                "block_nbytes": block,
                "blocks": blocks,
                "flags": flags,
                "write_protect": write_protect,
                "max_transfer_blocks": max_transfer,
                "policy": policy,
            },
        )

    def lu(self, **kw) -> int:
        return int(lib.vt_lu_add(self.t, self.lu_config(**kw)))

    def memory(self, **kw) -> Memory:
        self.memories.append(Memory(**kw))
        return self.memories[-1]

    def srp(self, memory: Memory | None = None, **kw) -> Srp:
        self.channels.append(Srp(self, memory or self.memory(), **kw))
        return self.channels[-1]

    def blkif(self, memory: Memory | None = None, **kw) -> Blkif:
        self.channels.append(Blkif(self, memory or self.memory(), **kw))
        return self.channels[-1]

    def event(self, type_: int, channel: int, timeout: float = 5.0):
        """The next event of that type of that channel."""
        until = time.monotonic() + timeout
        while True:
            for i, e in enumerate(self.events):
                if e.type == type_ and e.channel == channel:
                    return self.events.pop(i)
            event = ffi.new("struct vt_event *")
            if lib.vt_event_next(self.t, event) == 1:
                self.events.append(event)
                continue
            left = until - time.monotonic()
            assert left > 0, f"no event {type_}"
            readable(lib.vt_event_fd(self.t), left)

    def request(self, timeout: float = 5.0):
        """The next slow command."""
        request = ffi.new("struct vt_request *")
        assert lib.vt_request_next(self.t, request, int(timeout * 1000)) == 1
        self.held.append(request)
        return request

    def complete(self, request, status=0, sense=b"", out=0, in_=0) -> int:
        result = ffi.new(
            "struct vt_result *",
            {
                "status": status,
                "sense_nbytes": len(sense),
                "sense": sense,
                "data_out_nbytes": out,
                "data_in_nbytes": in_,
            },
        )
        return int(lib.vt_request_complete(self.t, request.task, result))

    def close(self) -> None:
        request = ffi.new("struct vt_request *")
        for held in self.held:
            self.complete(held)
        for channel in [c for c in self.channels if c.open]:
            if channel.stopped:
                channel.remove()
                continue
            lib.vt_channel_stop(self.t, channel.id)
            for _ in range(20):
                while lib.vt_request_next(self.t, request, 0) == 1:
                    self.complete(request)
                try:
                    self.event(3, channel.id, 0.1)
                except AssertionError:
                    continue
                channel.remove()
                break
            assert not channel.open, "a channel does not stop"
        lib.vt_stop(self.t)
        for memory in self.memories:
            if not any(c.persistent and c.memory is memory for c in self.channels):
                assert vlib.vscsi_mapper_in_use(memory.mapper) == 0, "a grant is still in use"
            vlib.vscsi_mapper_free(memory.mapper)
            assert not any(memory.flags(f) & 24 for f in range(memory.next_frame)), "an in-use bit is left"
        lib.vt_free(self.t)
        for channel in self.channels:
            os.close(channel.fd)
        for fd in self.fds:
            os.close(fd)
        for memory in self.memories:
            os.close(memory.fd)
