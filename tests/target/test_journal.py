# SPDX-License-Identifier: BSD-2-Clause
"""Atomic writes and what may kill them: SIGKILL at every step, and every loss of power that could have been.

After each, a new start has to find all of the old data or all of the new, and all of the new once it was promised.
"""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail
from hypothesis import given
from hypothesis import strategies as st

from target import journal
from target.journal import Journal, Record
from target.lu import open_lu
from target.lunspec import parse
from target.stores.file import FileStore
from vscsi.scsi import cdb, sense

SIZE = 512
NBYTES = 32 * 1024
LBA, BLOCKS = 5, 20
PLACE = slice(LBA * SIZE, (LBA + BLOCKS) * SIZE)
FIRST = bytes([7]) * NBYTES
OLD = b"".join(bytes([50 + n]) * SIZE for n in range(BLOCKS))
NEW = b"".join(bytes([150 + n]) * SIZE for n in range(BLOCKS))
RAW = cdb.WRITE_ATOMIC_16.build(lba=LBA, transfer_length=BLOCKS)
IN_PIECES = cdb.WRITE_ATOMIC_16.build(lba=LBA, transfer_length=BLOCKS, atomic_boundary=8)
ORDINARY = cdb.WRITE_10.build(lba=LBA, transfer_length=BLOCKS)


def journal_of(path: Path) -> Path:
    return path.with_name(path.name + ".vscsi") / "atomic.journal"


