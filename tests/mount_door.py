# SPDX-License-Identifier: BSD-2-Clause
"""Helper: a target in this process, and its LUNs as the file door's operations, without a kernel."""

import errno
import os

import pytest
from real_server import Target

from initiator import Initiator
from initiator.mount.disk import Disk
from initiator.mount.files import Files


class Door:
    """A target in this process, and its LUNs as files."""

    def __init__(self, folder, *luns, **options):
        self.target = Target(folder / "s", *luns)
        self.initiator = Initiator(folder / "s", memory_nbytes=16 << 20)
        numbers = self.initiator.luns()
        self.disks = {f"lun{number}": Disk(self.initiator.lun(number), **options) for number in numbers}
        self.files = Files(self.disks)

    def open(self, name="lun0", flags=os.O_RDWR):
        return self.files.open(f"/{name}", flags)

    def close(self):
        self.initiator.close()
        if self.target.thread.is_alive():
            self.target.stop()


def fails(number, function, *arguments):
    with pytest.raises(OSError) as info:
        function(*arguments)
    assert errno.errorcode[info.value.errno] == errno.errorcode[number]
