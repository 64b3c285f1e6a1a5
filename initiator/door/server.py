# SPDX-License-Identifier: BSD-2-Clause
"""The parent's end of the door: listens for links of the preloaded library and does what each message asks.

One thread a link, for a link carries one conversation at a time. Whoever can connect runs as the same user; what it
sends is checked all the same. Knows messages and windows; commands go to initiator.door.nodes and the Initiator.
"""

import contextlib
import errno
import logging
import mmap
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from initiator.done import Done
from initiator.door.disk import errno_of
from initiator.door.nodes import Nodes, OpenFile
from initiator.errors import CommandAborted, CommandTimeout, InitiatorError, NotSent
from initiator.native import ffi, lib
from vscsi.native.stamp import stamp

log = logging.getLogger("vscsi.door")

ENVIRONMENT = "VSCSI_DOOR"
REQUEST_NBYTES = ffi.sizeof("struct door_request")
PAGE = int(lib.DOOR_PAGE)
SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, SHRINK, GROW
NO_CONNECT, TIME_OUT, ABORT, ERROR, DISRUPTED = 1, 3, 5, 7, 0x0E
"""Host statuses of scsi_host.h: DID_NO_CONNECT, DID_TIME_OUT, DID_ABORT, DID_ERROR, DID_TRANSPORT_DISRUPTED."""
NO_TIMEOUT = 0xFFFFFFFF
LONGEST_SECONDS = 1e6
BACKLOG = 128


class Window:
    """Memory that one link of the library and we share. The library cannot shrink it under us."""

    def __init__(self, nbytes: int) -> None:
        self.fd = os.memfd_create("vscsi-door-window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, nbytes)
        fcntl_add_seals(self.fd)
        self.map = mmap.mmap(self.fd, nbytes)
        self.map.madvise(mmap.MADV_DONTFORK)
        self.view = memoryview(self.map)

    def close(self) -> None:
        """Unmaps it."""
        self.view.release()
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self.fd)


def fcntl_add_seals(fd: int) -> None:
    """Of a memfd: its size stays as it is."""
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)


