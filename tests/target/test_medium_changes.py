# SPDX-License-Identifier: BSD-2-Clause
"""Another medium in the place of the one that commands, tokens and journals were about: it must not be touched by them.

Images are files, rings there are none; who ejects in the middle of a command does it from its port.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in

from target.copying import CHUNK_NBYTES
from target.journal import Journal, Record
from target.medium import Medium
from target.stores import StoreSpec, open_store
from vscsi.scsi import cdb, copy, sense, token
from vscsi.scsi.parameters import encode_unmap

SIZE = 4 << 20


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    for name, fill in (("first", b"1"), ("second", b"2"), ("fixed", b"x")):
        (tmp_path / name).write_bytes(fill * SIZE)
    made = FakeDevice(f"0={tmp_path}/first,removable=on", f"1={tmp_path}/fixed")
    yield made
    made.close()


def another(device: FakeDevice, folder: Path) -> None:
    medium = device.units[0].part(Medium)
    medium.eject()
    medium.change(open_store(str(folder / "second"), StoreSpec("")))
    medium.load()


def open_files() -> set[str]:
    return {f"{path.name} {path.readlink()}" for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


@pytest.mark.parametrize("scheme", ["", "sim:"])
def test_descriptors_change_hands_and_are_closed_once(scheme: str, tmp_path: Path) -> None:
    for name, fill in (("first", b"1"), ("second", b"2")):
        (tmp_path / name).write_bytes(fill * SIZE)
    before = open_files()
    device = FakeDevice(f"0={scheme}{tmp_path}/first,removable=on")
    unit = device.units[0]
    numbers = unit.store.fd, unit.store.witness
    medium = unit.part(Medium)
    medium.eject()
    spare = open_store(f"{scheme}{tmp_path}/second", StoreSpec(""))
    closed = {spare.fd, spare.witness}
    medium.change(spare)
    medium.load()
    assert (unit.store.fd, unit.store.witness) == numbers
    reused = [os.open(tmp_path, os.O_RDONLY) for _ in range(2)]  # whoever gets those numbers next keeps them
    assert set(reused) <= closed
    assert do_command_in(device, cdb.READ_10.build(transfer_length=1)) == b"2" * 512
    device.close()
    for fd in reused:
        os.close(fd)
    assert open_files() == before


@dataclass
class Meanwhile(FakePort):
    """Does something when the command looks for the `turn`th time whether it has been aborted."""

    turn: int = 2
    act: Callable[[], None] = lambda: None

    def aborted(self) -> bool:
        self.turn -= 1
        if not self.turn:
            self.act()
        return False


def test_a_command_does_not_go_on_with_another_medium(device: FakeDevice, tmp_path: Path) -> None:
    data = encode_unmap([(0, 8), (16, 8), (32, 8)])
    port = Meanwhile(data, act=lambda: another(device, tmp_path))
    result = device.run(cdb.UNMAP.build(parameter_list_length=len(data)), port=port)
    assert sense.decode(result.sense).matches(sense.MEDIUM_NOT_PRESENT_TRAY_OPEN)
    assert (tmp_path / "first").read_bytes()[: 8 * 512] == bytes(8 * 512), "that was before"
    assert (tmp_path / "second").read_bytes() == b"2" * SIZE


@pytest.mark.parametrize("segment", [(0, 1), (1, 0)])
def test_a_copy_does_not_go_on_with_another_medium(
    device: FakeDevice, tmp_path: Path, segment: tuple[int, int]
) -> None:
    cscds = [copy.encode_cscd(1, 0, 3, device.units[lun].naa) for lun in (0, 1)]
    data = copy.encode_list_lid1(1, cscds, [copy.encode_blocks(*segment, 3 * CHUNK_NBYTES // 512, 0, 0)])
    port = Meanwhile(data, turn=3, act=device.units[0].part(Medium).eject)
    raw = cdb.EXTENDED_COPY_LID1.build(parameter_list_length=len(data))
    result = device.run(raw, port=port)
    assert sense.decode(result.sense).matches(sense.THIRD_PARTY_DEVICE_FAILURE)
    name, other = ("fixed", b"x") if segment == (0, 1) else ("first", b"1")
    assert (tmp_path / name).read_bytes()[CHUNK_NBYTES:] == other * (SIZE - CHUNK_NBYTES)


def test_a_copy_stops_where_the_unit_becomes_write_protected(device: FakeDevice, tmp_path: Path) -> None:
    unit = device.units[1]

    def protect() -> None:
        unit.software_write_protected = True

    cscds = [copy.encode_cscd(1, 0, 3, device.units[lun].naa) for lun in (0, 1)]
    data = copy.encode_list_lid1(1, cscds, [copy.encode_blocks(0, 1, 3 * CHUNK_NBYTES // 512, 0, 0)])
    raw = cdb.EXTENDED_COPY_LID1.build(parameter_list_length=len(data))
    result = device.run(raw, port=Meanwhile(data, turn=3, act=protect))
    assert sense.decode(result.sense).matches(sense.THIRD_PARTY_DEVICE_FAILURE)
    assert (tmp_path / "fixed").read_bytes() == b"1" * CHUNK_NBYTES + b"x" * (SIZE - CHUNK_NBYTES)


def test_a_token_is_void_when_its_medium_has_gone(device: FakeDevice, tmp_path: Path) -> None:
    data = token.encode_populate([(0, 8)])
    do_command(device, cdb.POPULATE_TOKEN.build(list_identifier=7, parameter_list_length=len(data)), data)
    raw = cdb.RECEIVE_ROD_TOKEN_INFORMATION.build(list_identifier=7, allocation_length=1024)
    made = token.decode_token_descriptors(copy.decode_status_lid4(do_command_in(device, raw)).tail)
    assert made is not None
    another(device, tmp_path)
    data = token.encode_write_using(made, [(0, 8)])
    raw = cdb.WRITE_USING_TOKEN.build(list_identifier=8, parameter_list_length=len(data))
    do_command_fail(device, raw, sense.TOKEN_REVOKED, data_out=data, lun=1)
    assert (tmp_path / "fixed").read_bytes() == b"x" * SIZE


def test_atomic_writes_keep_their_journal_beside_the_medium_they_are_on(device: FakeDevice, tmp_path: Path) -> None:
    write = cdb.WRITE_ATOMIC_16.build(lba=0, transfer_length=2)
    do_command(device, write, b"a" * 1024)
    assert (tmp_path / "first.vscsi" / "atomic.journal").exists()
    # What a target that died while it had the second medium has left behind:
    (tmp_path / "second.vscsi").mkdir()
    journal = Journal(tmp_path / "second.vscsi" / "atomic.journal")
    journal.commit(Record(4096, b"n" * 1024, b"2" * 1024))
    journal.close()
    another(device, tmp_path)
    assert (tmp_path / "second").read_bytes()[4096:5120] == b"n" * 1024
    assert journal.load() is None
    (tmp_path / "first.vscsi" / "atomic.journal").unlink()
    do_command(device, write, b"b" * 1024)
    assert (tmp_path / "second").read_bytes()[:1024] == b"b" * 1024
    assert (tmp_path / "first").read_bytes()[:1024] == b"a" * 1024
    assert not (tmp_path / "first.vscsi" / "atomic.journal").exists()
