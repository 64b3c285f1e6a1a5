# SPDX-License-Identifier: BSD-2-Clause
"""sg3_utils reads what our target says: bytes through a pipe, and the texts of both are the same."""

import json
import re
import subprocess

import pytest
from programs import BIN, tool

PAGES = ["sv", "sn", "di", "ei", "bl", "bdc", "lbpv"]


def test_sg_inq_decodes_raw_through_a_pipe(disk):
    sg_inq = tool("sg_inq")
    raw = subprocess.Popen(
        [BIN / "vscsi-initiator", "--socket", disk.socket, "inquiry", "--raw"], stdout=subprocess.PIPE
    )
    command = [sg_inq, "--raw", "--inhex=-"]
    done = subprocess.run(command, stdin=raw.stdout, capture_output=True, text=True, timeout=60, check=False)
    raw.stdout.close()
    assert raw.wait(30) == 0
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert " Vendor identification: VSCSI" in done.stdout
    assert "Peripheral device type: disk" in done.stdout
    assert "version=0x06  [SPC-4]" in done.stdout or "version=0x07  [SPC-5]" in done.stdout


def test_inquiry_prints_what_sg_inq_prints(disk):
    sg_inq = tool("sg_inq")
    raw = disk.initiator("inquiry", "--raw").out
    (disk.folder / "raw").write_bytes(raw)
    theirs = subprocess.run([sg_inq, "--raw", f"--inhex={disk.folder / 'raw'}"], capture_output=True, check=True)
    assert disk.initiator("inquiry").out == theirs.stdout


def test_plain_hex_is_read_back_by_sg_inq(disk):
    sg_inq = tool("sg_inq")
    (disk.folder / "hex").write_bytes(disk.initiator("inquiry", "-HH").out)
    theirs = subprocess.run([sg_inq, f"--inhex={disk.folder / 'hex'}"], capture_output=True, check=True)
    assert disk.initiator("inquiry").out == theirs.stdout


@pytest.mark.parametrize("page", PAGES)
def test_pages_print_what_sg_vpd_prints(disk, page):
    sg_vpd = tool("sg_vpd")
    raw = disk.initiator("inquiry", "--page", page, "--raw")
    assert raw.status == 0, raw.err
    (disk.folder / "raw").write_bytes(raw.out)
    command = [sg_vpd, "--raw", f"--inhex={disk.folder / 'raw'}", f"--page={page}"]
    theirs = subprocess.run(command, capture_output=True, check=True)
    assert theirs.stderr == b"", "sg_vpd complains about the page"
    assert disk.initiator("inquiry", "--page", page).out == theirs.stdout
    dump = subprocess.run([*command, "-H"], capture_output=True, check=True).stdout
    assert dump.endswith(disk.initiator("inquiry", "--page", page, "-H").out)


def test_every_supported_page_is_there(disk):
    tool("sg_vpd")
    pages = json.loads(disk.initiator("inquiry", "--page", "0", "--json").text)["supported_vpd_pages"]
    assert {"0x00", "0x80", "0x83", "0x86", "0xb0", "0xb1", "0xb2"} <= set(pages)
    for page in pages:
        found = json.loads(disk.initiator("inquiry", "--page", page, "--json").text)
        assert found["page_code"] == int(page, 16)


def test_serial_number_is_the_one_given(disk):
    page = disk.initiator("inquiry", "--page", "sn")
    assert page.text == "Unit serial number VPD page:\n  Unit serial number: SER12345\n"


def test_sg_decode_sense_reads_our_sense(disk):
    sg_decode_sense = tool("sg_decode_sense")
    done = disk.initiator("raw", "28 00 ff ff ff ff 00 00 01 00", "--in", "512", "--json")
    assert done.status == 22
    answer = json.loads(done.text)
    assert answer["status_name"] == "CHECK CONDITION"
    words = " ".join(re.findall("..", answer["sense"]))
    theirs = subprocess.run([sg_decode_sense, *words.split()], capture_output=True, text=True, check=True).stdout
    assert "Illegal Request" in theirs
    assert "Logical block address out of range" in theirs


def test_field_pointer_is_understood(disk):
    sg_decode_sense = tool("sg_decode_sense")
    # A reserved bit of TEST UNIT READY.
    done = disk.initiator("raw", "00 01 00 00 00 00", "--json")
    assert done.status == 5
    words = " ".join(re.findall("..", json.loads(done.text)["sense"]))
    theirs = subprocess.run([sg_decode_sense, *words.split()], capture_output=True, text=True, check=True).stdout
    assert "Invalid field in cdb" in theirs
    assert "byte 1" in theirs
