# SPDX-License-Identifier: BSD-2-Clause
"""The process behind the `direct` lane: the target's block I/O engine in one thread, no ring.

A program: `direct_worker.py IMAGE NOWAIT`. On stdin come `struct vscsi_load_spec`s, on stdout go a status (int32) and a
`struct vscsi_load_result` for each. It is a process of its own because that is how the target's CPU time is told apart.
"""

from __future__ import annotations

import os
import sys

from target.native import ffi, lib


def main() -> int:
    """Serve until stdin ends."""
    path, nowait = sys.argv[1], int(sys.argv[2])
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    spec = ffi.new("struct vscsi_load_spec *")
    nbytes = ffi.sizeof("struct vscsi_load_spec")
    while len(wanted := sys.stdin.buffer.read(nbytes)) == nbytes:
        ffi.buffer(spec)[:] = wanted
        result = ffi.new("struct vscsi_load_result *")
        # Write back, as the target has it unless told otherwise: else every write would be durable at once.
        status = lib.vt_direct_load(fd, lib.VT_LU_WRITE_CACHE, lib.VT_ENGINE_AUTO, nowait, spec, result)
        sys.stdout.buffer.write(int(status).to_bytes(4, sys.byteorder, signed=True) + bytes(ffi.buffer(result)))
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
