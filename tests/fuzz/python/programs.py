# SPDX-License-Identifier: BSD-2-Clause
"""What a hostile target answers to what our own programs ask: every command of `vscsi-initiator`, and disks.

Knows command lines and the methods of disks; the answers are the input's. Whatever comes, a program ends with a status
and at most a line, its text holds no control characters, and it does not ask for ever.
"""

import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import in_process

import initiator
from fuzz.python.mutation import Reader, of_items
from fuzz.python.registry import target
from initiator.done import Done, PeerInfo
from initiator.door import disk as door_disk
from initiator.errors import CommandAborted, InitiatorError, TransportError
from initiator.initiator import Initiator, is_power_loss
from initiator.lun import Lun
from initiator.mount import disk as mount_disk

MOST_COMMANDS = 300
"""Then the target is gone."""
MOST_OF_A_DISK = 30
"""The same for a disk, whose commands may be large."""
MOST_ALIKE = 270
"""Who asks the same so often and is answered would ask for ever."""
REQUEST_SENSE = 0x03
"""This one is how a long operation is waited for."""
GOOD_KINDS, SENSE, STATUS, GONE, ABORTED = range(4), 4, 5, 6, 7
"""Kinds of items, of 8: data that comes with GOOD; sense data; a status; and no answer at all."""

COMMANDS = (
    "list -v", "list --json", "list --size", "luns", "luns --json", "inquiry", "inquiry --json", "inquiry --page di",
    "inquiry --page bl --json", "vpd", "vpd --all", "vpd --all --json", "vpd --page tpc", "modes",
    "modes --page ca --all", "modes --json", "modes --get WCE", "modes --set WCE=0", "modes --set SWP=1 --save",
    "modes --defaults --page ca", "logs", "logs --all", "logs --all --json", "logs --page lbp",
    "logs --page 0x19 --json", "logs --reset", "lbas", "lbas --json", "lbas --lba 0x10 --brief", "opcodes",
    "opcodes --rctd", "opcodes --json", "opcodes --opcode 0x28", "opcodes --opcode 0x9e --sa 0x10 --json",
    "opcodes --tmf --repd", "persist --read-keys", "persist --read-reservation --json", "persist --read-full-status",
    "persist --report-capabilities --json", "persist --initiator-port 1 --register --param-sark abc", "readcap",
    "readcap --long", "readcap --brief", "sync", "turs", "turs --number 3", "unmap --lba 0 --num 2048", "unmap --all",
    "read --lba 8 --blocks 4 --hex", "read --blocks 8", "read", "copy 0 1 --quiet", "copy --method lid4 0 1 --quiet",
    "copy --method token 0 1 --quiet --verify", "copy --method host 0 1 --quiet", "format", "format --pi 1 --quick",
    "sanitize --block --quick", "sanitize --fail", "raw 12 00 00 00 24 00 --in 36", "raw 00 00 00 00 00 00 -v -v",
    "write --lba 8 FILE", "write --verify FILE", "caw --lba 0 --in FILE",
)  # fmt: skip
BINARY = ("read", "raw")
_home = tempfile.TemporaryDirectory(prefix="vscsi-fuzz-")
FILE = Path(_home.name) / "data"
FILE.write_bytes(bytes(1024))


class Answering(Initiator):
    """An initiator whose target answers with items of the input, in their order."""

    def __init__(self, reader: Reader, most: int = MOST_COMMANDS) -> None:
        self._items = reader.items(most)
        self._left = most
        self.power_losses = Counter()  # type: ignore[assignment]
        self.recovery = SimpleNamespace(hopeful=False)  # type: ignore[assignment]
        self.port_id = bytes(16)
        self.timeout = 30.0
        self._info = PeerInfo("x", "1", "y", reader.number(4), bytes(16), 1)
        self.asked: Counter[bytes] = Counter()

    @property
    def alive(self) -> bool:
        return self._left > 0

    @property
    def memory(self) -> Any:
        return SimpleNamespace(nbytes=64 << 20)

    @property
    def target_info(self) -> PeerInfo:
        return self._info

    @property
    def request_limit(self) -> int:
        return 1

    def execute(self, lun: int, cdb: bytes, *, data_out: Any = b"", data_in: Any = 0, **_: Any) -> Done:
        into = None if isinstance(data_in, int) else memoryview(data_in).cast("B")
        room = data_in if into is None else len(into)
        if room + len(data_out) > self.memory.nbytes:
            raise InitiatorError(f"no {room} bytes of shared memory")
        what = bytes(cdb) + bytes(data_out[:4096])
        self.asked[what] += 1
        assert self.asked[what] < MOST_ALIKE or cdb[0] == REQUEST_SENSE, f"asks for ever: {cdb.hex(' ')}"
        self._left -= 1
        if self._left <= 0:
            raise TransportError("the target is gone")
        kind, body = next(self._items, (0, bytes(min(room, 4096))))
        kind %= 8
        if kind == GONE:
            raise TransportError("the target is gone")
        if kind == ABORTED:
            raise CommandAborted("the command was ended by a task management function")
        if kind == SENSE:
            self.power_losses[lun] += is_power_loss(body)
            return Done(2, body[:252])
        if kind == STATUS:
            return Done(body[0] if body else 8)
        if into is not None:
            into[: len(body)] = body[:room]
            return Done(0, b"", into[: len(body)], room - len(body))
        return Done(0, b"", body[:room], room - len(body))

    def task_management(self, function: int, lun: int, tag: int = 0, **_: Any) -> int:
        return next(self._items, (0, b""))[0]

    def close(self) -> None:
        """Nothing to let go."""


