# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the interop tests: a folder, targets that are stopped after the test, a disk of known bytes."""

import os

import pytest
from programs import Target


@pytest.fixture
def folder(tmp_path_factory):
    """A folder whose name is short enough for a socket."""
    return tmp_path_factory.mktemp("i")


@pytest.fixture
def serve(folder):
    """Starts targets and stops them after the test; each must stop in an orderly way and have logged no traceback."""
    running = []

    def start(*luns, options=()):
        place = folder / str(len(running))
        place.mkdir()
        running.append(Target(place, *luns, options=options))
        return running[-1]

    yield start
    for target in running:
        if target.process.poll() is None:
            assert target.stop() == 0, target.log.read_text()
        assert "Traceback" not in target.log.read_text(), target.log.read_text()


@pytest.fixture
def disk(serve, folder):
    """A target with one 8 MiB disk of known bytes as LUN 0. `image` is its file."""
    image = folder / "disk.img"
    pattern = b"".join(n.to_bytes(4, "big") * 128 for n in range(16384))
    image.write_bytes(pattern)
    target = serve(f"0={image},serial=SER12345")
    target.image = image
    target.pattern = pattern
    return target


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A target that is only asked, by many tests."""
    target = Target(tmp_path_factory.mktemp("q"), "0=mem:8M,serial=SER12345")
    yield target
    assert target.stop() == 0, target.log.read_text()


@pytest.fixture
def two(serve, folder):
    """A target with an image of 4 MiB as LUN 0 (one MiB of it random), and larger disks of 512 and 4096 byte blocks."""
    image = folder / "disk.img"
    content = os.urandom(1 << 20)
    image.write_bytes(content.ljust(4 << 20, b"\0"))
    target = serve(f"0={image}", "1=mem:8M", "2=mem:8M,bs=4096")
    target.content = content.ljust(4 << 20, b"\0")
    return target
