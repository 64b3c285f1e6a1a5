# SPDX-License-Identifier: BSD-2-Clause
"""One SRP channel of the virtual HBA, as conversation: XenBus handshake, login, the reverse ring, logout.

Drives vscsi.srp.InitiatorSession over a Channel. Commands do not pass here: they go to the native channel directly.
"""

import contextlib
import errno
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from initiator.channel import Channel, Poller
from initiator.errors import ConnectError, InitiatorError, transport_error
from initiator.native import ffi, lib
from initiator.xenbus import Device
from vscsi import srp
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.memory import PAGE
from vscsi.bus.xenbus import Action, Step, XenbusState
from vscsi.errors import ProtocolError, RemoteProtocolError
from vscsi.native import lib as shared
from vscsi.nodes import RingNodes, SrpInitiatorNodes, SrpTargetNodes, own_info, text
from vscsi.scsi import lun as lun_
from vscsi.scsi import sense

if TYPE_CHECKING:
    from initiator.pcap import Tap

log = logging.getLogger("vscsi.initiator")

KIND = "vscsi-srp"
LOGIN_TAG, LOGOUT_TAG = 1, 2
LEAVE_SECONDS = 2.0
"""How long an orderly end may take before we simply go."""
LOGOUT_SECONDS = 0.5
"""How long the target has to act on I_LOGOUT."""
SLOT: int = lib.VSCSI_SRP_SLOT
_GONE = (XenbusState.CLOSED, XenbusState.UNKNOWN)
_LEAVING = (XenbusState.CLOSING, *_GONE)


class ReverseRing:
    """The one-page ring on which the target asks and we answer. Formatted and granted here."""

    def __init__(self, connection: InitiatorConnection) -> None:
        self._connection = connection
        memory = connection.memory
        self._offset: int | None = None
        try:
            self._offset = memory.alloc(PAGE)
            page = memory.base + self._offset
            shared.vscsi_ring_format(page)
            self.port, self.fd = connection.event_channel()
            self.nodes = RingNodes(tuple(memory.grant(self._offset, PAGE)), self.port)
        except (BusError, MemoryError) as error:
            raise InitiatorError(str(error) or "out of shared memory") from error
        self._back = ffi.new("struct vscsi_back_ring *")
        shared.vscsi_ring_back(self._back, page, 1, SLOT, 0)
        self._iu = ffi.new("uint8_t[]", SLOT)

    def take(self) -> bytes | None:
        """The next IU, or None. Raises RemoteProtocolError if the ring is broken."""
        n = shared.vscsi_ring_take_request(self._back, self._iu)
        if n < 0:
            raise RemoteProtocolError("the reverse ring's index is out of range")
        return bytes(ffi.buffer(self._iu)) if n else None

    def answer(self, iu: bytes) -> None:
        if shared.vscsi_ring_respond(self._back, iu, len(iu)) > 0:
            shared.vscsi_event_send_fd(self.fd)

    def drain_event(self) -> int:
        return int(shared.vscsi_event_drain_fd(self.fd))

    def release(self) -> None:
        if self._offset is None:
            return
        self._connection.close_event_channel(self.port)
        with contextlib.suppress(BusError):  # in use: lost
            self._connection.memory.free(self._offset)
        self._offset = None


