# SPDX-License-Identifier: BSD-2-Clause
"""Every command of the target at random, from several nexuses at once, on shared logical units of every kind.

Says nothing of what a command must answer: that it answers, that the target lives, has no internal error, and leaks
neither descriptors nor threads nor memory. Short here; `make stress` runs it as long as VSCSI_STRESS_SECONDS says.
"""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import BIN, Target, run

from initiator import Initiator, TransportError
from initiator.errors import CommandAborted
from initiator.native import lib
from target import commands
from vscsi.scsi import cdb, sense
from vscsi.scsi.cdb import Cdb, Data

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "3"))
SEED = int(os.environ.get("VSCSI_STRESS_SEED", random.randrange(1 << 32)))
NEXUSES = 5
LUNS = 8
ANSWER_SECONDS = 60.0
ROWS = [handler.row for handler in commands.handlers().values()]
DISTURBANCES = (lib.SRP_TMF_LUN_RESET, lib.SRP_TMF_ABORT_TASK_SET, lib.SRP_TMF_CLEAR_TASK_SET)
CHECK_CONDITION, RESERVATION_CONFLICT = 0x02, 0x18
INTERNAL = sense.INTERNAL_TARGET_FAILURE


def luns_of(folder: Path) -> list[str]:
    return [
        f"0={folder / 'thin.img'},size=2M",
        f"1={folder / 'thick.img'},size=1M,discard=off,cache=wt",
        f"2={folder / 'removable.img'},size=1M,removable=on",
        f"3={folder / 'protected.img'},size=1M,protection=1",
        f"4={folder / 'big.img'},size=2M,bs=4096,threshold=50",
        "5=mem:1M,protection=3",
        "6=null:1M",
        f"7={folder / 'direct.img'},size=1M,cache=none,removable=on",
    ]


