# SPDX-License-Identifier: BSD-2-Clause
"""sg3_utils, sdparm, dd, cmp and others on /dev/vscsiN, as users run them: `vscsi-initiator run -- PROGRAM`."""

import os
import re

import pytest
from programs import tool

NBYTES = 8 << 20


@pytest.fixture
def door(disk):
    """Runs a program of the system with the disk's LUNs as devices."""

    def run(program, *arguments, options=(), **keywords):
        return disk.initiator("run", *options, "--", tool(program), *arguments, **keywords)

    return run


@pytest.fixture
def shell(disk):
    """Runs a line of shell in the same way; it must succeed. What it printed on stdout."""

    def run(line, *options):
        done = disk.initiator("run", *options, "--", tool("sh"), "-ec", line, cwd=disk.folder)
        assert done.status == 0, (line, done.err)
        return done.text

    return run


# ---- sg3_utils ----


def test_sg_inq_prints_what_inquiry_prints(disk, door):
    done = door("sg_inq", "/dev/vscsi0")
    assert (done.status, done.err) == (0, "")
    ours = disk.initiator("inquiry").text
    assert done.text == ours + " Unit serial number: SER12345\n"


@pytest.mark.parametrize("page", ["sv", "sn", "di", "ei", "bl", "bdc", "lbpv"])
def test_sg_vpd_prints_what_inquiry_prints(disk, door, page):
    done = door("sg_vpd", f"--page={page}", "/dev/vscsi0")
    assert (done.status, done.err, done.out) == (0, "", disk.initiator("inquiry", "--page", page).out)


def test_sg_turs_is_not_met_by_a_unit_attention(door):
    done = door("sg_turs", "/dev/vscsi0")
    assert (done.status, done.err) == (0, "")


def test_keep_attention_shows_it(door):
    done = door("sg_raw", "/dev/vscsi0", *["00"] * 6, options=["--keep-attention"])
    assert done.status == 6
    assert "Power on" in done.err


def test_sg_readcap_and_luns(door):
    assert "Last LBA=16383 (0x3fff), Number of logical blocks=16384" in door("sg_readcap", "--long", "/dev/vscsi0").text
    assert "0000000000000000" in door("sg_luns", "/dev/vscsi0").text


def test_sg_modes_and_opcodes_and_sdparm(door):
    assert "Caching" in door("sg_modes", "--all", "/dev/vscsi0").text
    opcodes = door("sg_opcodes", "/dev/vscsi0")
    assert opcodes.status == 0
    assert "Read(16)" in opcodes.text
    assert re.search(r"WCE\s+1", door("sdparm", "--get=WCE", "/dev/vscsi0").text)


def test_sg_raw_both_ways(disk, shell):
    (disk.folder / "block").write_bytes(bytes(range(256)) * 2)
    shell("sg_raw -s 512 -i block /dev/vscsi0 2a 00 00 00 00 07 00 00 01 00")
    shell("sg_raw -r 512 -o back /dev/vscsi0 28 00 00 00 00 07 00 00 01 00")
    assert (disk.folder / "back").read_bytes() == bytes(range(256)) * 2


def test_sense_and_exit_status_come_through(door):
    done = door("sg_raw", "-r", "512", "/dev/vscsi0", *["28", "00", "ff", "ff", "ff", "ff", "00", "00", "01", "00"])
    assert done.status == 22
    assert "Logical block address out of range" in done.err


@pytest.mark.parametrize(
    "copy",
    [
        "sg_dd if=/dev/vscsi0 of=copy bs=512 bpt=128",
        "sg_dd if=/dev/vscsi0 of=copy bs=512 bpt=16384",  # 8 MiB in one command
        "sg_dd if=/dev/vscsi0b of=copy bs=512 blk_sgio=1",
        "sgp_dd if=/dev/vscsi0 of=copy bs=512 thr=4",
        "sg_read if=/dev/vscsi0 bs=512 count=16384 && cp /dev/vscsi0b copy",
    ],
)
def test_copies_from_the_disk_verify(disk, shell, copy):
    shell(copy)
    assert (disk.folder / "copy").read_bytes() == disk.pattern


@pytest.mark.parametrize(
    "copy",
    [
        "sg_dd if=data of=/dev/vscsi0 bs=512 bpt=64",
        "sgp_dd if=data of=/dev/vscsi0 bs=512 thr=8 bpt=16",
        "sg_dd if=data of=/dev/vscsi0 bs=512 bpt=16384 fua=1 && sg_sync /dev/vscsi0",
        "dd if=data of=/dev/vscsi0b bs=64k conv=fsync",
        "dd if=data of=/dev/vscsi0b bs=12345",
        "cat data > /dev/vscsi0b",
    ],
)
def test_copies_to_the_disk_verify(disk, shell, copy):
    data = os.urandom(NBYTES)
    (disk.folder / "data").write_bytes(data)
    shell(copy)
    assert disk.stop() == 0
    assert disk.image.read_bytes() == data


