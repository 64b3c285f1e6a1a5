# SPDX-License-Identifier: BSD-2-Clause
"""Units with protection information for tests: made, read, written, and looked at from behind."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command_in

from target.protection import Protection
from vscsi.scsi import cdb

SIZE = 512
A, B = b"a" * SIZE, b"b" * SIZE
ESCAPE = b"\xff" * 8
LBA = 9
_open: list[FakeDevice] = []


@pytest.fixture(autouse=True)
def close_devices() -> Iterator[None]:
    """Each has descriptors."""
    yield
    while _open:
        _open.pop().close()


def device(type_: int, store: str = "mem:1M") -> FakeDevice:
    """A unit of that type; it is closed at the end of the test."""
    return opened(f"0={store},protection={type_}")


def opened(spec: str) -> FakeDevice:
    """The same from a whole specification."""
    _open.append(FakeDevice(spec))
    return _open[-1]


def read(dev: FakeDevice, protect: int, blocks: int = 1, lba: int = LBA) -> bytes:
    return do_command_in(dev, read_cdb(dev, protect, blocks, lba))


def read_cdb(dev: FakeDevice, protect: int, blocks: int = 1, lba: int = LBA, **tags: int) -> bytes:
    if dev.units[0].protection_type == 2 and protect:
        tags.setdefault("expected_initial_reference_tag", lba)
        return cdb.READ_32.build(rdprotect=protect, lba=lba, transfer_length=blocks, **tags)
    return cdb.READ_16.build(rdprotect=protect, lba=lba, transfer_length=blocks)


def write_cdb(dev: FakeDevice, protect: int, blocks: int = 1, lba: int = LBA, **tags: int) -> bytes:
    if dev.units[0].protection_type == 2 and protect:
        tags.setdefault("expected_initial_reference_tag", lba)
        return cdb.WRITE_32.build(wrprotect=protect, lba=lba, transfer_length=blocks, **tags)
    return cdb.WRITE_16.build(wrprotect=protect, lba=lba, transfer_length=blocks)


def kept(dev: FakeDevice, lba: int = LBA) -> bytes:
    """The information beside the medium."""
    return bytes(dev.units[0].part(Protection).load(lba, 1))


def keep(dev: FakeDevice, info: bytes, lba: int = LBA) -> None:
    dev.units[0].part(Protection).store(info, lba)
