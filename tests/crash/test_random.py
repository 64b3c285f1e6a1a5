# SPDX-License-Identifier: BSD-2-Clause
"""Random loads of several nexuses, SRP and blkif, on a real vscsi-target; every crash point of what its image saw.

Short here; `make crash` runs it longer (VSCSI_CRASH_COMMANDS, VSCSI_CRASH_SEED).
"""

import os
import random
import subprocess

import pytest
from programs import Target, tool

from crash.folder import Folder, mounted
from crash.log import Log
from crash.replay import replay
from crash.work import CLAIMED, Load, together

COMMANDS = int(os.environ.get("VSCSI_CRASH_COMMANDS", "120"))
SEED = int(os.environ.get("VSCSI_CRASH_SEED", random.randrange(1 << 32)))
SECTORS = 2048
KINDS = ("srp", "blkif", "srp", "blkif")


def load(log, socket, *, write_cache=True, grain=1):
    """Parts overlap, so that nexuses write over each other's sectors."""
    loads = []
    for number, kind in enumerate(KINDS):
        options = dict(write_cache=write_cache, grain=grain)
        loads.append(Load(log, socket, kind, 43 + number * 60, 150, 1024 + number * CLAIMED, SEED + number, **options))
    together(loads, COMMANDS)


def record(tmp_path_factory, lun="", *, engine="io_uring", preload=None, **options):
    """A log of a load on a target whose image is recorded."""
    log, place = Log(), tmp_path_factory.mktemp("c")
    folder = Folder(log, seed=SEED)
    folder.make("disk.img", SECTORS * 512)
    with mounted(folder, place / "r") as files:
        with pytest.MonkeyPatch.context() as patch:
            if preload:
                patch.setenv("LD_PRELOAD", " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(preload)))))
            target = Target(place, f"0={files / 'disk.img'}{lun}", options=("--engine", engine))
        try:
            load(log, target.socket, **options)
        finally:
            status = target.stop()
        text = target.log.read_text()
        assert status == 0 and "Traceback" not in text, text
    return log


@pytest.mark.parametrize("cache", ["wb", "wt", "none"])
@pytest.mark.parametrize("engine", ["io_uring", "pool"])
def test_nothing_promised_is_lost(engine, cache, tmp_path_factory, capsys):
    log = record(
        tmp_path_factory, f",cache={cache}", engine=engine, write_cache=cache != "wt", grain=8 if cache == "none" else 1
    )
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


# What a target would be whose fdatasync or RWF_DSYNC does nothing: with the engine that makes these calls itself.
LIES = {
    "fdatasync": "int fdatasync(int fd) { (void)fd; return 0; }",
    "RWF_DSYNC": """#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/uio.h>
ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int flags)
{
    (void)flags;
    return pwritev(fd, v, n, at);
}""",
}


@pytest.mark.parametrize("call", LIES)
def test_a_target_that_lies_is_found(call, tmp_path_factory):
    """A real target that answers without having asked for the data to be durable."""
    place = tmp_path_factory.mktemp("lie")
    (place / "lie.c").write_text(LIES[call])
    words = [tool("gcc"), "-shared", "-fPIC", "-O1", "-o", place / "lie.so", place / "lie.c"]
    subprocess.run(words, check=True)
    log = record(tmp_path_factory, engine="pool", preload=place / "lie.so")
    assert replay(log, "disk.img").losses
