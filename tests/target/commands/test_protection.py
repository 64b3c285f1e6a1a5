# SPDX-License-Identifier: BSD-2-Clause
"""Protection information of types 1, 2 and 3: what travels, what is kept, and every cell of what is checked when."""

import itertools
from pathlib import Path

import oracle_pi as oracle
import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from protected_device import (  # noqa: F401
    ESCAPE,
    LBA,
    SIZE,
    A,
    B,
    close_devices,
    device,
    keep,
    kept,
    opened,
    read,
    read_cdb,
    write_cdb,
)

from target.lu import open_lu
from target.lunspec import parse
from target.protection import Protection
from target.stores import StoreError
from vscsi.scsi import cdb, parameters, sense
from vscsi.scsi.sense import Sense

GUARD = sense.LOGICAL_BLOCK_GUARD_CHECK_FAILED
APP = sense.LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED
REF = sense.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED
INVALID = sense.INVALID_FIELD_IN_CDB
TRANSFERRING = (1, 2, 3, 4, 5)


# ---- what the unit says of itself ----


@pytest.mark.parametrize("type_", [0, 1, 2, 3])
def test_what_the_unit_says(type_: int) -> None:
    dev = device(type_)
    data = do_command_in(dev, cdb.READ_CAPACITY_16.build(allocation_length=32))
    capacity = parameters.CAPACITY_16.numbers(data)
    assert (capacity["prot_en"], capacity["p_type"]) == ((1, type_ - 1) if type_ else (0, 0))
    assert do_command_in(dev, cdb.INQUIRY.build(allocation_length=36))[5] & 1 == 1
    page = do_command_in(dev, cdb.INQUIRY.build(evpd=1, page_code=0x86, allocation_length=64))
    assert page[4] & 0x3F == 7 << 3 | 7


def test_a_unit_without_a_memory_has_nothing_to_protect() -> None:
    dev = opened("0=null:1M")
    assert do_command_in(dev, cdb.INQUIRY.build(allocation_length=36))[5] & 1 == 0
    assert do_command_in(dev, cdb.INQUIRY.build(evpd=1, page_code=0x86, allocation_length=64))[4] == 0
    with pytest.raises(StoreError, match="nothing to protect"):
        open_lu(parse("0=null:1M,protection=1"))


def usage(dev: FakeDevice, row: cdb.Cdb) -> bytes:
    data = do_command_in(
        dev,
        cdb.REPORT_SUPPORTED_OPERATION_CODES.build(
            reporting_options=3, requested_operation_code=row.opcode, requested_service_action=row.sa or 0,
            allocation_length=64,
        ),
    )  # fmt: skip
    return data[4:] if data[1] & 7 == 3 else b""


@pytest.mark.parametrize("type_", [0, 1, 2, 3])
def test_the_command_table_agrees(type_: int) -> None:
    dev = device(type_)
    for row in (cdb.READ_10, cdb.READ_16, cdb.WRITE_12, cdb.VERIFY_16, cdb.WRITE_SAME_16, cdb.COMPARE_AND_WRITE):
        assert usage(dev, row)[1] & 0xE0 == (0xE0 if type_ in (1, 3) else 0), row
    for row in (cdb.READ_32, cdb.WRITE_32, cdb.VERIFY_32, cdb.WRITE_AND_VERIFY_32, cdb.WRITE_SAME_32):
        assert bool(usage(dev, row)) == (type_ == 2), row
    everything = do_command_in(dev, cdb.REPORT_SUPPORTED_OPERATION_CODES.build(allocation_length=1 << 16))
    assert (0x7F in {row.opcode for row in parameters.decode_opcodes(everything)}) == (type_ == 2)


@pytest.mark.parametrize("protect", range(1, 8))
@pytest.mark.parametrize(
    "row",
    [cdb.READ_10, cdb.READ_16, cdb.WRITE_10, cdb.WRITE_16, cdb.VERIFY_16, cdb.WRITE_SAME_10, cdb.WRITE_SAME_16,
     cdb.WRITE_AND_VERIFY_16, cdb.COMPARE_AND_WRITE, cdb.ORWRITE_16],
    ids=lambda row: row.symbol,
)  # fmt: skip
def test_a_unit_without_protection_and_type_2(row: cdb.Cdb, protect: int) -> None:
    name = next(name for name in row.fields if name.endswith("protect"))
    raw = row.build(**{name: protect})
    do_command_fail(device(0), raw, INVALID, (1, None), data_out=bytes(2048))
    do_command_fail(device(2), raw, sense.INVALID_COMMAND_OPERATION_CODE, data_out=bytes(2048))


