# SPDX-License-Identifier: BSD-2-Clause
"""WRITE ATOMIC through a crash: image and journal are recorded, put together as a crash would have left them, and given
to the target's own recovery. Then an atomic write is there as a whole or not at all, and whole once it was answered.
"""

import os
import random

import pytest
from fake_device import FakeDevice
from programs import Target

from crash.folder import Folder, mounted
from crash.images import write_image
from crash.log import SECTOR, Log
from crash.promises import Promises
from crash.replay import Medium, replay
from crash.work import CLAIMED, Load, together

COMMANDS = int(os.environ.get("VSCSI_CRASH_COMMANDS", "120"))
STATES = 20 * int(os.environ.get("VSCSI_CRASH_STATES", "3"))
SEED = int(os.environ.get("VSCSI_CRASH_SEED", random.randrange(1 << 32)))
NBYTES = 1 << 20
IMAGE, JOURNAL = "disk.img", "disk.img.vscsi/atomic.journal"


class Small:
    """A small file whose length changes: `settled`, and what has been done to it since it was last synced."""

    def __init__(self):
        self.settled, self.open, self.named = None, [], False

    def begin(self, op):
        if op.kind == "create" or op.kind in ("write", "truncate"):
            self.open.append(op)

    def end(self, op):
        if op.kind == "flush":
            done = [o for o in self.open if o.end is not None and o.end < op.begin]
            self.settled = self._after(self.settled, done, lambda o: None)
            self.open = [o for o in self.open if o not in done]
        elif op.kind == "flush names":
            self.named = self.named or any(o.kind == "create" for o in self.open) or self.settled is not None

    @staticmethod
    def _after(content, ops, torn):
        for op in ops:
            content = bytearray(content or b"")
            if op.kind == "truncate":
                content[:] = content[: op.offset].ljust(op.offset, b"\0")
            elif op.kind == "write":
                content.extend(bytes(max(0, op.offset + len(op.data) - len(content))))
                for at in range(0, len(op.data), SECTOR):
                    if torn(op) is None or torn(op).random() < 0.5:
                        piece = op.data[at : at + SECTOR]
                        content[op.offset + at : op.offset + at + len(piece)] = piece
        return content

    def state(self, rng):
        """Content after a crash, or None: there is no such file."""
        how = rng.choice(("none", "all", "some", "some"))
        chosen = [o for o in self.open if how == "all" or (how == "some" and rng.random() < 0.7)]
        content = self._after(self.settled, chosen, lambda o: rng if how == "some" else None)
        return content if self.named or rng.random() < 0.5 else None


def recovered(place, base, image, journal):
    """The image's bytes after the target has opened what the crash left."""
    write_image(place / IMAGE, base, image)
    beside = place / "disk.img.vscsi"
    beside.mkdir(exist_ok=True)
    (beside / "atomic.journal").unlink(missing_ok=True)
    if journal is not None:
        (beside / "atomic.journal").write_bytes(journal)
    FakeDevice(f"0={place / IMAGE}").close()
    assert not list(beside.glob("*.unused")), "a record of this image was taken for another's"
    return (place / IMAGE).read_bytes()


def check(data, promises, commands):
    """Every sector shows what it may; of every atomic write that can be seen, everything can, or newer."""
    for sector in {sector for command in commands for sector in command.writes}:
        content = data[sector * SECTOR : (sector + 1) * SECTOR]
        assert promises.allows(sector, content), f"sector {sector} shows {content[:32].hex()}: {promises.told(sector)}"
    for command in commands:
        shown = {s for s, new in command.writes.items() if data[s * SECTOR : (s + 1) * SECTOR] == new}
        if command.whole and shown:
            for sector in set(command.writes) - shown:
                content = data[sector * SECTOR : (sector + 1) * SECTOR]
                newer = [c for c in commands if c.sent > command.sent and c.writes.get(sector) == content]
                assert newer, f"{command.name} sent {command.sent} is torn at sector {sector}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("journalled", [True, False], ids=["journal", "without-journal"])
def test_atomic_writes_are_whole(journalled, tmp_path_factory, capsys):
    """Without the journal's part of the crash they are found torn: the journal is what does it."""
    log, place, rng = Log(), tmp_path_factory.mktemp("a"), random.Random(SEED)
    folder = Folder(log, seed=SEED)
    folder.make(IMAGE, NBYTES)
    with mounted(folder, place / "r") as files:
        target = Target(place, f"0={files / IMAGE}")
        try:
            loads = [
                Load(log, target.socket, "srp", 40, 100, 1024 + n * CLAIMED, SEED + n, whole=True, only_claimed=0.5)
                for n in range(2)
            ]
            together(loads, COMMANDS)
        finally:
            status = target.stop()
        assert status == 0, target.log.read_text()
    report = replay(log, IMAGE)
    assert not report.losses, f"VSCSI_CRASH_SEED={SEED}\n" + "\n".join(report.losses[:10])

    medium, small, promises, commands = Medium(), Small(), Promises(), []
    running, tried, problems = set(), 0, []
    share = (STATES if journalled else 60) / max(1, sum(1 for what, _ in log.entries if what in ("begin", "end")))
    for now, (what, thing) in enumerate(log.entries):
        if what == "sent":
            promises.sent(thing, now)
            commands.append(thing)
            running |= {thing} if thing.whole else set()
        elif what == "acked":
            promises.acked(thing, now)
            running.discard(thing)
        else:
            for file, model in ((IMAGE, medium), (JOURNAL, small)):
                if thing.file == file or (thing.kind == "flush names" and model is small):
                    (model.begin if what == "begin" else model.end)(thing)
        if rng.random() < share * (3 if running else 0.3):
            image = medium.settled | medium.state(
                rng, rng.choice((0.0, 0.3, 0.5, 0.8, 1.0) if journalled else (0.3, 0.5, 0.7))
            )
            try:
                tried += 1
                check(
                    recovered(place, bytes(NBYTES), image, small.state(rng) if journalled else None), promises, commands
                )
            except AssertionError as error:
                problems.append(f"crash after entry {now}: {error}")
    atomic = sum(command.whole for command in commands)
    with capsys.disabled():
        print(
            f"\n{atomic} atomic writes{'' if journalled else ', journal thrown away'}: {log.count()}: {tried} crashes "
            f"recovered, {len(problems)} losses"
        )
    assert atomic and tried > 10
    assert bool(problems) != journalled, f"VSCSI_CRASH_SEED={SEED}\n" + "\n".join(problems[:10])
