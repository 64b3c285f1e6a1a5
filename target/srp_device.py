# SPDX-License-Identifier: BSD-2-Clause
"""One SRP channel: its rings and session, login, logouts both ways, and what the target asks on the reverse ring.

Knows which IU is due; the rules of SRP are in vscsi.srp, those of login in target.login, what a nexus is owed in
target.nexus. READ, WRITE and everything else a command does runs in C and never comes here.
"""

import contextlib
import logging
import os
import selectors
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from target.calm import Calm
from target.device import Device, MappedRing
from target.login import action, refusal
from target.nexus import Nexus, check
from vscsi import srp
from vscsi.bus.shares import LimitError
from vscsi.errors import LocalProtocolError, RemoteProtocolError
from vscsi.native import ffi as shared_ffi
from vscsi.native import lib as shared
from vscsi.nodes import MAX_SRP_DEVICES, SrpInitiatorNodes, SrpTargetNodes, own_info

if TYPE_CHECKING:
    from target.peer import Peer

log = logging.getLogger("vscsi.target")

SLOT_NBYTES = shared.VSCSI_SRP_SLOT
LOGIN_SECONDS = 1.0
"""How long a login waits for commands of the channels it ends; their writes keep their blocks after that, too."""


class SrpDevice(Device):
    """`channel` is C's id while connected, `nexus` set while the session belongs to one."""

    kind = "vscsi-srp"

    def __init__(self, peer: "Peer", devid: int) -> None:
        super().__init__(peer, devid)
        self.session = srp.TargetSession()
        self.channel: int | None = None
        self.nexus: Nexus | None = None
        self.nodes: SrpInitiatorNodes | None = None
        self.slots = 0
        self.request_limit = 0
        self.stuck = False
        """It stops, and its last commands are not waited for any more."""
        self._awaited: set[SrpDevice] | None = None
        self._login: srp.LoginReq | None = None
        self._result = 0
        self._logout_reason: int | None = None
        self._reverse: Any = None
        self._calm = Calm()
        self._reverse_fd = -1

    # ---- what a nexus must know ----

    @property
    def live(self) -> bool:
        return self.session.state is srp.State.LIVE and not self.stopping

    # ---- connecting ----

    def offer(self) -> dict[str, str]:
        return SrpTargetNodes(self.server.rules.target_port_id, own_info("vscsi-target")).nodes()

    def connect(self) -> dict[str, str]:
        nodes = SrpInitiatorNodes.parse(self.their_nodes())
        connection, native = self.peer.connection, self.server.native
        event_fd = self.event_channel(nodes.ring.port)
        self._reverse_fd = self.event_channel(nodes.reverse.port)
        ring = MappedRing(connection.mapper, nodes.ring.grefs)
        self.resources.callback(ring.close)
        reverse = MappedRing(connection.mapper, nodes.reverse.grefs)
        self.resources.callback(reverse.close)
        self._reverse = shared_ffi.new("struct vscsi_front_ring *")
        check(shared.vscsi_ring_front(self._reverse, reverse.address, 1, SLOT_NBYTES, 0), "reverse ring")

        self.session, self.stuck = srp.TargetSession(), False
        self._login = self._awaited = self._logout_reason = None
        self.nodes, self.slots = nodes, shared.vscsi_ring_capacity(ring.pages, SLOT_NBYTES)
        config = self.server.ffi.new("struct vt_channel_config *")
        config.protocol = native.VT_PROTOCOL_SRP
        config.event_fd, config.mapper = event_fd, connection.mapper
        config.ring, config.ring_pages = ring.address, ring.pages
        config.persistent, config.loop = int(nodes.persistent), -1
        self.channel = self.add_channel(config, "channel")
        self._calm = Calm()
        self._watch_reverse()
        self.resources.callback(self._unwatch_reverse)
        log.info("%s: connected: %s, %d slots", self, nodes.info, self.slots)
        return {}

    # ---- from the ring ----

    def on_iu(self, channel: int, data: bytes) -> None:
        if self.stopping:
            return
        try:
            iu = self.session.receive(data)
        except RemoteProtocolError as error:
            self.break_off(error.reason, str(error))
            return
        if iu is not None:
            _HANDLERS[type(iu)](self, iu)

    def on_error(self, channel: int, error: int) -> None:
        if self.stopping:
            return
        reason, text = self.server.errors.get(error, (shared.SRP_TLO_NO_REASON, f"error {error}"))
        if error == self.server.native.VT_ERROR_EVENT_CHANNEL:
            self.peer_may_be_gone(lambda: self.break_off(reason, text))
        else:
            self.break_off(reason, text)

    def break_off(self, reason: int, text: str) -> None:
        """The peer broke SRP: T_LOGOUT with that reason, an `error` node, one log line."""
        if self._logout_reason is None:
            self._logout_reason = reason
        self.fail(text)

    # ---- login ----

    def _on_login(self, request: srp.LoginReq) -> None:
        rules, registry = self.server.rules, self.server.nexuses
        nexus = registry.find(request.initiator_port_id, request.target_port_id)
        others = [channel for channel in (nexus.channels if nexus else []) if not channel.stopping]
        reason, why = refusal(request, rules, len(others)), ""
        if reason is None:
            try:
                self._book(nexus)
                try:
                    self.nexus = registry.enter(request.initiator_port_id, request.target_port_id, self)
                except OSError:
                    self._give_back(nexus)
                    raise
            except (LimitError, OSError) as error:
                reason, why = shared.SRP_REJ_INSUFFICIENT_RESOURCES, f" ({error})"
        if reason is not None:
            self._reject(request, reason, why)
            return
        assert self.nexus is not None
        self._login = request
        single = action(request) == shared.SRP_MULTICHAN_SINGLE
        results = (shared.SRP_MULTICHAN_MAINTAINED, shared.SRP_MULTICHAN_TERMINATED)
        self._result = results[single] if others else shared.SRP_MULTICHAN_NO_CHAN
        # Tasks of channels that end must be over before the new one can send any.
        self._awaited = {channel for channel in self.nexus.channels if channel is not self and not channel.stuck}
        if not single:
            self._awaited = {channel for channel in self._awaited if channel.stopping}
        for channel in list(self._awaited):
            if not channel.stopping:
                channel.log_out(shared.SRP_TLO_MULTI_CHANNEL, "ended by a new login of its initiator")
        if self._awaited:
            self.server.later(LOGIN_SECONDS, lambda: self._login_anyway(request))
        self._login_when_alone()

    def _login_anyway(self, request: srp.LoginReq) -> None:
        """A stuck store of one logical unit shall not keep its initiator from the others."""
        if self._login is not request or self.nexus is None or not self._awaited:
            return
        log.warning("%s: commands of an earlier login have not ended: not waited for any longer", self)
        for channel in self._awaited:
            channel.stuck = True
        self._awaited = set()
        self.server.nexuses.lose(self.nexus)
        self._login_when_alone()

    def _book(self, nexus: Nexus | None) -> None:
        """A nexus that our connection has no channel of yet is one more that it has. LimitError."""
        if nexus is None or not any(channel.peer is self.peer for channel in nexus.channels):
            connection = self.peer.connection
            self.server.nexus_shares.take(connection, connection.peer.uid)

    def _give_back(self, nexus: Nexus | None) -> None:
        if nexus is None or not any(channel.peer is self.peer for channel in nexus.channels):
            self.server.nexus_shares.give(self.peer.connection)

    def _login_when_alone(self) -> None:
        if self._awaited or self._login is None or self.stopping or self.nexus is None:
            return
        request, self._login = self._login, None
        rules, native, target = self.server.rules, self.server.native, self.server.target
        self.request_limit = min(self.slots - 2, self.server.options.request_limit or self.slots)
        self.server.nexuses.establish(self.nexus)
        rc = native.vt_channel_login(target, self.channel, self.nexus.index, self.request_limit)
        if rc < 0:
            self._reject(request, shared.SRP_REJ_INSUFFICIENT_RESOURCES)
            return
        answer = srp.LoginRsp(
            req_lim_delta=self.request_limit,
            tag=request.tag,
            max_it_iu_len=rules.max_it_iu_nbytes,
            max_ti_iu_len=rules.max_ti_iu_nbytes,
            buf_fmt=rules.formats,
            rsp_flags=self._result,
        )
        self._respond(answer)
        log.info("%s: logged in, port %s, %d requests at most", self, self.nexus, self.request_limit)

    def _reject(self, request: srp.LoginReq, reason: int, why: str = "") -> None:
        self._respond(srp.LoginRej(reason=reason, tag=request.tag, buf_fmt=self.server.rules.formats))
        self.fail(f"login rejected: {srp.reject_text(reason)}{why}")

    def _respond(self, iu: srp.Iu) -> None:
        data = self.session.send(iu)
        rc = self.server.native.vt_channel_respond(self.server.target, self.channel, data, len(data))
        if rc < 0:
            log.error("%s: %s not sent: %s", self, type(iu).__name__, os.strerror(-rc))

    # ---- logout ----

    def _on_i_logout(self, logout: srp.ILogout) -> None:
        log.info("%s: logged out", self)
        self.end()

    def log_out(self, reason: int, why: str) -> None:
        """Ends the channel from our side: what runs is finished and answered, then T_LOGOUT."""
        if self.stopping or not self.channels:
            return
        log.info("%s: logged out: %s", self, why)
        self._logout_reason = reason
        self.end()

    def on_stopped(self) -> None:
        open_states = (srp.State.IDLE, srp.State.LOGIN, srp.State.LIVE)
        if self._logout_reason is not None and self.session.state in open_states and not self.peer.vanished:
            self._ask(self.session.send(srp.TLogout(0, self._logout_reason, self.session.next_tag())))
        self._reverse = None

    def on_removed(self) -> None:
        if self.server.recorder is not None and self.channel is not None:
            self.server.recorder.removed(self.channel)
        self.channel = None
        nexus, self.nexus = self.nexus, None
        if nexus is not None:
            self.server.nexuses.leave(nexus, self)
            self._give_back(nexus)
            for other in list(nexus.channels):
                other.gone(self)

    def gone(self, channel: "SrpDevice") -> None:
        """Another channel of our nexus has stopped."""
        if self._awaited is not None:
            self._awaited.discard(channel)
            self._login_when_alone()

    # ---- the reverse ring ----

    def ask(self, request: srp.CredReq | srp.AerReq) -> bool:
        """Sends a target request, or keeps it while one is unanswered; False if it was dropped."""
        if not self.live:
            return False
        asked = self.session.ask(request)
        self._pump()
        return asked

    def _pump(self) -> None:
        step = self.session.next_request()
        if step is None:
            return
        request, data = step
        if request.req_lim_delta > 0:
            # The limit grows before the initiator hears of it, and shrinks only once it has answered.
            self._credit(request.req_lim_delta)
        self._ask(data)

    def coming_limit(self) -> int:
        """The request limit once everything asked so far has been answered."""
        asked = [request for request in self.session.waiting if isinstance(request, srp.CredReq)]
        unanswered = self.session.unanswered
        if unanswered is not None and unanswered.req_lim_delta < 0:
            return self.request_limit + unanswered.req_lim_delta + sum(r.req_lim_delta for r in asked)
        return self.request_limit + sum(r.req_lim_delta for r in asked)

    def _credit(self, delta: int) -> None:
        check(self.server.native.vt_channel_credit(self.server.target, self.channel, delta), "request limit")
        self.request_limit += delta

    def _ask(self, data: bytes) -> None:
        if self.server.recorder is not None and self.channel is not None:
            self.server.recorder.asked(self.channel, data)
        rc = shared.vscsi_ring_request(self._reverse, data, len(data))
        if rc > 0:
            shared.vscsi_event_send_fd(self._reverse_fd)
        elif rc < 0:
            log.warning("%s: nothing fits on the reverse ring", self)

    def _watch_reverse(self) -> None:
        self.server.selector.register(self._reverse_fd, selectors.EVENT_READ, self._on_reverse)

    def _rest_from_reverse(self, seconds: float) -> None:
        """A peer that kicks for nothing is not listened to for a while."""
        self._unwatch_reverse()
        ring = self._reverse

        def again() -> None:
            if self._reverse is ring and not self.stopping:
                self._watch_reverse()

        self.server.later(seconds, again)

    def _unwatch_reverse(self) -> None:
        with contextlib.suppress(KeyError):
            self.server.selector.unregister(self._reverse_fd)

    def _on_reverse(self, _mask: int) -> None:
        if self.stopping or self._reverse is None:
            # Nothing is listened to any more, and a peer that goes on kicking must not keep us awake.
            self._unwatch_reverse()
            return
        if shared.vscsi_event_drain_fd(self._reverse_fd) < 0:
            self._unwatch_reverse()
            self.peer_may_be_gone(lambda: self.break_off(shared.SRP_TLO_NO_REASON, "reverse event channel closed"))
            return
        data = shared_ffi.new("uint8_t[]", SLOT_NBYTES)
        for taken in range(self._reverse.nr_ents):
            rc = shared.vscsi_ring_take_response(self._reverse, data)
            if rc < 0:
                self.break_off(shared.SRP_TLO_NO_REASON, "reverse ring indexes out of range")
                return
            if rc == 0:
                if not taken and (pause := self._calm.empty()):
                    self._rest_from_reverse(pause)
                return
            self._calm.found()
            asked = self.session.unanswered
            try:
                self.session.receive(bytes(data), srp.Ring.REVERSE)
            except RemoteProtocolError as error:
                self.break_off(error.reason, str(error))
                return
            if asked is not None and asked.req_lim_delta < 0:
                self._credit(asked.req_lim_delta)
            self._pump()