@pytest.mark.parametrize("type_", [0, 1, 3])
def test_long_cdbs_are_type_2s_alone(type_: int) -> None:
    for row in (cdb.READ_32, cdb.WRITE_32, cdb.VERIFY_32, cdb.WRITE_AND_VERIFY_32, cdb.WRITE_SAME_32):
        do_command_fail(device(type_), row.build(), sense.INVALID_COMMAND_OPERATION_CODE)


def test_long_cdb_of_another_length() -> None:
    raw = bytearray(cdb.READ_32.build())
    raw[7] = 0x10
    do_command_fail(device(2), bytes(raw), INVALID, (7, None))
    do_command_fail(device(2), cdb.READ_32.build()[:9] + b"\x77" + bytes(22), INVALID, (8, None))


@pytest.mark.parametrize("protect", [6, 7])
def test_reserved_values(protect: int) -> None:
    dev = device(1)
    for row in (cdb.READ_10, cdb.WRITE_10, cdb.VERIFY_10, cdb.WRITE_SAME_10, cdb.WRITE_AND_VERIFY_10):
        name = next(name for name in row.fields if name.endswith("protect"))
        do_command_fail(dev, row.build(**{name: protect}), INVALID, (1, None))
    do_command_fail(device(2), cdb.READ_32.build(rdprotect=protect), INVALID, (10, None))


# ---- what travels and what is kept ----


@pytest.mark.parametrize(("type_", "protect"), list(itertools.product((1, 2, 3), TRANSFERRING)))
def test_what_is_sent_comes_back(type_: int, protect: int) -> None:
    dev = device(type_)
    sent = oracle.wire([A, B], LBA, 0x1234)
    port = do_command(dev, write_cdb(dev, protect, 2), sent)
    assert port.fetched == [(0, len(sent))]
    assert read(dev, protect, 2) == sent
    assert read(dev, 0, 2) == A + B


@pytest.mark.parametrize("ato", [False, True])
@pytest.mark.parametrize("type_", [1, 2, 3])
def test_what_is_generated(type_: int, ato: bool) -> None:
    dev = device(type_)
    dev.units[0].part(Protection).ato = ato
    do_command(dev, cdb.WRITE_10.build(lba=LBA, transfer_length=1), A)
    app = 0xFFFF if ato or type_ == 2 else 0
    assert kept(dev) == oracle.info(A, LBA if type_ == 1 else 0xFFFFFFFF, app)


def test_reference_tags_go_round() -> None:
    dev = device(1)
    last = dev.units[0].blocks - 1
    assert dev.units[0].part(Protection).tags((1 << 32) + 5).ref == 5
    do_command(dev, write_cdb(dev, 1, 1, last), oracle.wire([A], last))
    two = device(2)
    tags = {"expected_initial_reference_tag": 0xFFFFFFFF}
    sent = oracle.wire([A, B], 0xFFFFFFFF)
    do_command(two, write_cdb(two, 1, 2, **tags), sent)
    assert do_command_in(two, read_cdb(two, 1, 2, **tags)) == sent


def test_unwritten_blocks_are_not_checked() -> None:
    for type_ in (1, 2, 3):
        dev = device(type_)
        assert read(dev, 1, 3) == (bytes(SIZE) + ESCAPE) * 3
        assert read(dev, 0) == bytes(SIZE)


def test_too_short_a_buffer_and_too_long_a_one() -> None:
    dev = device(1)
    sent = oracle.wire([A], LBA)
    raw = write_cdb(dev, 1)
    do_command_fail(dev, raw, sense.INVALID_FIELD_IN_COMMAND_IU, data_out=sent[:-1])
    assert kept(dev) == ESCAPE
    port = FakePort(sent + b"more")
    assert dev.run(raw, port).out_nbytes == len(sent)
    port = FakePort(data_in_nbytes=SIZE + 4)
    assert dev.run(read_cdb(dev, 1), port).in_nbytes == SIZE + 8
    assert port.data_in == sent[: SIZE + 4]


