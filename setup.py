# SPDX-License-Identifier: BSD-2-Clause
"""The native modules: cffi's hook needs a keyword that pyproject.toml cannot carry. Everything else stands there."""

import runpy

from setuptools import setup

BUILD = "vscsi/native/build.py"

setup(
    cffi_modules=[f"{BUILD}:{module}" for module in ("vscsi", "target", "initiator")],
    ext_modules=[runpy.run_path(BUILD)["door"]()],
)
