# SPDX-License-Identifier: BSD-2-Clause
"""The same LUN through this project's Python library: what a command costs when Python makes it."""

from __future__ import annotations

import random
import time
from typing import Any

from comparison.measure import Round
from comparison.workloads import Workload

from initiator import Initiator
from vscsi.scsi import cdb

from .peer import Peer, Site, register, round_of

SPIN_US = 50


@register
class Library(Peer):
    """`Lun.read` one at a time; `submit` and `reap` where more are under way. The data is copied once, into bytes."""

    name = "library"
    title = "the Python library"
    kind = "ours"
    commands = ()
    settings = ("Lun.read at depth 1, submit and reap above", f"spin_us={SPIN_US}")

    def __init__(self) -> None:
        super().__init__()
        self._initiator: Initiator | None = None

    def supports(self, workload: Workload) -> bool:
        return super().supports(workload) and workload.read_percent == 100

    def start(self, site: Site) -> None:
        self._initiator = Initiator(site.target_socket, spin_us=SPIN_US)
        self.extra_pid = site.target_pid

    def run(self, spec: Any) -> Round:
        assert self._initiator is not None
        unit = self._initiator.lun(0)
        blocks = spec.block_nbytes // unit.block_nbytes
        source = random.Random(spec.seed)
        count = spec.span_nbytes // spec.block_nbytes
        place = self._places(source if spec.random else None, count, blocks)
        server, client, start = self.cpu_ns(), time.thread_time_ns(), time.monotonic_ns()
        end = start + spec.duration_ns
        if spec.queue_depth == 1:
            bins = self._one_by_one(unit, place, blocks, end)
        else:
            bins = self._many(place, blocks, spec.block_nbytes, spec.queue_depth, end)
        seconds = (time.monotonic_ns() - start) / 1e9
        return round_of(
            sum(bins.values()), seconds, bins,
            client_ns=time.thread_time_ns() - client, server_ns=self.cpu_ns() - server,
        )  # fmt: skip

    @staticmethod
    def _places(source: random.Random | None, count: int, blocks: int) -> Any:
        if source is not None:
            return lambda: source.randrange(count) * blocks
        numbers = iter(range(1 << 62))
        return lambda: next(numbers) % count * blocks

    @staticmethod
    def _one_by_one(unit: Any, place: Any, blocks: int, end: int) -> dict[int, int]:
        bins: dict[int, int] = {}
        now = time.monotonic_ns()
        while now < end:
            unit.read(place(), blocks)
            before, now = now, time.monotonic_ns()
            bins[now - before] = bins.get(now - before, 0) + 1
        return bins

    def _many(self, place: Any, blocks: int, nbytes: int, depth: int, end: int) -> dict[int, int]:
        assert self._initiator is not None
        bins: dict[int, int] = {}
        under_way = 0
        now = time.monotonic_ns()
        while under_way or now < end:
            while under_way < depth and now < end:
                row = cdb.READ_10.build(lba=place(), transfer_length=blocks)
                self._initiator.submit(0, row, data_in=nbytes, cookie=now)
                under_way += 1
            for done in self._initiator.reap(depth, 1, 30.0):
                done.raise_for_status()
                now = time.monotonic_ns()
                bins[now - done.cookie] = bins.get(now - done.cookie, 0) + 1
                under_way -= 1
            now = time.monotonic_ns()
        return bins

    def close(self) -> None:
        if self._initiator is not None:
            self._initiator.close()
            self._initiator = None
        super().close()