def test_the_longest_transfer() -> None:
    dev = device(1, "mem:16M")
    most = dev.units[0].max_transfer_blocks
    sent = oracle.wire([A], 0)
    do_command_fail(dev, cdb.READ_16.build(rdprotect=1, transfer_length=most + 1), INVALID, (10, None))
    do_command(dev, cdb.WRITE_SAME_16.build(wrprotect=1, number_of_logical_blocks=most), sent)
    data = do_command_in(dev, cdb.READ_16.build(rdprotect=1, transfer_length=most))
    assert len(data) == most * (SIZE + 8)
    assert data[-8:] == oracle.info(A, most - 1)


# ---- the matrices: which of the three is checked, by type and value ----

Wrong = tuple[str, Sense]


def spoilt(what: str, lba: int, app: int = 0x00AA) -> bytes:
    info = bytearray(oracle.info(A, lba, app))
    at = {"guard": 0, "app": 3, "ref": 7, "none": 0}[what]
    if what != "none":
        info[at] ^= 1
    return bytes(info)


def expected(type_: int, protect: int, what: str) -> Sense | None:
    """By SBC-3's tables; with RDPROTECT 000b the CDBs that travel without tags know only type 1's reference tag."""
    if what == "guard":
        return GUARD if protect in (0, 1, 4, 5) else None
    if what == "app":
        return APP if type_ == 2 and protect in (1, 2, 5) else None
    if what == "ref":
        return REF if (type_ == 1 and protect in (0, 1, 2, 5)) or (type_ == 2 and protect in (1, 2, 5)) else None
    return None


TAGS = {"expected_application_tag": 0x00AA, "application_tag_mask": 0x00FF}
MATRIX = list(itertools.product((1, 2, 3), range(6), ("none", "guard", "app", "ref")))


@pytest.mark.parametrize(("type_", "protect", "what"), MATRIX)
def test_reading(type_: int, protect: int, what: str) -> None:
    dev = device(type_)
    dev.units[0].part(Protection).ato = True
    do_command(dev, write_cdb(dev, 1, 3), oracle.wire([A, A, A], LBA, 0x00AA))
    bad = spoilt(what, LBA + 1)
    keep(dev, bad, LBA + 1)
    tags = TAGS if type_ == 2 and protect else {}
    raw = read_cdb(dev, protect, 3, **tags)
    verify = cdb.VERIFY_16.build(lba=LBA, verification_length=3, vrprotect=0 if type_ == 2 else protect)
    if type_ == 2 and protect:
        verify = cdb.VERIFY_32.build(
            lba=LBA, verification_length=3, vrprotect=protect, expected_initial_reference_tag=LBA, **TAGS
        )
    if code := expected(type_, protect, what):
        for each in (raw, verify):
            assert do_command_fail(dev, each, code).information == LBA + 1
        assert code.key == sense.Key.ABORTED_COMMAND
    else:
        data = do_command_in(dev, raw)
        assert data[SIZE + 8 :][SIZE : SIZE + 8] == bad if protect else data == A * 3
        do_command(dev, verify)


@pytest.mark.parametrize(("type_", "protect", "what"), [row for row in MATRIX if row[1]])
def test_writing(type_: int, protect: int, what: str) -> None:
    dev = device(type_)
    dev.units[0].part(Protection).ato = True
    sent = oracle.wire([A], LBA, 0x00AA) + A + spoilt(what, LBA + 1)
    raw = write_cdb(dev, protect, 2, **(TAGS if type_ == 2 else {}))
    if code := expected(type_, protect, what):
        assert do_command_fail(dev, raw, code, data_out=sent).information == LBA + 1
        assert kept(dev) == ESCAPE, "nothing is written of a command that is wrong anywhere"
        assert read(dev, 0) == bytes(SIZE)
    else:
        do_command(dev, raw, sent)
        assert read(dev, 3, 2) == sent


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_escapes_hold_for_reading_only(type_: int) -> None:
    dev = device(type_)
    dev.units[0].part(Protection).ato = True
    for info in (b"\0\1\xff\xff\0\0\0\0", b"\0\1\xff\xff\xff\xff\xff\xff"):
        keep(dev, info)
        if type_ == 3 and info[4] == 0:
            do_command_fail(dev, read_cdb(dev, 1), GUARD)
        else:
            assert read(dev, 1) == bytes(SIZE) + info
        do_command_fail(dev, write_cdb(dev, 1), GUARD, data_out=A + info)