class SrpChannel:
    """Device `devid`, logged in as `port_id`; `multi` keeps the nexus's other channels. ConnectError."""

    def __init__(
        self,
        connection: InitiatorConnection,
        poller: Poller,
        devid: int,
        port_id: bytes,
        *,
        multi: bool,
        ring_pages: int,
        persistent: bool,
        spin_us: int,
        timeout: float,
        tap: "Tap | None" = None,
    ) -> None:
        self._poller = poller
        self.tap = tap.channel(port_id) if tap is not None else None
        self._closing = False
        self._reverse_lock = threading.Lock()
        self.session = srp.InitiatorSession()
        self.device = Device(connection, KIND, devid)
        self.device.begin({})
        try:
            self.device.expect(Action.PUBLISH, timeout)
            self.target = SrpTargetNodes.parse(self.device.nodes())
            pages = min(ring_pages, 1 << self.target.max_ring_page_order)
            pages = 1 << (pages.bit_length() - 1)
            persistent = persistent and self.target.persistent
            self.ring = Channel(
                connection,
                lib.VI_PROTOCOL_SRP,
                ring_pages=pages,
                persistent=persistent,
                spin_us=spin_us,
                timeout=timeout,
            )
            self.c: Any = self.ring.c
            self.reverse = ReverseRing(connection)
            nodes = SrpInitiatorNodes(self.ring.nodes, self.reverse.nodes, own_info("vscsi-initiator"), persistent)
            self.device.enter(XenbusState.INITIALISED, nodes.nodes())
            self.device.expect(Action.CONNECT, timeout)
            self.device.enter(XenbusState.CONNECTED)
            poller.add(self.reverse.fd, self._on_reverse)
            self.request_limit = self._login(port_id, multi, timeout)
        except RemoteProtocolError as error:
            self.leave(orderly=False)
            raise ConnectError(f"the target broke the protocol: {error}") from error
        except InitiatorError as error:
            self.leave(orderly=False)
            raise ConnectError(str(error)) from error
        except BaseException:
            self.leave(orderly=False)
            raise
        self.device.follow(self._on_step)
        self._check_still_open()

    def _check_still_open(self) -> None:
        if self.device.machine.peer is not XenbusState.CONNECTED:
            self.lost(-errno.ECONNRESET, "it closed the device")

    # ---- login ----

    def _login(self, port_id: bytes, multi: bool, timeout: float) -> int:
        request = srp.LoginReq(
            tag=LOGIN_TAG,
            req_it_iu_len=SLOT,
            req_buf_fmt=lib.SRP_BUF_DIRECT | lib.SRP_BUF_INDIRECT,
            req_flags=lib.SRP_MULTICHAN_MULTI if multi else lib.SRP_MULTICHAN_SINGLE,
            initiator_port_id=port_id,
            target_port_id=self.target.target_port_id,
        )
        data = self.session.send(request)
        if self.tap is not None:
            self.tap.login(request)
        lib.vi_channel_send(self.c, data, len(data))
        iu = ffi.new("uint8_t[]", SLOT)
        rc = lib.vi_channel_receive(self.c, iu, int(timeout * 1000))
        if rc == -errno.ETIMEDOUT:
            raise ConnectError(f"the target has not answered the login within {timeout:g} s")
        if rc < 0:
            raise ConnectError(f"login: {transport_error(rc, self.ring.why)}")
        answer = self.session.receive(bytes(ffi.buffer(iu)))
        if self.tap is not None:
            self.tap.login_answered(answer)
        if isinstance(answer, srp.LoginRej):
            raise ConnectError(f"the target rejects the login: {srp.reject_text(answer.reason)}")
        if not isinstance(answer, srp.LoginRsp):
            raise ConnectError("the target logged us out during login")
        if not answer.buf_fmt & lib.SRP_BUF_DIRECT or not answer.buf_fmt & lib.SRP_BUF_INDIRECT:
            raise ConnectError("the target does not support direct and indirect buffer descriptors")
        if answer.req_lim_delta < 1:
            raise ConnectError(f"the target grants {answer.req_lim_delta} requests")
        # More than the ring holds means nothing: two slots are kept.
        limit = min(answer.req_lim_delta, self.ring.slots - 2)
        rc = lib.vi_channel_live(self.c, limit, min(answer.max_it_iu_len, SLOT))
        if rc < 0:
            raise ConnectError(f"login: {os.strerror(-rc)}")
        return limit

    # ---- what the target says by itself; in the poller's thread ----

    def _on_reverse(self) -> None:
        with self._reverse_lock:
            if self._closing:  # the page may be somebody else's by now
                return
            gone = self.reverse.drain_event() < 0
            try:
                while (data := self.reverse.take()) is not None:
                    iu = self.session.receive(data, srp.Ring.REVERSE)
                    if iu is not None:
                        self._on_iu(iu)
            except ProtocolError as error:
                log.warning("%s: %s", self.device.name, error)
                self.lost(-errno.EPROTO, str(error))
                gone = True
            if gone:
                self._poller.remove(self.reverse.fd)

    def _on_iu(self, iu: srp.Iu) -> None:
        if self.tap is not None:
            self.tap.asked(iu)
        if isinstance(iu, srp.TLogout):
            why = "it logged us out"
            if iu.reason != lib.SRP_TLO_NO_REASON:  # an orderly stop has none
                why += f" ({srp.logout_text(iu.reason)})"
            log.info("%s: the target is leaving: %s", self.device.name, why)
            self.ring.drain(-errno.ECONNRESET, why)
        elif isinstance(iu, (srp.CredReq, srp.AerReq)):
            if isinstance(iu, srp.AerReq):
                words = sense.decode(iu.sense_data).describe()
                log.info("%s: lun %s reports: %s", self.device.name, lun_.decode(iu.lun), words)
            lib.vi_channel_credit(self.c, iu.req_lim_delta)
            self.reverse.answer(self.session.answer(iu))

    def _on_step(self, step: Step) -> None:
        """In the bus's thread. The target closes; nothing of ours waits for it to."""
        if self._closing:
            return
        if step.action is Action.LOST:
            self.lost(-errno.ECONNRESET, "it closed the device")
        elif step.action is Action.CLOSE:
            why = text(self.device.nodes(), "error", "it closes the device")
            self.lost(-errno.ECONNRESET, why)
            self.device.end(XenbusState.CLOSING)
        elif step.action is Action.FINISH:
            self.device.end(XenbusState.CLOSED)

    def lost(self, rc: int, why: str) -> None:
        """The channel is over: takes what was published, fails the rest."""
        self.ring.drain(rc, why)

    # ---- the end ----

    @property
    def alive(self) -> bool:
        return not self.ring.error

    def _say_goodbye(self) -> bool:
        if not self.alive or self.session.state is not srp.State.LIVE:
            return False
        data = self.session.send(srp.ILogout(tag=LOGOUT_TAG))
        if self.tap is not None:
            self.tap.logout()
        return int(lib.vi_channel_send(self.c, data, len(data))) == 0

    def abandon(self, rc: int) -> None:
        """Logs out without waiting for anything: what is outstanding fails with `rc`. `leave` is still due."""
        with self._reverse_lock:
            if not self._closing:
                self._say_goodbye()
        self.ring.fail(rc)

    def leave(self, *, orderly: bool = True) -> None:
        """Logs out and closes the device, as far as the target plays along; takes memory back. Idempotent."""
        with self._reverse_lock:
            if self._closing:
                return
            self._closing = True
        ring = getattr(self, "ring", None)
        reverse = getattr(self, "reverse", None)
        if ring is not None:
            if orderly and self._say_goodbye():
                self._await(_LEAVING, LOGOUT_SECONDS)  # else our states might overtake the IU
            ring.fail(-errno.ESHUTDOWN)
        unmapped = self._close_device()
        if self.tap is not None:
            self.tap.close()
        if reverse is not None:
            self._poller.remove(reverse.fd)
        if unmapped:
            # Otherwise the target may still have them mapped: the connection's end takes them.
            for owner in (ring, reverse):
                if owner is not None:
                    owner.release()

    def _await(self, states: tuple[XenbusState, ...], seconds: float) -> bool:
        """Whether the target enters one of these states in time."""
        device = self.device
        try:
            device.connection.wait_for(lambda: device.machine.peer in states, seconds, "the target to let go")
        except BusError as error:
            log.debug("%s: %s", device.name, error)
            return False
        return True

    def _close_device(self) -> bool:
        """True if the target has unmapped everything."""
        device = self.device
        try:
            if device.connection.closed:
                return False
            device.end(XenbusState.CLOSING)
            device.end(XenbusState.CLOSED)
            if not self._await(_GONE, LEAVE_SECONDS):
                return False
            device.remove()
            return True
        except (BusError, ProtocolError) as error:
            log.debug("%s: %s", device.name, error)
            return False
