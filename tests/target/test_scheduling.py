# SPDX-License-Identifier: BSD-2-Clause
"""Who gets how much of a shared device: what the LUN specification and `vscsi-admin schedule` say, and what follows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from real_server import Target

from initiator import Initiator
from initiator.vbd import Vbd
from target.lunspec import LunSpecError, parse
from target.scheduling import BLKIF, Schedule, Schedules, Scheduling, value_for
from vscsi.scsi import cdb

A, B = b"\xaa" * 16, b"\xbb" * 16
ADMIN = Path(sys.executable).with_name("vscsi-admin")


@pytest.fixture
def serve(tmp_path):
    targets, nodes = [], []

    def start(*luns: str) -> Target:
        targets.append(Target(tmp_path / "socket", *luns))
        return targets[-1]

    def node(port_id: bytes) -> Initiator:
        nodes.append(Initiator(tmp_path / "socket", port_id=port_id))
        return nodes[-1]

    start.node = node
    yield start
    for initiator in nodes:
        initiator.close()
    for target in targets:
        target.stop()


def scheduling(target: Target, lun: int = 0) -> Scheduling:
    return target.server.units[lun].part(Scheduling)


def shares(target: Target, lun: int = 0) -> dict[str, dict]:
    return {one["port"]: one for one in scheduling(target, lun).shares()}


def admin(target: Target, *words: str, status: int = 0) -> str:
    done = subprocess.run([ADMIN, "-U", target.path, *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status, done.stderr
    assert not status or done.stderr.count("\n") == 1
    return done.stdout + done.stderr


# ---- what is said ----


def test_the_last_rule_that_fits_counts():
    spec = parse("0=mem:1M,sched=fair,weight=50+aa:200+aabb:300+blkif:7,iops=aa:10,bw=1M+blkif:64K")
    assert spec.weights is not None and spec.iops is not None and spec.bandwidths is not None
    assert value_for(spec.weights, A, 1) == 200
    assert value_for(spec.weights, b"\xaa\xbb" + A[2:], 1) == 300
    assert value_for(spec.weights, B, 1) == 50
    assert value_for(spec.weights, None, 1) == 7
    assert (value_for(spec.iops, A, 0), value_for(spec.iops, B, 0), value_for(spec.iops, None, 0)) == (10, 0, 0)
    assert (value_for(spec.bandwidths, A, 0), value_for(spec.bandwidths, None, 0)) == (1 << 20, 65536)


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("sched=fast", "is not one of"), ("weight=3", "needs sched=fair"), ("device=d", "needs sched=fair"),
        ("sched=fair,weight=0", "from 1 to 10000"), ("sched=fair,weight=aa:", "from 1 to"),
        ("sched=fair,weight=xyz:3", "not an initiator port"), ("sched=fair,iops=-1", "from 0 to"),
        ("sched=fair,bw=fast", "bw"), ("sched=fair,depth=0", "from 1 to"), ("sched=fair,iops=1++2", "from 0 to"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(words, complaint):
    with pytest.raises(LunSpecError, match=complaint):
        parse(f"0=mem:1M,{words}")


def test_depth_follows_from_the_device(serve):
    target = serve("0=mem:1M,sched=fair", "1=mem:1M,sched=fair,rotational=1", "2=mem:1M,sched=fair,depth=5", "3=mem:1M")
    found = [scheduling(target, lun).schedule for lun in range(4)]
    assert [schedule and (schedule.depth, schedule.rotational) for schedule in found] == [
        (16, False), (1, True), (5, False), None,
    ]  # fmt: skip


def test_units_on_one_device_share_a_schedule(serve, tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(65536))
    target = serve(
        f"0={tmp_path}/a,sched=fair,depth=9", f"1={tmp_path}/b,sched=fair,depth=4,weight=aa:5",
        "2=mem:1M,sched=fair", "3=mem:1M,sched=fair,device=d", "4=mem:1M,sched=fair,device=d,iops=7",
        "5=sim:mem:1M?disk=x,sched=fair", "6=sim:mem:1M?disk=x,sched=fair", "7=sim:mem:1M,sched=fair",
    )  # fmt: skip
    found: list[Schedule] = [scheduling(target, lun).schedule for lun in range(8)]
    assert [len(schedule.units) for schedule in found] == [2, 2, 1, 2, 2, 2, 2, 1]
    assert found[0] is found[1] and found[3] is found[4] and found[5] is found[6]
    assert found[0].depth == 4 and found[0].weights == (("aa*", 5),) and found[3].iops == (("", 7),)
    assert target.server.device.shared(Schedules) is not None


# ---- what follows ----


def test_every_initiator_gets_what_its_port_is_given(serve):
    target = serve("0=mem:1M,sched=fair,weight=aa:400,iops=bb:50", "1=mem:1M")
    for port_id in (A, B):
        with_lun = serve.node(port_id).lun(0)
        assert bytes(with_lun.read(0, 8)) == bytes(4096)
    mine, other = shares(target)[A.hex()], shares(target)[B.hex()]
    assert (mine["weight"], mine["iops"], other["weight"], other["iops"]) == (400, 0, 100, 50)
    assert mine["requests"] == 1 and mine["bytes"] == 4096 and mine["running"] == mine["waiting"] == 0


def test_a_forgotten_initiator_leaves_nothing_to_the_next(serve):
    target = serve("0=mem:1M,sched=fair,weight=aa:400")
    part, nexus = scheduling(target), None
    node = serve.node(A)
    node.lun(0).read(0, 8)
    (nexus,) = target.server.nexuses.known()
    part.nexus_forgotten(nexus)
    assert shares(target)[A.hex()]["requests"] == 0


def test_blkif_and_its_share(serve):
    target = serve("0=mem:1M,sched=fair,weight=blkif:9,iops=blkif:1000")
    with Vbd(target.path) as disk:
        assert bytes(disk.read(0, 8)) == bytes(4096)
        found = shares(target)[BLKIF]
        assert (found["weight"], found["iops"], found["requests"]) == (9, 1000, 1)


def test_slow_stores_and_protected_units_take_turns_too(serve, tmp_path):
    target = serve(
        f"0=crypt:{tmp_path}/c,size=1M,sched=fair", f"1={tmp_path}/p,size=1M,protection=1,sched=fair,device=p"
    )
    node = serve.node(A)
    for lun in (0, 1):
        unit = node.lun(lun)
        unit.write(0, bytes(range(256)) * 16)
        assert bytes(unit.read(0, 8)) == bytes(range(256)) * 16
        assert shares(target, lun)[A.hex()]["requests"] == 2
        assert shares(target, lun)[A.hex()]["bytes"] == 8192


def test_a_simulated_disk_under_a_schedule(serve):
    target = serve("0=sim:mem:8M?rpm=60000&seek=0.1&step=0.05&rate=1G,sched=fair")
    unit = serve.node(A).lun(0)
    for lba in (0, 8000, 100):
        unit.write(lba, lba.to_bytes(8, "big") * 512)
    for lba in (0, 8000, 100):
        assert bytes(unit.read(lba, 8)) == lba.to_bytes(8, "big") * 512
    unit.flush()
    # What Python runs on it, too.
    assert unit.execute(cdb.VERIFY_10.build(verification_length=8), data_in=0).status == 0
    assert shares(target)[A.hex()]["requests"] == 6


def test_changes_at_run_time(serve):
    target = serve("0=mem:1M,sched=fair,device=d", "1=mem:1M,sched=fair,device=d", "2=mem:1M")
    serve.node(A).lun(0).read(0, 8)
    text = admin(target, "schedule", "0")
    assert "device of LUN 0, 1: not rotational, depth 16" in text and f"{A.hex()}: weight 100, iops -, bw -;" in text
    text = admin(target, "schedule", "1", "--weight", "aa:300", "--iops", "500", "--bw", "1M", "--depth", "3")
    assert "depth 3" in text and f"{A.hex()}: weight 300, iops 500, bw 1.0 MiB; 1 requests, 4.0 KiB" in text
    answer = json.loads(admin(target, "--json", "schedule", "0", "--iops", "0"))
    (one,) = [one for one in answer["nexuses"] if one["port"] == A.hex()]
    assert (one["weight"], one["iops"], one["bytes_per_s"]) == (300, 0, 1 << 20)
    assert answer["schedule"] == {"luns": [0, 1], "depth": 3, "rotational": False, "idle_ms": 0}


def test_mistakes_at_run_time(serve):
    target = serve("0=mem:1M,sched=fair", "1=mem:1M")
    assert "sched=fair" in admin(target, "schedule", "1", status=5)
    assert "no LUN 9" in admin(target, "schedule", "9", status=5)
    assert "weight: " in admin(target, "schedule", "0", "--weight", "0", status=5)
    assert "depth: " in admin(target, "schedule", "0", "--depth", "many", status=5)
