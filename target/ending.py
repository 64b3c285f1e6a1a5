# SPDX-License-Identifier: BSD-2-Clause
"""How a target ends: everything is taken down in order, and what is stuck is left behind.

Knows what must be at rest before what may go. Must not know how clients are told, nor what a unit does when it closes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from target.lu import LogicalUnit
    from target.server import Server

log = logging.getLogger("vscsi.target")


def end(server: "Server") -> None:
    """Loops, workers, mappings, memory, units. LUNs that do not answer in time are in `server.stuck` then."""
    units, seconds = list(server.units.values()), server.options.abort_limit_ms / 1000
    until = time.monotonic() + seconds
    if server.device is not None:
        server.device.stopping = True
        _tell(server, [(unit, unit.shutdown) for unit in units], until)
    for peer in list(server.peers):
        peer.vanish()
    stuck = server.native.vt_stop_within(server.target, int(_left(until) * 1000)) < 0
    if server.workers is not None:
        stuck |= not server.workers.join(_left(until))
    if server.recorder is not None:
        server.recorder.close()
    if stuck:
        units = _at_rest(server)  # nor may anything be unmapped or freed
    else:
        _free(server)
    server.close()
    _tell(server, [(unit, unit.close) for unit in units], time.monotonic() + seconds)


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _tell(server: "Server", calls: "Sequence[tuple[LogicalUnit, Callable[[], None]]]", until: float) -> None:
    """Tells units something; those that are not done with it in time are stuck."""
    for unit in unfinished(calls, _left(until)):
        server.stuck.add(unit.lun)
        log.error("lun %d: its image does not answer: going without it", unit.lun)


def unfinished(calls: "Iterable[tuple[LogicalUnit, Callable[[], None]]]", seconds: float) -> "list[LogicalUnit]":
    """Makes all of these calls at once, in threads; the units of those that have not returned in time, which go on."""
    until = time.monotonic() + seconds
    threads = [(unit, threading.Thread(target=call, name=f"vscsi-end-{unit.lun}", daemon=True)) for unit, call in calls]
    for _, thread in threads:
        thread.start()
    for _, thread in threads:
        thread.join(_left(until))
    return [unit for unit, thread in threads if thread.is_alive()]


def _at_rest(server: "Server") -> "list[LogicalUnit]":
    """Units without commands under way. Of others nothing may be closed: their descriptors are in use."""
    found = []
    stats = server.ffi.new("struct vt_lu_stats *")
    for unit in server.units.values():
        if server.native.vt_lu_stats(server.target, unit.index, stats) == 0 and not stats.tasks:
            found.append(unit)
            continue
        log.error("lun %d: %d commands do not end: its image is left as it is", unit.lun, stats.tasks)
        server.stuck.add(unit.lun)
        unit.give_up()
    return found


def _free(server: "Server") -> None:
    while server.channels:
        device = next(iter(server.channels.values()))
        for channel in list(device.channels):
            device.stopping = True
            device.stopped(channel)
    server.native.vt_free(server.target)
    if server.sizes is not None:
        server.sizes.close()
