# SPDX-License-Identifier: BSD-2-Clause
"""`run`: any program, with /dev/vscsiN in its world. Starts it with the preloaded library and serves that library.

The one place that documents the door for users. Knows processes, names and options; knows no message.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, hex_bytes

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "any program, with the LUNs as SCSI devices"
DESCRIPTION = """\
Run PROGRAM with a small preloaded library that makes these paths devices, without root or kernel module:

  /dev/vscsiN                  LUN N as a SCSI generic device, like /dev/sgN: SG_IO 3 and 4, write and read
  /dev/vscsiNb                 LUN N as a block device, like /dev/sdX: read, write, lseek, fsync, BLKGETSIZE64...
  /dev/vscsi/TARGET/N          the same of another target, named with --target TARGET=SOCKET
  /dev/vscsi@INITIATOR/N       the same through another initiator port, named with --initiator INITIATOR
  /dev/vscsi@INITIATOR/TARGET/N    both; a `b` behind any of them is the block node

Two nodes for a LUN, because sg_dd wants sg's headers from write(2) where dd wants bytes. Every command travels as one
SRP_CMD; nothing is answered in the library. Programs that PROGRAM starts have the same devices, until PROGRAM ends.
The unit attention that greets a new initiator port is absorbed when a LUN is first looked at, as a kernel does when it
finds a disk; --keep-attention leaves it. What happens later is shown as it comes.
SG_IO fails with host status 3 (time out) after the command has been aborted. A target that is gone is looked for again
for two minutes: commands that were under way end with host status 14 (transport disrupted), later ones wait for it, for
their timeout at most, and end with 1 (no connect) if it does not come.

The exit status is PROGRAM's (128 + N if signal N ended it); 15 if there is no target: then PROGRAM is not started; 126
or 127 if PROGRAM cannot be started. Signals sent to vscsi-initiator go on to PROGRAM.
Not for programs that are linked statically, are set-user-ID, or call the kernel without the C library."""
RUNS_PROGRAM = True
EXAMPLES = """\
  vscsi-initiator run -- sg_inq /dev/vscsi0
  vscsi-initiator run -- sh -c 'sdparm --get=WCE /dev/vscsi0; dd if=/dev/vscsi0b bs=1M count=1 | sha256sum'
  vscsi-initiator run --initiator a --initiator b=00112233445566778899aabbccddeeff -- sg_persist -k /dev/vscsi@b/0
  vscsi-initiator run --target backup=/run/b.sock -- sg_dd if=/dev/vscsi0 of=/dev/vscsi/backup/0 bs=512
"""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
PORT_ID_NBYTES = 16
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def _target(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"'{text}': expected NAME=SOCKET")
    return _name(name), Path(path)


def _initiator(text: str) -> tuple[str, bytes | None]:
    name, equals, digits = text.partition("=")
    try:
        port_id = hex_bytes(digits) if equals else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from None
    if port_id is not None and len(port_id) != PORT_ID_NBYTES:
        raise argparse.ArgumentTypeError(f"'{text}': a port identifier has {2 * PORT_ID_NBYTES} hex digits")
    return _name(name), port_id


def _name(text: str) -> str:
    from initiator.door.nodes import NAME

    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no name: a letter, then letters, digits, - _ .")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.add_argument(
        "--target", action="append", type=_target, default=[], metavar="NAME=SOCKET", help="one more target"
    )
    parser.add_argument(
        "--initiator",
        action="append",
        type=_initiator,
        default=[],
        metavar="NAME[=PORTID]",
        help="one more initiator port; PORTID in 32 hex digits, else random; the name default is that of /dev/vscsiN",
    )
    parser.add_argument("--keep-attention", action="store_true", help="show also the first unit attention of each LUN")
    parser.add_argument(
        "program", metavar="PROGRAM", help="what to run; -- before it keeps its options apart from ours"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="its arguments")


def library() -> Path:
    """The preloaded library as it is installed. CliError if it is not there."""
    import initiator.door

    found = sorted(Path(initiator.door.__file__).parent.glob("preload*.so"))
    if not found:
        raise CliError("run: the preloaded library is not built; run 'make setup'", ExitStatus.OTHER)
    return found[0]


def _environment(door: dict[str, str]) -> dict[str, str]:
    environment = {**os.environ, **door}
    # Behind what is there already: a sanitizer's runtime insists on being first.
    before = [word for word in environment.get("LD_PRELOAD", "").split(":") if word and "/preload" not in word]
    environment["LD_PRELOAD"] = ":".join([*before, str(library())])
    return environment


def _start(words: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(words, env=environment, preexec_fn=_unblock)
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise CliError(f"run: {words[0]}: {(error.strerror or str(error)).lower()}", status) from None


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Hands on signals that somebody sent to us, until the program ends."""
    waited = {*FORWARDED, signal.SIGCHLD}
    while (status := process.poll()) is None:
        caught = signal.sigwaitinfo(waited)
        # What the terminal sends, it sends to the program too.
        if caught.si_signo in FORWARDED and caught.si_code <= 0:
            process.send_signal(caught.si_signo)
    return status if status >= 0 else 128 - status


def run(args: argparse.Namespace, session: Session) -> int:
    """The program's exit status."""
    from initiator.door.nodes import DEFAULT, Nodes
    from initiator.door.server import Server

    targets: dict[str, Path | None] = {DEFAULT: session.path}
    for name, path in args.target:
        if name in targets and name != DEFAULT:
            raise CliError(f"run: target {name} is named twice")
        targets[name] = path
    initiators: dict[str, bytes | None] = {DEFAULT: None, **dict(args.initiator)}
    nodes = Nodes(targets, initiators, timeout=session.timeout, keep_attention=args.keep_attention, tap=session.tap)
    # Before any thread: they inherit the mask, and only _wait takes the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
    server = None
    try:
        for name in targets:
            nodes.login(target=name)
        server = Server(nodes)
        return _wait(_start([args.program, *args.arguments], _environment(server.environment)))
    finally:
        if server is not None:
            server.close()
        nodes.close()
