# SPDX-License-Identifier: BSD-2-Clause
"""All peers that are there, and SRP over the ring beside them, in paired rounds on one image; and what SRP must reach.

Knows rounds and goals; a peer only through its class. One that fails is left out with its reason, the others go on.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from comparison import statistics
from comparison.image import heat
from comparison.lanes import SrpLane
from comparison.measure import Lane, MismatchError, Series
from comparison.room import READ, SINGLE, SPIN_US, Room
from comparison.server import PrivateTarget, stored
from comparison.workloads import Workload

from vscsi.cli import CliError, ExitStatus

from .peer import Peer, PeerError, Site, every

SPINNING, SLEEPING = "srp", "srp, sleeping"
GOALS = ((READ, SPINNING, 10.0), (SINGLE, SPINNING, 15.0), (SINGLE, SLEEPING, 1.5))
"""SRP over the ring against the best other target: at least so many times its I/O per second."""


class SleepingLane(SrpLane):
    """Neither end spins."""

    name = SLEEPING


def measure(room: Room, names: Sequence[str] = ()) -> dict[str, Any]:
    """Parts of the JSON: `peers`, `peer_results`, `peer_ratios`, `peer_goals`.

    CliError for a name that no peer has; ServerError, MismatchError.
    """
    kinds = every()
    known = [kind.name for kind in kinds]
    for name in names:
        if name not in known:
            raise CliError(f"there is no peer '{name}' (known: {', '.join(known)})", ExitStatus.SYNTAX)
    with contextlib.ExitStack() as stack:
        sites = {}
        # Two targets never share an image: the one whose loop sleeps has a copy, just as hot.
        copy = room.folder / "copy.img"
        stack.callback(copy.unlink, missing_ok=True)
        shutil.copyfile(room.image, copy)
        heat(copy, room.span_nbytes)
        for name, path, spin in (("spinning", room.image, SPIN_US), ("sleeping", copy, 0)):
            folder = room.folder / name
            folder.mkdir()
            sites[name] = PrivateTarget([stored(path)], folder, spin_us=spin)
            stack.callback(sites[name].close)
        site = Site(room.image, room.span_nbytes, room.folder, sites["spinning"].socket, sites["spinning"].pid)
        ours: list[Lane] = [SrpLane(site.target_socket, 0, SPIN_US), SleepingLane(sites["sleeping"].socket, 0, 0)]
        for lane in ours:
            stack.callback(lane.close)
        wanted = [kind() for kind in kinds if not names or kind.name in names]
        records, peers = _start(stack, site, wanted, room.tell)
        series: list[Series] = []
        for workload in (READ, SINGLE):
            series += _rounds(workload, ours, peers, records, room)
    return {
        "peers": list(records.values()),
        "peer_results": [one.to_json() for one in series],
        "peer_ratios": ratios(series),
        "peer_goals": {"rows": goals(series, {peer.name for peer in peers if peer.kind == "socket"}), "lines": []},
    }


def _start(
    stack: contextlib.ExitStack, site: Site, peers: Sequence[Peer], tell: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], list[Peer]]:
    records: dict[str, dict[str, Any]] = {}
    ready = []
    for peer in peers:
        record = {"name": peer.name, "title": peer.title, "kind": peer.kind, "settings": list(peer.settings)}
        records[peer.name] = record
        reason = peer.missing()
        if not reason:
            tell(f"starting {peer.name}")
            stack.callback(peer.close)
            try:
                peer.start(site)
            except (PeerError, OSError) as error:
                reason = str(error)
        if reason:
            record["skipped"] = reason
            tell(f"{peer.title}: {reason}")
        else:
            record["version"] = peer.version()
            ready.append(peer)
    return records, ready


def _rounds(
    workload: Workload, ours: Sequence[Lane], peers: list[Peer], records: dict[str, dict[str, Any]], room: Room
) -> list[Series]:
    """The rounds of one workload; a peer that fails is dropped, and the rounds begin anew without it."""
    while True:
        lanes: list[Lane] = [*ours, *(peer for peer in peers if peer.supports(workload))]
        watched = [_Watched(lane) for lane in lanes]
        try:
            return list(room.compare(watched, workload).values())
        except (PeerError, MismatchError) as error:
            failed = next((lane.lane for lane in watched if lane.failed), None)
            if not isinstance(failed, Peer):
                raise
            records[failed.name]["skipped"] = str(error)
            room.tell(f"{failed.title}: {error}")
            peers.remove(failed)


class _Watched:
    """A lane that remembers that it was the one that failed."""

    def __init__(self, lane: Lane) -> None:
        self.lane, self.name, self.failed = lane, lane.name, True
        self.close = lane.close

    def verify(self, workload: Workload, span_nbytes: int) -> None:
        """As the lane does it."""
        self.lane.verify(workload, span_nbytes)
        self.failed = False

    def run(self, spec: Any) -> Any:
        """As the lane does it."""
        self.failed = True
        done = self.lane.run(spec)
        self.failed = bool(done.result.errors or not done.ios)
        return done


def _of(series: Sequence[Series], workload: Workload, name: str) -> Series | None:
    return next((one for one in series if one.workload == workload and one.protocol == name), None)


def ratios(series: Sequence[Series]) -> list[dict[str, Any]]:
    """SRP over every peer, workload by workload."""
    out = []
    for one in series:
        if one.protocol in (SPINNING, SLEEPING):
            continue
        for name in (SPINNING, SLEEPING):
            ring = _of(series, one.workload, name)
            if ring is not None:
                out.append({"label": one.workload.label, "peer": one.protocol, "ring": name,
                            "ratio": statistics.ratio(ring.iops, one.iops)})  # fmt: skip
    return out


def goals(series: Sequence[Series], candidates: set[str]) -> list[dict[str, Any]]:
    """Rows as the JSON's `goals` have them: SRP over the best of `candidates`. A goal is missed if its high end is."""
    rows = []
    for workload, name, bound in GOALS:
        ring = _of(series, workload, name)
        others = [one for one in series if one.workload == workload and one.protocol in candidates]
        if ring is None or not others:
            continue
        best = max(others, key=lambda one: median(one.iops))
        found = statistics.ratio(ring.iops, best.iops)
        rows.append(
            {
                "work": workload.label,
                "what": f"{name} / {best.protocol}",
                "unit": "",
                "at_least": bound,
                "at_most": None,
                **found,
                "met": found["high"] >= bound,
                "note": f"{median(best.iops):.0f} IOPS, the best other target",
                "rounds": [round(a / b, 4) for a, b in zip(ring.iops, best.iops, strict=True)],
            }
        )
    return rows
