# SPDX-License-Identifier: BSD-2-Clause
"""Answers to the requests `stats` and `info`: what the target is doing, and who it is, as plain dictionaries.

Read by the bench and by `list -v`. Knows where the numbers are, and changes nothing.
"""

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

from target.srp_device import SrpDevice
from vscsi.nodes import own_info

if TYPE_CHECKING:
    from target.server import Server

LOOP_THREAD_PREFIX = "vscsi-loop"


def _numbers(server: "Server", what: str, index: int, call: Any) -> dict[str, int]:
    """A native stats struct as a dictionary; empty if there is none."""
    stats = server.ffi.new(f"struct {what} *")
    if call(server.target, index, stats) < 0:
        return {}
    return {name: int(getattr(stats, name)) for name, _ in server.ffi.typeof(f"struct {what}").fields}


def engine_name(server: "Server") -> str:
    """The block I/O engine in use, in the words of the command line."""
    names = {server.native.VT_ENGINE_URING: "uring", server.native.VT_ENGINE_POOL: "pool"}
    return names.get(server.native.vt_engine_used(server.target), "unknown")


def loop_threads() -> list[int]:
    """Thread ids of the loops, by the name they give themselves."""
    tasks = Path("/proc/self/task")
    found = []
    for task in sorted(tasks.iterdir(), key=lambda path: int(path.name)) if tasks.exists() else ():
        try:
            name = (task / "comm").read_text()
        except OSError:  # it has just ended
            continue
        if name.startswith(LOOP_THREAD_PREFIX):
            found.append(int(task.name))
    return found


def luns(server: "Server") -> list[dict[str, Any]]:
    """Every LU served."""
    return [
        {
            "lun": unit.lun,
            "index": unit.index,
            "block_nbytes": unit.block_nbytes,
            "blocks": unit.blocks,
            "readonly": bool(unit.readonly),
        }
        for unit in server.units.values()
    ]


def _process() -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Rss")
    )
    return {
        "pid": os.getpid(),
        "cpu_ns": int((used.ru_utime + used.ru_stime) * 1e9),
        "rss_anon_nbytes": int(status.get("RssAnon", "0 kB").split()[0]) * 1024,
    }


def stats(server: "Server") -> dict[str, Any]:
    """Counters of loops and channels. Times in ns."""
    native = server.native
    loops = []
    threads = loop_threads()
    for index in range(server.options.loops):
        numbers = _numbers(server, "vt_loop_stats", index, native.vt_loop_stats)
        loops.append({"loop": index, "thread_id": threads[index] if index < len(threads) else None, **numbers})
    channels = []
    for channel, device in sorted(server.channels.items()):
        numbers = _numbers(server, "vt_channel_stats", channel, native.vt_channel_stats)
        channels.append(
            {
                "channel": channel,
                "domid": device.peer.connection.domid,
                "device": f"{device.kind}/{device.devid}",
                "protocol": "srp" if isinstance(device, SrpDevice) else "blkif",
                **numbers,
            }
        )
    return {
        "engine": engine_name(server),
        "loops": loops,
        "channels": channels,
        "luns": luns(server),
        "process": _process(),
    }


def info(server: "Server") -> dict[str, Any]:
    """Who the target is, what it serves, and who is connected."""
    own = own_info("vscsi-target")
    return {
        "name": own.name,
        "version": own.version,
        "os": own.os,
        "max_transfer_nbytes": own.max_transfer_nbytes,
        "target_port_id": server.rules.target_port_id.hex(),
        "pid": os.getpid(),
        "engine": engine_name(server),
        "luns": luns(server),
        "initiators": [_initiator(peer) for peer in sorted(server.peers, key=lambda p: p.connection.domid)],
    }


def _initiator(peer: Any) -> dict[str, Any]:
    """One connection, with what its first SRP channel said of it."""
    devices = [device for device in peer.devices.values() if device.channels]
    srp = next((device for device in devices if isinstance(device, SrpDevice) and device.nodes), None)
    who = srp.nodes.info if srp is not None and srp.nodes is not None else None
    return {
        "domid": peer.connection.domid,
        "pid": peer.connection.peer.pid,
        "uid": peer.connection.peer.uid,
        "name": who.name if who else "unknown",
        "version": who.version if who else "unknown",
        "os": who.os if who else "unknown",
        "max_transfer_nbytes": who.max_transfer_nbytes if who else 0,
        "initiator_port_id": str(srp.nexus) if srp is not None and srp.nexus is not None else None,
        "devices": sorted(f"{device.kind}/{device.devid}" for device in devices),
    }
