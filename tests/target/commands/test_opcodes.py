# SPDX-License-Identifier: BSD-2-Clause
"""REPORT SUPPORTED OPERATION CODES, Block Limits and the dispatcher agree, on every kind of unit.

What is listed is accepted, what is not listed is unknown, a bit that no usage map covers is an invalid field, and a
limit holds exactly where the page says.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in

from vscsi.scsi import cdb, parameters, sense, vpd
from vscsi.scsi.status import Status

RSOC = cdb.REPORT_SUPPORTED_OPERATION_CODES
SETUPS = {
    "512n": "mem:64k,physical=512",
    "512e": "mem:64k",
    "4Kn": "mem:64k,bs=4096",
    "thick": "mem:64k,discard=off",
    "read-only": "mem:64k,ro",
    "read-only thick": "mem:64k,ro,discard=off",
    "removable": "mem:64k,removable=on",
    "write through": "mem:64k,cache=wt",
    "type 1": "mem:64k,protection=1",
    "type 3": "mem:64k,protection=3",
    "null": "null:64k",
    "null 4Kn thick": "null:64k,bs=4096,discard=off",
}
setups = pytest.mark.parametrize("text", SETUPS.values(), ids=SETUPS)


@pytest.fixture(autouse=True)
def no_memory_of_earlier_ones() -> Iterator[None]:
    fresh.cache_clear()
    yield


@cache
def fresh(text: str) -> FakeDevice:
    return FakeDevice(f"0={text}")


def rsoc(device: FakeDevice, **fields: int) -> bytes:
    return do_command_in(device, RSOC.build(allocation_length=65535, **fields))


def listed(text: str) -> dict[tuple[int, int | None], parameters.SupportedOpcode]:
    return {(row.opcode, row.service_action): row for row in parameters.decode_opcodes(rsoc(fresh(text)))}


def one(text: str, key: tuple[int, int | None], **more: int) -> bytes:
    option = (
        {"reporting_options": 1} if key[1] is None else {"reporting_options": 2, "requested_service_action": key[1]}
    )
    return rsoc(fresh(text), requested_operation_code=key[0], **option, **more)


def bare(key: tuple[int, int | None], nbytes: int = 32) -> bytearray:
    """A CDB with an operation code and a service action in it, and nothing else."""
    raw = bytearray(nbytes)
    raw[0] = key[0]
    if key[0] == 0x7F:
        raw[7] = 24
        raw[8:10] = (key[1] or 0).to_bytes(2)
    elif key[1] is not None:
        raw[1] = key[1]
    return raw


@setups
def test_what_is_listed_is_accepted(text: str) -> None:
    """On a unit of its own each, since some change it; it may refuse what the CDB says, but not the command."""
    for key, row in listed(text).items():
        device = FakeDevice(f"0={text}")
        result = device.run(bytes(bare(key, row.cdb_nbytes)), FakePort())
        got = sense.decode(result.sense) if result.sense else None
        assert got is None or not got.matches(sense.INVALID_COMMAND_OPERATION_CODE), key
        place = got.field_pointer if got is not None and got.matches(sense.INVALID_FIELD_IN_CDB) else None
        unknown_action = (8, None) if key[0] == 0x7F else (1, 4)
        assert place is None or key[1] is None or (place.byte, place.bit) != unknown_action, key
        device.close()


@setups
def test_what_is_not_listed_is_unknown(text: str) -> None:
    device, there = fresh(text), listed(text)
    opcodes = {opcode for opcode, _ in there}
    for opcode in range(256):
        has_actions = any(key[0] == opcode and key[1] is not None for key in cdb.ROWS)
        for action in range(64 if opcode == 0x7F else 32) if has_actions else (None,):
            if (opcode, action) in there:
                continue
            raw = bytes(bare((opcode, action)))
            if opcode not in opcodes:
                do_command_fail(device, raw, sense.INVALID_COMMAND_OPERATION_CODE)
            else:
                where = (8, None) if opcode == 0x7F else (1, 4)
                do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, where)
            data = rsoc(
                device, reporting_options=3, requested_operation_code=opcode, requested_service_action=action or 0
            )
            assert data == bytes.fromhex("00010000")


@setups
def test_every_bit_outside_of_the_usage_map_is_refused(text: str) -> None:
    device = fresh(text)
    for key, command in listed(text).items():
        data = one(text, key)
        usage = data[4:]
        assert data[:2].hex() == "0003"
        assert len(usage) == command.cdb_nbytes == int.from_bytes(data[2:4])
        assert usage[0] == key[0]
        row = cdb.ROWS[key]
        usable = row.usage_map()
        for byte in range(1, len(usage)):
            for bit in range(7, -1, -1):
                if usage[byte] >> bit & 1 or is_action(key, byte, bit) or is_ignored(row, byte, bit):
                    continue
                raw = bare(key, len(usage))
                raw[byte] |= 1 << bit
                got = do_command_fail(device, bytes(raw), sense.INVALID_FIELD_IN_CDB)
                place = got.field_pointer
                assert place is not None and place.in_cdb, row
                if usable[byte] >> bit & 1:  # a whole field that is not supported here: the pointer is the field's
                    assert (place.byte, place.bit) in [field.pointer for field in row.fields.values()], row
                else:
                    assert (place.byte, place.bit) == (byte, bit), row


def is_action(key: tuple[int, int | None], byte: int, bit: int) -> bool:
    """Whether the bit tells which command it is."""
    if key[0] == 0x7F:
        return byte in (7, 8, 9)
    return key[1] is not None and byte == 1 and bit < 5


def is_ignored(row: cdb.Cdb, byte: int, bit: int) -> bool:
    return any(f.byte == byte and f.shift <= bit < f.shift + f.width for f in row.ignored)


@setups
def test_the_ways_to_ask_agree(text: str) -> None:
    for key, row in listed(text).items():
        by_action = one(text, key)
        either = rsoc(
            fresh(text), reporting_options=3, requested_operation_code=key[0], requested_service_action=key[1] or 0
        )
        assert by_action == either
        timed = one(text, key, rctd=1)
        assert timed[1] == 0x83
        assert timed[4 : 4 + row.cdb_nbytes] == by_action[4:]
        assert timed[4 + row.cdb_nbytes :][:2] == b"\x00\x0a"
        assert len(timed) == 4 + row.cdb_nbytes + 12
        wrong = {"reporting_options": 1} if key[1] is not None else {"reporting_options": 2}
        raw = RSOC.build(allocation_length=512, requested_operation_code=key[0], **wrong)
        do_command_fail(fresh(text), raw, sense.INVALID_FIELD_IN_CDB, (2, 2))
    for option in (4, 5, 6, 7):
        do_command_fail(fresh(text), RSOC.build(reporting_options=option), sense.INVALID_FIELD_IN_CDB, (2, 2))


@setups
def test_pages_agree_with_the_list(text: str) -> None:
    there, device = listed(text), fresh(text)

    def page(code: int) -> dict[str, int | str]:
        data = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=code, allocation_length=255))
        return vpd.PAGES[code].decode(data)

    limits, provisioning = page(0xB0), page(0xB2)
    capacity = do_command_in(device, cdb.READ_CAPACITY_16.build(allocation_length=32))
    thin = "discard=off" not in text
    assert ((0x42, None) in there) is thin
    assert ((0x9E, 0x12) in there) is thin
    assert bool(limits["maximum_unmap_lba_count"]) is thin
    assert bool(limits["maximum_unmap_block_descriptor_count"]) is thin
    assert (provisioning["lbpu"], provisioning["lbpws"], provisioning["lbpws10"]) == (thin, thin, thin)
    assert (provisioning["anc_sup"], provisioning["provisioning_type"]) == (0, 2 if thin else 0)
    assert capacity[14] >> 6 == (3 if thin else 0)
    assert bool(one(text, (0x93, None))[5] & 0x08) is thin, "UNMAP of WRITE SAME"
    assert bool(limits["maximum_atomic_transfer_length"]) is ((0x9C, None) in there)
    assert bool(limits["maximum_compare_and_write_length"]) is ((0x89, None) in there)


# ---- limits ----

COUNTED = [
    cdb.READ_10, cdb.READ_12, cdb.READ_16, cdb.WRITE_10, cdb.WRITE_12, cdb.WRITE_16, cdb.VERIFY_10, cdb.VERIFY_12,
    cdb.VERIFY_16, cdb.WRITE_AND_VERIFY_10, cdb.WRITE_AND_VERIFY_12, cdb.WRITE_AND_VERIFY_16, cdb.ORWRITE_16,
]  # fmt: skip


@pytest.fixture(scope="module")
def big() -> Iterator[FakeDevice]:
    made = FakeDevice("0=null:16G", "1=null:16G,bs=4096")
    yield made
    made.close()


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: row.symbol)
@pytest.mark.parametrize("lun", [0, 1])
def test_maximum_transfer_length(big: FakeDevice, row: cdb.Cdb, lun: int) -> None:
    unit = big.units[lun]
    page = do_command_in(big, cdb.INQUIRY.build(evpd=1, page_code=0xB0, allocation_length=64), lun=lun)
    most = vpd.BLOCK_LIMITS.decode(page)["maximum_transfer_length"]
    assert isinstance(most, int) and most == unit.max_transfer_blocks
    assert row.block_count is not None
    name = next(n for n in row.BLOCK_COUNTS if n in row.fields)
    nbytes = most * unit.block_nbytes if row.data is cdb.Data.OUT and row.name[:6] != "VERIFY" else 0
    do_command(big, row.build(**{name: most}), bytes(nbytes), lun=lun)
    more = bytes(nbytes + unit.block_nbytes) if nbytes else b""
    raw = row.build(**{name: most + 1})
    do_command_fail(big, raw, sense.INVALID_FIELD_IN_CDB, row.fields[name].pointer, data_out=more, lun=lun)


@pytest.mark.parametrize("row", [cdb.WRITE_SAME_10, cdb.WRITE_SAME_16], ids=lambda row: row.symbol)
@pytest.mark.parametrize("unmap", [0, 1])
def test_maximum_write_same_length(big: FakeDevice, row: cdb.Cdb, unmap: int) -> None:
    page = do_command_in(big, cdb.INQUIRY.build(evpd=1, page_code=0xB0, allocation_length=64))
    most = vpd.BLOCK_LIMITS.decode(page)["maximum_write_same_length"]
    assert isinstance(most, int) and 256 <= most <= 65535
    do_command(big, row.build(number_of_logical_blocks=most, unmap=unmap), bytes(512))
    raw = row.build(number_of_logical_blocks=most + 1, unmap=unmap)
    where = row.fields["number_of_logical_blocks"].pointer
    do_command_fail(big, raw, sense.INVALID_FIELD_IN_CDB, where, data_out=bytes(512))
    assert vpd.BLOCK_LIMITS.decode(page)["wsnz"] == 1
    raw = row.build(lba=0, unmap=unmap)
    do_command_fail(big, raw, sense.INVALID_FIELD_IN_CDB, where, data_out=bytes(512))


def test_maximum_unmap_counts(big: FakeDevice) -> None:
    page = vpd.BLOCK_LIMITS.decode(do_command_in(big, cdb.INQUIRY.build(evpd=1, page_code=0xB0, allocation_length=64)))
    blocks, descriptors = page["maximum_unmap_lba_count"], page["maximum_unmap_block_descriptor_count"]
    assert isinstance(blocks, int) and isinstance(descriptors, int)

    def unmap(extents: list[tuple[int, int]]) -> tuple[bytes, bytes]:
        data = parameters.encode_unmap(extents)
        return cdb.UNMAP.build(parameter_list_length=len(data)), data

    do_command(big, *unmap([(0, blocks)]))
    do_command(big, *unmap([(0, blocks - descriptors + 1)] + [(8, 1)] * (descriptors - 1)))
    for extents in ([(0, blocks + 1)], [(0, blocks), (0, 1)], [(0, 1)] * (descriptors + 1)):
        raw, data = unmap(extents)
        do_command_fail(big, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, data_out=data)


def test_a_file_keeps_its_journal_and_has_write_atomic(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(65536))
    for text, there in ((str(image), True), (f"{image},ro", False)):
        device = FakeDevice(f"0={text}")
        rows = parameters.decode_opcodes(rsoc(device))
        assert (0x9C in [row.opcode for row in rows]) is there
        result = device.run(cdb.WRITE_ATOMIC_16.build(), FakePort())
        assert (result.status is Status.GOOD) is there
        device.close()


# ---- the ends of the address space ----

_ADDRESSED = [row for row in cdb.ROWS.values() if row.opcode != 0x7F and "lba" in row.fields and row.block_count]


@pytest.mark.parametrize("row", _ADDRESSED, ids=lambda row: row.symbol)
def test_nothing_wraps(row: cdb.Cdb) -> None:
    """The greatest LBA and the greatest count, each with what goes past the end and each other."""
    device = fresh("mem:64k")
    if not any((c.opcode, c.service_action) == row.key for c in parameters.decode_opcodes(rsoc(device))):
        pytest.skip(f"{row.name} is not listed")
    name = next(n for n in row.BLOCK_COUNTS if n in row.fields)
    lba, count = row.fields["lba"], row.fields[name]
    tried = 0
    for first in {0, 1, 127, 128, 129, lba.mask - 1, lba.mask}:
        for blocks in {0, 1, 2, 128, 129, count.mask - 1, count.mask}:
            end = first + (256 if row.zero_is_256 and not blocks else blocks)
            if first > lba.mask or blocks > count.mask or end <= 128:
                continue
            raw = row.build(lba=first, **{name: blocks})
            do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE, data_out=bytes(65536))
            tried += 1
    assert tried > 20
