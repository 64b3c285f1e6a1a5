# SPDX-License-Identifier: BSD-2-Clause
"""A channel with its other end in the test's hands: memory, ring, event channel, and a back ring played in Python.

The test decides what is answered, when, and whether it is the truth. Knows the ring and IUs through vscsi._native and
the oracle; knows nothing of sessions or stores.
"""

import mmap
import os
import threading
from collections.abc import Callable

import oracle_srp as oracle
from readable import readable

from initiator.native import ffi, lib
from vscsi.native import lib as shared

PAGE = 4096
PAGES = 1024
TABLE_PAGES = 3
RING_PAGE = 8
ARENA = 64 * PAGE
LUN0 = bytes(8)
WRITE_10 = 0x2A


class FakeTarget:
    """One channel (`c`) and the target's end of its ring. `serve` answers in a thread."""

    def __init__(
        self,
        protocol: int = lib.VI_PROTOCOL_SRP,
        *,
        ring_pages: int = 16,
        persistent: bool = True,
        spin_ns: int = 0,
        limit: int | None = None,
        indirect_per_slot: int = 0,
        timeout_ms: int = 5000,
        live: bool = True,
    ) -> None:
        self.slot_nbytes = shared.VSCSI_SRP_SLOT if protocol == lib.VI_PROTOCOL_SRP else shared.VSCSI_BLKIF_SLOT
        self.slots = shared.vscsi_ring_capacity(ring_pages, self.slot_nbytes)
        self.nbytes = (PAGES + self.slots * indirect_per_slot) * PAGE
        self.memfd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memfd, self.nbytes)
        self.map = mmap.mmap(self.memfd, self.nbytes)
        self.memory = ffi.from_buffer("uint8_t[]", self.map)
        self.granter = ffi.new("struct vscsi_granter *", {
            "table": ffi.cast("uint64_t *", self.memory), "nr_grants": TABLE_PAGES * 512,
        })  # fmt: skip
        if persistent:
            for frame in range(TABLE_PAGES, PAGES):
                assert shared.vscsi_granter_grant(self.granter, frame + 8, 0, frame, 0) == 0
        ends = ffi.new("int[2]")
        assert shared.vscsi_event_pair(ends) == 0
        self.ours, theirs = ends[0], ends[1]
        ring = self.memory + RING_PAGE * PAGE
        shared.vscsi_ring_format(ring)
        self.back = ffi.new("struct vscsi_back_ring *")
        assert shared.vscsi_ring_back(self.back, ring, ring_pages, self.slot_nbytes, 0) == 0
        self.sring = ffi.cast("struct vscsi_sring *", ring)
        self.ring_pages = ring_pages
        config = ffi.new("struct vi_config *", {
            "protocol": protocol, "ring_pages": ring_pages, "ring": ring, "event_fd": theirs,
            "persistent": int(persistent), "granter": self.granter, "memory": self.memory,
            "memory_nbytes": self.nbytes, "gref_base": 8, "spin_ns": spin_ns,
            "indirect_pages": self.slots * indirect_per_slot, "indirect_per_slot": indirect_per_slot,
            "indirect_offset": PAGES * PAGE, "max_indirect_segments": 512 * indirect_per_slot, "timeout_ms": timeout_ms,
        })  # fmt: skip
        error = ffi.new("int *")
        self.c = lib.vi_channel_new(config, error)
        os.close(theirs)
        assert self.c != ffi.NULL, os.strerror(-error[0])
        self._mapper = ffi.NULL
        self._keep: list[object] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        if live and protocol == lib.VI_PROTOCOL_SRP:
            assert lib.vi_channel_live(self.c, self.slots - 2 if limit is None else limit, self.slot_nbytes) == 0

    # ---- the target's end ----

    @property
    def mapper(self):
        """The target's view of the memory; a page it has mapped is in use."""
        if self._mapper == ffi.NULL:
            os.set_inheritable(self.memfd, False)
            import fcntl

            fcntl.fcntl(self.memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            error = ffi.new("int *")
            self._mapper = shared.vscsi_mapper_new(ffi.new("int[1]", [self.memfd]), 1, 0, TABLE_PAGES, 0, error)
            assert self._mapper != ffi.NULL
        return self._mapper

    def take(self) -> bytes | None:
        """The next request's whole slot, or None; asks for an event for the one after."""
        iu = ffi.new("uint8_t[]", self.slot_nbytes)
        n = shared.vscsi_ring_take_request(self.back, iu)
        assert n >= 0, os.strerror(-n)
        return bytes(ffi.buffer(iu)) if n else None

    def expect(self, timeout: float = 5) -> bytes:
        """The next request; waits for it."""
        while (iu := self.take()) is None:
            assert readable(self.ours, timeout), "no request came"
            shared.vscsi_event_drain_fd(self.ours)
        return iu

    def respond(self, data: bytes, *, kick: bool | None = None) -> None:
        """Publishes one response; kicks if it was asked for, or as told."""
        wanted = shared.vscsi_ring_respond(self.back, data, len(data))
        assert wanted >= 0, os.strerror(-wanted)
        if wanted if kick is None else kick:
            shared.vscsi_event_send_fd(self.ours)

    def kick(self) -> None:
        shared.vscsi_event_send_fd(self.ours)

    def good(self, tag: int, **fields: object) -> None:
        self.respond(rsp(tag, **fields))

    def serve(self, handler: Callable[[bytes], None]) -> None:
        """Calls `handler` with every request, in a thread, until `close`."""

        def run() -> None:
            try:
                while not self._stop.is_set():
                    if (iu := self.take()) is not None:
                        handler(iu)
                        continue
                    readable(self.ours, 0.05)
                    shared.vscsi_event_drain_fd(self.ours)
            except BaseException as error:
                self.failure = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    # ---- the initiator's end ----

    def request(self, cdb: bytes = bytes(6), *, out=(), into=(), table: tuple[int, int] = (0, 0), **fields):
        """A vi_request; segments are (offset, nbytes) in memory."""
        q = ffi.new("struct vi_request *", {"cdb": cdb.ljust(200, b"\0"), "cdb_nbytes": len(cdb), **fields})
        for name, segments in (("out", out), ("in", into)):
            array = ffi.new("struct vi_segment[]", [list(s) for s in segments] or 1)
            self._keep.append(array)
            setattr(q, name, array)
            setattr(q, name + "_count", len(segments))
        q.table_offset, q.table_nbytes = table
        self._keep.append(q)
        return q

    def submit(self, *args, **fields) -> int:
        """The tag, or the negative errno."""
        tag = ffi.new("uint64_t *")
        rc = lib.vi_submit(self.c, self.request(*args, **fields), tag)
        return rc or int(tag[0])

    def reap(self, max_: int = 16, min_: int = 1, timeout_ms: int = 5000):
        """(return code, completions)."""
        array = ffi.new("struct vi_completion[]", max_)
        n = lib.vi_reap(self.c, array, max_, min_, timeout_ms)
        self._keep.append(array)
        return n, [array[i] for i in range(max(n, 0))]

    def execute(self, *args, timeout_ms: int = 5000, **fields):
        done = ffi.new("struct vi_completion *")
        rc = lib.vi_execute(self.c, self.request(*args, **fields), done, timeout_ms)
        return rc, done

    def flags(self, offset: int) -> int:
        """Grant flags of the page at this offset."""
        return int(shared.vscsi_granter_flags(self.granter, offset // PAGE + 8))

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        lib.vi_channel_free(self.c)
        if self._mapper != ffi.NULL:
            shared.vscsi_mapper_free(self._mapper)
        os.close(self.ours)
        os.close(self.memfd)
        if self.failure is not None:
            raise self.failure


def rsp(tag: int, *, delta: int = 1, flags: int = 0, status: int = 0, out_res: int = 0, in_res: int = 0,
        response: bytes = b"", sense: bytes = b"") -> bytes:  # fmt: skip
    """SRP_RSP by the oracle."""
    return oracle.encode_rsp(oracle.Rsp(0, delta, tag, flags, status, out_res, in_res, response, sense))


def tag_of(iu: bytes) -> int:
    return int.from_bytes(iu[8:16], "big")


def disk_handler(t: FakeTarget, disk: bytearray, block_nbytes: int = 512) -> Callable[[bytes], None]:
    """For `serve`: executes READ(10) and WRITE(10) with one direct descriptor on `disk`."""

    def handler(iu: bytes) -> None:
        cdb = iu[32:48]
        lba, blocks = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")
        va, key, n = (int.from_bytes(iu[a:b], "big") for a, b in ((48, 56), (56, 60), (60, 64)))
        at = (key - 8) * PAGE + va
        assert n == blocks * block_nbytes
        if cdb[0] == WRITE_10:
            disk[lba * block_nbytes : lba * block_nbytes + n] = t.map[at : at + n]
        else:
            t.map[at : at + n] = bytes(disk[lba * block_nbytes : lba * block_nbytes + n])
        t.good(tag_of(iu))

    return handler