# ---- programs that know no SCSI ----


def test_dd_and_cmp(disk, shell):
    (disk.folder / "same").write_bytes(disk.pattern)
    shell("cmp same /dev/vscsi0b")
    shell("cmp /dev/vscsi0b same")
    assert shell("dd if=/dev/vscsi0b bs=777 skip=3 count=5 2>&1 >part").endswith("\n")
    assert (disk.folder / "part").read_bytes() == disk.pattern[3 * 777 : 8 * 777]
    shell("dd if=/dev/zero of=/dev/vscsi0b bs=1 seek=1000 count=30 conv=notrunc && dd if=/dev/vscsi0b of=back bs=1M")
    want = disk.pattern[:1000] + bytes(30) + disk.pattern[1030:]
    assert (disk.folder / "back").read_bytes() == want


def test_end_of_the_disk(disk, shell):
    assert shell("dd if=/dev/vscsi0b bs=512 skip=16383 2>/dev/null | wc -c") == "512\n"
    assert shell("dd if=/dev/vscsi0b bs=512 skip=16384 2>/dev/null | wc -c") == "0\n"
    assert "No space left on device" in shell("dd if=/dev/zero of=/dev/vscsi0b bs=512 seek=16384 count=1 2>&1 || true")


def test_streams_and_redirections(disk, shell):
    (disk.folder / "same").write_bytes(disk.pattern)
    want = shell("sha256sum < same")
    for line in ("sha256sum < /dev/vscsi0b", "cat /dev/vscsi0b | sha256sum", "cat < /dev/vscsi0b | sha256sum"):
        assert shell(line) == want, line
    assert shell("sha256sum /dev/vscsi0b").split()[0] == want.split()[0]


def test_what_the_nodes_look_like(disk, shell):
    assert shell("stat -c '%F %t' /dev/vscsi0 /dev/vscsi0b") == "character special file 15\nblock special file f0\n"
    assert (
        shell("test -c /dev/vscsi0 && test -b /dev/vscsi0b && test -r /dev/vscsi0 -a -w /dev/vscsi0 && echo yes")
        == "yes\n"
    )
    assert shell("test -e /dev/vscsi1 || test -e /dev/vscsi0c || test -e /dev/vscsix || echo none") == "none\n"
    assert shell("readlink -f /dev//vscsi0; realpath /dev/./vscsi0b") == "/dev/vscsi0\n/dev/vscsi0b\n"
    assert shell("ls /dev/vscsi0") == "/dev/vscsi0\n"
    sizes = shell("blockdev --getsize64 --getss --getpbsz --getsz --getro --getmaxsect /dev/vscsi0b").split()
    assert sizes[0] == str(NBYTES) and sizes[1] == "512" and sizes[3:] == ["16384", "0", "16384"]


# ---- several of everything ----


def test_luns_targets_and_initiators(disk, serve):
    other = serve("0=mem:1M,serial=OTHER", "3=mem:2M,serial=THREE,bs=4096")
    line = "for d in 0 /b/0 /b/3 @x/0 @x/b/3 /default/0; do sg_inq --page=sn /dev/vscsi$d; done"
    options = ["--target", f"b={other.socket}", "--initiator", "x=" + "ab" * 16]
    done = disk.initiator("run", *options, "--", tool("sh"), "-c", line)
    assert re.findall("number: (.*)", done.text) == ["SER12345", "OTHER", "THREE", "SER12345", "THREE", "SER12345"]
    assert disk.initiator("run", *options, "--", tool("sg_inq"), "/dev/vscsi@y/0").status == 52  # ENOENT


def test_each_initiator_is_a_nexus_of_its_own(shell):
    # A reset by one of them is a unit attention for the other.
    greet = "sg_turs /dev/vscsi@a/0; sg_turs /dev/vscsi@b/0"
    line = f"{greet}; sg_reset -d /dev/vscsi@a/0; sg_raw /dev/vscsi@b/0 0 0 0 0 0 0 2>&1 || true"
    assert "Bus device reset function occurred" in shell(line, "--initiator", "a", "--initiator", "b")


def test_mkfs_on_a_block_node(disk, shell):
    shell(
        "mkfs.ext4 -q -F /dev/vscsi0b && e2fsck -fn /dev/vscsi0b 2>&1 && debugfs -w -R 'mkdir hello' /dev/vscsi0b 2>&1"
    )
    assert "hello" in shell("debugfs -R ls /dev/vscsi0b 2>/dev/null")


# ---- the conformance script of sg3_utils ----


def test_scsi_mandat_reports_no_bad_errors(door):
    done = door("scsi_mandat", "/dev/vscsi0", timeout=60)
    assert "total number of bad errors: 0" in done.text, done.text
