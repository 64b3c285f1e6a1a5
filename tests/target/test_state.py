# SPDX-License-Identifier: BSD-2-Clause
"""Documents that outlive the target: whole or not at all, and never in the way of an image that others may serve."""

import os
from pathlib import Path

import pytest

from target.lu import open_lu
from target.lunspec import parse
from target.protection import Protection
from target.state import State, write_durably
from target.stores import StoreError


def test_what_was_saved_is_loaded_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "disk.img.vscsi"
    state = State(folder)
    assert state.load("reservations") is None
    assert not folder.exists(), "nothing is made before there is something to keep"
    assert state.durable
    state.save("reservations", {"generation": 3, "keys": ["aa"]})
    assert State(folder).load("reservations") == {"generation": 3, "keys": ["aa"]}
    state.remove("reservations")
    state.remove("reservations")
    assert State(folder).load("reservations") is None


def test_memory_keeps_until_the_end() -> None:
    state, document = State(), {"a": [1]}
    assert not state.durable
    state.save("x", document)
    document["a"].append(2)
    assert state.load("x") == {"a": [1]}
    assert state.path("journal") is None
    state.remove("x")
    assert state.load("x") is None


def test_a_save_that_fails_leaves_the_former_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path / "s")
    state.save("x", {"a": 1})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.save("x", {"a": 2})
    monkeypatch.undo()
    assert State(tmp_path / "s").load("x") == {"a": 1}


def test_everything_is_synced_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda *args: (calls.append("rename"), replace(*args))[1])
    write_durably(tmp_path / "f", b"x" * 100000)
    assert calls == ["fsync", "rename", "fsync"]
    assert (tmp_path / "f").read_bytes() == b"x" * 100000


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1]", b"\xff", b"[" * 200_000, b'{"a":' * 200_000])
def test_a_damaged_document_is_set_aside(tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    state = State(tmp_path)
    (tmp_path / "x.json").write_bytes(garbage)
    assert state.load("x") is None
    assert (tmp_path / "x.damaged").read_bytes() == garbage
    assert "cannot be understood" in caplog.text
    assert state.damaged == {"x"}


def test_what_was_set_aside_once_is_not_lost_the_next_time(tmp_path: Path) -> None:
    for garbage in (b"{", b"[", b"("):
        (tmp_path / "x.json").write_bytes(garbage)
        assert State(tmp_path).load("x") is None
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"x.damaged": b"{", "x.damaged2": b"[", "x.damaged3": b"("}


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    for name in ("../x", "a/b", "", "A", "."):
        with pytest.raises(ValueError, match="not a name"):
            State(tmp_path).save(name, {})


def test_where_a_unit_keeps_its_state(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(65536))
    for text, folder in (
        (f"0={image}", tmp_path / "disk.img.vscsi"),
        (f"0={image},ro", None),
        (f"0={image},ro,state={tmp_path}/s", tmp_path / "s"),
        ("0=mem:64k", None),
        (f"0=mem:64k,state={tmp_path}/t", tmp_path / "t"),
    ):
        unit = open_lu(parse(text))
        assert unit.state.folder == folder
        unit.close()
    # A folder that is asked for is made at once, any other when there is something to keep.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.img", "s", "t"]


def test_a_folder_serves_one_unit(tmp_path: Path) -> None:
    shared = f"0=mem:64k,state={tmp_path}/s"
    first = open_lu(parse(shared))
    with pytest.raises(StoreError, match="s: another logical unit keeps its state there"):
        open_lu(parse(shared.replace("0=", "1=")))
    first.close()
    open_lu(parse(shared)).close()


def test_a_folder_made_later_serves_one_unit_too(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(65536))
    unit = open_lu(parse(f"0={image}"))
    other = open_lu(parse(f"1=mem:64k,state={image}.vscsi"))
    with pytest.raises(BlockingIOError):
        unit.state.save("x", {})
    other.close()
    unit.state.save("x", {"a": 1})
    with pytest.raises(StoreError, match="another logical unit"):
        open_lu(parse(f"1=mem:64k,state={image}.vscsi"))
    unit.close()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^state folder .*/no/s: No such file or directory$"):
        open_lu(parse(f"0=mem:64k,state={tmp_path}/no/s"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^state folder .*/file: File exists$"):
        open_lu(parse(f"0=mem:64k,state={tmp_path}/file"))


@pytest.mark.parametrize("scheme", ["", "sim:", "crypt:"])
def test_a_new_image_inherits_nothing_from_one_of_the_same_name(tmp_path: Path, scheme: str) -> None:
    image, spec = tmp_path / "disk.img", f"0={scheme}{tmp_path}/disk.img,size=64k"
    for turn in (1, 2):
        unit = open_lu(parse(f"{spec},protection={turn}"))
        unit.part(Protection).set_type(turn)
        unit.close()
        again = open_lu(parse(spec))
        assert again.protection_type == turn, "the same image keeps it"
        again.close()
        image.unlink()
    unit = open_lu(parse(spec))
    assert unit.protection_type == 0
    unit.close()
    own = ["disk.img.vscsi"] if scheme == "crypt:" else []  # its key
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "disk.img",
        *own,
        "disk.img.vscsi.old1",
        "disk.img.vscsi.old2",
    ]
