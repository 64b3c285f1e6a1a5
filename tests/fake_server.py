# SPDX-License-Identifier: BSD-2-Clause
"""A whole SRP target in Python, over the real bus, that does what a test tells it: answers, lies, logs out, is silent.

Slow and simple on purpose. Knows the bus and the codecs, and no session rules; a test's `command` decides.
"""

import contextlib
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle_srp as oracle

from vscsi import srp
from vscsi.bus.local import Listener
from vscsi.native import ffi, lib
from vscsi.nodes import PeerInfo, SrpInitiatorNodes, SrpTargetNodes

PAGE = 4096
SLOT = 248
PORT_ID = bytes(range(16))
LIMIT = 30

Answer = dict[str, Any] | None
POWER_ON = bytes.fromhex("700006000000000a00000000290000000000")


class Ring:
    """One mapped ring: `back` to answer on, or `front` to ask on."""

    def __init__(self, mapper: Any, grefs: tuple[int, ...], fd: int, *, front: bool) -> None:
        self.mapper, self.grefs, self.fd = mapper, ffi.new("uint32_t[]", list(grefs)), fd
        address = ffi.new("uint8_t **")
        assert lib.vscsi_mapper_map_ring(mapper, self.grefs, len(grefs), address) == 0
        self.address = address[0]
        self.end = ffi.new("struct vscsi_front_ring *" if front else "struct vscsi_back_ring *")
        attach = lib.vscsi_ring_front if front else lib.vscsi_ring_back
        assert attach(self.end, self.address, len(grefs), SLOT, 0) == 0
        self.iu = ffi.new("uint8_t[]", SLOT)

    def take(self) -> bytes | None:
        n = lib.vscsi_ring_take_request(self.end, self.iu)
        assert n >= 0
        return bytes(ffi.buffer(self.iu)) if n else None

    def respond(self, iu: bytes) -> None:
        if lib.vscsi_ring_respond(self.end, iu, len(iu)) > 0:
            lib.vscsi_event_send_fd(self.fd)

    def ask(self, iu: bytes) -> None:
        if lib.vscsi_ring_request(self.end, iu, len(iu)) > 0:
            lib.vscsi_event_send_fd(self.fd)

    def take_response(self) -> bytes | None:
        n = lib.vscsi_ring_take_response(self.end, self.iu)
        assert n >= 0
        return bytes(ffi.buffer(self.iu)) if n else None

    def close(self) -> None:
        lib.vscsi_mapper_unmap_ring(self.mapper, self.grefs, len(self.grefs), self.address)


