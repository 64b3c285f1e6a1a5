# SPDX-License-Identifier: BSD-2-Clause
"""sg3_utils, sdparm, dd and cmp on /dev/vscsiN, as users run them: `vscsi-initiator run -- PROGRAM`."""

import pytest
from programs import tool


@pytest.fixture
def door(disk):
    """Runs a program of the system with the disk's LUNs as devices."""

    def run(program, *arguments, options=(), **keywords):
        return disk.initiator("run", *options, "--", tool(program), *arguments, **keywords)

    return run


def test_sg_inq_prints_what_inquiry_prints(disk, door):
    done = door("sg_inq", "/dev/vscsi0")
    assert (done.status, done.err) == (0, "")
    assert " Vendor identification: VSCSI" in done.text
    assert " Unit serial number: SER12345" in done.text


def test_sg_turs_is_not_met_by_a_unit_attention(door):
    done = door("sg_turs", "/dev/vscsi0")
    assert (done.status, done.err) == (0, "")


def test_keep_attention_shows_it(door):
    done = door("sg_raw", "/dev/vscsi0", "00", "00", "00", "00", "00", "00", options=["--keep-attention"])
    assert done.status == 6
    assert "Power on" in done.err