class Link:
    """One connection of the library, in a thread of its own."""

    def __init__(self, server: "Server", connection: socket.socket) -> None:
        self._nodes, self._stamp = server.nodes, server.stamp
        self._socket = connection
        self._window: Window | None = None
        self._request = ffi.new("struct door_request *")
        self._answer = ffi.new("struct door_answer *")

    def run(self) -> None:
        """Until the library closes it."""
        try:
            with self._socket:
                while data := self._socket.recv(REQUEST_NBYTES + 1):
                    if len(data) != REQUEST_NBYTES:
                        break
                    ffi.memmove(self._request, data, REQUEST_NBYTES)
                    self._serve()
        except OSError as error:
            log.debug("link: %s", error)
        finally:
            if self._window is not None:
                self._window.close()

    def _serve(self) -> None:
        q, a = self._request, self._answer
        ffi.memmove(a, bytes(ffi.sizeof("struct door_answer")), ffi.sizeof("struct door_answer"))
        before = self._window
        try:
            OPERATIONS[int(q.op)](self, q, a)
        except KeyError:
            a.error = errno.ENOSYS
        except OSError as error:
            a.error = error.errno or errno.EIO
        except InitiatorError as error:
            a.error = errno_of(error)
        except ValueError:
            a.error = errno.EINVAL
        except Exception:
            log.exception("operation %d", int(q.op))
            a.error = errno.EIO
        data = bytes(ffi.buffer(a))
        if self._window is not None and self._window is not before:
            socket.send_fds(self._socket, [data], [self._window.fd])
        else:
            self._socket.send(data)

    def _text(self) -> bytes:
        q = self._request
        return bytes(ffi.buffer(q.text, min(int(q.text_nbytes), int(lib.DOOR_TEXT_MAX))))

    def _path(self) -> str:
        return self._text().decode(errors="replace")

    def _file(self) -> OpenFile:
        return self._nodes.file(int(self._request.file))

    # ---- links ----

    def hello(self, q: Any, a: Any) -> None:
        if self._text().decode(errors="replace") != self._stamp:
            log.error("the preloaded library was built from other sources; run 'make setup'")
            raise OSError(errno.ELIBACC, "stamp")
        self._replace_window(int(lib.DOOR_WINDOW_FIRST))

    def window(self, q: Any, a: Any) -> None:
        nbytes = int(q.nbytes)
        if not 0 < nbytes <= lib.DOOR_WINDOW_MAX or nbytes % PAGE:
            raise OSError(errno.ENOMEM, f"a window of {nbytes} bytes")
        self._replace_window(nbytes)

    def _replace_window(self, nbytes: int) -> None:
        old, self._window = self._window, Window(nbytes)
        if old is not None:
            old.close()

    def _areas(self, q: Any) -> tuple[memoryview, memoryview]:
        """Data-out and data-in, inside the window."""
        out, inward = int(q.out_nbytes), int(q.in_nbytes)
        at = -(-out // PAGE) * PAGE
        if self._window is None or at + inward > len(self._window.view):
            raise OSError(errno.EINVAL, "data outside the window")
        view = self._window.view
        return view[:out], view[at : at + inward]

    # ---- nodes ----

    def find(self, q: Any, a: Any) -> None:
        node, block = self._nodes.find(self._path())
        a.values[0] = lib.DOOR_BLOCK if block else lib.DOOR_GENERIC
        a.values[1] = node.number

    def open(self, q: Any, a: Any) -> None:
        number, file = self._nodes.open(self._path())
        a.values[0] = lib.DOOR_BLOCK if file.block else lib.DOOR_GENERIC
        a.values[1] = file.node.number
        a.values[2] = number
        a.values[3] = int(file.block and file.node.disk.read_only())

    def place(self, q: Any, a: Any) -> None:
        node = self._file().node
        for i, value in enumerate((node.host, 0, node.target_id, node.lun, node.device_type)):
            a.values[i] = value

    def setting(self, q: Any, a: Any) -> None:
        settings, which, value = self._file().settings, int(q.offset), int(q.nbytes)
        if which >= len(settings):
            raise OSError(errno.EINVAL, f"setting {which}")
        a.values[0] = settings[which]
        if value != 0xFFFFFFFFFFFFFFFF:
            settings[which] = value

    # ---- commands ----

    def command(self, q: Any, a: Any) -> None:
        node = self._file().node
        out, inward = self._areas(q)
        timeout_ms = int(q.timeout_ms)
        seconds = LONGEST_SECONDS if timeout_ms == NO_TIMEOUT else timeout_ms / 1000
        try:
            done = self._nodes.execute(node, self._text(), data_out=out, data_in=inward, timeout=seconds)
        except InitiatorError as error:
            a.host_status = host_status(error, hopeful=node.initiator.recovery.hopeful)
            a.in_residual, a.out_residual = len(inward), len(out)
            log.debug("lun %d: %s", node.lun, error)
            return
        self._fill(a, done)

    @staticmethod
    def _fill(a: Any, done: Done) -> None:
        a.status = done.status
        a.in_residual, a.out_residual = done.in_residual, done.out_residual
        sense = done.sense[: int(lib.DOOR_SENSE_MAX)]
        a.sense_nbytes = len(sense)
        ffi.memmove(a.sense, sense, len(sense))

    def reset(self, q: Any, a: Any) -> None:
        self._nodes.reset(self._file().node)

    # ---- bytes ----

    def read(self, q: Any, a: Any) -> None:
        _, inward = self._areas(q)
        a.values[0] = self._file().node.disk.read(int(q.offset), inward)

    def write(self, q: Any, a: Any) -> None:
        out, _ = self._areas(q)
        a.values[0] = self._file().node.disk.write(int(q.offset), out)

    def flush(self, q: Any, a: Any) -> None:
        self._file().node.disk.flush()

    def unmap(self, q: Any, a: Any) -> None:
        self._file().node.disk.unmap(int(q.offset), int(q.nbytes))

    def zero(self, q: Any, a: Any) -> None:
        self._file().node.disk.zero(int(q.offset), int(q.nbytes))

    def fact(self, q: Any, a: Any) -> None:
        a.values[0] = self._file().node.disk.fact(int(q.offset))


OPERATIONS: dict[int, Callable[[Link, Any, Any], None]] = {
    lib.DOOR_HELLO: Link.hello,
    lib.DOOR_WINDOW: Link.window,
    lib.DOOR_FIND: Link.find,
    lib.DOOR_OPEN: Link.open,
    lib.DOOR_COMMAND: Link.command,
    lib.DOOR_READ: Link.read,
    lib.DOOR_WRITE: Link.write,
    lib.DOOR_FLUSH: Link.flush,
    lib.DOOR_UNMAP: Link.unmap,
    lib.DOOR_ZERO: Link.zero,
    lib.DOOR_FACT: Link.fact,
    lib.DOOR_PLACE: Link.place,
    lib.DOOR_SETTING: Link.setting,
    lib.DOOR_RESET: Link.reset,
}


def host_status(error: InitiatorError, *, hopeful: bool = False) -> int:
    """What an HBA driver says when there is no status. `hopeful`: the nexus is being made anew."""
    if isinstance(error, CommandTimeout):
        return TIME_OUT
    if isinstance(error, CommandAborted):
        return ABORT
    return DISRUPTED if hopeful and not isinstance(error, NotSent) else NO_CONNECT


class Server:
    """Listens in a private folder from the start; `environment` is what a program needs to find it."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.stamp = stamp(Path(__file__).resolve().parents[2])
        self._folder = Path(tempfile.mkdtemp(prefix="vscsi-door-"))
        path = self._folder / "door"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(os.fspath(path))
        self._socket.listen(BACKLOG)
        self.environment = {ENVIRONMENT: f"{secrets.token_hex(4)}:{path}"}
        threading.Thread(target=self._accept, name="vscsi-door", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=Link(self, connection).run, name="vscsi-link", daemon=True).start()

    def close(self) -> None:
        """No new links; those there are end with the process."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)