class Device:
    """One channel."""

    def __init__(self, server: "FakeServer", connection: Any, k: str) -> None:
        self.server, self.connection, self.k = server, connection, k
        self.ring: Ring | None = None
        self.reverse: Ring | None = None
        self.held: list[oracle.Cmd] = []
        self.state = 0

    def switch(self, state: int, **nodes: str) -> None:
        self.state = state
        batch = {f"backend/vscsi-srp/{self.k}/{name}": value for name, value in nodes.items()}
        self.connection.write({**batch, f"backend/vscsi-srp/{self.k}/state": str(state)})

    def look(self) -> None:
        theirs = self.connection.store.get(f"device/vscsi-srp/{self.k}/state")
        if theirs in self.server.silent:
            return
        if theirs in self.server.lies:
            self.connection.write({f"backend/vscsi-srp/{self.k}/state": self.server.lies[theirs]})
            return
        if theirs == "1" and self.state != 2:
            info = PeerInfo("fake", "0", "python", self.server.max_transfer)
            nodes = SrpTargetNodes(PORT_ID, info, persistent=self.server.persistent).nodes()
            self.switch(2, **nodes)
        elif theirs == "3" and self.state == 2:
            if self.server.refuse:
                self.switch(5, error=self.server.refuse)
                return
            nodes_ = SrpInitiatorNodes.parse(self.connection.store.below(f"device/vscsi-srp/{self.k}"))
            connection, mapper = self.connection, self.connection.mapper
            self.ring = Ring(mapper, nodes_.ring.grefs, connection.event_channel(nodes_.ring.port), front=False)
            fd = connection.event_channel(nodes_.reverse.port)
            self.reverse = Ring(mapper, nodes_.reverse.grefs, fd, front=True)
            self.switch(4)
        elif theirs in ("6", None) and self.state not in (0, 6):
            self.unmap()
            self.switch(6)
        elif theirs == "5" and self.state == 4:
            self.switch(5)

    def unmap(self) -> None:
        for ring in (self.ring, self.reverse):
            if ring is not None:
                ring.close()
        self.ring = self.reverse = None

    def serve(self) -> None:
        if self.reverse is not None:
            lib.vscsi_event_drain_fd(self.reverse.fd)
            while (data := self.reverse.take_response()) is not None:
                self.server.reverse_answers.append(srp.decode(data))
        if self.ring is None:
            return
        lib.vscsi_event_drain_fd(self.ring.fd)
        while self.ring is not None and (data := self.ring.take()) is not None:
            self.server.ius.append(data)
            if data[0] == lib.SRP_CMD:
                self.command(oracle.decode_cmd(data))
            elif data[0] == lib.SRP_TSK_MGMT:
                self.management(oracle.decode_tsk_mgmt(data[:48]))
            else:
                self.conversation(srp.decode(data))

    def conversation(self, iu: Any) -> None:
        if isinstance(iu, srp.ILogout):
            self.server.logouts += 1
            self.switch(5)
            return
        self.server.logins.append(iu)
        if self.server.login is None:
            return
        self.ring.respond(srp.encode(self.server.login(iu)))

    # ---- data ----

    def runs(self, desc: oracle.Descriptor) -> list[oracle.Direct]:
        if desc is None:
            return []
        if isinstance(desc, oracle.Direct):
            return [desc]
        if desc.desc_list:
            return list(desc.desc_list)
        table = self.copy([desc.table])
        return [oracle.Direct.decode(table[k:]) for k in range(0, len(table), 16)]

    def copy(self, runs: list[oracle.Direct], data: bytes | None = None) -> bytes:
        """Reads the runs, or writes `data` to them."""
        out, done = bytearray(), 0
        for run in runs:
            at, end = run.va, run.va + run.len
            while at < end:
                n = min(end, (at // PAGE + 1) * PAGE) - at
                gref, write = run.key + at // PAGE, data is not None
                address = ffi.new("uint8_t **")
                rc = lib.vscsi_mapper_get(self.connection.mapper, gref, write, self.server.persistent, address)
                assert rc == 0, rc
                page = ffi.buffer(address[0] + at % PAGE, n)
                if data is None:
                    out += page[:]
                else:
                    piece = data[done : done + n]
                    page[: len(piece)] = piece
                lib.vscsi_mapper_put(self.connection.mapper, gref, write, self.server.persistent)
                at, done = at + n, done + n
        return bytes(out)

    def command(self, cmd: oracle.Cmd) -> None:
        out, into = self.runs(cmd.data_out), self.runs(cmd.data_in)
        answer = self.server.command(cmd, self.copy(out))
        if answer is None:
            self.held.append(cmd)
            return
        data = answer.get("data", b"")
        room = sum(run.len for run in into)
        if data:
            self.copy(into, data[:room])
        flags, in_res = answer.get("flags", 0), 0
        if len(data) != room:
            flags |= lib.SRP_RSP_DIUNDER if len(data) < room else lib.SRP_RSP_DIOVER
            in_res = abs(room - len(data))
        if sense := answer.get("sense", b""):
            flags |= lib.SRP_RSP_SNSVALID
        status = answer.get("status", 2 if sense else 0)
        self.respond(cmd.tag, flags=flags, status=status, in_res=in_res, sense=sense)

    def respond(self, tag: int, *, flags=0, status=0, in_res=0, sense=b"", response=b"", delta=1) -> None:
        self.ring.respond(oracle.encode_rsp(oracle.Rsp(0, delta, tag, flags, status, 0, in_res, response, sense)))

    def management(self, iu: oracle.TskMgmt) -> None:
        self.server.functions.append(iu)
        code = self.server.management(iu)
        if code is None:
            return
        if code == 0:
            for cmd in list(self.held):
                if iu.tsk_mgmt_func != lib.SRP_TMF_ABORT_TASK or cmd.tag == iu.task_tag:
                    self.held.remove(cmd)
                    self.respond(cmd.tag, flags=1, response=bytes(4))
        self.respond(iu.tag, flags=1, response=bytes([0, 0, 0, code]))


class FakeServer:
    """Attributes may be changed at any time; `do` runs something in the server's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = Listener(path)
        self.max_transfer = 1 << 20
        self.persistent = True
        self.refuse = ""
        self.silent: set[str | None] = set()
        """States of the initiator that it does not react to."""
        self.lies: dict[str | None, str] = {}
        """What it publishes as its own state instead of what is due, by the initiator's."""
        self.login: Callable[[srp.LoginReq], srp.Iu] | None = lambda iu: srp.LoginRsp(
            req_lim_delta=LIMIT, tag=iu.tag, max_it_iu_len=SLOT, max_ti_iu_len=SLOT, buf_fmt=6, rsp_flags=0
        )
        self.command: Callable[[oracle.Cmd, bytes], Answer] = lambda cmd, data: {}
        self.management: Callable[[oracle.TskMgmt], int | None] = lambda iu: 0
        self.ius: list[bytes] = []
        self.logins: list[srp.LoginReq] = []
        self.logouts = 0
        self.functions: list[oracle.TskMgmt] = []
        self.reverse_answers: list[Any] = []
        self.devices: dict[tuple[int, str], Device] = {}
        self.failure: BaseException | None = None
        self._connections: list[Any] = []
        self._jobs: list[Callable[[], None]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop:
                self._turn()
        except BaseException as error:
            self.failure = error
        for device in self.devices.values():
            device.unmap()
        for connection in self._connections:
            with contextlib.suppress(Exception):
                connection.close()
                connection.release()
        self.listener.close()

    def _turn(self) -> None:
        fds = [self.listener.fileno(), *(c.fileno() for c in self._connections)]
        for device in self.devices.values():
            fds += [ring.fd for ring in (device.ring, device.reverse) if ring is not None]
        select.select(fds, [], [], 0.005)
        if (connection := self.listener.accept()) is not None:
            self._connections.append(connection)
            connection.watch("device", lambda path, c=connection: self._look(c, path))
        for connection in list(self._connections):
            if connection.closed or not connection.process():
                self._connections.remove(connection)
                for key in [key for key in self.devices if key[0] == id(connection)]:
                    self.devices.pop(key).unmap()
                connection.close()
                connection.release()
            elif connection.want_write:
                connection.flush()
        for device in list(self.devices.values()):
            device.serve()
        while self._jobs:
            self._jobs.pop(0)()

    def _look(self, connection: Any, path: str) -> None:
        parts = path.split("/")
        if len(parts) < 3 or parts[1] != "vscsi-srp":
            return
        key = (id(connection), parts[2])
        device = self.devices.get(key) or self.devices.setdefault(key, Device(self, connection, parts[2]))
        device.look()

    def do(self, job: Callable[[Device], None]) -> None:
        """Runs it on the first device, in the server's thread, and waits."""
        done = threading.Event()

        def run() -> None:
            job(next(iter(self.devices.values())))
            done.set()

        self._jobs.append(run)
        assert done.wait(5), self.failure

    def until(self, predicate: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not predicate():
            assert time.monotonic() < deadline and self.failure is None, self.failure
            time.sleep(0.002)

    def close(self) -> None:
        self._stop = True
        self._thread.join(5)
        if self.failure is not None:
            raise self.failure


class Disk:
    """Handlers for a small disk: INQUIRY B0h, READ CAPACITY, REPORT LUNS, READ, WRITE, SYNCHRONIZE CACHE, UNMAP."""

    def __init__(self, blocks: int = 4096, block_nbytes: int = 512, max_blocks: int = 0, attentions: int = 1) -> None:
        self.data = bytearray(blocks * block_nbytes)
        self.blocks, self.block_nbytes, self.max_blocks = blocks, block_nbytes, max_blocks
        self.attentions = attentions
        self.log: list[tuple[int, int, int]] = []
        self.first: list[dict[str, Any]] = []
        """Answers to give before the truth, one a command."""

    def __call__(self, cmd: oracle.Cmd, out: bytes) -> Answer:
        cdb = cmd.cdb
        if cdb[0] not in (0x12, 0xA0) and self.attentions:
            self.attentions -= 1
            return {"sense": POWER_ON}
        if self.first:
            return self.first.pop(0)
        if cdb[0] == 0x12:
            page = bytearray(64)
            page[1], page[3] = 0xB0, 60
            page[8:12] = self.max_blocks.to_bytes(4, "big")
            page[20:24], page[24:28] = (1000).to_bytes(4, "big"), (2).to_bytes(4, "big")
            return {"data": bytes(page) if cdb[1] & 1 else b"\0" * 36}
        if cdb[0] == 0x9E:
            return {"data": (self.blocks - 1).to_bytes(8, "big") + self.block_nbytes.to_bytes(4, "big") + bytes(20)}
        if cdb[0] == 0xA0:
            return {"data": bytes([0, 0, 0, 16]) + bytes(4) + bytes(8) + bytes([0, 7]) + bytes(6)}
        if cdb[0] in (0x28, 0x2A, 0x88, 0x8A):
            wide = cdb[0] & 0x80
            lba = int.from_bytes(cdb[2:10] if wide else cdb[2:6], "big")
            blocks = int.from_bytes(cdb[10:14] if wide else cdb[7:9], "big")
            self.log.append((cdb[0], lba, blocks))
            at, end = lba * self.block_nbytes, (lba + blocks) * self.block_nbytes
            if end > len(self.data):
                return {"sense": bytes.fromhex("700005000000000a00000000210000000000")}
            if cdb[0] & 2:
                self.data[at:end] = out
                return {}
            return {"data": bytes(self.data[at:end])}
        self.log.append((cdb[0], 0, len(out)))
        return {}
