# SPDX-License-Identifier: BSD-2-Clause
"""Commands other than READ and WRITE on units with protection information: what is compared, made and forgotten."""

import oracle_pi as oracle
import pytest
from fake_device import do_command, do_command_fail, do_command_in
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

from target.protection import Protection
from vscsi.scsi import cdb, parameters, sense
from vscsi.scsi.sense import Sense

GUARD = sense.LOGICAL_BLOCK_GUARD_CHECK_FAILED
APP = sense.LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED
REF = sense.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED
INVALID = sense.INVALID_FIELD_IN_CDB
TRANSFERRING = (1, 2, 3, 4, 5)


# ---- the other commands ----


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_unmapped_blocks_are_not_checked(type_: int) -> None:
    dev = device(type_)
    do_command(dev, write_cdb(dev, 1, 4), oracle.wire([A] * 4, LBA))
    data = parameters.encode_unmap([(LBA, 2)])
    do_command(dev, cdb.UNMAP.build(parameter_list_length=len(data)), data)
    raw = cdb.WRITE_SAME_16.build(lba=LBA + 2, number_of_logical_blocks=1, unmap=1, ndob=1)
    do_command(dev, raw)
    assert read(dev, 1, 4) == (bytes(SIZE) + ESCAPE) * 3 + A + oracle.info(A, LBA + 3)


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_write_same(type_: int) -> None:
    dev = device(type_)
    row = cdb.WRITE_SAME_32 if type_ == 2 else cdb.WRITE_SAME_16
    tags = {"expected_initial_reference_tag": LBA} if type_ == 2 else {}
    build = {"lba": LBA, "number_of_logical_blocks": 3, **tags}
    do_command(dev, row.build(wrprotect=1, **build), oracle.wire([A], LBA, 7))
    assert read(dev, 1, 3) == oracle.wire([A] * 3, LBA, 7, count=type_ != 3)
    do_command_fail(dev, row.build(wrprotect=1, **build), GUARD, data_out=B + oracle.info(A, LBA))
    do_command(dev, row.build(wrprotect=1, ndob=1, **build))
    assert read(dev, 1, 3) == (bytes(SIZE) + ESCAPE) * 3
    do_command(dev, cdb.WRITE_SAME_16.build(lba=LBA, number_of_logical_blocks=2), B)
    assert read(dev, 0, 2) == B + B
    assert kept(dev) == bytes(dev.units[0].part(Protection).generate(B, LBA))
    # given back only where a read gives what was sent, information included
    zero = bytes(SIZE)
    do_command(dev, row.build(wrprotect=3, unmap=1, **build), zero + oracle.info(zero, LBA))
    assert kept(dev) == oracle.info(zero, LBA)
    do_command(dev, row.build(wrprotect=3, unmap=1, **build), zero + ESCAPE)
    assert kept(dev) == ESCAPE


@pytest.mark.parametrize("type_", [1, 3])
def test_compare_and_write(type_: int) -> None:
    dev = device(type_)
    dev.units[0].part(Protection).ato = True
    raw = cdb.COMPARE_AND_WRITE.build(wrprotect=1, lba=LBA, number_of_logical_blocks=1)
    old, new = oracle.wire([A], LBA, 1), oracle.wire([B], LBA, 2)
    do_command(dev, write_cdb(dev, 1), old)
    do_command(dev, raw, old + new)
    assert read(dev, 1) == new
    got = do_command_fail(dev, raw, sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=old + new)
    assert got.information == 0
    other = oracle.wire([B], LBA, 3)
    got = do_command_fail(dev, raw, Sense(sense.Key.MISCOMPARE, 0x10, 0x02, ""), data_out=other + old)
    assert got.information == SIZE + 2
    do_command_fail(dev, raw, GUARD, data_out=new + A + oracle.info(B, LBA))
    assert read(dev, 1) == new
    do_command_fail(dev, raw, INVALID, (13, None), data_out=new * 3)
    plain = cdb.COMPARE_AND_WRITE.build(lba=LBA, number_of_logical_blocks=1)
    do_command(dev, plain, B + A)
    assert read(dev, 0) == A


