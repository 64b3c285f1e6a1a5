# SPDX-License-Identifier: BSD-2-Clause
"""Files that something else has spoilt: what a unit keeps beside its image, and what a user writes for a target.

A damaged file ends in one clear error, or is set aside with one; it never passes in silence. Knows which files there
are; knows nothing of what should be in them.
"""

import contextlib
import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from fake_device import FakeDevice, FakePort

from fuzz.python import mutation
from fuzz.python.registry import target
from target import config, lunspec
from target.faults_rule import parse as parse_rule
from target.operation import Operation
from target.options import build_parser
from target.stores import StoreError
from vscsi.cli import CliError
from vscsi.scsi import cdb

DOCUMENTS = (
    "modes.json",
    "reservations.json",
    "identification.json",
    "operation.json",
    "format.json",
    "key.json",
    "atomic.journal",
    "pi",
)
LOOKS = (
    cdb.TEST_UNIT_READY.build(),
    cdb.READ_10.build(lba=0, transfer_length=1),
    cdb.MODE_SENSE_10.build(page_code=0x3F, subpage_code=0xFF, allocation_length=4096),
    cdb.PERSISTENT_RESERVE_IN_READ_FULL_STATUS.build(allocation_length=4096),
    cdb.REPORT_IDENTIFYING_INFORMATION.build(allocation_length=256),
)
SHM = Path("/dev/shm")
"""Nothing is waited for there."""
_home = tempfile.TemporaryDirectory(prefix="vscsi-fuzz-", dir=SHM if SHM.is_dir() else None)
HOME = Path(_home.name)
_numbers = itertools.count()


@contextlib.contextmanager
def errors() -> Iterator[list[str]]:
    """What is said of errors meanwhile."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear, log = Ear(logging.ERROR), logging.getLogger()
    log.addHandler(ear)
    try:
        yield said
    finally:
        log.removeHandler(ear)


def which(data: bytes) -> tuple[str, bytes]:
    """(file, content) of an input."""
    return DOCUMENTS[data[0] % len(DOCUMENTS)] if data else DOCUMENTS[0], data[1:]


@target("documents", StoreError, mutate=mutation.of_document, weight=2)
def documents(data: bytes) -> None:
    """A unit starts with it, or says in one line why not; a file that is not there any more has been talked about."""
    name, content = which(data)
    # Of its own: a unit that does not come to be may keep its folder's lock until it is collected.
    home = HOME / str(next(_numbers))
    image, folder = home / "image", home / "image.vscsi"
    folder.mkdir(parents=True)
    image.write_bytes(bytes(1 << 16))
    (folder / name).write_bytes(content)
    with errors() as said:
        device = None
        try:
            device = FakeDevice(f"0=crypt:{image}" if name == "key.json" else f"0={image}")
            device.connect(1)
            for raw in LOOKS:
                device.run(raw, FakePort(), nexus=1)
            thread = device.units[0].part(Operation)._thread
            if thread is not None:
                thread.join()
        except StoreError as error:
            said.append(str(error))
            raise
        finally:
            if device is not None:
                device.close()
            left = (folder / name).exists()
            shutil.rmtree(home)
            if name.endswith(".json") and not understood(content):
                assert said, f"{name} is no document, and nobody was told"
            if name.endswith(".json") and not left:
                assert said or name == "operation.json", f"{name} is gone, and nobody was told"


def understood(content: bytes) -> bool:
    """Whether it is a document at all."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


# ---- what users write ----

WORDS = (
    "[lun]\n", "lun = 5\n", "lun = [5]\n",
    "[[lun]]\n", "number = 0\n", "store = 'mem:1M'\n", "path = 'x'\n", "size = '1G'\n", "fault = ['sense=3/11/00']\n",
    "=", "{", "listen = 'x'\n", "workers = 4\n", "initiators = ['00*', 'ff']\n", "'''", "[", "]", "true", "1e9", "-1",
    "99999999999999999999", "1979-05-27", "\\u0000", "\x00", "0=mem:1M", ",", "ro=", "bs=512", "fault=", "read",
    "+delay=1ms", "every=3", "p=0.5", "lba=0-9",
)  # fmt: skip


def of_text(data: bytes, rng: Random) -> bytes:
    """Words come and go."""
    if rng.random() < 0.5:
        return mutation.of_bytes(data, rng)
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(WORDS).encode() + data[at + rng.choice((0, 0, 1, 8)) :]


@target("configuration", CliError, lunspec.LunSpecError, ValueError, mutate=of_text)
def configuration(data: bytes) -> None:
    """A file, a LUN or a rule is understood, or refused in one line."""
    kind, text = data[:1], data[1:]
    if kind == b"l":
        refusable(lambda: lunspec.parse(text.decode(errors="surrogateescape")))
    elif kind == b"r":
        refusable(lambda: parse_rule(text.decode(errors="surrogateescape")))
    else:
        path = HOME / "target.toml"
        path.write_bytes(text)
        config.dump(build_parser().parse_args([], config.load(str(path), build_parser())), build_parser())


ACCIDENTS = ("invalid literal", "could not convert", "embedded null", "not enough values", "too many values")


def refusable(function: Callable[[], object]) -> None:
    """Plain ValueErrors are words for the user, but not those that Python itself makes."""
    try:
        function()
    except ValueError as error:
        accident = type(error).__module__ == "builtins" and type(error) is not ValueError
        if accident or str(error).startswith(ACCIDENTS):
            raise RuntimeError(f"refused by accident: {error!r}") from error
