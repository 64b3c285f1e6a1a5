# SPDX-License-Identifier: BSD-2-Clause
"""Mode pages, logs, names, clocks and self-tests of /dev/vscsiN, by the programs of sg3_utils and sdparm for them."""

import re

import pytest
from programs import tool

DEVICE = "/dev/vscsi0"


@pytest.fixture
def run(disk):
    """Runs a program on the device, which must succeed; what it printed on stdout and stderr."""

    def do(program, *arguments, status=0, stdin=b""):
        done = disk.initiator("run", "--", tool(program), *arguments, DEVICE, data=stdin)
        assert done.status == status, (program, done.text, done.err)
        return done.text + done.err

    return do


def wce(run):
    return re.search(r"WCE +(\d) +\[cha: (\w), def: +(\d), sav: +(\d)\]", run("sdparm", "--get=WCE")).groups()


def test_sdparm_sets_and_saves(disk, run, serve):
    assert wce(run) == ("1", "y", "1", "1")
    run("sdparm", "--clear=WCE")
    assert wce(run) == ("0", "y", "1", "1")
    run("sdparm", "--clear=WCE", "--save")
    assert wce(run) == ("0", "y", "1", "0")
    run("sdparm", "--set=RCD", status=5)
    assert disk.stop() == 0
    again = serve(f"0={disk.image},serial=SER12345")
    done = again.initiator("run", "--", tool("sdparm"), "--get=WCE", DEVICE)
    assert "WCE           0  [cha: y, def:  1, sav:  0]" in done.text


def test_software_write_protection(disk, run):
    run("sdparm", "--set=SWP,D_SENSE")
    done = disk.initiator(
        "run", "--", tool("sg_dd"), "if=/dev/zero", f"of={DEVICE}", "bs=512", "count=1"
    )  # fmt: skip
    assert done.status == 7
    assert "Descriptor format" in done.err
    assert "Logical unit software write protected" in done.err
    assert disk.image.read_bytes() == disk.pattern
    run("sg_wr_mode", "--rtd")
    assert "WP=0" in run("sg_modes", "--page=8")


def test_sg_logs(run):
    text = run("sg_logs", "--all")
    for words in (
        "Write error [we]", "Read error [re]", "Temperature [temp]", "General Statistics and Performance [gsp]",
        "Current temperature = <not available>", "Total uncorrected errors = 0", "number of read commands",
    ):  # fmt: skip
        assert words in text
    assert "Unable to decode" not in text
    run("sg_logs", "--reset", "--page=3")


def test_sg_ident(run):
    run("sg_ident", "--set", stdin=b"rack 7")
    assert run("sg_ident", "--ascii").strip() == "rack 7"
    run("sg_ident", "--clear")
    assert run("sg_ident", "--ascii").strip() == ""


def test_sg_timestamp(run):
    run("sg_timestamp", "--srep", "--milliseconds=5000")
    text = run("sg_timestamp", "--origin")
    assert "initialized by SET TIMESTAMP" in text
    assert 5000 <= int(text.split()[-1]) < 600_000


def test_target_port_groups_and_task_management(run):
    for extended in ([], ["--extended"]):
        text = run("sg_rtpg", "--decode", *extended)
        assert "target port group id : 0x1" in text
        assert "active/optimized" in text
    text = run("sg_opcodes", "--tmf")
    for words in ("Abort task\n", "Abort task set", "Clear task set", "Logical unit reset"):
        assert words in text


def test_self_test_buffers_and_defects(run):
    assert "GOOD status" in run("sg_senddiag", "--test")
    assert "Supported diagnostic pages" in run("sg_senddiag", "--list")
    assert "Success" in run("sg_test_rwbuf", "--size=4096")
    assert "echo buffer capacity=4096" in run("sg_rbuf", "--echo", "--size=512")
    assert "0 entries (0 bytes) in primary (PLIST) table" in run("sginfo", "-d")
