# SPDX-License-Identifier: BSD-2-Clause
"""Peers: what other programs print as figures, who is left out and why, that nothing is left running; and goals."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import bench_document  # noqa: F401  (finds bench/)
import pytest
from comparison import measure, room, workloads
from comparison.measure import Round, Series
from peers import fio, peer, tgt
from peers import run as peers_run

from vscsi.cli import CliError
from vscsi.native import ffi, lib

# What iscsi-perf 1.19 printed, without its banner.
ISCSI_PERF = (
    "connected to iscsi://127.0.0.1:13260/iqn.2006-08.example:bench/1\ncapacity is 131072 blocks or 67108864 byte "
    "(64 MB)\nperforming RANDOM READ with 32 parallel requests\nFIXED transfer size of 8 blocks (4096 byte)\nwill run "
    "for 2 seconds.\n\n\r00:00:01 - lba 128289, iops current 12917 (50 MB/s), iops average 12917 (50 MB/s), in_flight "
    "32, busy 0                 \riops average 17804 (69 MB/s)                              \n\nfinished.\n"
)
# What fio 3.33 printed with json+, cut down to what is read.
FIO = {
    "fio version": "fio-3.33",
    "jobs": [
        {
            "jobname": "bench", "error": 0, "job_runtime": 20, "usr_cpu": 10.0, "sys_cpu": 30.0,
            "read": {"total_ios": 933, "iops": 44428.571429, "clat_ns": {"N": 933, "bins": {"1048": 900, "22272": 33}}},
            "write": {"total_ios": 912, "iops": 43428.571429, "clat_ns": {"N": 912, "bins": {"1048": 12, "2000": 900}}},
            "trim": {"total_ios": 0, "iops": 0.0, "clat_ns": {"min": 0, "max": 0, "mean": 0.0, "stddev": 0.0, "N": 0}},
        }
    ],
}  # fmt: skip


def spec(**fields):
    given = workloads.Workload("randread", 4096, 32, 100, True)
    made = measure.load_spec(given, 1 << 20, 1.5, seed=3)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_iscsi_perf_is_read():
    assert tgt.parse(ISCSI_PERF) == 17804


def test_fio_is_read():
    ios, seconds, bins, cpu = fio.parse("fio: some warning\n" + json.dumps(FIO))
    assert ios == 1845
    assert seconds == pytest.approx(1845 / 87857.142858)
    assert bins == {1048: 912, 2000: 900, 22272: 33}
    assert cpu == pytest.approx(0.008)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (tgt.parse, "", "no average"),
        (fio.parse, "", "no JSON"),
        (fio.parse, '{"jobs": []}', "no JSON"),
        (fio.parse, json.dumps({"jobs": [FIO["jobs"][0] | {"error": 5}]}), "error 5"),
        (fio.parse, json.dumps({"jobs": [FIO["jobs"][0] | dict.fromkeys(("read", "write"), FIO["jobs"][0]["trim"])]}),
         "not one I/O"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error(parse, text, words):
    with pytest.raises(peer.PeerError, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, {"--rw=randread", "--bs=4096", "--iodepth=32", "--size=1048576", "--runtime=1500ms", "--randseed=3"}),
        ({"read_percent": 0, "random": 0}, {"--rw=write"}),
        ({"read_percent": 70}, {"--rw=randrw", "--rwmixread=70"}),
        ({}, {"--norandommap", "--invalidate=0", "--output-format=json+", "--ioengine=x"}),
    ],
)
def test_fio_is_told_the_same_load(fields, words):
    assert words <= set(fio.command(spec(**fields), ["--ioengine=x"]))


def test_a_round_keeps_every_latency():
    done = peer.round_of(1845, 0.021, {1048: 912, 22272: 33}, client_ns=5, server_ns=7)
    assert done.iops == pytest.approx(1845 / 0.021)
    assert done.us(0.5) == pytest.approx(1.048, rel=1 / 64)
    assert done.us(1.0) == pytest.approx(22.272, rel=1 / 64)
    assert (done.initiator_cpu_ns, done.target_cpu_ns) == (5, 7)


@pytest.mark.parametrize("ns", [0, 1, 63, 64, 1000, 10**9, 1 << 62])
def test_buckets_and_their_values_agree(ns):
    value = lib.vscsi_hist_value(lib.vscsi_hist_bucket_of(ns))
    assert abs(value - ns) <= ns / 64 or ns > 1 << 44


# ---- the registry ----


def test_every_peer_says_what_a_reader_must_know():
    kinds = peer.every()
    assert len({kind.name for kind in kinds}) == len(kinds) >= 9
    assert {kind.kind for kind in kinds} == {"socket", "file", "ours"}
    assert {"tgt", "nbdkit", "qemu-storage-daemon", "file-psync", "file-uring"} <= {kind.name for kind in kinds}
    for kind in kinds:
        assert kind.title and kind.settings
        assert any(kind().supports(load) for load in (room.READ, room.SINGLE)), kind.name


def test_what_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(peer, "PATH", "/nowhere")
    assert tgt.Tgt().missing() == "tgtd, tgtadm, iscsi-perf not installed (make bench-peers)"


def test_a_name_that_no_peer_has():
    with pytest.raises(CliError, match="no peer 'iet'"):
        peers_run.measure(None, ["iet"])


class Sleeper(peer.Peer):
    """A server that does not end on SIGTERM."""

    def start(self, folder):
        words = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(60)"
        ready = folder / "ready"
        return self.serve([sys.executable, "-c", words, str(ready)], ready.exists, folder / "log")


def gone(pid):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_servers_are_stopped_by_their_process_id(tmp_path, monkeypatch):
    monkeypatch.setattr(peer, "STOP_SECONDS", 0.1)
    sleeper = Sleeper()
    pid = sleeper.start(tmp_path)
    assert sleeper.cpu_ns() > 0
    sleeper.close()
    assert gone(pid)
    sleeper.close()


def test_servers_do_not_outlive_a_bench_that_was_killed(tmp_path):
    program = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from test_peers import Sleeper
print(Sleeper().start(Path({str(tmp_path)!r})), flush=True)
time.sleep(60)
"""
    here = str(Path(__file__).parent)
    bench = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": here}
    )
    pid = int(bench.stdout.readline())
    bench.kill()
    bench.wait()
    bench.stdout.close()
    assert gone(pid)


