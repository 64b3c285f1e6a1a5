# SPDX-License-Identifier: BSD-2-Clause
"""Loads `initiator._native` and refuses a stale binary.

Exports its `ffi` and `lib`, which include those of `vscsi.native`. Knows no policy.
"""

from initiator._native import ffi, lib
from vscsi.native import check_stamp

check_stamp("initiator._native", ffi.string(lib.vi_stamp()).decode())

__all__ = ["ffi", "lib"]
