# SPDX-License-Identifier: BSD-2-Clause
"""Records real sessions and makes seeds of them: `PYTHONPATH=tests .venv/bin/python -P -m fuzz.record` rewrites
tests/fuzz/corpus/sessions-*.pack.

A target built with native/record.h serves an honest initiator; what passes its slots, and the pages that it maps, are
written to a file for each session. Knows how to run a session; what becomes of it stands in seeds.py.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fuzz.programs import BUILT, CORPUS, NATIVE, ROOT, pack
from fuzz.seeds import InitiatorSeeds, TargetSeeds, events
from initiator import ConnectError, Initiator
from initiator.errors import InitiatorError
from initiator.load import Load
from initiator.native import lib
from initiator.vbd import Vbd
from vscsi.native import lib as shared
from vscsi.scsi import cdb

IMAGE_NBYTES = 65536
"""As the harness's: LBAs need no rebasing. So do the LUNs."""
LUNS = ("0={0}/a.img,cache=wb", "2=mem:64K,bs=512", "3={0}/b.img,bs=4096", "4=null:64K")
RECORDER = BUILT / "recorder"


def build() -> None:
    """The product with native/record.h before every C file, in a folder of its own."""
    shutil.rmtree(RECORDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        # Of a copy: the build leaves files beside the sources.
        source = Path(folder) / "product"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "bench", "build", "*.so"))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--target"]
        subprocess.run(
            [*command, str(RECORDER), str(source)],
            check=True,
            env=os.environ | {"CFLAGS": f"-include {NATIVE / 'record.h'}"},
        )


# ---- sessions ----


def execute(initiator: Initiator, lun: int, raw: bytes, **options: object) -> None:
    """One command, whatever becomes of it."""
    with contextlib.suppress(InitiatorError):
        initiator.execute(lun, raw, **options)  # type: ignore[arg-type]


def inquiries(socket: Path) -> None:
    """What a host asks before it uses a disk."""
    with Initiator(socket) as initiator:
        for lun in (0, 3, 4, 9):
            execute(initiator, lun, bytes(6))
            for page in (None, 0x00, 0x80, 0x83, 0xB0, 0xB2):
                evpd = page is not None
                raw = cdb.INQUIRY.build(evpd=int(evpd), page_code=page or 0, allocation_length=96)
                execute(initiator, lun, raw, data_in=96)
            execute(initiator, lun, cdb.READ_CAPACITY_10.build(), data_in=8)
            execute(initiator, lun, cdb.MODE_SENSE_6.build(page_code=0x3F, allocation_length=255), data_in=255)
            execute(initiator, lun, cdb.REQUEST_SENSE.build(allocation_length=18), data_in=18)
        execute(initiator, 0, cdb.REPORT_LUNS.build(allocation_length=64), data_in=64)


def sizes(socket: Path) -> None:
    """Reads and writes of several sizes, with and without FUA, beyond the end, on every kind of unit."""
    with Initiator(socket) as initiator:
        for lun in (0, 2, 3, 4):
            block = 4096 if lun == 3 else 512
            for blocks in (1, 2, 7, 8, 16):
                data = bytes([blocks]) * (block * blocks)
                execute(initiator, lun, cdb.WRITE_10.build(lba=blocks % 8, transfer_length=blocks), data_out=data)
                raw = cdb.READ_10.build(lba=blocks % 8, transfer_length=blocks)
                execute(initiator, lun, raw, data_in=len(data))
            execute(initiator, lun, cdb.WRITE_16.build(lba=3, transfer_length=2, fua=1), data_out=bytes(2 * block))
            execute(initiator, lun, cdb.READ_16.build(lba=3, transfer_length=2, fua=1), data_in=2 * block)
            execute(initiator, lun, cdb.READ_10.build(lba=120, transfer_length=16), data_in=16 * block)
            execute(initiator, lun, cdb.READ_10.build(lba=0, transfer_length=4), data_in=block)
            execute(initiator, lun, cdb.SYNCHRONIZE_CACHE_10.build())
            execute(initiator, lun, cdb.SYNCHRONIZE_CACHE_10.build(immed=1))


def attributes(socket: Path) -> None:
    """Many at once: simple, ordered, head of queue."""
    with Initiator(socket) as initiator:
        execute(initiator, 0, bytes(6))
        for number in range(30):
            attribute = (0, 0, lib.SRP_TSK_ORDERED, 0, lib.SRP_TSK_HEAD_OF_QUEUE)[number % 5]
            raw = cdb.READ_10.build(lba=number, transfer_length=1)
            initiator.submit(0, raw, data_in=512, attribute=attribute)
            if number % 10 == 9:
                initiator.reap(64, 10)


def scattered(socket: Path) -> None:
    """Lists of descriptors in the IU, and in pages."""
    with Initiator(socket) as initiator:
        execute(initiator, 0, bytes(6))
        for block, scatter in ((16384, shared.VSCSI_SCATTER_APART), (65536, shared.VSCSI_SCATTER_APART)):
            load = Load(initiator, 0, block_nbytes=block, queue_depth=2)
            try:
                load.run(logical_block_nbytes=512, span_nbytes=IMAGE_NBYTES, seconds=5, read_percent=50, max_ios=10,
                         scatter=scatter)  # fmt: skip
            finally:
                load.close()


