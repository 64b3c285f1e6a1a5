# SPDX-License-Identifier: BSD-2-Clause
"""Loads `vscsi._native` and refuses a binary that was not built from the C files beside it.

Exports `ffi` and `lib` of the shared module. Knows no policy.
"""

import functools
from pathlib import Path

from .stamp import stamp

ROOT = Path(__file__).resolve().parents[2]

try:
    from vscsi._native import ffi, lib
except ImportError as error:
    raise ImportError(f"the native modules are not built ({error}); run 'make setup'") from error


@functools.cache
def _expected() -> str:
    return stamp(ROOT)


def check_stamp(module: str, built: str) -> None:
    """Raise ImportError if `built`, the stamp in the binary, is not that of the C files installed beside it."""
    expected = _expected()
    if built != expected:
        raise ImportError(
            f"{module} was built from other C sources (stamp {built}, expected {expected}); run 'make setup'"
        )


check_stamp("vscsi._native", ffi.string(lib.vscsi_stamp()).decode())

__all__ = ["check_stamp", "ffi", "lib"]
