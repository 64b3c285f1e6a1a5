# SPDX-License-Identifier: BSD-2-Clause
"""The table of CDBs: what follows from a row, and the rows themselves against pyscsi's."""

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.scsi import cdb
from vscsi.scsi.cdb import Cdb
from vscsi.scsi.fields import be8, be32, be64, bit

ROWS = list(cdb.ROWS.values())
by_name = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.symbol)


def some_values(row: Cdb, rng: random.Random) -> dict[str, int]:
    return {name: rng.choice((0, f.mask, rng.randint(0, f.mask))) for name, f in row.fields.items()}


@by_name
def test_a_row_is_found_under_its_name(row: Cdb) -> None:
    assert getattr(cdb, row.symbol) is row
    assert cdb.lookup(row.build()) is row
    assert len(row.build()) == row.nbytes == (cdb.nbytes_of(row.opcode) or 32)
    assert cdb.name_of(row.build()) == row.name


@by_name
def test_build_and_parse_agree(row: Cdb) -> None:
    rng = random.Random(row.opcode)
    for _ in range(200):
        values = some_values(row, rng)
        raw = row.build(**values)
        assert row.parse(raw) == values
        without_control = raw[: row.control.byte] + b"\0" + raw[row.control.end :]
        assert cdb.reserved_bit(without_control, row.accept_map()) is None


@by_name
def test_every_bit_belongs_to_a_field_or_is_reported(row: Cdb) -> None:
    """Flipping any one bit either changes what parse sees, is ignored on purpose, or is pointed at exactly."""
    base = row.build()
    for place in range(8, 8 * row.nbytes):
        byte, bit = place // 8, 7 - place % 8
        raw = bytearray(base)
        raw[byte] |= 1 << bit
        if row.sa_field is not None and row.sa_field.get(raw) != row.sa:
            continue
        if row.fixed[byte] >> bit & 1:  # set already: the additional length
            continue
        found = cdb.reserved_bit(bytes(raw), row.accept_map())
        ignored = any(f.byte == byte and f.mask << f.shift & 1 << bit for f in row.ignored)
        if byte == row.control.byte:
            assert found == (None if bit == 2 else (byte, bit)), "only NACA is there"
        elif row.parse(bytes(raw)) != row.parse(base) or ignored:
            assert found is None
            assert bool(row.usage_map()[byte] & 1 << bit) is not ignored
        else:
            assert found == (byte, bit)


@by_name
def test_block_counts_and_directions(row: Cdb) -> None:
    if row.block_count is not None:
        assert "lba" in row.fields
    if "allocation_length" in row.fields:
        assert row.data is cdb.Data.IN
    if "parameter_list_length" in row.fields:
        assert row.data is cdb.Data.OUT


def test_usage_map_known() -> None:
    assert cdb.READ_16.usage_map().hex(" ") == "88 fc" + " ff" * 12 + " 1f 04"
    assert cdb.READ_16.usage_map(("rdprotect", "rarc"))[1] == 0x18
    assert cdb.READ_CAPACITY_16.usage_map(("lba", "pmi")).hex() == "9e10" + "00" * 8 + "ffffffff" + "0004"


def test_errors() -> None:
    with pytest.raises(TypeError, match="no field 'nonsense'"):
        cdb.READ_10.build(nonsense=1)
    with pytest.raises(ValueError, match="does not fit in 16 bits"):
        cdb.READ_10.build(transfer_length=65536)
    with pytest.raises(ValueError, match="does not fit"):
        cdb.READ_10.build(lba=-1)
    with pytest.raises(ValueError, match="not a CDB of READ"):
        cdb.READ_10.parse(cdb.WRITE_10.build())
    with pytest.raises(ValueError, match="not a CDB of READ"):
        cdb.READ_10.parse(cdb.READ_10.build()[:9])
    with pytest.raises(ValueError, match="overlaps"):
        Cdb(0x00, "X", a=be8(1), b=bit(1, 3))
    with pytest.raises(ValueError, match="overlaps"):
        Cdb(0x00, "X", a=be32(4))


def test_service_actions() -> None:
    assert cdb.has_service_actions(0x9E)
    assert not cdb.has_service_actions(0x12)
    assert cdb.lookup(bytes([0x9E, 0x1F]) + bytes(14)) is None
    assert cdb.lookup(bytes([0xFF] * 16)) is None
    assert cdb.name_of(b"\xff\0\0\0\0\0") == "opcode FFh"
    assert cdb.name_of(b"") == "empty CDB"
    assert cdb.nbytes_of(0x7F) is None


def test_variable_length_rows_keep_the_service_action_in_bytes_8_and_9() -> None:
    row = Cdb(0x7F, "READ(32)", cdb.Data.IN, sa=0x0009, lba=be64(12), transfer_length=be32(28))
    raw = row.build(lba=5, transfer_length=7)
    assert (len(raw), raw[7], raw[8:10], row.control.byte) == (32, 0x18, b"\x00\x09", 1)
    assert row.usage_map()[:12].hex() == "7f04" + "00" * 5 + "18" + "0009" + "0000"


