# SPDX-License-Identifier: BSD-2-Clause
"""vscsi-initiator without a process of its own: its arguments in, status and both outputs back. Many times faster.

Knows how the program is entered. What only a process shows (signals, closed streams) needs `programs.run`.
"""

import contextlib
import io
import os
import sys
from unittest import mock

from programs import Done

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


def initiator(target: object, *words: object, lun: int | None = None, data: bytes | None = None) -> Done:
    """The same with the socket of a running `programs.Target`."""
    where = ["--socket", target.socket] if lun is None else ["--uri", target.uri(lun)]  # type: ignore[attr-defined]
    return call(*where, *words, data=data)