_HANDLERS: dict[type[srp.Iu], Callable[[SrpDevice, Any], None]] = {
    srp.LoginReq: SrpDevice._on_login,
    srp.ILogout: SrpDevice._on_i_logout,
}


class SrpKind:
    """SRP devices are the initiator's to make: one for each channel it wants, up to 64."""

    name = SrpDevice.kind

    def at_hello(self, peer: "Peer") -> Iterable[Device]:
        return ()

    def on_demand(self, peer: "Peer", devid: int) -> Device | None:
        return SrpDevice(peer, devid) if devid < MAX_SRP_DEVICES else None


def grow_credits(device: SrpDevice, delta: int) -> bool:
    """CRED_REQ: changes how many requests the channel may have unanswered, within 1 and its slots - 2.

    False if the channel is not logged in. LocalProtocolError if the limit would leave those bounds.
    """
    limit = device.coming_limit() + delta
    if not 1 <= limit <= device.slots - 2:
        raise LocalProtocolError(f"request limit {limit} is not within 1 to {device.slots - 2}")
    return device.ask(srp.CredReq(sol_not=0, req_lim_delta=delta, tag=device.session.next_tag()))


def send_async_event(nexus: Nexus, lun: bytes, sense: bytes) -> bool:
    """AER_REQ on one live channel of the nexus; `lun` is the SAM LUN. False if there is none, or too many wait."""
    device = next((channel for channel in nexus.channels if channel.live), None)
    if device is None:
        return False
    sense = sense[: SLOT_NBYTES - srp.LAYOUTS[srp.AerReq.opcode].nbytes]
    return bool(device.ask(srp.AerReq(0, 0, device.session.next_tag(), lun, sense)))
