# SPDX-License-Identifier: BSD-2-Clause
"""What stands under /dev/vscsi*: targets and initiators by name, logical units, and the open files of them.

`/dev/vscsiN` and `/dev/vscsi[@INITIATOR]/TARGET/N` are generic nodes, the same with a `b` behind are block nodes. Logs
in when a node is first looked at; absorbs the unit attention that greets a new nexus, as a kernel's scan does. Knows
no message of the library.
"""

import errno
import logging
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from initiator.done import Done
from initiator.door.disk import Disk
from initiator.errors import InitiatorError
from initiator.initiator import Initiator
from initiator.native import lib
from initiator.pcap import Tap
from vscsi.scsi import cdb as cdb_
from vscsi.scsi import sense
from vscsi.scsi.lun import LUN_MAX
from vscsi.scsi.status import Status

log = logging.getLogger("vscsi.door")

DEFAULT = "default"
NAME = re.compile(r"[A-Za-z][\w.-]{0,62}", re.ASCII)
PATH = re.compile(
    r"/dev/vscsi(?:@(?P<initiator>[\w.-]+)/)?(?:(?:(?<=/)|/)(?P<target>[A-Za-z][\w.-]*)/)?(?P<lun>\d{1,5})(?P<block>b?)",
    re.ASCII,
)
GREETINGS = 8
"""Unit attentions that are absorbed at most before a logical unit counts as greeted."""
QUALIFIER_NONE = 3
"""INQUIRY's peripheral qualifier where no logical unit is."""
NO_SUCH_LUN = 0x25
"""ASC of LOGICAL UNIT NOT SUPPORTED."""
USER_HZ = 100


@dataclass
class Node:
    """One logical unit as one initiator port sees it. `host` and `target_id` as lsscsi counts them."""

    number: int
    initiator: Initiator
    host: int
    target_id: int
    lun: int
    device_type: int
    disk: Disk


@dataclass
class OpenFile:
    """What an open(2) made; its settings are shared by whoever has the descriptor, over fork and exec."""

    node: Node
    block: bool
    settings: list[int] = field(default_factory=lambda: [0] * int(lib.DOOR_SETTINGS))


class Nodes:
    """Every node there may be. Any thread. `targets`: socket by name (None: the default socket).

    `initiators`: port identifier by name, None for a random one. `keep_attention`: nothing is absorbed.
    """

    def __init__(
        self,
        targets: dict[str, Path | None],
        initiators: dict[str, bytes | None],
        *,
        timeout: float = 30.0,
        keep_attention: bool = False,
        tap: Tap | None = None,
    ) -> None:
        self._tap = tap
        self._targets, self._initiators = targets, initiators
        self._timeout, self._keep_attention = timeout, keep_attention
        self._lock = threading.Lock()
        self._logins: dict[tuple[str, str], Initiator] = {}
        self._nodes: dict[tuple[str, str, int], Node] = {}
        self._by_number: list[Node] = []
        self._files: list[OpenFile] = []

    def login(self, initiator: str = DEFAULT, target: str = DEFAULT) -> Initiator:
        """The I_T nexus of these two names. KeyError if a name is unknown; ConnectError."""
        with self._lock:
            return self._login(initiator, target)

    def _login(self, initiator: str, target: str) -> Initiator:
        found = self._logins.get((initiator, target))
        if found is None:
            port_id, path = self._initiators[initiator], self._targets[target]
            found = Initiator(path, port_id=port_id, timeout=self._timeout, tap=self._tap, reconnect=True)
            self._logins[initiator, target] = found
        return found

    # ---- nodes ----

    def find(self, path: str) -> tuple[Node, bool]:
        """The node of a path, and whether it is the block one. OSError: ENOENT, EIO."""
        match = PATH.fullmatch(path)
        if match is None or int(match["lun"]) > LUN_MAX:
            raise OSError(errno.ENOENT, path)
        initiator, target, lun = match["initiator"] or DEFAULT, match["target"] or DEFAULT, int(match["lun"])
        if initiator not in self._initiators or target not in self._targets:
            raise OSError(errno.ENOENT, path)
        with self._lock:
            node = self._nodes.get((initiator, target, lun))
            if node is None:
                node = self._make(initiator, target, lun, path)
            return node, bool(match["block"])

    def _make(self, initiator: str, target: str, lun: int, path: str) -> Node:
        try:
            nexus = self._login(initiator, target)
            kind = self._greet(nexus, lun)
        except InitiatorError as error:
            raise OSError(errno.EIO, str(error)) from error
        if kind is None:
            raise OSError(errno.ENOENT, path)
        host, target_id = list(self._initiators).index(initiator), list(self._targets).index(target)
        node = Node(len(self._by_number), nexus, host, target_id, lun, kind, Disk(nexus.lun(lun)))
        self._by_number.append(node)
        self._nodes[initiator, target, lun] = node
        return node

    def _greet(self, nexus: Initiator, lun: int) -> int | None:
        """The peripheral device type; None if there is no such logical unit."""
        done = nexus.execute(lun, cdb_.INQUIRY.build(allocation_length=36), data_in=36)
        if done.status != Status.GOOD:
            done.raise_for_status(f"lun {lun}: INQUIRY")
        if not done.data_in or done.data_in[0] >> 5 == QUALIFIER_NONE:
            return None
        for _ in range(0 if self._keep_attention else GREETINGS):
            if not self._attention(nexus.execute(lun, cdb_.TEST_UNIT_READY.build())):
                break
        return done.data_in[0] & 0x1F

    @staticmethod
    def _attention(done: Done) -> bool:
        return done.status == Status.CHECK_CONDITION and sense.decode(done.sense).key == sense.Key.UNIT_ATTENTION

    # ---- commands ----

    def execute(self, node: Node, cdb: bytes, **options: Any) -> Done:
        """One command by `Initiator.execute`: while the nexus is being made anew it waits, for its timeout at most."""
        return node.initiator.execute(node.lun, cdb, **options)

    def reset(self, node: Node) -> None:
        """LOGICAL UNIT RESET. OSError EIO if the target does not do it; TransportError."""
        if node.initiator.task_management(lib.SRP_TMF_LUN_RESET, node.lun) != lib.SRP_RESP_COMPLETE:
            raise OSError(errno.EIO, "the target refuses the reset")

    # ---- open files ----

    def open(self, path: str) -> tuple[int, OpenFile]:
        """A new open file and its number. OSError as `find`."""
        node, block = self.find(path)
        file = OpenFile(node, block)
        file.settings[lib.DOOR_SETTING_TIMEOUT_TICKS] = 60 * USER_HZ
        file.settings[lib.DOOR_SETTING_RESERVED_NBYTES] = int(lib.VSCSI_MAX_TRANSFER)
        file.settings[lib.DOOR_SETTING_COMMAND_QUEUE] = 1
        with self._lock:
            self._files.append(file)
            return len(self._files) - 1, file

    def file(self, number: int) -> OpenFile:
        """The open file of this number. OSError EBADF."""
        try:
            return self._files[number]
        except IndexError:
            raise OSError(errno.EBADF, f"open file {number}") from None

    def close(self) -> None:
        """Logs out of everything."""
        with self._lock:
            for nexus in self._logins.values():
                nexus.close()
            self._logins.clear()
