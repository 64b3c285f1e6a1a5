# SPDX-License-Identifier: BSD-2-Clause
"""sg_sanitize, sg_format, and sg3_utils' ways to protection information, on /dev/vscsi0 of a real target."""

import pytest
from programs import tool

NBYTES = 8 << 20


@pytest.fixture
def door(disk):
    """Runs a program with the disk as a device: its exit status and what it said."""

    def run(program, *arguments):
        done = disk.initiator("run", "--", tool(program), *arguments, "/dev/vscsi0")
        return done.status, done.text + done.err

    return run


def test_sg_sanitize(disk, door, folder):
    pattern = folder / "pattern"
    pattern.write_bytes(b"0123456789abcdef")
    status, words = door("sg_sanitize", "-Q", "--wait", "--overwrite", "--count=2", "--invert", f"--pattern={pattern}")
    assert status == 0, words
    assert disk.image.read_bytes() == b"0123456789abcdef" * (NBYTES // 16)
    assert door("sg_sanitize", "-Q", "--block", "--wait")[0] == 0
    assert disk.image.read_bytes() == bytes(NBYTES)
    status, words = door("sg_get_lba_status", "--brief")
    assert (status, words.splitlines()[2:]) == (0, ["0x0000000000000000  0x4000  1  0"]), "one descriptor, deallocated"
    assert door("sg_sanitize", "-Q", "--wait", "--fail")[0] == 0
    assert door("sg_sanitize", "-Q", "--wait", "--crypto")[0] != 0, "nothing is encrypted"


def test_sg_format_and_protection(disk, door):
    assert "prot_en=0" in door("sg_readcap", "--16")[1]
    for info, usage, type_ in ((2, 0, 1), (3, 0, 2), (3, 1, 3)):
        status, words = door("sg_format", "-Q", "--wait", "--format", f"--fmtpinfo={info}", f"--pfu={usage}")
        assert status == 0, words
        assert f"[type {type_} protection]" in door("sg_readcap", "--16")[1]
        wide = "--32" if type_ == 2 else "--16"
        same = ("sg_write_same", wide, "--num=8", "--xferlen=520", "--in=/dev/zero")
        status, words = door(*same, "--wrprotect=3")
        assert status == 0, words
        # A guard of 0 is that of zeros; the tags of all blocks but the first are type 1's alone to judge.
        status, words = door("sg_verify", "--16", "--count=8", *([] if type_ == 2 else ["--vrprotect=1"]))
        assert status == 0, words
    assert door("sg_format", "-Q", "--wait", "--format")[0] == 0
    assert "prot_en=0" in door("sg_readcap", "--16")[1]
