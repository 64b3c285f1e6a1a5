# SPDX-License-Identifier: BSD-2-Clause
"""`Initiator`: one connection, one I_T nexus, one or more SRP channels; commands in, `Done` out. Any thread.

Buffers are the library's: data is copied in once and out once. What times out is initiator.escalation's. Nothing is
ever sent twice; what is safe to repeat is known one floor up, in initiator.lun. How a nexus is lost and comes back is
initiator.nexus's.
"""

import errno
import logging
from typing import Any

from initiator.dirty import is_power_loss
from initiator.done import Done, PeerInfo
from initiator.errors import CommandTimeout, transport_error
from initiator.escalation import TMF_SECONDS
from initiator.hba import SrpChannel
from initiator.link import Link
from initiator.lun import Lun
from initiator.native import ffi, lib
from initiator.nexus import Nexus
from initiator.request import Request
from vscsi.bus.memory import PAGE
from vscsi.scsi import cdb as cdb_
from vscsi.scsi import lun as lun_
from vscsi.scsi.parameters import decode_luns

log = logging.getLogger("vscsi.initiator")

CHECK_CONDITION = 0x02
TAG_RING_SHIFT = 42

DataIn = int | bytearray | memoryview


class Initiator(Nexus):
    """Logs in at once. `path` None: the default socket. ConnectError if there is no target, or it refuses.

    `port_id` (16 bytes) names the initiator port for reservations; random unless given. `timeout` in seconds is the
    default of every command. `tap` gets to see everything. `reconnect`: what is lost is connected anew, see Backoff;
    commands outstanding fail all the same, later ones wait for it. Not usable in a forked child.
    """

    # ---- about the target ----

    @property
    def target_info(self) -> PeerInfo:
        """What the target says of itself, and its process id as the kernel knows it."""
        target = self.channels[0].target
        info = target.info
        pid = self.connection.peer.pid
        return PeerInfo(info.name, info.version, info.os, info.max_transfer_nbytes, target.target_port_id, pid)

    @property
    def request_limit(self) -> int:
        """Requests that may be outstanding, over all channels."""
        return sum(channel.request_limit for channel in self.channels)

    def stats(self) -> dict[str, int]:
        """Counters of all channels together."""
        total: dict[str, int] = {}
        for channel in self.channels:
            for name, value in channel.ring.stats().items():
                total[name] = total.get(name, 0) + value
        return total

    def luns(self) -> list[int]:
        """The logical units, by REPORT LUNS. ScsiError, TransportError."""
        asker, room = Lun(self, 0), 4096
        while True:
            row = cdb_.REPORT_LUNS.build(select_report=0, allocation_length=room)
            data = bytes(asker.execute(row, data_in=room).data_in)
            needed = 8 + int.from_bytes(data[:4], "big")
            if needed <= room or room >= 1 << 20:
                return [n for n in decode_luns(data) if n is not None]
            room = min(needed, 1 << 20)

    def lun(self, n: int) -> Lun:
        """One logical unit as a disk."""
        return Lun(self, n)

    # ---- commands ----

    def build(
        self,
        link: Link,
        lun: int,
        cdb: bytes,
        data_out: Any,
        data_in: DataIn,
        attribute: int,
        timeout: float,
        cookie: Any,
    ) -> Request:
        """Buffer and request structure of a command, data-out copied in."""
        channel = self.pick(link)
        if isinstance(data_out, memoryview):
            data_out = data_out.cast("B")
        out_nbytes = len(data_out)
        in_nbytes = data_in if isinstance(data_in, int) else len(memoryview(data_in).cast("B"))
        if not 1 <= len(cdb) <= lib.VSCSI_CDB_MAX:
            raise ValueError(f"a CDB of {len(cdb)} bytes")
        # Data-in begins on a page of its own: a page has one permission.
        in_at = -(-out_nbytes // PAGE) * PAGE
        buffer = link.buffers.take(in_at + in_nbytes, timeout) if out_nbytes or in_nbytes else None
        request = Request(link, channel, lun, channel.ring.call(), buffer, timeout, cookie)
        q = request.call.request
        if buffer is not None:
            if out_nbytes:
                link.memory.view[buffer.offset : buffer.offset + out_nbytes] = data_out
            request.in_offset, request.in_nbytes = buffer.offset + in_at, in_nbytes
            if not isinstance(data_in, int):
                request.into = memoryview(data_in).cast("B")
        offset = buffer.offset if buffer is not None else 0
        request.call.set_out(offset, out_nbytes)
        request.call.set_in(request.in_offset, in_nbytes)
        ffi.memmove(q.lun, lun_.encode(lun), 8)
        ffi.memmove(q.cdb, bytes(cdb), len(cdb))
        q.cdb_nbytes, q.attribute = len(cdb), attribute
        if channel.tap is not None:
            request.tapped = channel.tap.command(lun, cdb, attribute, data_out, in_nbytes)
        return request

    def finish(self, request: Request, completion: Any, *, keep_call: bool = True) -> Done:
        """The Done of a completion; gives the buffer back, or loses it if the transport failed under it."""
        done = Done(tag=int(completion.tag), cookie=request.cookie)
        rc = int(completion.error)
        if rc == 0:
            done.status = int(completion.status)
            done.sense = bytes(ffi.buffer(completion.sense, completion.sense_nbytes))
            if done.status == CHECK_CONDITION:
                # A unit attention is told once: whoever gets it, all who use the logical unit must know.
                self.power_losses[request.lun] += is_power_loss(done.sense)
            done.in_residual, done.out_residual = int(completion.in_residual), int(completion.out_residual)
            nbytes = request.in_nbytes - max(0, done.in_residual)
            if nbytes:
                came = request.link.memory.view[request.in_offset : request.in_offset + nbytes]
                if request.into is None:
                    done.data_in = bytes(came)
                else:
                    request.into[:nbytes] = came
                    done.data_in = request.into[:nbytes]
        else:
            request.channel.ring.noticed(rc)
            done.error = CommandTimeout(request.late) if request.late else transport_error(rc, request.channel.ring.why)
        if request.tapped and request.channel.tap is not None:
            request.channel.tap.done(request.tapped, done, rc, int(completion.response_code))
        self.free(request, lost=rc not in (0, -errno.ECANCELED, -errno.EIO), keep_call=keep_call)
        return done

    def free(self, request: Request, *, lost: bool, keep_call: bool = True) -> None:
        """Ends a request's hold on its buffer."""
        if request.buffer is not None:
            buffers = request.link.buffers
            (buffers.lose if lost else buffers.give)(request.buffer)
            request.buffer = None
        if keep_call:
            request.channel.ring.done_with(request.call)

    def execute(
        self,
        lun: int,
        cdb: bytes,
        *,
        data_out: Any = b"",
        data_in: DataIn = 0,
        attribute: int = lib.SRP_TSK_SIMPLE,
        timeout: float | None = None,
        cookie: Any = None,
    ) -> Done:
        """Sends one command and waits for it; its status is in Done, whatever it is.

        `data_in`: how many bytes may come, or a writable buffer for them. TransportError if nobody knows what became
        of the command: CommandTimeout after `timeout` seconds, CommandAborted.
        """
        seconds = self.timeout if timeout is None else timeout
        link = self.hold(seconds)
        try:
            return self._execute(link, lun, cdb, data_out, data_in, attribute, seconds, cookie)
        finally:
            link.users.leave()

    def _execute(
        self, link: Link, lun: int, cdb: bytes, data_out: Any, data_in: DataIn, attribute: int, seconds: float,
        cookie: Any,
    ) -> Done:  # fmt: skip
        request = self.build(link, lun, cdb, data_out, data_in, attribute, seconds, cookie)
        channel, call = request.channel, request.call
        ring = channel.ring
        rc = ring.run(call, seconds)
        if rc == -errno.ETIMEDOUT and call.completion.tag:
            request.tag = int(call.completion.tag)
            if channel.tap is not None:
                channel.tap.sent_as(request.tapped, request.tag)
            if not self.escalation.run(request, lambda seconds: ring.wait(call, seconds) == 0):
                raise CommandTimeout(request.late)
            rc = 0
        elif rc == -errno.ETIMEDOUT:
            self.free(request, lost=False)
            raise CommandTimeout(f"no credit for the command within {seconds:g} s; it was not sent")
        if rc:
            self.free(request, lost=False)  # never sent
            ring.noticed(rc)
            raise transport_error(rc, ring.why)
        done = self.finish(request, call.completion)
        if done.error is not None:
            raise done.error
        return done

    # ---- many at once ----

    def submit(
        self,
        lun: int,
        cdb: bytes,
        *,
        data_out: Any = b"",
        data_in: DataIn = 0,
        attribute: int = lib.SRP_TSK_SIMPLE,
        timeout: float | None = None,
        cookie: Any = None,
    ) -> int:
        """Sends one command and returns its tag; its Done comes from `reap`, with `cookie`.

        Waits, at most `timeout` seconds, for a credit. CommandTimeout then; TransportError if no channel is alive.
        A command that has no answer `timeout` seconds after it was sent is ended, as `execute` does it, by whoever
        waits in `submit` or `reap` then (that call may take longer); its Done.error is CommandTimeout.
        """
        return self.queue.submit(lun, cdb, data_out, data_in, attribute, timeout, cookie)

    def reap(self, max: int = 64, min: int = 1, timeout: float | None = None) -> list[Done]:
        """Up to `max` of the submitted commands that have ended, at least `min` of them unless `timeout` seconds pass.

        Never waits for more than are outstanding. Done.error tells of a failed transport.
        """
        return self.queue.reap(max, min, self.timeout if timeout is None else timeout)

    # ---- task management ----

    def task_management(self, function: int, lun: int, tag: int = 0, *, timeout: float = TMF_SECONDS) -> int:
        """Sends a task management function (enum srp_tsk_mgmt_function); the response code. TransportError."""
        link = self.hold(timeout)
        try:
            channel = next((c for c in link.channels if tag and c.ring.frame == tag >> TAG_RING_SHIFT), None)
            return self.manage(channel or self.pick(link), function, lun, tag, timeout)
        finally:
            link.users.leave()

    def manage(self, channel: SrpChannel, function: int, lun: int, tag: int, timeout: float) -> int:
        """The same on one channel."""
        completion = ffi.new("struct vi_completion *")
        tapped = channel.tap.manage(function, lun, tag) if channel.tap is not None else 0
        rc = lib.vi_task_management(channel.c, function, lun_.encode(lun), tag, completion, int(timeout * 1000) or 1)
        if rc == -errno.ETIMEDOUT:
            raise CommandTimeout("no answer to the task management function")
        if rc or completion.error:
            raise transport_error(rc or int(completion.error), channel.ring.why)
        if channel.tap is not None:
            channel.tap.managed(tapped, int(completion.response_code))
        return int(completion.response_code)
