# SPDX-License-Identifier: BSD-2-Clause
"""Loads `target._native` and refuses a stale binary.

Exports its `ffi` and `lib`, which include those of `vscsi.native`. Knows no policy.
"""

from target._native import ffi, lib
from vscsi.native import check_stamp

check_stamp("target._native", ffi.string(lib.vt_stamp()).decode())

__all__ = ["ffi", "lib"]
