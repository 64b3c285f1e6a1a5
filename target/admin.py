# SPDX-License-Identifier: BSD-2-Clause
"""What the owner of a running target may ask of it: one function for each action, found through a table.

Knows who may ask, and that an answer may take long: an action runs in a thread of its own, and the asker comes back
for its result. Must not know how the question came.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from target.medium import Medium
from target.resize import follow
from target.stores import StoreError, StoreSpec, open_store
from target.stores.sizes import format_size
from vscsi.scsi.sense import CheckCondition

if TYPE_CHECKING:
    from target.lu import LogicalUnit
    from target.server import Server

log = logging.getLogger("vscsi.target")

Fields = dict[str, Any]
Action = Callable[["Server", Fields], Fields]
MAX_RUNNING = 8
FILE_NBYTES_MAX = (1 << 63) - 1
"""What off_t can say."""
_ACTIONS: dict[str, Action] = {}


class AdminError(Exception):
    """The action is not possible: one line for the user."""


def action(name: str) -> Callable[[Action], Action]:
    """Makes a function an action. It gets the fields of the question and returns those of the answer."""

    def register(function: Action) -> Action:
        _ACTIONS[name] = function
        return function

    return register


class Admin:
    """The questions of one target's owner. `ask` and `result` are for the conversation thread: they return soon."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._next = 1
        self._tickets: dict[int, Fields | None] = {}
        self._lock = threading.Lock()

    def ask(self, uid: int, fields: Fields) -> Fields:
        """Starts an action; its ticket. Errors are answers, too."""
        name = fields.get("action")
        function = _ACTIONS.get(name) if isinstance(name, str) else None
        if uid not in (0, os.geteuid()):
            return {"error": "only the user who runs the target may administer it"}
        if function is None:
            return {"error": f"this target knows no action {str(name)[:32]!a} (known: {', '.join(sorted(_ACTIONS))})"}
        with self._lock:
            for done in [n for n, answer in self._tickets.items() if answer is not None][:-MAX_RUNNING]:
                del self._tickets[done]
            if sum(answer is None for answer in self._tickets.values()) >= MAX_RUNNING:
                return {"error": f"{MAX_RUNNING} actions are running already"}
            ticket, self._next = self._next, self._next + 1
            self._tickets[ticket] = None
        thread = threading.Thread(target=self._run, args=(ticket, function, fields), name="vscsi-admin", daemon=True)
        thread.start()
        return {"ticket": ticket}

    def result(self, uid: int, fields: Fields) -> Fields:
        """What has become of a ticket; an empty answer while it is running."""
        ticket = fields.get("ticket")
        if uid not in (0, os.geteuid()) or not isinstance(ticket, int):
            return {"error": "no such ticket"}
        with self._lock:
            if ticket not in self._tickets:
                return {"error": "no such ticket"}
            answer = self._tickets[ticket]
            if answer is None:
                return {}
            del self._tickets[ticket]
            return answer

    def _run(self, ticket: int, function: Action, fields: Fields) -> None:
        try:
            answer = {"result": function(self._server, fields)}
        except (AdminError, StoreError) as error:
            answer = {"error": str(error)}  # type: ignore[dict-item]
        except CheckCondition as error:
            answer = {"error": error.sense.name.lower()}  # type: ignore[dict-item]
        except OSError as error:
            answer = {"error": (error.strerror or str(error)).lower()}  # type: ignore[dict-item]
        except Exception:
            log.exception("internal error in an action")
            answer = {"error": "internal error; the target's log says more"}  # type: ignore[dict-item]
        with self._lock:
            self._tickets[ticket] = answer


def unit_of(server: "Server", fields: Fields) -> "LogicalUnit":
    """The unit whose LUN is in the question. AdminError."""
    lun = fields.get("lun")
    unit = server.units.get(lun) if isinstance(lun, int) else None
    if unit is None:
        raise AdminError(f"there is no LUN {lun!a}")
    return unit


def _removable(server: "Server", fields: Fields) -> "LogicalUnit":
    unit = unit_of(server, fields)
    if not unit.removable:
        raise AdminError(f"LUN {unit.lun} is not removable (it was not given removable=on)")
    return unit


def _size(unit: "LogicalUnit") -> Fields:
    return {"lun": unit.lun, "blocks": unit.blocks, "block_nbytes": unit.block_nbytes}


@action("resize")
def resize(server: "Server", fields: Fields) -> Fields:
    """Looks at the image's size now; first changes it if `nbytes` says so, to a smaller one only with `shrink`."""
    unit, nbytes = unit_of(server, fields), fields.get("nbytes")
    if nbytes is not None:
        if not isinstance(nbytes, int) or nbytes <= 0 or nbytes % unit.block_nbytes:
            raise AdminError(f"the size must be a multiple of the block length, {unit.block_nbytes}")
        if nbytes > FILE_NBYTES_MAX:
            raise AdminError(f"no image is as large as {nbytes} bytes")
        if unit.readonly:
            raise AdminError(f"LUN {unit.lun} is read-only")
        if nbytes < unit.store.measure() and not fields.get("shrink"):
            raise AdminError(f"the image is larger ({format_size(unit.store.measure())}): what is behind would be lost")
        unit.store.resize(nbytes)
    changed = follow(unit)
    return {**_size(unit), "changed": changed}


@action("eject")
def eject(server: "Server", fields: Fields) -> Fields:
    """Takes a removable medium out, even if its removal is prevented with `force`."""
    unit = _removable(server, fields)
    unit.part(Medium).eject(force=bool(fields.get("force")))
    return _size(unit)


@action("load")
def load(server: "Server", fields: Fields) -> Fields:
    """Brings the medium back, or the image that `store` names in its place."""
    unit, store = _removable(server, fields), fields.get("store")
    medium = unit.part(Medium)
    if medium.present:
        raise AdminError(f"LUN {unit.lun} has a medium: eject it first")
    if isinstance(store, str):
        wanted = StoreSpec("", unit.asked_readonly, unit.cache, None, unit.block_nbytes, unit.discard)
        opened = open_store(store, wanted)
        try:
            medium.change(opened)
        except BaseException:
            opened.close()
            raise
        unit.name = store
    medium.load()
    return {**_size(unit), "store": unit.name}


# Actions of other modules register themselves on import.
from target import faults_admin, scheduling_admin  # noqa: E402, F401
