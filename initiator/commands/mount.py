# SPDX-License-Identifier: BSD-2-Clause
"""`mount`: each logical unit as a file in a folder, for any program, until it is unmounted.

Knows options, processes and when the mount is ready. The files are initiator.mount's.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, complain

if TYPE_CHECKING:
    from initiator.cli_session import Session
    from initiator.mount.disk import Disk

HELP = "the LUNs as files in a folder (FUSE)"
DESCRIPTION = """\
Mount the target's logical units at DIR: DIR/lun0, DIR/lun1, ... are files as large as the disks, which any program
reads and writes. With --lun only that one. Needs no root, but FUSE (apt-get install fuse3, pip install 'vscsi[fuse]').

  read, write      READ and WRITE; part of a block is read, changed and written back
  fsync            SYNCHRONIZE CACHE; close says nothing of durability
  fallocate        FALLOC_FL_PUNCH_HOLE is UNMAP, FALLOC_FL_ZERO_RANGE is WRITE SAME, of whole blocks; edges are written
  lseek            SEEK_DATA and SEEK_HOLE by GET LBA STATUS
  truncate         EINVAL, but O_TRUNC is ignored, so that 'cat image > DIR/lun0' works as on a block device

Errors: EROFS write protected, ENOSPC no space left in a thin disk or behind its end, EBADE reservation conflict,
EREMOTEIO illegal request, ENOMEDIUM, EILSEQ protection information, ETIMEDOUT, EIO everything else.
A target that is gone is looked for again for two minutes: reads and writes wait for it, --timeout at most, then EIO.
The first fsync after it was started anew is EIO if there were writes: they may be lost.
A disk that grows or shrinks does so in DIR at the next look.

It goes to the background once mounted. It ends, after what is under way, with 'fusermount3 -u DIR', SIGTERM or SIGINT.
What the kernel caches of a file is dropped when it is opened anew; use --direct-io where others write to the disk."""
EXAMPLES = """\
  mkdir disks; vscsi-initiator mount disks
  mkfs.ext4 -F disks/lun0; sudo mount -o loop disks/lun0 /mnt
  vscsi-initiator --lun 3 mount --foreground --readonly disks
  fusermount3 -u disks
"""
READY = b"+"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mount`."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="an existing directory")
    add("-f", "--foreground", action="store_true", help="stay, and log to stderr")
    add("--ready-fd", type=argument(0, 1 << 20), metavar="N", help="write a line to this descriptor once mounted")
    add("--readonly", "-R", action="store_true", help="nothing is written, whatever the disks allow")
    add("--allow-other", action="store_true", help="other users too (/etc/fuse.conf must say user_allow_other)")
    add("--direct-io", action="store_true", help="the kernel caches nothing: every read and write goes to the target")


def _disks(args: argparse.Namespace, session: Session) -> dict[str, Disk]:
    from initiator.mount.disk import Disk

    session.reconnect = True
    initiator = session.initiator
    numbers = [args.lun] if args.lun is not None else initiator.luns()
    if not numbers:
        raise CliError("mount: the target has no logical units", ExitStatus.FILE)
    disks = {f"lun{number}": Disk(initiator.lun(number), readonly=args.readonly) for number in numbers}
    for name, disk in disks.items():
        try:
            disk.look()
        except OSError as error:
            # One that was asked for must be there; of many, some may have no medium, and get one later.
            if args.lun is not None:
                raise CliError(f"mount: {name} does not answer: {error.strerror}", ExitStatus.FILE) from error
    return disks


def run(args: argparse.Namespace, session: Session) -> int:
    """Mount, and serve or leave that to a child."""
    from initiator.mount import fuse

    try:
        fuse.library()
        fuse.check(args.folder)
    except fuse.MountError as error:
        raise CliError(f"mount: {error}", ExitStatus.FILE) from None
    args.folder = args.folder.absolute()
    # Threads that start from now on do not get them.
    signal.pthread_sigmask(signal.SIG_BLOCK, fuse.SIGNALS)
    if args.foreground:
        _logging(foreground=True)
        return _serve(args, session, None)
    ours, childs = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.setsid()
        return _serve(args, session, childs)
    os.close(childs)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, fuse.SIGNALS)
    if os.read(ours, 1) == READY:
        return ExitStatus.OK
    # It has said why.
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve(args: argparse.Namespace, session: Session, parent: int | None) -> int:
    from initiator.mount import fuse
    from initiator.mount.files import Files

    def ready() -> None:
        if args.ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(args.ready_fd, b"mounted\n")
                os.close(args.ready_fd)
        if parent is None:
            complain("vscsi-initiator", f"mount: {', '.join(disks)} at {args.folder}")
            return
        # From here on nobody sees what is printed, and no terminal is held.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        os.chdir("/")
        _logging(foreground=False)
        os.write(parent, READY)
        os.close(parent)

    disks = _disks(args, session)
    files = Files(disks, shared=args.allow_other, on_start=ready)
    try:
        fuse.serve(files, args.folder, shared=args.allow_other, readonly=args.readonly, direct=args.direct_io)
    except fuse.MountError as error:
        raise CliError(f"mount: {error}", ExitStatus.FILE) from None
    return ExitStatus.OK


def _logging(*, foreground: bool) -> None:
    """To stderr, or to the system's log if there is one."""
    handler: logging.Handler = logging.StreamHandler()
    form = "vscsi-initiator: mount: %(message)s"
    if not foreground:
        from logging.handlers import SysLogHandler

        if not Path("/dev/log").exists():
            return
        handler = SysLogHandler("/dev/log", SysLogHandler.LOG_DAEMON)
        form = f"vscsi-initiator[{os.getpid()}]: mount: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO if foreground else logging.WARNING)
