# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi+unix:///LUN?socket=/path`: where a logical unit is. Knows the text only."""

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from vscsi.scsi.lun import LUN_MAX

SCHEME = "vscsi+unix"
ENVIRONMENT = "VSCSI_URI"


class Place(NamedTuple):
    """`socket` None is the default one; `lun` None if the URI names none."""

    socket: Path | None
    lun: int | None


def parse(text: str) -> Place:
    """Raises ValueError, with one line that says what is wrong."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    if parts.scheme != SCHEME:
        raise ValueError(f"{text!r} does not begin with {SCHEME}:")
    if parts.netloc or parts.fragment:
        raise ValueError(f"{text!r} names a host or a fragment; the form is {SCHEME}:///LUN?socket=/path")
    number = unquote(parts.path).strip("/")
    if number and not (number.isascii() and number.isdigit() and int(number) <= LUN_MAX):
        raise ValueError(f"{text!r}: {number!r} is no LUN (0 to {LUN_MAX})")
    socket: Path | None = None
    for key, value in parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape"):
        if key != "socket":
            raise ValueError(f"{text!r}: unknown parameter {key!r}")
        if socket is not None or not value:
            raise ValueError(f"{text!r}: one socket, and not an empty one")
        socket = Path(value)
    return Place(socket, int(number) if number else None)


def build(lun: int, socket: Path | str | None = None) -> str:
    """The URI of a logical unit."""
    return f"{SCHEME}:///{lun}" + (f"?socket={quote(os.fsencode(socket))}" if socket else "")


def default() -> Place:
    """$VSCSI_URI, or the default socket and LUN 0. Raises ValueError."""
    text = os.environ.get(ENVIRONMENT)
    return parse(text) if text else Place(None, None)
