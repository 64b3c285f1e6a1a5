# SPDX-License-Identifier: BSD-2-Clause
"""The commands that Linux, Windows and ESXi send when they find a disk, byte for byte, over a real ring.

What is asserted is what their drivers look at. What they do with copies and COMPARE AND WRITE has tests of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import served

from initiator import Initiator
from target.server import Server
from vscsi.scsi import sense, vpd

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Server, Initiator]]:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    with served(tmp_path, f"0={image},serial=SER0") as (target, (initiator,)):
        yield target.server, initiator


def send(initiator: Initiator, text: str, nbytes: int) -> tuple[bytes, sense.DecodedSense | None]:
    """A CDB in hexadecimal; data-in, and sense if it ended with CHECK CONDITION."""
    done = initiator.execute(0, bytes.fromhex(text), data_in=nbytes)
    if done.status == 2:
        return bytes(done.data_in), sense.decode(done.sense)
    assert done.status == 0
    return bytes(done.data_in), None


def answer(initiator: Initiator, text: str, nbytes: int) -> bytes:
    data, error = send(initiator, text, nbytes)
    assert error is None, f"{text}: {error.describe()}"
    return data


def refused(initiator: Initiator, text: str, nbytes: int, expected: sense.Sense) -> None:
    _, error = send(initiator, text, nbytes)
    assert error is not None
    assert error.matches(expected), error.describe()


def page(initiator: Initiator, code: int) -> bytes:
    """As Linux reads a page: its header first, then as much as the header says."""
    head = answer(initiator, f"12 01 {code:02x} 00 04 00", 4)
    assert head[1] == code
    nbytes = 4 + int.from_bytes(head[2:4])
    data = answer(initiator, f"12 01 {code:02x} {nbytes >> 8:02x} {nbytes & 255:02x} 00", nbytes)
    assert len(data) == nbytes
    return data


def in_words(initiator: Initiator, text: str, nbytes: int) -> int:
    return int.from_bytes(answer(initiator, text, nbytes))


# ---- Linux: scsi_scan.c, scsi.c, sd.c, scsi_dh_alua.c ----


def test_linux_scan(disk: tuple[Server, Initiator]) -> None:
    _, linux = disk
    short = answer(linux, "12 00 00 00 24 00", 36)
    assert len(short) == 36
    assert short[0] & 0x1F == 0
    assert short[2] == 6
    whole = answer(linux, f"12 00 00 00 {short[4] + 5:02x} 00", short[4] + 5)
    assert whole[:36] == short
    luns = answer(linux, "a0 00 00 00 00 00 00 00 10 00 00 00", 4096)
    assert luns == bytes([0, 0, 0, 8]) + bytes(12)
    listed = page(linux, 0)[4:]
    assert {0x80, 0x83, 0xB0, 0xB1, 0xB2} <= set(listed)
    for code in listed:
        assert page(linux, code)[1] == code
    assert vpd.decode_serial(page(linux, 0x80)) == "SER0"
    names = list(vpd.decode_identification(page(linux, 0x83)))
    assert names[0].kind == vpd.DesignatorType.NAA


def test_linux_sd_probe(disk: tuple[Server, Initiator]) -> None:
    _, linux = disk
    answer(linux, "00 00 00 00 00 00", 0)
    capacity = answer(linux, "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 32)
    assert int.from_bytes(capacity[:8]) == 64 * MIB // 512 - 1
    assert int.from_bytes(capacity[8:12]) == 512
    assert capacity[14] & 0xC0 == 0xC0, "thin, and unmapped blocks read as zeros"
    assert answer(linux, "25 00 00 00 00 00 00 00 00 00", 8)[:4] == capacity[4:8]
    # Write protection: all pages with just the header, or 192 bytes where a quirk says so.
    head = answer(linux, "1a 00 3f 00 04 00", 4)
    assert not head[2] & 0x80
    assert len(answer(linux, "1a 00 3f 00 c0 00", 192)) == head[0] + 1
    # The cache: header first, then the whole; WCE and DPOFUA.
    head = answer(linux, "1a 00 08 00 04 00", 4)
    caching = answer(linux, f"1a 00 08 00 {head[0] + 1:02x} 00", head[0] + 1)
    at = 4 + caching[3]
    assert caching[at] & 0x3F == 8
    assert caching[at + 2] & 4
    assert caching[2] & 0x10
    control = answer(linux, "1a 00 0a 00 24 00", 36)
    at = 4 + control[3]
    assert (control[at] & 0x3F, control[at + 5] & 0x80) == (0x0A, 0), "no application tag of its own"


def test_linux_asks_which_commands_there_are(disk: tuple[Server, Initiator]) -> None:
    _, linux = disk
    for opcode in (0x12, 0x93, 0x41, 0x42, 0x91, 0x35):
        data = answer(linux, f"a3 0c 01 {opcode:02x} 00 00 00 00 02 00 00 00", 512)
        assert data[1] & 7 == 3
    data = answer(linux, "a3 0c 01 85 00 00 00 00 02 00 00 00", 512)  # ATA PASS-THROUGH
    assert data[1] & 7 == 1
    limits = vpd.BLOCK_LIMITS.decode(page(linux, 0xB0))
    assert limits["maximum_unmap_lba_count"]
    assert limits["maximum_write_same_length"]
    assert page(linux, 0xB1)[4:6] in (b"\0\1", b"\x1c\x20")
    assert page(linux, 0xB2)[5] & 0x80


def test_linux_multipath_asks_for_target_port_groups(disk: tuple[Server, Initiator]) -> None:
    _, linux = disk
    assert answer(linux, "12 00 00 00 60 00", 96)[5] >> 4 & 3 == 1
    data = answer(linux, "a3 2a 00 00 00 00 00 00 00 fc 00 00", 252)  # extended header
    assert data[4] >> 4 & 7 == 1
    assert data[8] & 0x0F == 0, "active/optimized"
    group = data[10:12]
    names = list(vpd.decode_identification(page(linux, 0x83)))
    own = [d.value[2:] for d in names if d.kind == vpd.DesignatorType.TARGET_PORT_GROUP]
    assert own == [group]


def test_newer_linux_asks_for_what_is_not_there(disk: tuple[Server, Initiator]) -> None:
    """IO hints, command duration limits, streams, zones: refused by a field, at once, and not by the opcode."""
    _, linux = disk
    for subpage in (0x03, 0x04, 0x05, 0x07, 0x08):
        refused(linux, f"5a 08 0a {subpage:02x} 00 00 00 02 00 00", 512, sense.INVALID_FIELD_IN_CDB)
        refused(linux, f"1a 08 0a {subpage:02x} ff 00", 255, sense.INVALID_FIELD_IN_CDB)
    refused(linux, "9e 16" + " 00" * 11 + " 08 00 00", 8, sense.INVALID_FIELD_IN_CDB)
    refused(linux, "12 01 b9 00 40 00", 64, sense.INVALID_FIELD_IN_CDB)
    refused(linux, "12 01 89 02 3c 00", 572, sense.INVALID_FIELD_IN_CDB)  # ATA information


def test_linux_turns_the_cache_off_through_sysfs(disk: tuple[Server, Initiator]) -> None:
    """cache_type_store: the page as it was read, PS gone, WCE changed; then it looks again."""
    server, linux = disk
    data = bytearray(answer(linux, "1a 00 08 00 40 00", 64))
    at = 4 + data[3]
    body = data[at:]
    body[0] &= ~0x80
    body[2] &= ~0x05
    sent = bytes(4) + bytes(body)
    done = linux.execute(0, bytes.fromhex(f"15 10 00 00 {len(sent):02x} 00"), data_out=sent)
    assert done.status == 0
    assert not answer(linux, "1a 00 08 00 40 00", 64)[at + 2] & 4
    assert not server.units[0].write_cache


def test_linux_stops_the_disk_at_shutdown(disk: tuple[Server, Initiator]) -> None:
    _, linux = disk
    answer(linux, "35 00 00 00 00 00 00 00 00 00", 0)
    answer(linux, "1b 00 00 00 00 00", 0)
    refused(linux, "00 00 00 00 00 00", 0, sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)
    answer(linux, "1b 00 00 00 01 00", 0)
    answer(linux, "00 00 00 00 00 00", 0)


# ---- Windows: storport, classpnp, disk ----


def test_windows_finds_a_disk(disk: tuple[Server, Initiator]) -> None:
    _, windows = disk
    assert answer(windows, "12 00 00 00 24 00", 36)[0] == 0
    answer(windows, "a0 00 00 00 00 00 00 00 00 10 00 00", 16)
    for code in (0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2):
        data = answer(windows, f"12 01 {code:02x} 00 ff 00", 255)
        assert data[1] == code
        assert int.from_bytes(data[2:4]) == len(data) - 4
    serial = vpd.decode_serial(answer(windows, "12 01 80 00 ff 00", 255))
    assert serial.isalnum()
    names = list(vpd.decode_identification(answer(windows, "12 01 83 00 ff 00", 255)))
    assert any(d.kind == vpd.DesignatorType.NAA and d.association == 0 for d in names)
    answer(windows, "00 00 00 00 00 00", 0)
    assert in_words(windows, "25 00 00 00 00 00 00 00 00 00", 8) == (64 * MIB // 512 - 1) << 32 | 512
    answer(windows, "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 32)
    for text, nbytes in (("1a 00 3f 00 c0 00", 192), ("1a 00 08 00 c0 00", 192), ("1a 00 1c 00 c0 00", 192)):
        data = answer(windows, text, nbytes)
        assert data[0] == len(data) - 1
    log = answer(windows, "4d 00 40 00 00 00 00 00 ff 00", 255)
    assert log[:2] == b"\0\0"


def test_windows_looks_for_failure_prediction(disk: tuple[Server, Initiator]) -> None:
    _, windows = disk
    data = answer(windows, "4d 00 6f 00 00 00 00 00 ff 00", 255)
    assert data[0] & 0x3F == 0x2F
    assert data[8:10] == bytes(2), "no failure is predicted"


# ---- ESXi ----


def test_esxi_scan(disk: tuple[Server, Initiator]) -> None:
    _, esxi = disk
    answer(esxi, "12 00 00 00 24 00", 36)
    supported = answer(esxi, "12 01 00 00 ff 00", 255)[4:]
    assert {0x83, 0x86, 0xB0, 0xB2} <= set(supported)
    extended = answer(esxi, "12 01 86 00 ff 00", 255)
    assert len(extended) == 64
    fields = vpd.EXTENDED_INQUIRY.decode(extended)
    assert fields["simpsup"] == fields["ordsup"] == fields["headsup"] == 1
    names = list(vpd.decode_identification(answer(esxi, "12 01 83 00 ff 00", 255)))
    assert names[0].kind == vpd.DesignatorType.NAA
    assert len(names[0].value) == 16
    limits = vpd.BLOCK_LIMITS.decode(answer(esxi, "12 01 b0 00 ff 00", 255))
    assert limits["maximum_compare_and_write_length"]
    assert limits["optimal_unmap_granularity"]
    answer(esxi, "a3 0a 00 00 00 00 00 00 04 00 00 00", 1024)
    data = answer(esxi, "1a 00 3f 00 ff 00", 255)
    assert not data[2] & 0x80
    answer(esxi, "5e 02 00 00 00 00 00 00 08 00", 8)
