# SPDX-License-Identifier: BSD-2-Clause
"""Exit statuses, numbers and hex dumps of the command lines, checked against sg3_utils itself where it is there."""

import errno
import io
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi import cli
from vscsi.cli import CliError, ExitStatus

needs_sg3 = pytest.mark.skipif(shutil.which("sg_decode_sense") is None, reason="needs sg3-utils")

PROG = "prog"

STATUSES = [
    # key, asc, ascq, information valid, expected: sg3_utils(8), EXIT STATUS
    (0x0, 0x00, 0x00, False, 20),
    (0x1, 0x00, 0x00, False, 21),
    (0x2, 0x04, 0x02, False, 2),
    (0x3, 0x11, 0x00, False, 3),
    (0x3, 0x11, 0x00, True, 18),
    (0x4, 0x44, 0x00, False, 3),
    (0x4, 0x44, 0x00, True, 18),
    (0x5, 0x24, 0x00, False, 5),
    (0x5, 0x24, 0x00, True, 17),
    (0x5, 0x20, 0x00, False, 9),
    (0x5, 0x20, 0x01, False, 5),
    (0x5, 0x21, 0x00, False, 22),
    (0x5, 0x21, 0x00, True, 22),
    (0x5, 0x21, 0x04, False, 5),
    (0x6, 0x29, 0x00, False, 6),
    (0x7, 0x27, 0x00, False, 7),
    (0x8, 0x00, 0x05, False, 3),
    (0xA, 0x0D, 0x00, False, 10),
    (0xB, 0x4B, 0x00, False, 11),
    (0xB, 0x10, 0x01, False, 40),
    (0xB, 0x10, 0x01, True, 41),
    (0xD, 0x00, 0x00, False, 98),
    (0xE, 0x1D, 0x00, False, 14),
]


@pytest.mark.parametrize(("key", "asc", "ascq", "information", "status"), STATUSES)
def test_from_sense(key, asc, ascq, information, status):
    assert cli.from_sense(key, asc, ascq, information_valid=information) == status


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0x00, 0), (0x04, 25), (0x08, 26), (0x18, 24), (0x28, 27), (0x30, 28), (0x40, 29), (0x02, 98), (0x77, 99)],
)
def test_from_status(status, expected):
    assert cli.from_status(status) == expected


def test_from_errno():
    assert cli.from_errno(errno.ENOTTY) == 75
    assert cli.from_errno(46) == 96
    assert cli.from_errno(47) == 50
    assert cli.from_errno(0) == 50


# A word of sg3's own explanation of each status: proof that the numbers mean what we say.
WORDS = {
    ExitStatus.SYNTAX: "syntax",
    ExitStatus.NOT_READY: "not ready",
    ExitStatus.MEDIUM_HARD: "medium or hardware",
    ExitStatus.ILLEGAL_REQUEST: "illegal request",
    ExitStatus.UNIT_ATTENTION: "unit attention",
    ExitStatus.DATA_PROTECT: "data protect",
    ExitStatus.INVALID_OPERATION_CODE: "invalid opcode",
    ExitStatus.COPY_ABORTED: "copy aborted",
    ExitStatus.ABORTED_COMMAND: "aborted command",
    ExitStatus.MISCOMPARE: "miscompare",
    ExitStatus.FILE: "file error",
    ExitStatus.LBA_OUT_OF_RANGE: "lba out of range",
    ExitStatus.RESERVATION_CONFLICT: "reservation conflict",
    ExitStatus.CONDITION_MET: "condition met",
    ExitStatus.BUSY: "busy",
    ExitStatus.TASK_SET_FULL: "task set full",
    ExitStatus.ACA_ACTIVE: "aca a",
    ExitStatus.TASK_ABORTED: "task aborted",
    ExitStatus.CONTRADICTING_OPTIONS: "contradict",
    ExitStatus.TIMEOUT: "timeout",
    ExitStatus.MALFORMED: "malformed",
}


