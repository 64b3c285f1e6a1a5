# SPDX-License-Identifier: BSD-2-Clause
"""Several initiators, SRP and blkif, on one logical unit at once; what every sector holds is checked by worker.py.

Short here; `make stress` runs it for as long as one likes (VSCSI_STRESS_SECONDS). The target is killed and started
again in between: nothing that was answered may be lost.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from programs import Target

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "2"))
SEED = int(os.environ.get("VSCSI_STRESS_SEED", random.randrange(1 << 32)))
WORKER = Path(__file__).with_name("worker.py")
PROTOCOLS = ("srp", "blkif", "srp", "blkif")
REGION = 8192
"""Sectors of each worker: small enough that commands meet each other's pages."""

CASES = [
    ("io_uring", "wb", "aborts"),
    ("io_uring", "wt", "resets"),
    ("io_uring", "none", "aborts"),
    ("pool", "wb", "resets"),
    ("pool", "wt", "aborts"),
    ("pool", "none", "resets"),
]


def orders_of(folder, socket, mode):
    """One file of orders for each worker; regions begin in the middle of a page and border on each other."""
    rng = random.Random(SEED)
    paths = []
    for number, protocol in enumerate(PROTOCOLS):
        orders = dict(worker=number, workers=len(PROTOCOLS), protocol=protocol, socket=str(socket), journal=0)
        orders |= dict(first=67 + number * (REGION + 1), sectors=REGION, sequence=0, link=0, seed=rng.random())
        orders |= dict(aborts=protocol == "srp", resets=mode == "resets", seconds=SECONDS / 2)
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(json.dumps(orders))
    return paths


def run_workers(paths):
    started = [
        subprocess.Popen([sys.executable, WORKER, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")
        for path in paths
    ]
    try:
        told = [process.communicate(timeout=SECONDS + 90)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    failed = [text for process, text in zip(started, told, strict=True) if process.returncode]
    assert not failed, f"VSCSI_STRESS_SEED={SEED}\n" + "\n".join(failed)


@pytest.mark.stress
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize(("engine", "cache", "mode"), CASES)
def test_every_byte_is_where_it_was_written(tmp_path_factory, engine, cache, mode):
    folder = tmp_path_factory.mktemp("s")
    options = ("--loops", "2", "--engine", engine, "--spin-us", "0")
    lun = f"0={folder / 'disk.img'},size=32M,cache={cache}"
    paths = None
    for turn in range(2):
        place = folder / str(turn)
        place.mkdir()
        target = Target(place, lun, options=options)
        try:
            if paths is None:
                paths = orders_of(folder, target.socket, mode)
            for path in paths:
                orders = json.loads(path.read_text())
                path.write_text(json.dumps(orders | {"socket": str(target.socket), "seed": orders["seed"] + turn}))
            run_workers(paths)
        finally:
            # Killed the first time, asked the second.
            target.process.kill() if turn == 0 else target.process.terminate()
            status = target.process.wait(30)
        assert turn == 0 or status == 0, target.log.read_text()
        assert "Traceback" not in target.log.read_text(), target.log.read_text()
    counts = [json.loads(path.read_text())["counts"] for path in paths]
    assert all(count["good"] and count["looks"] for count in counts), counts
    assert sum(count["aborted"] for count in counts) > 0 or SECONDS < 10, "nothing was aborted"