def test_dpicz_switches_off_what_does_not_travel() -> None:
    dev = device(1)
    keep(dev, b"\0\0\0\0\0\0\0\0")
    do_command_fail(dev, read_cdb(dev, 0), REF)
    dev.units[0].part(Protection).dpicz = True
    assert read(dev, 0) == bytes(SIZE)
    do_command_fail(dev, read_cdb(dev, 1), REF)


def test_without_ato_application_tags_are_not_looked_at() -> None:
    dev = device(2)
    do_command(dev, write_cdb(dev, 1, **TAGS), oracle.wire([A], LBA, 0x5555))
    do_command_in(dev, read_cdb(dev, 1, **TAGS), expected=oracle.wire([A], LBA, 0x5555))
    dev.units[0].part(Protection).ato = True
    do_command_fail(dev, read_cdb(dev, 1, **TAGS), APP)


def test_silent_corruption_of_the_image_is_found() -> None:
    dev = device(1)
    do_command(dev, cdb.WRITE_10.build(lba=LBA, transfer_length=2), A + B)
    dev.units[0].write_raw(memoryview(B), LBA)
    assert do_command_fail(dev, cdb.READ_10.build(lba=LBA, transfer_length=2), GUARD).information == LBA
    do_command_fail(dev, cdb.READ_6.build(lba=LBA, transfer_length=1), GUARD)
    dev.units[0].write_raw(memoryview(A), LBA)
    do_command(dev, cdb.WRITE_10.build(lba=0, transfer_length=1), A)
    dev.units[0].write_raw(memoryview(A), 0)  # a lost write, and information of another block
    keep(dev, oracle.info(A, 1), 0)
    do_command_fail(dev, cdb.READ_10.build(transfer_length=1), REF)


# ---- formats, and what outlives the target ----


def test_information_outlives_the_target(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    spec = f"0={image}"
    first = opened(f"{spec},protection=1")
    do_command(first, write_cdb(first, 1, 2), oracle.wire([A, B], LBA, 7))
    first.close()
    assert (tmp_path / "disk.img.vscsi" / "pi").stat().st_size == 2048 * 8
    second = opened(spec)
    assert second.units[0].protection_type == 1
    assert read(second, 1, 2) == oracle.wire([A, B], LBA, 7)
    second.close()
    data = bytearray(image.read_bytes())
    data[(LBA + 1) * SIZE] ^= 1
    image.write_bytes(data)
    third = opened(spec)
    assert do_command_fail(third, read_cdb(third, 0, 2), GUARD).information == LBA + 1
    third.close()
    with pytest.raises(StoreError, match="protection=2, but it is formatted with type 1"):
        open_lu(parse(f"{spec},protection=2"))
    with pytest.raises(StoreError, match="protection=0, but"):
        open_lu(parse(f"{spec},protection=0"))


def test_corrupted_side_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    spec = f"0={tmp_path / 'disk.img'},protection=1"
    first = opened(spec)
    do_command(first, cdb.WRITE_10.build(lba=LBA, transfer_length=1), A)
    first.close()
    side = tmp_path / "disk.img.vscsi" / "pi"
    data = bytearray(side.read_bytes())
    data[LBA * 8] ^= 0x40
    side.write_bytes(data)
    second = opened(spec)
    do_command_fail(second, read_cdb(second, 0), GUARD)
    second.close()


def test_a_read_only_image_is_not_formatted(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(StoreError, match="read-only"):
        open_lu(parse(f"0={image},ro,protection=1"))


def test_an_existing_image_keeps_its_data(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(A * 2048)
    dev = opened(f"0={image},protection=1")
    assert read(dev, 0) == A
    assert read(dev, 1) == A + ESCAPE
    dev.close()


def test_a_flush_flushes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    dev = opened(f"0={tmp_path / 'disk.img'},protection=1")
    do_command(dev, cdb.WRITE_10.build(lba=LBA, transfer_length=1), A)
    told: list[str] = []
    monkeypatch.setattr(dev.units[0].store, "flush", lambda: told.append("image"))
    monkeypatch.setattr(dev.units[0].part(Protection), "flush", lambda: told.append("information"))
    do_command(dev, cdb.SYNCHRONIZE_CACHE_10.build())
    assert told == ["image", "information"]
    dev.close()
