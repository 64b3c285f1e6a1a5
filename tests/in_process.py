# SPDX-License-Identifier: BSD-2-Clause
"""vscsi-initiator without a process of its own: its arguments in, status and both outputs back. Many times faster.

Knows how the program is entered. What only a process shows (signals, closed streams) needs `programs.run`.
"""

import contextlib
import io
import os
import shlex
import sys
from typing import Any
from unittest import mock

from programs import Done, Target, tool

from initiator.cli import main

_END = "=====status "


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


def through_the_door(target: Target, *commands: tuple[str, ...]) -> list[str]:
    """The texts of programs of the system that have LUN 0 as /dev/vscsi0, one after the other behind one door."""
    lines = [shlex.join([tool(program), *words, "/dev/vscsi0"]) for program, *words in commands]
    script = "\n".join(f"{line}; echo '{_END}'$?" for line in lines)
    done = target.initiator("run", "--", "sh", "-c", script)
    texts = []
    for text in done.text.split(_END)[:-1]:
        texts.append(text.partition("\n")[2] if texts else text)
    statuses = [int(rest.partition("\n")[0]) for rest in done.text.split(_END)[1:]]
    # 5: it asked for more than there is, and said what there is
    assert len(texts) == len(commands) and set(statuses) <= {0, 5}, (statuses, done.err)
    return texts
