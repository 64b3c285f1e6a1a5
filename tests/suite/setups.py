# SPDX-License-Identifier: BSD-2-Clause
"""The LUN set-ups that the conformance suite runs on. Knows LUN specifications; knows no test."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

SIZE = "32M"
"""Small: SANITIZE and FORMAT UNIT must end within the tool's 5 seconds. Room for two times 2048 blocks of 4K."""


@dataclass(frozen=True)
class Setup:
    """`keys` follow the image in vscsi-target's --lun."""

    name: str
    keys: str
    what: str
    scheme: str = "file"
    tests: str = "*"
    """Patterns of those that are worth their time here."""

    def wants(self, test: str) -> bool:
        return any(fnmatchcase(test, pattern) for pattern in self.tests.split())


SETUPS = {
    setup.name: setup
    for setup in (
        Setup("512n", "bs=512,physical=512", "512-byte blocks, thin"),
        Setup("512e", "bs=512,physical=4096", "512-byte blocks on 4096-byte physical blocks, thin"),
        Setup("4Kn", "bs=4096,physical=4096", "4096-byte blocks, thin"),
        Setup("thick", "bs=512,physical=512,discard=off", "no unmapping"),
        Setup("removable", "bs=512,physical=512,removable=on", "a medium that can be ejected"),
        Setup(
            "encrypted",
            "bs=512,physical=512",
            "an image with a key to erase",
            "crypt",
            "Sanitize.* GetLBAStatus.* Read16.* Unmap.* Write16.*",
        ),
        Setup("read-only", "bs=512,physical=512,ro", "write protected"),
    )
}
