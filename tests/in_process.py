# SPDX-License-Identifier: BSD-2-Clause
"""vscsi-initiator without a process of its own: its arguments in, status and both outputs back. Many times faster.

Knows how the program is entered. What only a process shows (signals, closed streams) needs `programs.run`.
"""

import contextlib
import io
import os
import sys
from typing import Any
from unittest import mock

from programs import Done, Target, tool

from initiator.cli import main


def call(*words: object, data: bytes | None = None) -> Done:
    """Runs the program with these arguments; `data` is its stdin."""
    out, err = io.TextIOWrapper(io.BytesIO(), errors="surrogateescape"), io.StringIO()
    with (
        mock.patch.dict("os.environ", clear=False),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data or b""))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        os.environ.pop("VSCSI_URI", None)
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        out.flush()
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Done(status, out.buffer.getvalue(), err.getvalue())  # type: ignore[attr-defined]


def initiator(target: Target, *words: object, lun: int | None = None, data: bytes | None = None) -> Done:
    """The same with the socket of a running target."""
    where = ["--socket", target.socket] if lun is None else ["--uri", target.uri(lun)]
    return call(*where, *words, data=data)


def ours(target: Target, *words: object, **keywords: Any) -> str:
    """What it prints where nothing may go wrong."""
    done = initiator(target, *words, **keywords)
    assert done.status == 0, done.err
    return done.text


def through_the_door(target: Target, program: str, *words: object) -> str:
    """The text of a program of the system that has LUN 0 as /dev/vscsi0."""
    done = target.initiator("run", "--", tool(program), *words, "/dev/vscsi0")
    assert done.status in (0, 5), done.err  # 5: it asked for more than there is, and said what there is
    return done.text