def test_a_server_that_does_not_start_says_why(tmp_path):
    words = [sys.executable, "-c", "import sys; sys.exit('no such image')"]
    with pytest.raises(peer.PeerError, match="no such image"):
        peer.Peer().serve(words, lambda: False, tmp_path / "log")


# ---- goals ----


def series(load, name, *iops):
    out = Series(load, name)
    for each in iops:
        result = ffi.new("struct vscsi_load_result *", {"ios": each, "elapsed_ns": 10**9})
        out.rounds.append(Round(result))
    return out


def test_goals_are_against_the_best_other_target():
    done = [
        series(room.READ, "srp", 400, 410, 420),
        series(room.READ, "slow", 20, 21, 22),
        series(room.READ, "fast", 40, 40, 40),
        series(room.READ, "file-uring", 500, 500, 500),
        series(room.SINGLE, "srp", 100, 100, 100),
        series(room.SINGLE, "srp, sleeping", 10, 10, 10),
        series(room.SINGLE, "fast", 8, 8, 8),
    ]
    rows = peers_run.goals(done, {"slow", "fast"})
    assert [(row["what"], row["at_least"], row["median"], row["met"]) for row in rows] == [
        ("srp / fast", 10.0, 10.25, True),
        ("srp / fast", 15.0, 12.5, False),
        ("srp, sleeping / fast", 1.5, 1.25, False),
    ]
    assert peers_run.goals(done, set()) == []
    ratios = {(row["label"], row["peer"], row["ring"]): row["ratio"]["median"] for row in peers_run.ratios(done)}
    assert ratios["randread 4k qd32", "slow", "srp"] == pytest.approx(19.52, abs=0.01)
    assert ratios["randread 4k qd1", "fast", "srp, sleeping"] == 1.25