def test_transfer_sizes() -> None:
    assert cdb.READ_6.data_nbytes({"transfer_length": 0, "lba": 0}, 512) == 256 * 512
    assert cdb.READ_10.data_nbytes({"transfer_length": 0, "lba": 0}, 512) == 0
    assert cdb.WRITE_16.data_nbytes({"transfer_length": 3, "lba": 0}, 4096) == 3 * 4096
    assert cdb.SYNCHRONIZE_CACHE_10.data_nbytes({"number_of_logical_blocks": 3}, 512) == 0
    assert cdb.INQUIRY.data_nbytes({"allocation_length": 36}, 512) == 36
    assert cdb.TEST_UNIT_READY.data_nbytes({}, 512) == 0


@given(st.binary(max_size=40))
def test_any_bytes_may_come(raw: bytes) -> None:
    row = cdb.lookup(raw)
    assert isinstance(cdb.name_of(raw), str)
    if row is not None and len(raw) >= row.nbytes:
        assert row.build(**row.parse(raw))[0] == raw[0]


# pyscsi's constructors keep state on the class: one at a time.
_PYSCSI = threading.Lock()


def test_rows_against_pyscsi() -> None:
    """The same random commands built by pyscsi, an independent table. Opcodes of pyscsi known wrong are not asked."""
    from pyscsi.pyscsi import scsi_enum_command as enum_command
    from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry
    from pyscsi.pyscsi.scsi_cdb_modesense6 import ModeSense6
    from pyscsi.pyscsi.scsi_cdb_modesense10 import ModeSense10
    from pyscsi.pyscsi.scsi_cdb_read10 import Read10
    from pyscsi.pyscsi.scsi_cdb_read12 import Read12
    from pyscsi.pyscsi.scsi_cdb_read16 import Read16
    from pyscsi.pyscsi.scsi_cdb_readcapacity16 import ReadCapacity16
    from pyscsi.pyscsi.scsi_cdb_report_luns import ReportLuns
    from pyscsi.pyscsi.scsi_cdb_write10 import Write10
    from pyscsi.pyscsi.scsi_cdb_write16 import Write16
    from pyscsi.pyscsi.scsi_cdb_writesame10 import WriteSame10
    from pyscsi.pyscsi.scsi_cdb_writesame16 import WriteSame16

    sbc, spc = enum_command.sbc, enum_command.spc
    rng = random.Random(1)
    for _ in range(100):
        lba32, lba64, count, flag = rng.getrandbits(32), rng.getrandbits(64), rng.randint(1, 40), rng.getrandbits(1)
        rd = {"lba": lba32, "transfer_length": count, "dpo": flag, "fua": 1 - flag, "group_number": count & 31}
        their = {"dpo": flag, "fua": 1 - flag, "group": count & 31}
        rd16 = {**rd, "lba": lba64}
        same = {"lba": lba32, "number_of_logical_blocks": count, "unmap": flag, "group_number": count & 31}
        data = bytearray(512 * count)
        with _PYSCSI:
            pairs = [
                (Read10(sbc.READ_10, 512, lba32, count, **their), cdb.READ_10.build(**rd)),
                (Read12(sbc.READ_12, 512, lba32, count, **their), cdb.READ_12.build(**rd)),
                (Read16(sbc.READ_16, 512, lba64, count, **their), cdb.READ_16.build(**rd16)),
                (Write10(sbc.WRITE_10, 512, lba32, count, data, **their), cdb.WRITE_10.build(**rd)),
                (Write16(sbc.WRITE_16, 512, lba64, count, data, **their), cdb.WRITE_16.build(**rd16)),
                (
                    WriteSame10(sbc.WRITE_SAME_10, 512, lba32, count, data[:512], unmap=flag, group=count & 31),
                    cdb.WRITE_SAME_10.build(**same),
                ),
                (
                    WriteSame16(sbc.WRITE_SAME_16, 512, lba64, count, data[:512], unmap=flag, group=count & 31),
                    cdb.WRITE_SAME_16.build(**{**same, "lba": lba64}),
                ),
                (
                    Inquiry(spc.INQUIRY, evpd=1, page_code=count, alloclen=252),
                    cdb.INQUIRY.build(evpd=1, page_code=count, allocation_length=252),
                ),
                (
                    ModeSense6(spc.MODE_SENSE_6, count, sub_page_code=3, dbd=flag, pc=2, alloclen=99),
                    cdb.MODE_SENSE_6.build(page_code=count, subpage_code=3, dbd=flag, pc=2, allocation_length=99),
                ),
                (
                    # its opcode is wrong there (A5h): compare the rest
                    ModeSense10(spc.MODE_SENSE_10, count, sub_page_code=3, llbaa=flag, dbd=0, pc=1, alloclen=999),
                    cdb.MODE_SENSE_10.build(
                        page_code=count, subpage_code=3, llbaa=flag, dbd=0, pc=1, allocation_length=999
                    ),
                ),
                (
                    ReadCapacity16(sbc.SBC_OPCODE_9E, alloclen=count),
                    cdb.READ_CAPACITY_16.build(allocation_length=count),
                ),
                (
                    ReportLuns(spc.REPORT_LUNS, report=2, alloclen=4096),
                    cdb.REPORT_LUNS.build(select_report=2, allocation_length=4096),
                ),
            ]
        for theirs, ours in pairs:
            assert bytes(theirs.cdb)[1:].hex() == ours[1:].hex(), type(theirs).__name__
            assert theirs.cdb[0] == ours[0] or isinstance(theirs, ModeSense10)
