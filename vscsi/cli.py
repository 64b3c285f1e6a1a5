# SPDX-License-Identifier: BSD-2-Clause
"""What the command lines of both ends share: exit statuses, numeric arguments, hex dumps, how a program ends.

The words, numbers and formats are those of sg3_utils(8), so that scripts written for sg_inq and its family go on
working. Knows no command, no device and no socket.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NoReturn, TextIO


class ExitStatus(IntEnum):
    """How a program ends: sg3_utils(8), EXIT STATUS. `sg_decode_sense --err=N` explains each."""

    OK = 0
    SYNTAX = 1
    NOT_READY = 2
    MEDIUM_HARD = 3
    ILLEGAL_REQUEST = 5
    UNIT_ATTENTION = 6
    DATA_PROTECT = 7
    INVALID_OPERATION_CODE = 9
    COPY_ABORTED = 10
    ABORTED_COMMAND = 11
    MISCOMPARE = 14
    FILE = 15
    ILLEGAL_REQUEST_WITH_INFO = 17
    MEDIUM_HARD_WITH_INFO = 18
    NO_SENSE = 20
    RECOVERED = 21
    LBA_OUT_OF_RANGE = 22
    RESERVATION_CONFLICT = 24
    CONDITION_MET = 25
    BUSY = 26
    TASK_SET_FULL = 27
    ACA_ACTIVE = 28
    TASK_ABORTED = 29
    CONTRADICTING_OPTIONS = 31
    LOGIC_ERROR = 32
    TIMEOUT = 33
    FALSE = 36
    PROTECTION = 40
    PROTECTION_WITH_INFO = 41
    NONSENSE_RESIDUAL = 49
    OS_ERROR = 50
    MALFORMED = 97
    SENSE = 98
    OTHER = 99


_FROM_KEY = {
    0x0: ExitStatus.NO_SENSE,
    0x1: ExitStatus.RECOVERED,
    0x2: ExitStatus.NOT_READY,
    0x3: ExitStatus.MEDIUM_HARD,
    0x4: ExitStatus.MEDIUM_HARD,
    0x5: ExitStatus.ILLEGAL_REQUEST,
    0x6: ExitStatus.UNIT_ATTENTION,
    0x7: ExitStatus.DATA_PROTECT,
    0x8: ExitStatus.MEDIUM_HARD,
    0xA: ExitStatus.COPY_ABORTED,
    0xB: ExitStatus.ABORTED_COMMAND,
    0xE: ExitStatus.MISCOMPARE,
}
# Additional sense codes that have a status of their own: (key, ASC, ASCQ or None for any).
_FROM_CODE = {
    (0x5, 0x20, 0x00): ExitStatus.INVALID_OPERATION_CODE,
    (0x5, 0x21, 0x00): ExitStatus.LBA_OUT_OF_RANGE,
    (0xB, 0x10, None): ExitStatus.PROTECTION,
}
_WITH_INFO = {
    ExitStatus.MEDIUM_HARD: ExitStatus.MEDIUM_HARD_WITH_INFO,
    ExitStatus.ILLEGAL_REQUEST: ExitStatus.ILLEGAL_REQUEST_WITH_INFO,
    ExitStatus.PROTECTION: ExitStatus.PROTECTION_WITH_INFO,
}
_FROM_STATUS = {
    0x00: ExitStatus.OK,
    0x02: ExitStatus.SENSE,
    0x04: ExitStatus.CONDITION_MET,
    0x08: ExitStatus.BUSY,
    0x10: ExitStatus.OK,
    0x14: ExitStatus.CONDITION_MET,
    0x18: ExitStatus.RESERVATION_CONFLICT,
    0x28: ExitStatus.TASK_SET_FULL,
    0x30: ExitStatus.ACA_ACTIVE,
    0x40: ExitStatus.TASK_ABORTED,
}


def from_sense(key: int, asc: int, ascq: int, *, information_valid: bool = False) -> ExitStatus:
    """Exit status for sense data (SPC-5 4.4): by additional sense code where it has its own, else by sense key."""
    status = _FROM_CODE.get((key, asc, ascq)) or _FROM_CODE.get((key, asc, None)) or _FROM_KEY.get(key)
    if status is None:
        return ExitStatus.SENSE
    return _WITH_INFO.get(status, status) if information_valid else status


def from_status(status: int) -> ExitStatus:
    """Exit status for a SCSI status (SAM-6 5.3.1) that came without sense data."""
    return _FROM_STATUS.get(status, ExitStatus.OTHER)


def from_errno(number: int) -> int:
    """Exit status for an errno: 50 + errno where that fits below 97, else OS_ERROR."""
    return ExitStatus.OS_ERROR + number if 0 < number < 47 else int(ExitStatus.OS_ERROR)


class CliError(Exception):
    """Ends the program with one line on stderr and an exit status."""

    def __init__(self, message: str, status: int = ExitStatus.SYNTAX) -> None:
        super().__init__(message)
        self.status = status


_MULTIPLIERS = {
    "": 1, "c": 1, "w": 2, "b": 512,
    "k": 1 << 10, "kib": 1 << 10, "kb": 1000, "m": 1 << 20, "mib": 1 << 20, "mb": 1000**2,
    "g": 1 << 30, "gib": 1 << 30, "gb": 1000**3, "t": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
    "p": 1 << 50, "pib": 1 << 50, "pb": 1000**5,
}  # fmt: skip
_HEX = re.compile(r"0x([0-9a-f]+)|([0-9a-f]+)h", re.ASCII | re.IGNORECASE)
_DECIMAL = re.compile(r"([0-9]+)([a-z]*)", re.ASCII | re.IGNORECASE)


def number(text: str) -> int:
    """A numeric argument: decimal, `0x1f`, `1fh`, or decimal with a multiplier: k M G T P (1024), b (512), kB (1000).

    sg3_utils(8), NUMERIC ARGUMENTS. Raises ValueError.
    """
    if match := _HEX.fullmatch(text):
        return int(match[1] or match[2], 16)
    match = _DECIMAL.fullmatch(text)
    if match and match[2].lower() in _MULTIPLIERS:
        return int(match[1]) * _MULTIPLIERS[match[2].lower()]
    raise ValueError(f"bad number '{text}'")


def argument(low: int = 0, high: int = (1 << 64) - 1) -> Callable[[str], int]:
    """An argparse type: `number` within low..high."""

    def convert(text: str) -> int:
        try:
            value = number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number (12, 0x1f, 1fh, 4k, 1M)") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range, expected {low} to {high}")
        return value

    return convert


def hex_bytes(text: str) -> bytes:
    """Bytes of a hex string: pairs of digits with or without spaces, commas or `0x` between. Raises ValueError."""
    out = bytearray()
    for word in text.replace(",", " ").split():
        word = word.removeprefix("0x").removeprefix("0X")
        if len(word) == 1:
            word = "0" + word
        if len(word) % 2 or not re.fullmatch(r"[0-9a-fA-F]+", word, re.ASCII):
            raise ValueError(f"'{word}' is not a string of hex bytes")
        out += bytes.fromhex(word)
    return bytes(out)


def hex_dump(data: bytes, *, columns: bool = True, text: bool = True, start: int = 0) -> Iterator[str]:
    """Lines of a dump in sg3_utils' format, sixteen bytes a line: with offset column (`columns`) and ASCII (`text`).

    Without `columns` it is plain hex, which sg_inq --inhex reads back; then `text` does not count. `start` is the
    offset of the first byte.
    """
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        line = f"{row[:8].hex(' ')}  {row[8:].hex(' ')}".rstrip()
        if columns:
            line = f" {start + at:02x}".ljust(8) + line
            if text:
                shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
                line = line.ljust(60) + shown
        yield line


def _columns() -> int:
    """Of the terminal, as shutil.get_terminal_size finds them."""
    try:
        wanted = int(os.environ.get("COLUMNS", "0"))
        stdout = sys.__stdout__
        if wanted > 0 or stdout is None:
            return wanted or 80
        return os.get_terminal_size(stdout.fileno()).columns or 80
    except (ValueError, OSError):
        return 80


class ArgumentParser(argparse.ArgumentParser):
    """argparse with sg3_utils' manners: a syntax error is one line and exit status 1."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        # One is made for each option that is added: with a width of its own it need not load what finds the terminal's.
        return self.formatter_class(prog=self.prog, width=_columns() - 2)  # type: ignore[call-arg]

    def error(self, message: str) -> NoReturn:
        """One line on stderr that says where to read on; exit status 1."""
        self.exit(ExitStatus.SYNTAX, f"{self.prog}: {message} (see {self.prog} --help)\n")