# ---- the record ----


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 2**64 - 1), st.data())
def test_a_record_is_there_as_a_whole_or_not_at_all(new: bytes, offset: int, data: st.DataObject) -> None:
    record = Record(offset, new, bytes(len(new)))
    whole = record.encode()
    assert journal.decode(whole) == record
    assert journal.decode(whole + b"left over from a longer one") == record
    assert journal.decode(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    torn = bytearray(whole)
    torn[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert journal.decode(bytes(torn)) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_no_record(data: bytes) -> None:
    assert journal.decode(data) is None
    assert journal.decode(b"vscsiAW1" + data) is None


# ---- SIGKILL ----


class Steps:
    """Runs `at` before step number `count`, and before the second half of a write there."""

    def __init__(self, count: int, at: Callable[[], None]) -> None:
        self.left, self.at = count, at

    def reached(self) -> bool:
        self.left -= 1
        return self.left == -1

    def install(self, patch: pytest.MonkeyPatch) -> None:
        steps = self
        write, flush, put, cut, sync = FileStore.write, FileStore.flush, Journal._put, Journal._cut, Journal._sync

        def half_write(store: FileStore, buffer: memoryview, offset: int, fua: bool = False) -> None:
            if steps.reached():
                write(store, buffer[: len(buffer) // 2], offset, fua)
                steps.at()
            write(store, buffer, offset, fua)

        def half_put(self: Journal, data: bytes) -> None:
            if steps.reached():
                put(self, data[: len(data) // 2])
                steps.at()
            put(self, data)

        def before(function: Callable[..., None]) -> Callable[..., None]:
            def step(*args: object) -> None:
                if steps.reached():
                    steps.at()
                function(*args)

            return step

        patch.setattr(FileStore, "write", half_write)
        patch.setattr(FileStore, "flush", before(flush))
        patch.setattr(Journal, "_put", half_put)
        patch.setattr(Journal, "_cut", before(cut))
        patch.setattr(Journal, "_sync", before(sync))


def killed(path: Path, raw: bytes, step: int) -> bool:
    """A process of its own serves the image and carries `raw` out; it kills itself at that step. Whether it came so
    far; otherwise the command has ended with GOOD."""
    child = os.fork()
    if not child:
        code = 1
        try:
            device = FakeDevice(f"0={path}")
            with pytest.MonkeyPatch.context() as patch:
                Steps(step, lambda: os.kill(os.getpid(), signal.SIGKILL)).install(patch)
                do_command(device, raw, NEW)
                code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def served_after(path: Path) -> bytes:
    """What a new start finds in the place; the rest must be untouched."""
    device = FakeDevice(f"0={path}")
    assert device.states == {}
    device.close()
    held = path.read_bytes()
    assert held[: PLACE.start] + held[PLACE.stop :] == FIRST[: PLACE.start] + FIRST[PLACE.stop :]
    where = journal_of(path)
    assert not where.exists() or where.stat().st_size == 0
    return held[PLACE]


@pytest.mark.parametrize("raw", [RAW, IN_PIECES], ids=["whole", "pieces"])
def test_sigkill_at_every_step(tmp_path: Path, raw: bytes) -> None:
    piece = (8 if raw is IN_PIECES else BLOCKS) * SIZE
    seen = set()
    for step in range(40):
        path = tmp_path / f"{step}.img"
        path.write_bytes(FIRST[: PLACE.start] + OLD + FIRST[PLACE.stop :])
        died = killed(path, raw, step)
        found = served_after(path)
        for at in range(0, len(OLD), piece):
            part = slice(at, at + piece)
            assert found[part] in (OLD[part], NEW[part]), f"torn at step {step}"
        seen.add(found)
        if not died:
            assert found == NEW
            break
    else:
        pytest.fail("the command never came to its end")
    assert {OLD, NEW} <= seen
    assert step >= 7


# ---- loss of power ----


class File:
    """What is on the medium, and what has been written but not been synced: of that anything may be lost."""

    def __init__(self, content: bytes) -> None:
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes] | None] = []

    def sync(self) -> None:
        for change in self.pending:
            self.land(self.durable, change)
        self.pending.clear()

    @staticmethod
    def land(content: bytearray, change: tuple[int, bytes] | None) -> None:
        if change is None:
            content.clear()
            return
        offset, data = change
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data

    def after_loss(self, dice: random.Random) -> bytes:
        found = bytearray(self.durable)
        for change in self.pending:
            if change is None:
                if dice.random() < 0.5:
                    found.clear()
                continue
            offset, data = change
            for at in range(0, len(data), SIZE):
                if dice.random() < 0.7:
                    self.land(found, (offset + at, data[at : at + SIZE]))
        return bytes(found)


class Powerless(BaseException):
    """The lights are out."""


@given(
    step=st.integers(0, 26), seed=st.integers(0, 2**32 - 1), raw=st.sampled_from([RAW, IN_PIECES]), fua=st.booleans()
)
def test_loss_of_power_at_any_step(
    tmp_path_factory: pytest.TempPathFactory, step: int, seed: int, raw: bytes, fua: bool
) -> None:
    """Of what has not been through a sync any sector may be lost.

    Before the atomic write an ordinary one goes to the same blocks, which may still be in the cache; after it another,
    which must never be overwritten by what a start finds in the journal.
    """
    path = tmp_path_factory.mktemp("power") / "disk.img"
    path.write_bytes(FIRST)
    device = FakeDevice(f"0={path}")
    image, record = File(FIRST), File(b"")
    left = step

    def tick() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Powerless

    def write(self: FileStore, buffer: memoryview, offset: int, fua: bool = False) -> None:
        image.pending.append((offset, bytes(buffer)))
        os.pwrite(self.fd, buffer, offset)
        tick()
        if fua:
            image.sync()

    def flush(self: FileStore) -> None:
        tick()
        image.sync()

    def put(self: Journal, data: bytes) -> None:
        record.pending.append((0, data))
        tick()

    def cut(self: Journal) -> None:
        record.pending.append(None)
        tick()

    def sync(self: Journal) -> None:
        tick()
        record.sync()

    later = bytes([9]) * len(OLD)
    piece = (8 if raw is IN_PIECES else BLOCKS) * SIZE
    stage = "before"
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, function in (
            (FileStore, "write", write), (FileStore, "flush", flush),
            (Journal, "_put", put), (Journal, "_cut", cut), (Journal, "_sync", sync),
        ):  # fmt: skip
            patch.setattr(owner, name, function)
        try:
            row = cdb.WRITE_10.build(lba=LBA, transfer_length=BLOCKS, fua=fua)
            do_command(device, row, OLD)
            stage = "atomic"
            do_command(device, raw, NEW)
            stage = "later"
            do_command(device, cdb.WRITE_10.build(lba=LBA, transfer_length=BLOCKS, fua=1), later)
            stage = "end"
        except Powerless:
            pass
        device.units[0].store.close()
        device.units[0].state.close()
    dice = random.Random(seed)
    path.write_bytes(image.after_loss(dice))
    journal_of(path).parent.mkdir(exist_ok=True)
    journal_of(path).write_bytes(record.after_loss(dice))
    found = served_after(path)
    if stage == "end":
        assert found == later
    elif stage in ("before", "atomic"):
        for at in range(0, len(OLD), piece):
            part = slice(at, at + piece)
            assert untorn(found[part], FIRST[PLACE][part], OLD[part], NEW[part]), f"torn at step {step}"
    elif stage == "later":
        for at in range(0, len(OLD), SIZE):
            sector = slice(at, at + SIZE)
            assert found[sector] in (NEW[sector], later[sector]), "an atomic write that was promised is lost"


def untorn(found: bytes, first: bytes, old: bytes, new: bytes) -> bool:
    """All of the new data, or none of it; what was in the cache before may have been lost in part."""
    sectors = [slice(at, at + SIZE) for at in range(0, len(found), SIZE)]
    return found == new or all(found[s] in (first[s], old[s]) for s in sectors)


# ---- what else may lie there ----


def left_behind(path: Path, record: Record) -> None:
    journal_of(path).parent.mkdir()
    journal_of(path).write_bytes(record.encode())


def test_the_journal_of_an_encrypted_image_is_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    path = tmp_path / "disk.img"
    open_lu(parse(f"0=crypt:{path},size=64k")).close()
    secret, put, kept = b"secret" * 100, Journal._put, []

    def copied(self: Journal, data: bytes) -> None:
        kept.append(data)
        put(self, data)

    device = FakeDevice(f"0=crypt:{path}")
    raw = cdb.WRITE_ATOMIC_16.build(lba=LBA, transfer_length=2)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_put", copied)
        do_command(device, raw, secret.ljust(1024, b"\0"))
        do_command(device, raw, bytes(1024))
    device.close()
    assert len(kept) == 2
    assert not any(b"secret" in data for data in kept)
    journal_of(path).write_bytes(kept[0])  # as if the first had not come to its end
    again = FakeDevice(f"0=crypt:{path}")
    assert "atomic.unused" not in [p.name for p in journal_of(path).parent.iterdir()]
    found = do_command(again, cdb.READ_10.build(lba=LBA, transfer_length=2)).data_in
    assert found == secret.ljust(1024, b"\0")
    again.close()


def test_a_record_of_another_image_is_not_carried_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(FIRST)
    left_behind(path, Record(0, b"n" * SIZE, b"o" * SIZE))
    device = FakeDevice(f"0={path}")
    assert path.read_bytes() == FIRST
    assert "another image" in caplog.text
    assert [p.name for p in journal_of(path).parent.iterdir()] == ["atomic.unused"]
    do_command(device, RAW, NEW)
    device.close()


@pytest.mark.parametrize(
    "record", [Record(NBYTES, b"n" * SIZE, b"o" * SIZE), Record(1, b"n" * SIZE, b"o" * SIZE), Record(0, b"n", b"o")]
)
def test_a_record_that_does_not_fit(tmp_path: Path, record: Record) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(FIRST)
    left_behind(path, record)
    FakeDevice(f"0={path}").close()
    assert path.read_bytes() == FIRST


def test_an_image_that_is_only_read_cannot_be_finished(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(FIRST)
    left_behind(path, Record(0, b"n" * SIZE, FIRST[:SIZE]))
    device = FakeDevice(f"0={path},ro")
    assert device.states[0] == sense.NOT_READY_MANUAL_INTERVENTION_REQUIRED.code
    assert "serve the image writable once" in caplog.text
    do_command_fail(device, cdb.TEST_UNIT_READY.build(), sense.NOT_READY_MANUAL_INTERVENTION_REQUIRED)
    device.close()
    again = FakeDevice(f"0={path}")
    assert path.read_bytes()[:SIZE] == b"n" * SIZE
    do_command(again, cdb.TEST_UNIT_READY.build())
    again.close()


def test_a_start_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(FIRST)
    left_behind(path, Record(0, b"n" * SIZE, FIRST[:SIZE]))

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "flush", fails)
        device = FakeDevice(f"0={path}")
        assert device.states[0] == sense.WRITE_ERROR.code
        device.close()
    assert journal_of(path).stat().st_size > 0
    FakeDevice(f"0={path}").close()
    assert path.read_bytes()[:SIZE] == b"n" * SIZE
