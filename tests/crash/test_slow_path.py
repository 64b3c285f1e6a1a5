# SPDX-License-Identifier: BSD-2-Clause
"""The same for a store in Python, served through the slow path: needs no FUSE."""

import pytest
from real_server import Target

from crash.log import Log
from crash.replay import replay
from crash.store import FORGETFUL, LOGS, SCHEME
from crash.test_random import SEED, load
from target import stores


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only here: the program's list of stores is nobody else's business."""
    monkeypatch.setitem(stores._SCHEMES, SCHEME.name, SCHEME)


def record(tmp_path_factory, name, cache="wb"):
    log = LOGS[name] = Log()
    target = Target(tmp_path_factory.mktemp("s") / "t", f"0=recorded:{name},cache={cache}")
    try:
        load(log, target.path, write_cache=cache == "wb")
    finally:
        target.stop()
    return log


@pytest.mark.parametrize("cache", ["wb", "wt"])
def test_nothing_promised_is_lost(cache, tmp_path_factory, capsys):
    log = record(tmp_path_factory, "disk", cache)
    report = replay(log, "disk")
    with capsys.disabled():
        print(f"\nPython store, cache={cache}: {log.count()}: {report}")
    assert not report.losses, f"VSCSI_CRASH_SEED={SEED}\n" + "\n".join(report.losses[:10])


def test_a_store_that_does_not_flush_is_found(tmp_path_factory):
    FORGETFUL.add("forgetful")
    report = replay(record(tmp_path_factory, "forgetful"), "forgetful")
    assert report.losses
