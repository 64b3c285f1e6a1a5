# SPDX-License-Identifier: BSD-2-Clause
"""Copies as ESXi, Windows and sg_xcopy ask for them, over real rings: their commands in their order."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_server import Target

from initiator import Initiator
from vscsi.scsi import cdb, copy, token, vpd, vpd_copy
from vscsi.scsi.status import Status

BLOCKS = 4096


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Target]:
    image = tmp_path / "image"
    image.write_bytes(b"".join(n.to_bytes(4) * 128 for n in range(BLOCKS)))
    target = Target(tmp_path / "s", f"0={image}", f"1=mem:{BLOCKS * 512}")
    yield target
    target.stop()


@pytest.fixture
def initiator(served: Target) -> Iterator[Initiator]:
    with Initiator(served.path) as made:
        for lun in (0, 1):
            made.execute(lun, cdb.TEST_UNIT_READY.build())
        yield made


def ask(initiator: Initiator, lun: int, raw: bytes, nbytes: int) -> bytes:
    return bytes(initiator.execute(lun, raw, data_in=nbytes).raise_for_status().data_in)


def name_of(initiator: Initiator, lun: int) -> bytes:
    """What sg_xcopy does: the first NAA designator of page 83h, asked for with 252 bytes."""
    page = ask(initiator, lun, cdb.INQUIRY.build(evpd=1, page_code=0x83, allocation_length=252), 252)
    assert int.from_bytes(page[2:4]) + 4 <= 252
    return next(one.value for one in vpd.decode_identification(page) if one.kind == 3 and one.association == 0)


def test_esxi_clones_by_extended_copy(initiator: Initiator) -> None:
    """VAAI: 4 MiB pieces by NAA, one segment, LID1, with the list identifier discarded."""
    standard = ask(initiator, 0, cdb.INQUIRY.build(allocation_length=96), 96)
    assert standard[5] & 0x08, "3PC"
    ask(initiator, 0, cdb.RECEIVE_COPY_OPERATING_PARAMETERS.build(allocation_length=255), 255)
    cscds = [copy.encode_cscd(1, 0, 3, name_of(initiator, lun), 512) for lun in (0, 1)]
    data = copy.encode_list_lid1(0, cscds, [copy.encode_blocks(0, 1, BLOCKS, 0, 0)], usage=copy.ListIdUsage.NONE)
    raw = cdb.EXTENDED_COPY_LID1.build(parameter_list_length=len(data))
    initiator.execute(1, raw, data_out=data).raise_for_status()
    assert initiator.lun(1).read(0, BLOCKS) == initiator.lun(0).read(0, BLOCKS)


def test_windows_offloads_by_token(initiator: Initiator) -> None:
    """ODX: page 8Fh, POPULATE TOKEN, RECEIVE ROD TOKEN INFORMATION until it is done, WRITE USING TOKEN with IMMED."""
    page = ask(initiator, 0, cdb.INQUIRY.build(evpd=1, page_code=0x8F, allocation_length=512), 512)
    limits = dict(vpd_copy.decode(page))[vpd_copy.Descriptor.BLOCK_ROD_LIMITS]
    assert vpd_copy.BLOCK_ROD_LIMITS.numbers(limits)["maximum_token_transfer_size"] >= BLOCKS
    data = token.encode_populate([(0, 1000), (3000, 96)], immed=1)
    raw = cdb.POPULATE_TOKEN.build(list_identifier=0x11223344, parameter_list_length=len(data))
    initiator.execute(0, raw, data_out=data).raise_for_status()
    got = copy.decode_status_lid4(results(initiator, 0))
    assert got.fields["copy_operation_status"] == copy.Status.COMPLETED
    made = token.decode_token_descriptors(got.tail)
    assert made is not None
    data = token.encode_write_using(made, [(8, 1096)], immed=1)
    raw = cdb.WRITE_USING_TOKEN.build(list_identifier=0x11223344, parameter_list_length=len(data))
    initiator.execute(1, raw, data_out=data).raise_for_status()
    while (got := copy.decode_status_lid4(results(initiator, 1))).running:
        pass
    assert (got.fields["copy_operation_status"], got.fields["transfer_count"]) == (copy.Status.COMPLETED, 1096)
    assert initiator.lun(1).read(8, 1096) == initiator.lun(0).read(0, 1000) + initiator.lun(0).read(3000, 96)
    data = token.encode_write_using(token.BLOCK_ZERO_TOKEN, [(100, 50)])
    raw = cdb.WRITE_USING_TOKEN.build(list_identifier=1, parameter_list_length=len(data))
    initiator.execute(1, raw, data_out=data).raise_for_status()
    assert initiator.lun(1).read(100, 50) == bytes(50 * 512)


def results(initiator: Initiator, lun: int) -> bytes:
    raw = cdb.RECEIVE_ROD_TOKEN_INFORMATION.build(list_identifier=0x11223344, allocation_length=0x238)
    return ask(initiator, lun, raw, 0x238)


def test_copies_against_writers(served: Target, initiator: Initiator) -> None:
    """Blocks that are written while they are copied arrive whole: as they were or as they are."""
    cscds = [copy.encode_cscd(1, 0, 3, served.server.units[lun].naa, 512) for lun in (0, 1)]
    data = copy.encode_list_lid1(5, cscds, [copy.encode_blocks(0, 1, 256, 0, 0)])
    raw = cdb.EXTENDED_COPY_LID1.build(parameter_list_length=len(data))
    for n in range(1, 30):
        initiator.submit(0, raw, data_out=data, cookie="copy")
        initiator.submit(0, cdb.WRITE_10.build(lba=0, transfer_length=256), data_out=bytes([n]) * 256 * 512)
        done = initiator.reap(min=2, timeout=30)
        assert [one.status for one in done] == [Status.GOOD, Status.GOOD]
        got = initiator.lun(1).read(0, 256)
        assert len(set(got)) == 1 or (n == 1 and got[:4] == bytes(4)), "half a write was copied"
