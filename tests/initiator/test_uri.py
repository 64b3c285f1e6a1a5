# SPDX-License-Identifier: BSD-2-Clause
"""URIs of logical units."""

from pathlib import Path

import pytest

from initiator import uri


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("vscsi+unix:///0?socket=/tmp/s", (Path("/tmp/s"), 0)),
        ("vscsi+unix:///16383", (None, 16383)),
        ("vscsi+unix:///", (None, None)),
        ("vscsi+unix:?socket=/a%20b", (Path("/a b"), None)),
    ],
)
def test_parse(text, place):
    assert uri.parse(text) == place


@pytest.mark.parametrize(
    "text",
    ["", "nbd+unix:///", "vscsi+unix://host/0", "vscsi+unix:///x", "vscsi+unix:///-1", "vscsi+unix:///16384",
     "vscsi+unix:///0/1", "vscsi+unix:///0?sock=/x", "vscsi+unix:///0?socket=", "vscsi+unix:///0?socket=a&socket=b",
     "vscsi+unix:///0#x", "vscsi+unix:///²"],
)  # fmt: skip
def test_nonsense(text):
    with pytest.raises(ValueError):
        uri.parse(text)


def test_build_is_the_way_back():
    assert uri.parse(uri.build(7, "/tmp/a b&c")) == (Path("/tmp/a b&c"), 7)
    assert uri.parse(uri.build(7)) == (None, 7)


def test_default(monkeypatch):
    monkeypatch.delenv("VSCSI_URI", raising=False)
    assert uri.default() == (None, None)
    monkeypatch.setenv("VSCSI_URI", "vscsi+unix:///3")
    assert uri.default() == (None, 3)