class Chaos:
    """One nexus that does what it should not."""

    def __init__(self, target: Target, number: int, end: float) -> None:
        self.target, self.end = target, end
        self.rng = random.Random(f"{SEED} {number}")
        self.number = number
        self.wrong: list[str] = []
        self.ended: Counter[int] = Counter()

    def value(self, name: str, mask: int) -> int:
        """A value of a field: mostly one that may do something."""
        rng = self.rng
        small = rng.choice((0, 1, 1, 2, 3, 8, 24))
        if name == "lba" or name.endswith("block_address"):
            return min(mask, rng.choice((0, 1, 7, rng.randrange(4096), rng.randrange(4096), mask)))
        if "length" in name or "blocks" in name or "count" in name:
            return min(mask, rng.choice((small, small, small, rng.randrange(600), mask if rng.random() < 0.1 else 24)))
        if mask < 64:
            return rng.choice((0, 0, rng.randrange(mask + 1)))
        return min(mask, rng.choice((0, 0, small, rng.randrange(mask + 1))))

    def command(self) -> tuple[Cdb, bytes]:
        row = self.rng.choice(ROWS)
        fields = {
            name: self.value(name, field.mask)
            for name, field in row.fields.items()
            if name != "control" and self.rng.random() < 0.6
        }
        raw = bytearray(row.build(**{k: v for k, v in fields.items() if isinstance(v, int)}))
        if self.rng.random() < 0.05:
            raw[self.rng.randrange(1, len(raw))] ^= 1 << self.rng.randrange(8)
        return row, bytes(raw)

    def data_out(self, row: Cdb, raw: bytes) -> bytes:
        if row.data is not Data.OUT:
            return bytes(self.rng.choice((0, 0, 0, 512)))
        with contextlib.suppress(ValueError):
            fields = row.parse(raw)
            nbytes = row.data_nbytes(fields, self.rng.choice((512, 512, 520, 4096)))
            if self.rng.random() < 0.1:
                nbytes += self.rng.choice((-1, 1, 8, 512))
            nbytes = min(max(nbytes, 0), 1 << 20)
            # Small numbers here and there: what parameter lists are made of.
            some = bytes(self.rng.choices((0, 0, 0, 0, 0, 1, 2, 8, 24, 0xFF), k=min(nbytes, 128)))
            return (some * (nbytes // 128 + 1))[:nbytes]
        return b""

    def run(self) -> None:
        try:
            while time.monotonic() < self.end:
                with Initiator(self.target.socket, port_id=bytes([self.number]) * 16, memory_nbytes=8 << 20) as nexus:
                    for _ in range(self.rng.randrange(50, 400)):
                        if time.monotonic() > self.end:
                            break
                        self.once(nexus)
        except (TransportError, OSError) as error:
            self.wrong.append(f"nexus {self.number}: {error}")

    def once(self, nexus: Initiator) -> None:
        lun = self.rng.randrange(LUNS + 1)
        if self.rng.random() < 0.01:
            nexus.task_management(self.rng.choice(DISTURBANCES), lun, timeout=ANSWER_SECONDS)
            return
        row, raw = self.command()
        room = self.rng.choice((0, 8, 252, 4096, 65536))
        # Several at a time, so that aborts and resets find something to end.
        sent = self.rng.choice((1, 1, 4))
        for _ in range(sent):
            nexus.submit(lun, raw, data_out=self.data_out(row, raw), data_in=room, timeout=ANSWER_SECONDS, cookie=raw)
        conflict = False
        for _ in range(sent):
            (done,) = nexus.reap(max=1, min=1, timeout=ANSWER_SECONDS) or [None]
            if done is None:
                raise TransportError(f"{row.name} on lun {lun}, {raw.hex(' ')}: no answer")
            self.ended[done.status] += 1
            conflict |= done.status == RESERVATION_CONFLICT
            if done.error is not None and not isinstance(done.error, CommandAborted):
                raise done.error
            if done.status == CHECK_CONDITION and sense.decode(done.sense).matches(INTERNAL):
                self.wrong.append(f"{row.name} on lun {lun}, {raw.hex(' ')}: internal target failure")
        if conflict and self.rng.random() < 0.2:
            self.make_room(nexus, lun)

    def make_room(self, nexus: Initiator, lun: int) -> None:
        """Ends reservations, as an administrator would."""
        with contextlib.suppress(CommandAborted):
            self._make_room(nexus, lun)

    def _make_room(self, nexus: Initiator, lun: int) -> None:
        key = b"\0" * 8 + b"administ" + bytes(8)
        out = cdb.PERSISTENT_RESERVE_OUT_REGISTER_AND_IGNORE_EXISTING_KEY.build(parameter_list_length=24)
        nexus.execute(lun, out, data_out=key, timeout=ANSWER_SECONDS)
        out = cdb.PERSISTENT_RESERVE_OUT_CLEAR.build(parameter_list_length=24)
        nexus.execute(lun, out, data_out=b"administ" + bytes(16), timeout=ANSWER_SECONDS)
        nexus.task_management(lib.SRP_TMF_LUN_RESET, lun, timeout=ANSWER_SECONDS)


def administer(target: Target, folder: Path, end: float, wrong: list[str]) -> None:
    """Sizes and media change meanwhile. That it is refused is no mistake."""
    rng = random.Random(f"{SEED} admin")
    for name in ("2.other", "7.other"):
        (folder / name).write_bytes(bytes(1 << 20))
    while time.monotonic() < end:
        lun = rng.choice((2, 7))
        words = rng.choice((
            ("resize", "0", "--size", f"{rng.randrange(1, 5)}M"), ("resize", "1"), ("status",),
            ("eject", str(lun)), ("load", str(lun)), ("load", str(lun), str(folder / f"{lun}.other")),
        ))  # fmt: skip
        done = run(BIN / "vscsi-admin", "-U", target.socket, *words, timeout=ANSWER_SECONDS + 30)
        if done.status not in (0, 5):
            wrong.append(f"{words}: {done.status} {done.err}")


class Counts(NamedTuple):
    """What a process has."""

    descriptors: int
    threads: int
    resident_kib: int


def counts(pid: int) -> Counts:
    status = Path(f"/proc/{pid}/status").read_text()
    words = dict(line.split(":", 1) for line in status.splitlines())
    fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Counts(fds, int(words["Threads"]), int(words["VmRSS"].split()[0]))


@pytest.mark.stress
@pytest.mark.timeout(SECONDS + 180)
def test_a_target_survives_everything(tmp_path: Path) -> None:
    target = Target(tmp_path, *luns_of(tmp_path))
    try:
        before = counts(target.process.pid)
        end = time.monotonic() + SECONDS
        crowd = [Chaos(target, n, end) for n in range(NEXUSES)]
        threads = [threading.Thread(target=chaos.run) for chaos in crowd]
        threads.append(threading.Thread(target=administer, args=(target, tmp_path, end, crowd[0].wrong)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 150)
            assert not thread.is_alive(), "a command is never answered"
        seed = f"VSCSI_STRESS_SEED={SEED}"
        ended = sum((chaos.ended for chaos in crowd), Counter())
        assert [line for chaos in crowd for line in chaos.wrong] == [], seed
        assert target.process.poll() is None, seed
        assert min(ended[0], ended[CHECK_CONDITION], ended[RESERVATION_CONFLICT]) > 0, (seed, ended)
        after = counts(target.process.pid)
        # Files beside the images stay open once they are needed, and pool threads stay.
        assert after.descriptors <= before.descriptors + 3 * LUNS, (seed, before, after)
        assert after.threads <= before.threads + 16, (seed, before, after)
        assert after.resident_kib <= before.resident_kib + 65536, (seed, before, after)
        with Initiator(target.socket) as nexus:
            for lun in range(LUNS):
                assert nexus.execute(lun, cdb.INQUIRY.build(allocation_length=96), data_in=96).status == 0
    finally:
        status = target.stop()
    log = target.log.read_text()
    assert "Traceback" not in log and "internal error" not in log, f"{seed}\n{log[-20000:]}"
    assert status == 0, log
