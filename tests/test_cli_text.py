# SPDX-License-Identifier: BSD-2-Clause
"""INQUIRY data and VPD pages in words: equal, letter for letter, to what sg_inq and sg_vpd print for the same bytes."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initiator.commands import readcap
from initiator.text import designators, inquiry, vpd
from vscsi.scsi import inquiry as standard_inquiry
from vscsi.scsi import vpd as standard_vpd
from vscsi.scsi.parameters import CAPACITY_16
from vscsi.scsi.vpd import Designator, encode_identification, with_header

needs_sg3 = pytest.mark.skipif(shutil.which("sg_vpd") is None, reason="needs sg3-utils")


def ours(lines):
    return "".join(f"{line}\n" for line in lines)


def theirs(tool, data, tmp_path, *options):
    (tmp_path / "data").write_bytes(data)
    command = [tool, "--raw", f"--inhex={tmp_path / 'data'}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


DISK = standard_inquiry.encode(
    version=6, hisup=1, cmdque=1, vendor_identification="VSCSI", product_identification="virtual disk",
    product_revision_level="0001", version_descriptors=(0x00A0, 0x0460, 0x0600, 0x0940),
)  # fmt: skip
INQUIRIES = {
    "disk": DISK,
    "disk36": DISK[:4] + bytes([31]) + DISK[5:36],
    "cut": DISK[:36],
    "no unit": b"\x7f" + DISK[1:],
    "unavailable": b"\x20" + DISK[1:],
    "reserved qualifier": b"\xe0" + DISK[1:],
    "every bit": b"\x05" + b"\xff" * 3 + bytes([91]) + b"\xff" * 3 + DISK[8:56] + b"\xff" * 40,
    "tape": b"\x01\x80" + DISK[2:],
    "vendor only": DISK[:16],
}


@needs_sg3
@pytest.mark.parametrize("name", INQUIRIES)
def test_inquiry_equals_sg_inq(name, tmp_path):
    assert ours(inquiry.lines(INQUIRIES[name])) == theirs("sg_inq", INQUIRIES[name], tmp_path)


NAA_6 = standard_vpd.naa_6(0xABCDEF, 0x123456789, 0x0123456789ABCDEF)
DESIGNATORS = [
    Designator(1, 0, 3, NAA_6),
    Designator(2, 0, 1, b"VSCSI   disk00001234"),
    Designator(1, 0, 2, bytes.fromhex("0abcdef012345678")),
    Designator(1, 0, 3, bytes.fromhex("3abcdef012345678")),
    Designator(2, 0, 0, b"anything"),
    Designator(1, 1, 4, bytes([0, 0, 0, 1]), 4),
    Designator(1, 1, 5, bytes([0, 0, 0, 2]), 4),
    Designator(3, 2, 8, b"naa.6ABCDEF012345678\0", 4),
    Designator(1, 0, 10, b"\x10\0" + bytes(range(16))),
]
PAGES = {
    "supported": with_header(0x00, bytes([0, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2, 0xC7])),
    "serial": with_header(0x80, b"SER 12345"),
    "identification": encode_identification(DESIGNATORS),
    "extended": standard_vpd.EXTENDED_INQUIRY.build(headsup=1, ordsup=1, simpsup=1, v_sup=1, spt=5, luiclr=1),
    "extended, every bit": with_header(0x86, b"\xff" * 60),
    "limits": standard_vpd.BLOCK_LIMITS.build(
        wsnz=1, maximum_transfer_length=16384, optimal_transfer_length=128, maximum_unmap_lba_count=0xFFFFFFFF,
        maximum_unmap_block_descriptor_count=64, optimal_unmap_granularity=8, ugavalid=1, unmap_granularity_alignment=3,
        maximum_write_same_length=65535,
    ),
    "limits, zero": standard_vpd.BLOCK_LIMITS.build(),
    "limits, short": with_header(0xB0, bytes(12)),
    "solid": standard_vpd.BLOCK_DEVICE_CHARACTERISTICS.build(medium_rotation_rate=1),
    "rotating": standard_vpd.BLOCK_DEVICE_CHARACTERISTICS.build(
        medium_rotation_rate=7200, nominal_form_factor=2, product_type=3, zoned=1, wabereq=2, fuab=1, vbuls=1
    ),
    "silent": standard_vpd.BLOCK_DEVICE_CHARACTERISTICS.build(product_type=0xF3, nominal_form_factor=9),
    "thin": standard_vpd.LOGICAL_BLOCK_PROVISIONING.build(lbpu=1, lbpws=1, lbpws10=1, lbprz=1, provisioning_type=2),
    "thick": standard_vpd.LOGICAL_BLOCK_PROVISIONING.build(
        threshold_exponent=3, minimum_percentage=5, threshold_percentage=80, provisioning_type=5
    ),
}  # fmt: skip


@needs_sg3
@pytest.mark.parametrize("name", PAGES)
def test_page_equals_sg_vpd(name, tmp_path):
    page = PAGES[name]
    assert ours(vpd.lines(page)) == theirs("sg_vpd", page, tmp_path, f"--page={page[1]}")


@needs_sg3
def test_abbreviations_are_those_of_sg_vpd():
    listed = subprocess.run(["sg_vpd", "--enumerate"], capture_output=True, text=True, check=True).stdout
    known = {}
    for line in listed.partition("Vendor")[0].splitlines():
        words = line.split()
        if len(words) > 2 and words[1].startswith("0x"):
            known[words[0]] = int(words[1], 16)
    assert {name: known.get(name) for name in vpd.CODES} == vpd.CODES


def test_unknown_page_is_a_dump():
    page = with_header(0xC7, b"vendor's own")
    lines = list(vpd.lines(page))
    assert lines[0] == "VPD page=0xc7:"
    assert lines[1].startswith(" 00     00 c7 00 0c")
    assert vpd.to_json(page)["hex"] == b"vendor's own".hex()


def test_json_has_the_standards_names():
    limits = vpd.to_json(PAGES["limits"])
    assert limits["page_code"] == 0xB0
    assert limits["maximum_transfer_length"] == 16384
    assert vpd.to_json(PAGES["serial"])["unit_serial_number"] == "SER 12345"
    found = vpd.to_json(PAGES["identification"])["designation_descriptors"]
    assert found[0]["designator"] == "0x" + NAA_6.hex()
    assert found[5]["protocol_identifier"] == 4
    standard = inquiry.to_json(DISK)
    assert standard["vendor_identification"] == "VSCSI"
    assert [entry["code"] for entry in standard["version_descriptors"]] == ["0x00a0", "0x0460", "0x0600", "0x0940"]


@settings(max_examples=300)
@given(st.binary(min_size=4, max_size=80), st.sampled_from(sorted(vpd.SHOWN)))
def test_no_page_breaks_it(data, code):
    page = bytes([data[0], code]) + data[2:]
    json.dumps(vpd.to_json(page))
    for line in vpd.lines(page):
        assert line.isprintable(), "a device's text must not steer the terminal"


@given(st.binary(max_size=100))
def test_no_inquiry_data_breaks_it(data):
    json.dumps(inquiry.to_json(data))
    assert all(part.isprintable() for line in inquiry.lines(data) for part in line.split("\n"))
    assert len(inquiry.names(data)) == 4


def test_list_line_words():
    assert inquiry.names(DISK) == ("disk", "VSCSI   ", "virtual disk    ", "0001")
    assert inquiry.names(b"")[0] == "unknown"


def test_provisioning_group_descriptor():
    one = Designator(1, 0, 3, NAA_6)
    page = with_header(0xB2, bytes([0, 1, 2, 0]) + one.encode())
    assert ours(vpd.lines(page)).endswith("      0x" + NAA_6.hex() + "\n")
    assert "Provisioning group descriptor" in ours(vpd.lines(page))
    assert next(designators.lines_of(one.encode())) == "    designator type: NAA,  code set: Binary"


READCAP_16 = """\
Read Capacity results:
   Protection: prot_en=0, p_type=0, p_i_exponent=0
   Logical block provisioning: lbpme=1, lbprz=1
   Last LBA=204799 (0x31fff), Number of logical blocks=204800
   Logical block length=512 bytes
   Logical blocks per physical block exponent=3 [so physical block length=4096 bytes]
   Lowest aligned LBA=0
Hence:
   Device size: 104857600 bytes, 100.0 MiB, 0.10 GB
"""


def test_readcap_text():
    data = CAPACITY_16.build(
        returned_logical_block_address=204799, logical_block_length=512, lbpme=1, lbprz=1,
        logical_blocks_per_physical_block_exponent=3,
    )  # fmt: skip
    assert ours(readcap.text(CAPACITY_16.numbers(data), long=True)) == READCAP_16
    short = ours(readcap.text(CAPACITY_16.numbers(data), long=False))
    assert "Protection" not in short
    assert "Last LBA=204799 (0x31fff)" in short
