# SPDX-License-Identifier: BSD-2-Clause
"""Initiators that are killed in the middle: with 128 commands in flight, right after login, over and over. What the
target holds is counted before and after. Knows the initiator library; the well-behaved one is in hostile_field.
"""

import pytest
from hostile_field import LONG, Field

KILLS = 50 if LONG else 6
CYCLES = 300 if LONG else 12

# Forks from a process that has everything loaded, so that a life costs milliseconds. Each says that it got there.
LIVES = """
import os, sys, traceback
from initiator import Initiator
from initiator.vbd import Vbd
from vscsi.scsi import cdb
kind, path, lives = sys.argv[1], sys.argv[2], int(sys.argv[3])

def srp(life):
    hba = Initiator(path, memory_nbytes=16 << 20, persistent=bool(life & 1), channels=1 + (life // 2) % 2)
    hba.lun(0).read(0, 1)
    for k in range(128):
        if k % 3:
            hba.submit(0, cdb.READ_10.build(lba=k * 32, transfer_length=32), data_in=16384)
        elif k % 2:
            hba.submit(0, cdb.WRITE_10.build(lba=k * 32, transfer_length=32, fua=1), data_out=bytes(16384))
        else:
            hba.submit(0, cdb.INQUIRY.build(evpd=0, page_code=0, allocation_length=96), data_in=96)

def blkif(life):
    import threading
    vbd = Vbd(path, memory_nbytes=16 << 20, queues=1 + life % 2)
    def write(k):
        while True:
            vbd.write(k * 32, bytes(65536))
    for k in range(16):
        threading.Thread(target=write, args=(k,), daemon=True).start()
    vbd.read(0, 8)

def cycle(life):
    hba = Initiator(path, memory_nbytes=4 << 20, persistent=bool(life & 1), ring_pages=1 << life % 5)
    disk = hba.lun(life % 2)
    data = os.urandom(32768)
    disk.write(life % 32 * 64, data)
    assert disk.read(life % 32 * 64, 64) == data
    if life % 3 == 0:
        hba.close()

for life in range(lives):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            {"srp": srp, "blkif": blkif, "cycle": cycle}[kind](life)
            os.write(w, b"!")
        except BaseException:
            traceback.print_exc()
        os.kill(os.getpid(), 9)
    os.close(w)
    got = os.read(r, 1)
    os.close(r)
    os.waitpid(pid, 0)
    assert got == b"!", (kind, life)
print("done", flush=True)
"""


def live(field: Field, kind: str, lives: int) -> None:
    child = field.child(LIVES, kind, field.socket, lives)
    assert child.stdout is not None and child.stdout.readline() == "done\n"
    assert child.wait(30) == 0


@pytest.mark.parametrize("engine", ["io_uring", "pool"])
@pytest.mark.parametrize("kind", ["srp", "blkif"])
def test_killed_with_commands_in_flight(attack, kind, engine):
    field = attack("--engine", engine)
    live(field, kind, KILLS)
    field.check()
    assert not [line for line in field.log() if "warning" in line or "error" in line], "a death is no fault"


@pytest.mark.timeout(600)
def test_many_lives_leave_nothing(attack):
    """Connect, log in, write, read, and be killed or leave: nothing may pile up."""
    field = attack("--loops", "2")
    live(field, "cycle", CYCLES)
    field.check()
    if LONG:
        once = field.before = type(field.before).of(field.pid)
        live(field, "cycle", CYCLES)
        field.check(slack_kb=1024)
        assert once