@target("programs", mutate=of_items, weight=4)
def programs(data: bytes) -> None:
    """A command line, and the answers that it gets."""
    reader = Reader(data)
    words = COMMANDS[reader.number() % len(COMMANDS)].replace("FILE", str(FILE)).split()
    made = Answering(reader)
    with (
        mock.patch.object(initiator, "Initiator", lambda *_, **__: made),
        mock.patch("time.sleep", lambda seconds: None),
    ):
        done = in_process.call("--lun", 0, "--socket", "/nowhere", *words)
    assert 0 <= done.status < 256, done.status
    text = done.err + ("" if words[0] in BINARY else done.out.decode())
    assert all(char.isprintable() or char in "\n\t\r" for char in text), text
    if done.status:
        assert done.err.count("vscsi-initiator: ") <= 1, done.err


# ---- disks ----


def _door(lun: Lun, reader: Reader) -> None:
    disk = door_disk.Disk(lun)
    for name, call in (
        ("read", lambda: disk.read(reader.number(4), memoryview(bytearray(reader.number(2))))),
        ("write", lambda: disk.write(reader.number(4), memoryview(bytes(reader.number(2))))),
        ("zero", lambda: disk.zero(512 * reader.number(), 512 * reader.number())),
        ("unmap", lambda: disk.unmap(512 * reader.number(), 512 * reader.number())),
        ("flush", disk.flush),
        ("read_only", disk.read_only),
        *((f"fact {n}", lambda n=n: disk.fact(n)) for n in range(9)),
    ):
        _refused_or_done(name, call)


def _mount(lun: Lun, reader: Reader) -> None:
    disk = mount_disk.Disk(lun)
    for name, call in (
        ("facts", disk.look),
        ("read", lambda: disk.read(reader.number(4), reader.number(2))),
        ("write", lambda: disk.write(reader.number(4), bytes(reader.number(2)))),
        ("punch", lambda: disk.punch(reader.number(4), reader.number(4))),
        ("zero", lambda: disk.zero(reader.number(4), reader.number(2))),
        ("seek", lambda: disk.seek(reader.number(4), hole=True)),
        ("seek", lambda: disk.seek(reader.number(4), hole=False)),
        ("flush", disk.flush),
    ):
        _refused_or_done(name, call)


def _library(lun: Lun, reader: Reader) -> None:
    for name, call in (
        ("read", lambda: lun.read(reader.number(4), reader.number())),
        ("write", lambda: lun.write(reader.number(4), bytes(lun.block_nbytes))),
        ("unmap", lambda: lun.unmap(reader.number(4), lun.blocks)),
        ("flush", lun.flush),
        ("luns", lun.initiator.luns),
    ):
        _refused_or_done(name, call)


def _refused_or_done(name: str, call: Any) -> None:
    try:
        call()
    except (InitiatorError, OSError):
        pass
    except Exception as error:
        raise RuntimeError(f"{name}: {error!r}") from error


@target("disks", mutate=of_items, weight=2)
def disks(data: bytes) -> None:
    """Bytes and blocks of a disk that is not what it says, by each way there is."""
    reader = Reader(data)
    way = (_library, _door, _mount)[reader.number() % 3]
    numbers = Reader(reader.take(48))
    with mock.patch("time.sleep", lambda seconds: None):
        way(Lun(Answering(reader, MOST_OF_A_DISK), 0), numbers)