@needs_sg3
@pytest.mark.parametrize("status", WORDS, ids=lambda s: s.name)
def test_sg3_agrees_on_meaning(status):
    said = subprocess.run(["sg_decode_sense", f"--err={int(status)}"], capture_output=True, text=True, check=False)
    assert WORDS[status] in said.stdout.lower().replace("operation code", "opcode")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("12", 12), ("0x1f", 31), ("0X1F", 31), ("1fh", 31), ("1FH", 31), ("4k", 4096), ("4K", 4096),
        ("1M", 1 << 20), ("2g", 2 << 30), ("1T", 1 << 40), ("3b", 1536), ("1kB", 1000), ("1MiB", 1 << 20),
        ("1MB", 10**6),
        ("0x10k", None), ("", None), ("-1", None), ("1.5", None), ("k", None), ("0x", None), ("h", None), ("1x", None),
        ("１", None), ("1 k", None), ("+1", None), ("1_0", None),
    ],
)  # fmt: skip
def test_number(text, value):
    if value is None:
        with pytest.raises(ValueError, match="bad number"):
            cli.number(text)
    else:
        assert cli.number(text) == value


@given(st.integers(0, 1 << 70))
def test_number_forms_agree(value):
    assert cli.number(str(value)) == cli.number(hex(value)) == cli.number(f"{value:x}h") == value


@pytest.mark.parametrize("text", ["12 00 00", "0x12 0 0", "120000", "12,00,00", " 12\t00\n00 "])
def test_hex_bytes(text):
    assert cli.hex_bytes(text) == b"\x12\0\0"


@pytest.mark.parametrize("text", ["123", "zz", "0x", "12 0g", "-1"])
def test_hex_bytes_refuses(text):
    with pytest.raises(ValueError, match="hex"):
        cli.hex_bytes(text)


@needs_sg3
@pytest.mark.parametrize("nbytes", [5, 16, 17, 36, 96, 255, 600])
@pytest.mark.parametrize("level", [1, 2])
def test_hex_dump_is_that_of_sg3(tmp_path, nbytes, level):
    data = bytes((i * 37 + 2) & 0xFF for i in range(nbytes))
    (tmp_path / "data").write_bytes(data)
    command = ["sg_inq", "--raw", "-" + "H" * level, f"--inhex={tmp_path / 'data'}"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "".join(line + "\n" for line in cli.hex_dump(data, columns=level == 1)) == theirs


@given(st.binary(max_size=100), st.integers(0, 10))
def test_plain_hex_dump_reads_back(data, blocks):
    assert cli.hex_bytes(" ".join(cli.hex_dump(data, columns=False))) == data
    dump = list(cli.hex_dump(data, start=blocks * 512, text=False))
    assert b"".join(cli.hex_bytes(line[8:]) for line in dump) == data
    assert [int(line[:8], 16) for line in dump] == [blocks * 512 + at for at in range(0, len(data), 16)]


def test_run_turns_errors_into_statuses(capsys):
    def fails(error):
        def body():
            raise error

        return cli.run(PROG, body)

    assert cli.run(PROG, lambda: 36) == 36
    assert fails(CliError("no\nsuch thing", 5)) == 5
    assert capsys.readouterr().err == "prog: no such thing\n"
    assert fails(KeyboardInterrupt()) == 130
    assert fails(FileNotFoundError(errno.ENOENT, "No such file or directory", "x.img")) == 15
    assert capsys.readouterr().err == "prog: x.img: No such file or directory\n"
    assert fails(OSError(errno.ENOSPC, "No space left on device")) == 50 + errno.ENOSPC


def test_own_bugs_are_not_hidden():
    def body():
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        cli.run(PROG, body)


def test_argument_checks_range():
    convert = cli.argument(1, 10)
    assert convert("0xa") == 10
    for bad in ("0", "11", "x"):
        with pytest.raises(Exception, match=re.escape(bad)):
            convert(bad)


def test_complain_survives_a_closed_stream():
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(errno.EPIPE, "gone")

    cli.complain(PROG, "message", Closed())
