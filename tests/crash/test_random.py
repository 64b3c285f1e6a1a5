# SPDX-License-Identifier: BSD-2-Clause
"""Random loads of several nexuses, SRP and blkif, on a real vscsi-target; every crash point of what its image saw.

Short here; `make crash` runs it longer (VSCSI_CRASH_COMMANDS, VSCSI_CRASH_SEED).
"""

import os
import random

import pytest
from programs import Target

from crash.folder import Folder, mounted
from crash.log import Log
from crash.replay import replay
from crash.work import CLAIMED, Load, together

COMMANDS = int(os.environ.get("VSCSI_CRASH_COMMANDS", "120"))
SEED = int(os.environ.get("VSCSI_CRASH_SEED", random.randrange(1 << 32)))
SECTORS = 2048
KINDS = ("srp", "blkif", "srp", "blkif")


def load(log, socket, *, write_cache=True, whole=False, kinds=KINDS):
    """Parts overlap, so that nexuses write over each other's sectors."""
    loads = []
    for number, kind in enumerate(kinds):
        options = dict(write_cache=write_cache, whole=whole)
        loads.append(Load(log, socket, kind, 43 + number * 60, 150, 1024 + number * CLAIMED, SEED + number, **options))
    together(loads, COMMANDS)


def record(tmp_path_factory, lun="", *, engine="io_uring", env=None, **options):
    """A log of a load on a target whose image is recorded."""
    log, place = Log(), tmp_path_factory.mktemp("c")
    folder = Folder(log, seed=SEED)
    folder.make("disk.img", SECTORS * 512)
    with mounted(folder, place / "r") as files:
        target = Target(place, f"0={files / 'disk.img'}{lun}", options=("--engine", engine))
        try:
            load(log, target.socket, **options)
        finally:
            status = target.stop()
        text = target.log.read_text()
        assert status == 0 and "Traceback" not in text, text
    return log


@pytest.mark.parametrize("cache", ["wb", "wt"])
@pytest.mark.parametrize("engine", ["io_uring", "pool"])
def test_nothing_promised_is_lost(engine, cache, tmp_path_factory, capsys):
    log = record(tmp_path_factory, f",cache={cache}", engine=engine, write_cache=cache == "wb")
    report = replay(log, "disk.img")
    with capsys.disabled():
        print(f"\n{engine}, cache={cache}: {log.count()}: {report}")
    assert not report.losses, f"VSCSI_CRASH_SEED={SEED}\n" + "\n".join(report.losses[:10])
    assert report.contents > COMMANDS


@pytest.mark.parametrize("missing", [dict(kind="flush"), dict(kind="write", durable=True)], ids=["flushes", "fua"])
def test_a_missing_flush_is_found(missing, tmp_path_factory):
    """The same log as if the target had asked for no flush, or no write through the cache: both are seen as losses."""
    log = record(tmp_path_factory)
    assert not replay(log, "disk.img").losses
    assert replay(log.without(**missing), "disk.img").losses
