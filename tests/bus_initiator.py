# SPDX-License-Identifier: BSD-2-Clause
"""A raw initiator for tests: rings by hand on the local bus, so that a test can say and break anything.

Built from the shared native functions and the IU codecs alone; shares nothing with the product's initiator.
"""

import time
from collections.abc import Callable
from pathlib import Path

import oracle_srp as oracle

from vscsi import blkif, srp
from vscsi.bus.local import InitiatorConnection
from vscsi.native import ffi, lib
from vscsi.nodes import PeerInfo, RingNodes, SrpInitiatorNodes

INFO = PeerInfo("raw-initiator", "1", "test", 1 << 20)
SECONDS = 10.0
LUN0 = bytes(8)


class RawRing:
    """The requesting side of one ring, granted page by page."""

    def __init__(self, raw: "Raw", pages: int, slot_nbytes: int, *, answering: bool = False) -> None:
        self.raw, self.pages, self.slot_nbytes = raw, pages, slot_nbytes
        memory = raw.connection.memory
        self.offset = memory.alloc(pages * lib.VSCSI_PAGE_SIZE)
        self.page = memory.base + self.offset
        lib.vscsi_ring_format(self.page)
        self.header = ffi.cast("struct vscsi_sring *", self.page)
        self.grefs = tuple(memory.grant(self.offset, pages * lib.VSCSI_PAGE_SIZE))
        self.port, self.fd = raw.connection.event_channel()
        self.slot = ffi.new("uint8_t[]", slot_nbytes)
        if answering:
            self.ring = ffi.new("struct vscsi_back_ring *")
            assert lib.vscsi_ring_back(self.ring, self.page, pages, slot_nbytes, 0) == 0
        else:
            self.ring = ffi.new("struct vscsi_front_ring *")
            assert lib.vscsi_ring_front(self.ring, self.page, pages, slot_nbytes, 0) == 0

    @property
    def nodes(self) -> RingNodes:
        return RingNodes(self.grefs, self.port)

    def send(self, data: bytes) -> None:
        """One request. Always kicks: a needless kick is allowed, and a test may have spoilt the event index."""
        rc = lib.vscsi_ring_request(self.ring, data, len(data))
        assert rc >= 0, rc
        lib.vscsi_event_send_fd(self.fd)

    def answer(self, data: bytes) -> None:
        rc = lib.vscsi_ring_respond(self.ring, data, len(data))
        assert rc >= 0, rc
        lib.vscsi_event_send_fd(self.fd)

    def take(self, seconds: float = SECONDS) -> bytes | None:
        """The next slot from the target, or None if none comes in time."""
        function = lib.vscsi_ring_take_request if hasattr(self.ring, "req_cons") else lib.vscsi_ring_take_response
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            rc = function(self.ring, self.slot)
            assert rc >= 0, rc
            if rc:
                return bytes(self.slot)
            time.sleep(0.001)
        return None


