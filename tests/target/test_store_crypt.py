# SPDX-License-Identifier: BSD-2-Clause
"""Encrypted images: nothing readable on the medium, the same key over restarts, and none of it after an erase."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in
from hypothesis import given
from hypothesis import strategies as st

from target.lu import open_lu
from target.lunspec import parse
from target.stores import StoreError
from target.stores.crypt import SECTOR, _ciphers
from vscsi.scsi import cdb, sense

TEXT = b"what nobody else may read       " * 16


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "secret.img"


@pytest.fixture
def device(image: Path) -> Iterator[FakeDevice]:
    open_lu(parse(f"0=crypt:{image},size=64k")).close()
    made = FakeDevice(f"0=crypt:{image}", "1=mem:64k")
    yield made
    made.close()


def test_nothing_can_be_read_beside_it(device: FakeDevice, image: Path) -> None:
    do_command(device, cdb.WRITE_10.build(lba=3, transfer_length=2), TEXT + TEXT)
    assert do_command_in(device, cdb.READ_10.build(lba=4, transfer_length=1)) == TEXT
    raw = image.read_bytes()
    assert b"nobody" not in raw
    assert raw[3 * 512 : 4 * 512] != raw[4 * 512 : 5 * 512], "equal blocks must not look equal"
    folder = Path(f"{image}.vscsi")
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "key.json").stat().st_mode & 0o077 == 0


def test_the_key_lasts(device: FakeDevice, image: Path) -> None:
    do_command(device, cdb.WRITE_10.build(transfer_length=1), TEXT)
    device.close()
    again = FakeDevice(f"0=crypt:{image}")
    assert do_command_in(again, cdb.READ_10.build(transfer_length=1)) == TEXT
    again.close()


def test_cryptographic_erase(device: FakeDevice, image: Path) -> None:
    do_command(device, cdb.WRITE_10.build(transfer_length=1), TEXT)
    raw = image.read_bytes()
    do_command(device, cdb.SANITIZE_CRYPTOGRAPHIC_ERASE.build())
    assert image.read_bytes() == raw, "nothing is overwritten, and yet it is gone"
    noise = do_command_in(device, cdb.READ_10.build(transfer_length=1))
    assert noise != TEXT
    do_command(device, cdb.WRITE_10.build(transfer_length=1), TEXT)
    assert do_command_in(device, cdb.READ_10.build(transfer_length=1)) == TEXT
    do_command_fail(device, cdb.SANITIZE_CRYPTOGRAPHIC_ERASE.build(), sense.INVALID_FIELD_IN_CDB, (1, 4), lun=1)
    assert do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0xB1, allocation_length=64))[7] & 0x30 == 0x10


def test_what_is_no_encrypted_image(tmp_path: Path, image: Path) -> None:
    image.write_bytes(bytes(65536))
    with pytest.raises(StoreError, match="no key for it"):
        open_lu(parse(f"0=crypt:{image}"))
    assert image.exists()
    folder = Path(f"{image}.vscsi")
    folder.mkdir()
    for damaged in ({"key": "00"}, {"cipher": "rot13", "sector_nbytes": 512, "key": "00" * 64}, {}):
        (folder / "key.json").write_text(json.dumps(damaged))
        with pytest.raises(StoreError, match="cannot be understood"):
            open_lu(parse(f"0=crypt:{image}"))
    unserved = open_lu(parse(f"0=crypt:{tmp_path}/new.img,size=64k"))
    unserved.abandon()
    unserved.close()
    assert not (tmp_path / "new.img").exists()


def test_known_answer() -> None:
    """IEEE Std 1619 is about any sector size; the vector is the one for 512 bytes, AES-256, data unit FFh."""
    key = bytes.fromhex(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    )
    plain = bytes(range(256)) * 2
    encrypt, decrypt = (make(key) for make in _ciphers())
    secret = encrypt(plain, 0xFF)
    assert secret[:16].hex() == "1c3b3a102f770386e4836c99e370cf9b"
    assert decrypt(secret, 0xFF) == plain


def test_what_is_not_there_is_zeros(device: FakeDevice, image: Path) -> None:
    assert do_command_in(device, cdb.READ_10.build(transfer_length=128)) == bytes(65536)
    for lba in range(0, 128, 8):
        do_command(device, cdb.WRITE_10.build(lba=lba, transfer_length=8), TEXT * 8)
    full = image.stat().st_blocks
    do_command(device, cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=64, ndob=1, unmap=1))
    assert image.stat().st_blocks < full
    assert do_command_in(device, cdb.READ_10.build(lba=7, transfer_length=3)) == TEXT + bytes(1024)
    do_command(device, cdb.SANITIZE_CRYPTOGRAPHIC_ERASE.build())
    assert do_command_in(device, cdb.READ_10.build(lba=8, transfer_length=64)) == bytes(32768)
    do_command(device, cdb.SANITIZE_BLOCK_ERASE.build())
    assert do_command_in(device, cdb.READ_10.build(transfer_length=128)) == bytes(65536)


@given(st.integers(0, 1 << 40), st.integers(1, 5))
def test_sectors_stand_alone(first: int, count: int) -> None:
    encrypt, _ = (make(bytes(range(64))) for make in _ciphers())
    data = bytes(SECTOR) * count
    whole = encrypt(data, first)
    assert whole == b"".join(encrypt(bytes(SECTOR), first + n) for n in range(count))
    assert len({whole[i * SECTOR : (i + 1) * SECTOR] for i in range(count)}) == count
