# SPDX-License-Identifier: BSD-2-Clause
"""The stamp: a hash of every C and header file, compiled into the binaries and compared at import.

Imports nothing but the standard library; used by the build and by `vscsi.native`.
"""

import hashlib
from pathlib import Path

FOLDERS = ("vscsi/native", "target/native", "initiator/native", "initiator/door")


def stamp(root: Path) -> str:
    """Hash (16 hex digits) of the C sources below `root`, the folder that holds the packages."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.[ch]")):
            digest.update(f"{folder}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