class RawSrp:
    """One SRP channel: rings up, then whatever the test sends."""

    def __init__(self, raw: "Raw", devid: int = 0, *, ring_pages: int = 2, connect: bool = True) -> None:
        self.raw, self.path = raw, f"device/vscsi-srp/{devid}"
        self.backend = f"backend/vscsi-srp/{devid}"
        self.ring_pages = ring_pages
        if connect:
            self.connect()

    def connect(self, change: Callable[[dict[str, str]], dict[str, str | None]] = dict) -> None:
        self.write({"state": "1"})
        self.wait_state(2)
        self.session = srp.InitiatorSession()
        self.ring = RawRing(self.raw, self.ring_pages, lib.VSCSI_SRP_SLOT)
        self.reverse = RawRing(self.raw, 1, lib.VSCSI_SRP_SLOT, answering=True)
        nodes = change(SrpInitiatorNodes(self.ring.nodes, self.reverse.nodes, INFO).nodes())
        self.write({**nodes, "state": "3"})
        self.raw.wait(lambda: self.state in (4, 5), "Connected")
        if self.state == 4:
            self.write({"state": "4"})

    def write(self, nodes: dict[str, str | None]) -> None:
        self.raw.connection.write({f"{self.path}/{name}": value for name, value in nodes.items()})

    @property
    def state(self) -> int:
        return int(self.raw.connection.store.get(f"{self.backend}/state", "0"))

    @property
    def error(self) -> str | None:
        return self.raw.connection.store.get(f"{self.backend}/error")

    def wait_state(self, state: int) -> None:
        self.raw.wait(lambda: self.state == state, f"state {state}, not {self.state}")

    def close(self) -> None:
        """The XenBus closing conversation, from our side."""
        self.write({"state": "5"})
        self.wait_state(5)
        self.write({"state": "6"})
        self.wait_state(6)

    def login_req(self, port_id: bytes = b"i" * 16, **changes) -> srp.LoginReq:
        fields = {
            "tag": 0x1122334455667788,
            "req_it_iu_len": 248,
            "req_buf_fmt": 6,
            "req_flags": 0,
            "initiator_port_id": port_id,
            "target_port_id": self.raw.target_port_id,
        }
        return srp.LoginReq(**(fields | changes))

    def ask_login(self, port_id: bytes = b"i" * 16, **changes) -> None:
        self.ring.send(self.session.send(self.login_req(port_id, **changes)))

    def login(self, port_id: bytes = b"i" * 16, **changes) -> srp.LoginRsp | srp.LoginRej:
        self.ask_login(port_id, **changes)
        return self.login_answer()

    def login_answer(self) -> srp.LoginRsp | srp.LoginRej:
        data = self.ring.take()
        assert data is not None, "login is not answered"
        return self.session.receive(data)

    def command(self, cdb: bytes, *, lun: bytes = LUN0, tag: int = 1, data_in: int = 0) -> oracle.Rsp:
        """A command with at most a page of data-in, which is then in `data`."""
        memory = self.raw.connection.memory
        descriptor = None
        if data_in:
            offset = memory.alloc(lib.VSCSI_PAGE_SIZE)
            descriptor = oracle.Direct(0, memory.grant(offset, lib.VSCSI_PAGE_SIZE)[0], data_in)
        self.ring.send(oracle.encode_cmd(oracle.Cmd(tag, lun, cdb, data_in=descriptor)))
        answer = self.ring.take()
        assert answer is not None, "command is not answered"
        if data_in:
            self.data = bytes(memory.view[offset : offset + data_in])
        return oracle.decode_rsp(answer)

    def target_request(self, seconds: float = SECONDS) -> srp.Iu | None:
        data = self.reverse.take(seconds)
        return None if data is None else self.session.receive(data, srp.Ring.REVERSE)

    def expect_t_logout(self, reason: int) -> None:
        request = self.target_request()
        assert isinstance(request, srp.TLogout), request
        assert request.reason == reason


class Raw:
    """A connection with its memory."""

    def __init__(self, path: Path, memory_nbytes: int = 4 << 20) -> None:
        self.connection = InitiatorConnection(path, memory_nbytes=memory_nbytes)
        self.connection.start()

    @property
    def target_port_id(self) -> bytes:
        return bytes.fromhex(self.connection.store["backend/vscsi-srp/0/target-port-id"])

    def wait(self, predicate: Callable[[], bool], what: str) -> None:
        self.connection.wait_for(predicate, SECONDS, what)

    def srp(self, devid: int = 0, **options) -> RawSrp:
        return RawSrp(self, devid, **options)

    def close(self) -> None:
        self.connection.close()


class RawVbd:
    """One vbd, with its rings by hand."""

    def __init__(self, raw: Raw, lun: int = 0, *, queues: int = 1, pages: int = 1) -> None:
        self.raw, self.devid = raw, blkif.devid_of_lun(lun)
        self.path, self.backend = f"device/vbd/{self.devid}", f"backend/vbd/{self.devid}"
        self.queues, self.pages = queues, pages

    def read(self, name: str) -> str | None:
        return self.raw.connection.store.get(f"{self.backend}/{name}")

    @property
    def state(self) -> int:
        return int(self.read("state") or 0)

    def write(self, nodes: dict[str, str | None]) -> None:
        self.raw.connection.write({f"{self.path}/{name}": value for name, value in nodes.items()})

    def wait_state(self, state: int) -> None:
        self.raw.wait(lambda: self.state == state, f"vbd state {state}, not {self.state}")

    def connect(self, change: Callable[[dict[str, str]], dict[str, str | None]] = dict) -> None:
        self.write({"virtual-device": str(self.devid), "device-type": "disk", "state": "1"})
        self.wait_state(2)
        self.rings = [RawRing(self.raw, self.pages, lib.VSCSI_BLKIF_SLOT) for _ in range(self.queues)]
        nodes = change(blkif.Request(tuple(ring.nodes for ring in self.rings)).nodes())
        self.write({**nodes, "state": "3"})
        self.raw.wait(lambda: self.state in (4, 5), "vbd Connected")
        if self.state == 4:
            self.write({"state": "4"})

    def flush(self, queue: int = 0) -> bytes | None:
        """BLKIF_OP_FLUSH_DISKCACHE; the response, or None."""
        request = ffi.new("struct blkif_request *")
        request.operation, request.id = lib.BLKIF_OP_FLUSH_DISKCACHE, 77
        self.rings[queue].send(bytes(ffi.buffer(request)))
        return self.rings[queue].take()