def test_orwrite() -> None:
    dev = device(1)
    one, two = b"\x01" * SIZE, b"\x02" * SIZE
    do_command(dev, write_cdb(dev, 1), oracle.wire([one], LBA, 5))
    raw = cdb.ORWRITE_16.build(orprotect=1, lba=LBA, transfer_length=1)
    do_command(dev, raw, oracle.wire([two], LBA, 6))
    assert read(dev, 1) == oracle.wire([b"\x03" * SIZE], LBA, 6)
    do_command_fail(dev, raw, REF, data_out=oracle.wire([two], LBA + 1, 6))
    do_command(dev, cdb.ORWRITE_16.build(lba=LBA, transfer_length=1), b"\x04" * SIZE)
    assert read(dev, 1) == oracle.wire([b"\x07" * SIZE], LBA, 0)


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_verify_compares_information_too(type_: int) -> None:
    dev = device(type_)
    dev.units[0].part(Protection).ato = True
    sent = oracle.wire([A, B], LBA, 7)
    do_command(dev, write_cdb(dev, 1, 2), sent)
    row = cdb.VERIFY_32 if type_ == 2 else cdb.VERIFY_16
    tags = {"expected_initial_reference_tag": LBA, "expected_application_tag": 7} if type_ == 2 else {}
    build = {"lba": LBA, "verification_length": 2, "bytchk": 1, **tags}
    do_command(dev, row.build(vrprotect=1, **build), sent)
    wrong = oracle.wire([A, A], LBA, 7)
    got = do_command_fail(
        dev, row.build(vrprotect=1, **build), sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=wrong
    )
    assert got.information == SIZE + 8
    tagged = oracle.wire([A], LBA, 7) + B + oracle.info(B, LBA + 1, 8)
    for protect, failing in ((1, True), (2, True), (3, True), (4, False), (5, True)):
        raw = row.build(vrprotect=protect, **build)
        if failing:
            got = do_command_fail(dev, raw, Sense(sense.Key.MISCOMPARE, 0x10, 0x02, ""), data_out=tagged)
            assert got.information == 2 * SIZE + 8 + 2
        else:
            do_command(dev, raw, tagged)
    same = {"lba": LBA, "verification_length": 1, "bytchk": 3, **tags}
    do_command(dev, row.build(vrprotect=1, **same), sent[: SIZE + 8])


@pytest.mark.parametrize("type_", [1, 2, 3])
@pytest.mark.parametrize("bytchk", [0, 1])
def test_write_and_verify(type_: int, bytchk: int) -> None:
    dev = device(type_)
    row = cdb.WRITE_AND_VERIFY_32 if type_ == 2 else cdb.WRITE_AND_VERIFY_16
    tags = {"expected_initial_reference_tag": LBA} if type_ == 2 else {}
    raw = row.build(wrprotect=1, bytchk=bytchk, lba=LBA, transfer_length=2, **tags)
    sent = oracle.wire([A, B], LBA, 7)
    do_command(dev, raw, sent)
    assert read(dev, 1, 2) == sent
    do_command_fail(dev, raw, GUARD, data_out=oracle.wire([A], LBA) + A + oracle.info(B, LBA + 1))


def test_long_cdbs_without_transfer() -> None:
    dev = device(2)
    do_command(dev, cdb.WRITE_32.build(lba=LBA, transfer_length=2), A + B)
    do_command_in(dev, cdb.READ_32.build(lba=LBA, transfer_length=2), expected=A + B)
    do_command(dev, cdb.VERIFY_32.build(lba=LBA, verification_length=2, bytchk=1), A + B)
    do_command(dev, cdb.WRITE_SAME_32.build(lba=LBA, number_of_logical_blocks=2), A)
    do_command_in(dev, cdb.READ_10.build(lba=LBA, transfer_length=2), expected=A + A)
    do_command_fail(dev, cdb.READ_32.build(lba=1 << 40, transfer_length=1), sense.LBA_OUT_OF_RANGE)