def management(socket: Path) -> None:
    """Task management functions, with and without something to manage."""
    functions = (lib.SRP_TMF_ABORT_TASK, lib.SRP_TMF_ABORT_TASK_SET, lib.SRP_TMF_CLEAR_TASK_SET,
                 lib.SRP_TMF_LUN_RESET, lib.SRP_TMF_CLEAR_ACA)  # fmt: skip
    with Initiator(socket) as initiator, Initiator(socket) as other:
        for one in (initiator, other):
            execute(one, 0, bytes(6))
        for function in functions:
            tags = [
                initiator.submit(0, cdb.READ_10.build(lba=n, transfer_length=4), data_in=2048, attribute=n % 3)
                for n in range(6)
            ]
            initiator.task_management(function, 0, tags[3])
            initiator.reap(64, 6)
            execute(other, 0, bytes(6))
        initiator.task_management(lib.SRP_TMF_LUN_RESET, 9)


def reservations(socket: Path) -> None:
    """Two initiators and persistent reservations; the second meets conflicts."""
    key, none = (1).to_bytes(8, "big"), bytes(8)
    with Initiator(socket) as initiator, Initiator(socket) as other:
        for one in (initiator, other):
            execute(one, 0, bytes(6))
        register = none + key + bytes(8)
        for action, data, kind in ((0, register, 0), (1, key + bytes(16), 1), (2, key + bytes(16), 1)):
            raw = bytes((0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0))
            execute(initiator, 0, raw, data_out=data)
            execute(other, 0, cdb.WRITE_10.build(lba=1, transfer_length=1), data_out=bytes(512))
            execute(other, 0, bytes((0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0)), data_in=64)
        execute(initiator, 0, bytes((0x5F, 3, 0, 0, 0, 0, 0, 0, 24, 0)), data_out=key + bytes(16))


def faults(socket: Path) -> None:
    """The unit misbehaves: sense, busy, short transfers."""
    with Initiator(socket) as initiator:
        for lba in range(12):
            execute(initiator, 0, cdb.READ_10.build(lba=lba, transfer_length=2), data_in=1024)
            execute(initiator, 0, cdb.WRITE_10.build(lba=lba, transfer_length=1), data_out=bytes(512))


def blkif(socket: Path) -> None:
    """Every operation, several sizes, indirect requests."""
    with Vbd(socket) as disk:
        for blocks in (1, 8, 9, 24, 88, 104, 128):
            disk.write(128 - blocks, bytes([blocks]) * (512 * blocks))
            disk.read(128 - blocks, blocks)
        disk.flush()
        disk.barrier(4, bytes(1024))
        disk.barrier()
        disk.discard(8, 16)
        load = Load(disk, 0, block_nbytes=16384, queue_depth=4)
        try:
            load.run(logical_block_nbytes=512, span_nbytes=IMAGE_NBYTES, seconds=5, read_percent=50, max_ios=10)
        finally:
            load.close()


FAULTS = ("bad,lba=2-3", "read,lba=6,status=busy", "read,lba=8,short=512", "write,lba=9,sense=b/4b/00")

Session = tuple[Callable[[Path], None], str, tuple[str, ...]]
SESSIONS: tuple[Session, ...] = (
    (inquiries, "srp", ()),
    # A unit with a rule is Python's.
    (sizes, "srp", ("--fault", "2:verify,status=busy")),
    (attributes, "srp", ()),
    (scattered, "srp", ()),
    (management, "srp", ()),
    (reservations, "srp", ()),
    (faults, "srp", tuple(word for rule in FAULTS for word in ("--fault", f"0:{rule}"))),
    (blkif, "blkif", ()),
)


def record(folder: Path, session: Session) -> bytes:
    """The records of one session with a target of its own."""
    run, _, options = session
    socket, log, records = folder / "s", folder / "log", folder / "records"
    for name in ("a.img", "b.img"):
        (folder / name).write_bytes(bytes(IMAGE_NBYTES))
    words = [word for lun in LUNS for word in ("--lun", lun.format(folder))]
    command = [sys.executable, "-c", "import sys; from target.cli import main; sys.exit(main())", "-U", str(socket)]
    env = os.environ | {"PYTHONPATH": str(RECORDER), "VSCSI_FUZZ_RECORD": str(records)}
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *words, *options], env=env, cwd="/", stderr=out)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                Initiator(socket, timeout=5).close()
                break
            except ConnectError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(log.read_text()) from None
                time.sleep(0.05)
        before = records.stat().st_size
        with contextlib.suppress(InitiatorError):
            run(socket)
    finally:
        process.terminate()
        process.wait(20)
    return records.read_bytes()[before:]


def main() -> None:
    """Build, record, convert."""
    print("record: building the product with native/record.h", flush=True)
    build()
    seeds: dict[str, list[bytes]] = {"target": [], "initiator": []}
    for number, session in enumerate(SESSIONS):
        run, protocol, _ = session
        with tempfile.TemporaryDirectory() as folder:
            found = events(record(Path(folder), session))
        # Each part of a session under two configurations of the harness.
        ours = [one for shift in (0, 3) for one in TargetSeeds(protocol).inputs(found, number + shift)]
        theirs = list(InitiatorSeeds(protocol).inputs(found))
        seeds["target"] += ours
        seeds["initiator"] += theirs
        print(f"record: {run.__name__}: {len(found)} slots, {len(ours)} and {len(theirs)} inputs", flush=True)
    seeds["target"] += TargetSeeds("srp").edges()
    for name, inputs in seeds.items():
        path = CORPUS / f"sessions-{name}.pack"
        path.write_bytes(pack(inputs))
        print(f"record: {path.name}: {len(set(inputs))} inputs, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
