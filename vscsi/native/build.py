# SPDX-License-Identifier: BSD-2-Clause
"""Builds the native modules: `vscsi._native`; `target._native` and `initiator._native`, which include it; the door.

Knows where C files are and how they are compiled; run at build time only, so that cffi's compiler is never imported
at run time.
Every C file of a folder belongs to that folder's module; shared C is compiled, hidden, into each.
"""

import os
from pathlib import Path

import cffi
from setuptools import Extension

ROOT = Path(__file__).resolve().parents[2] if "__file__" in globals() else Path.cwd()
STAMP = ROOT / "vscsi" / "native" / "stamp.py"

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wno-unused-function"]
# cffi's generated wrapper is not ours to keep clean of these.
WRAPPER = ["-Wno-unused-parameter", "-Wno-shadow", "-Wno-missing-field-initializers"]


def _stamp() -> str:
    space: dict[str, object] = {"__file__": str(STAMP), "__name__": "stamp"}
    exec(compile(STAMP.read_text(), str(STAMP), "exec"), space)
    return space["stamp"](ROOT)  # type: ignore[operator, no-any-return]


def _module(package: str, cdefs: list[str], *, include: cffi.FFI | None = None, libraries: list[str]) -> cffi.FFI:
    """One cffi module `<package>._native` from the C files in `<package>/native`."""
    here = ROOT / package / "native"
    shared = ROOT / "vscsi" / "native"
    ffi = cffi.FFI()
    if include is not None:
        ffi.include(include)
    for name in cdefs:
        ffi.cdef((here / name).read_text())
    folders = {shared, here}
    sources = sorted(str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.c"))
    sanitize = os.environ.get("VSCSI_SANITIZE", "")
    flags = ["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", *WARNINGS, *WRAPPER]
    link: list[str] = []
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1"]
        link += [f"-fsanitize={sanitize}"]
    if "thread" in sanitize:
        flags += ["-Wno-tsan"]  # fences are beyond it; what they order is atomic all the same
    ffi.set_source(
        f"{package}._native",
        f'#include "{package if package != "vscsi" else "native"}.h"',
        sources=sources,
        depends=sorted(str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.h")),
        include_dirs=[str(folder.relative_to(ROOT)) for folder in sorted(folders)],
        define_macros=[("_GNU_SOURCE", None), ("VSCSI_STAMP", f'"{_stamp()}"')],
        extra_compile_args=flags,
        extra_link_args=link,
        libraries=libraries,
    )
    return ffi


vscsi = _module("vscsi", ["abi.cdef.h", "native.cdef.h"], libraries=[])
target = _module(
    "target",
    ["target.cdef.h", "lu.cdef.h", "channel.cdef.h", "data.cdef.h", "sched.cdef.h", "slow.cdef.h"],
    include=vscsi,
    libraries=["uring", "pthread", "m"],
)
initiator = _module("initiator", ["initiator.cdef.h", "../door/door.cdef.h"], include=vscsi, libraries=["pthread"])


def door() -> Extension:
    """The library that `vscsi-initiator run` preloads: no Python in it, but built and installed like a module."""
    folder = ROOT / "initiator" / "door"
    sanitize = os.environ.get("VSCSI_SANITIZE", "")
    flags = ["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", *WARNINGS, "-U_FORTIFY_SOURCE"]
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1"]
    return Extension(
        "initiator.door.preload",
        sources=sorted(str(path.relative_to(ROOT)) for path in folder.glob("*.c")),
        depends=sorted(str(path.relative_to(ROOT)) for path in folder.glob("*.h")),
        define_macros=[("VSCSI_STAMP", f'"{_stamp()}"')],
        extra_compile_args=flags,
        extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
        py_limited_api=True,
    )