_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\udc80-\\udc9f]")


def harmless(text: str) -> str:
    """The text without control characters: some of it may be a peer's, who has no say in what the terminal does."""
    return _CONTROL.sub("?", text)


def complain(prog: str, message: str, stream: TextIO | None = None) -> None:
    """One line on stderr; never raises."""
    with contextlib.suppress(OSError):
        print(harmless(f"{prog}: {' '.join(message.splitlines())}"), file=stream or sys.stderr)


STDOUT = "stdout"
"""How messages name it."""


def _standard_streams() -> None:
    """Give stdin, stdout and stderr that were closed back a descriptor, so that no socket is taken for one of them.

    What reads or writes there fails with EBADF, as it does in any program; what is complained about goes nowhere.
    """
    for descriptor, mode, name in ((0, os.O_WRONLY, "stdin"), (1, os.O_RDONLY, "stdout"), (2, os.O_WRONLY, "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest descriptor that is free: this one
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a path is printed as it was given, whatever its bytes


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Whatever OSError comes from here names `what`, where it names no file itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.strerror is not None:
            error.filename = what
        raise


def _forget_output() -> None:
    """The interpreter flushes stdout once more at exit: give it a place to do so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(prog: str, body: Callable[[], int]) -> int:
    """Run a program's body and turn whatever ends it into an exit status: no traceback reaches a user by mistake.

    A closed pipe on stdout ends it quietly, as it ends cat; an interrupt gives 128 + SIGINT. What is left are our own
    bugs, which are not hidden.
    """
    _standard_streams()
    try:
        status = body()
        with naming(STDOUT):
            sys.stdout.flush()
        return int(status)
    except CliError as error:
        complain(prog, str(error))
        return int(error.status)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _forget_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename == STDOUT:
            _forget_output()
        name = f"{error.filename}: " if error.filename else ""
        complain(prog, f"{name}{error.strerror or error}")
        number = error.errno or 0
        return int(ExitStatus.FILE) if number in (errno.ENOENT, errno.EACCES, errno.EISDIR) else from_errno(number)
