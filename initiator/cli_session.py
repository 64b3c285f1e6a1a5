# SPDX-License-Identifier: BSD-2-Clause
"""What a command of `vscsi-initiator` needs while it runs: the connection, opened when first used, and its manners.

Turns options into an `Initiator`, shows CDBs and sense data for -v and -vv, absorbs one power-on unit attention, and
turns everything that can go wrong into one line and an exit status. Must not know any particular command.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from vscsi.cli import STDOUT, CliError, ExitStatus, from_sense, from_status, harmless, hex_dump, naming

if TYPE_CHECKING:
    from initiator import Done, Initiator
    from initiator.lun import Lun
    from initiator.pcap import Tap
    from initiator.vbd import Vbd

CHECK_CONDITION = 0x02
CONDITION_MET = 0x04
GOOD = 0x00
UNIT_ATTENTION = 0x6
POWER_ON_OR_RESET = 0x29


class Session:
    """One run of one command. `lun` is the logical unit number in force, `lun_named` whether the user named it."""

    def __init__(self, args: argparse.Namespace) -> None:
        from initiator import uri

        self.command: str = args.command
        self.verbose: int = args.verbose
        self.timeout: float = args.timeout
        self.protocol: str = args.protocol
        self.port_id: bytes | None = args.initiator_port
        text = args.uri or os.environ.get("VSCSI_URI")
        try:
            place = uri.parse(text) if text else None
        except ValueError as error:
            raise CliError(str(error)) from None
        self.path: Path | None = args.socket or (place.socket if place else None)
        named = args.lun if args.lun is not None else place.lun if place else None
        self.lun_named = named is not None
        self.lun = named or 0
        self.reconnect = False
        """Whether what is lost is connected anew: for commands that go on for as long as the user likes."""
        self._initiator: Initiator | None = None
        self._vbd: Vbd | None = None
        self._pcap: tuple[str, int] | None = (args.pcap, args.snaplen) if args.pcap is not None else None
        self._tap: Tap | None = None
        self._greeted: set[int] = set()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for device in (self._vbd, self._initiator):
            if device is not None:
                device.close()
        if self._tap is not None:
            self._tap.close()
        if error is not None:
            self._translate(error)

    def _translate(self, error: BaseException) -> None:
        """Raise CliError for what the library raises; anything else goes its way."""
        from initiator import errors

        if isinstance(error, errors.ScsiError):
            raise self.failure(error.status, error.sense_bytes) from None
        if isinstance(error, errors.ConnectError):
            raise CliError(str(error), ExitStatus.FILE) from None
        if isinstance(error, (errors.CommandTimeout, TimeoutError)):
            raise CliError(f"{self.command}: no answer within {self.timeout:g} s", ExitStatus.TIMEOUT) from None
        if isinstance(error, errors.InitiatorError):
            raise CliError(f"{self.command}: {error}", ExitStatus.OTHER) from None

    # ---- the target ----

    @property
    def initiator(self) -> Initiator:
        """The SRP initiator, logged in. Raises ConnectError."""
        if self._initiator is None:
            from initiator import Initiator

            self._initiator = Initiator(
                self.path, port_id=self.port_id, timeout=self.timeout, tap=self.tap, reconnect=self.reconnect
            )
        return self._initiator

    @property
    def tap(self) -> Tap | None:
        """Where every initiator of this run shows what it does, if the user wants that. OSError."""
        if self._pcap is not None and self._tap is None:
            from initiator.pcap import Tap

            self._tap = Tap(*self._pcap)
        return self._tap

    def block_device(self) -> Lun | Vbd:
        """The logical unit as blocks, over the protocol that was asked for."""
        if self.protocol == "blkif":
            from initiator.vbd import Vbd

            if self._vbd is None:
                self._vbd = Vbd(self.path, lun=self.lun)
            return self._vbd
        return self.initiator.lun(self.lun)

    @property
    def socket(self) -> str:
        """Where the target listens."""
        from vscsi.bus.local import default_socket_path

        return str((self.path or default_socket_path()).absolute())

    def uri_of(self, lun: int) -> str:
        """The URI of a logical unit of this target."""
        from initiator import uri

        return uri.build(lun, self.socket)

    # ---- commands ----

    def execute(self, cdb: bytes, *, lun: int | None = None, data_in: int = 0, data_out: bytes = b"") -> bytes:
        """Run a command and return its data. Raises CliError for every status but GOOD and CONDITION MET."""
        done = self.greeted(cdb, lun=lun, data_in=data_in, data_out=data_out)
        if done.status not in (GOOD, CONDITION_MET):
            raise self.failure(done.status, done.sense)
        return bytes(done.data_in)

    def greeted(self, cdb: bytes, *, lun: int | None = None, **options: Any) -> Done:
        """Run a command and return what came of it, whatever its status but one.

        One unit attention that only says "power on, reset or nexus loss" is what each logical unit tells whoever comes
        anew: it is absorbed. The command was not executed then, so it may be sent again.
        """
        number = self.lun if lun is None else lun
        done = self.attempt(cdb, lun=lun, **options)
        if number not in self._greeted and done.status == CHECK_CONDITION and self._is_power_on(done.sense):
            self._greeted.add(number)
            done = self.attempt(cdb, lun=lun, **options)
        return done

    def attempt(
        self, cdb: bytes, *, lun: int | None = None, data_in: int = 0, data_out: bytes = b"", attribute: int = 0
    ) -> Done:
        """Run a command once and return what came of it, whatever its status."""
        self.show_cdb(cdb)
        done = self.initiator.execute(
            self.lun if lun is None else lun,
            cdb,
            data_in=data_in,
            data_out=data_out,
            attribute=attribute,
            timeout=self.timeout,
        )
        if done.error is not None:
            raise done.error
        if self.verbose > 1 and done.sense:
            self.show_sense(done.sense)
        return done

    @staticmethod
    def _is_power_on(sense: bytes) -> bool:
        from vscsi.scsi import sense as sense_data

        decoded = sense_data.decode(sense)
        return decoded.key == UNIT_ATTENTION and decoded.asc == POWER_ON_OR_RESET

    def failure(self, status: int, sense: bytes) -> CliError:
        """What to tell and how to end for a command that failed."""
        from vscsi.scsi import sense as sense_data
        from vscsi.scsi.status import describe

        if status != CHECK_CONDITION or not sense:
            return CliError(f"{self.command}: {describe(status)}", from_status(status))
        decoded = sense_data.decode(sense)
        code = from_sense(decoded.key, decoded.asc, decoded.ascq, information_valid=decoded.information is not None)
        return CliError(f"{self.command}: {decoded.describe()}", code)

    # ---- output ----

    def show_cdb(self, cdb: bytes) -> None:
        """-v: the CDB in hex on stderr, with its name."""
        if self.verbose:
            from vscsi.scsi.cdb import name_of

            print(f"    {name_of(cdb)} cdb: [{cdb.hex(' ')}]", file=sys.stderr)

    def show_sense(self, sense: bytes) -> None:
        """The sense data in words and in hex on stderr."""
        from vscsi.scsi import sense as sense_data

        print(f"    sense data: {sense_data.decode(sense).describe()}", file=sys.stderr)
        for line in hex_dump(sense):
            print(f"   {line}", file=sys.stderr)


def emit(lines: Iterable[str]) -> None:
    """Lines to stdout."""
    with naming(STDOUT):
        sys.stdout.write("".join(f"{harmless(line)}\n" for line in lines))


def emit_raw(data: bytes) -> None:
    """Bytes to stdout."""
    with naming(STDOUT):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def emit_json(value: Any) -> None:
    """One JSON document to stdout."""
    print(json.dumps(value, indent=2))


def emit_hex(data: bytes, level: int, *, text: bool = True) -> None:
    """-H: dump with offsets (and ASCII column if `text`); -HH and more: plain hex."""
    emit(hex_dump(data, columns=level == 1, text=text))


def output_options(parser: argparse.ArgumentParser, what: str) -> None:
    """--hex, --raw and --json, of which one may be given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-H", "--hex", action="count", default=0, help=f"{what} as a hex dump; twice: plain hex")
    group.add_argument("-r", "--raw", action="store_true", help=f"{what} in binary to stdout")
    group.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def refuse(message: str, status: int = ExitStatus.CONTRADICTING_OPTIONS) -> NoReturn:
    """End with a line about options that do not go together."""
    raise CliError(message, status)
