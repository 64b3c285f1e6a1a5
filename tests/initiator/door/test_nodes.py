# SPDX-License-Identifier: BSD-2-Clause
"""Names under /dev/vscsi*: which are nodes, and of what. No target is asked."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.door.nodes import PATH, Nodes


def parts(path):
    match = PATH.fullmatch(path)
    return match and (match["initiator"], match["target"], match["lun"], match["block"])


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/dev/vscsi0", (None, None, "0", "")),
        ("/dev/vscsi12b", (None, None, "12", "b")),
        ("/dev/vscsi/backup/3", (None, "backup", "3", "")),
        ("/dev/vscsi@a/3b", ("a", None, "3", "b")),
        ("/dev/vscsi@a-1.x/b_c/16383", ("a-1.x", "b_c", "16383", "")),
        ("/dev/vscsi", None),
        ("/dev/vscsi/3", None),
        ("/dev/vscsi@a3", None),
        ("/dev/vscsi@a", None),
        ("/dev/vscsi0bb", None),
        ("/dev/vscsi0/", None),
        ("/dev/vscsi-1", None),
        ("/dev/vscsi١", None),
        ("/dev/vscsibackup/3", None),
        ("/dev/vscsi0\n", None),
    ],
)
def test_paths(path, want):
    assert parts(path) == want


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True)


@given(st.none() | NAMES, st.none() | NAMES, st.integers(0, 16383), st.booleans())
def test_every_composed_path_comes_apart_again(initiator, target, lun, block):
    path = "/dev/vscsi"
    if initiator is not None:
        path += f"@{initiator}/"
    if target is not None:
        path += f"{target}/" if initiator is not None else f"/{target}/"
    path += f"{lun}{'b' if block else ''}"
    assert parts(path) == (initiator, target, str(lun), "b" if block else "")


@pytest.mark.parametrize("path", ["/dev/vscsi16384", "/dev/vscsi@who/0", "/dev/vscsi/where/0", "/dev/vscsix"])
def test_unknown_names_are_no_such_file(path):
    nodes = Nodes({"default": None}, {"default": None})
    with pytest.raises(OSError) as caught:
        nodes.find(path)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("number", [0, 1, 1 << 31])
def test_file_that_was_never_opened(number):
    with pytest.raises(OSError) as caught:
        Nodes({"default": None}, {"default": None}).file(number)
    assert caught.value.errno == errno.EBADF
