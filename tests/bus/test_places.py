# SPDX-License-Identifier: BSD-2-Clause
"""Where the bus listens: default path, hostile folders, stale and live sockets, inherited sockets."""

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vscsi.bus import places
from vscsi.bus.local import BusError, InitiatorConnection, Listener, default_socket_path

MEMORY = 1 << 20

SERVE = """
import sys, pathlib, time
from vscsi.bus.local import Listener
listener = Listener(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_default_is_below_the_runtime_directory(runtime: Path) -> None:
    path = default_socket_path()
    assert path == runtime / "vscsi" / "default.sock"
    assert not path.parent.exists()
    listener = Listener()
    assert listener.path == path
    assert path.parent.stat().st_mode & 0o777 == 0o700
    listener.close()
    Listener().close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("variable", [None, "", "relative/path", "/nonexistent-folder", "/proc/self/status"])
def test_default_without_a_runtime_directory(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", variable)
    assert default_socket_path() == Path(f"/tmp/vscsi-{os.getuid()}/default.sock")


def test_runtime_directory_that_others_may_write_is_ignored(runtime: Path) -> None:
    runtime.chmod(0o777)
    assert default_socket_path().parent == Path(f"/tmp/vscsi-{os.getuid()}")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_runtime_directory_of_another_user_is_ignored(runtime: Path) -> None:
    os.chown(runtime, 12345, 12345)
    assert default_socket_path().parent == Path("/tmp/vscsi-0")


def test_default_folder_open_to_others_is_not_used(runtime: Path) -> None:
    (runtime / "vscsi").mkdir()
    (runtime / "vscsi").chmod(0o755)
    for attempt in (Listener, InitiatorConnection):
        with pytest.raises(BusError, match="is open to other users; run: chmod 700"):
            attempt()
    assert list((runtime / "vscsi").iterdir()) == []


def test_default_folder_that_is_a_link_is_not_followed(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    (runtime / "vscsi").symlink_to(runtime / "elsewhere")
    for attempt in (Listener, InitiatorConnection):
        with pytest.raises(BusError, match="is not a folder"):
            attempt()
    assert list((runtime / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_default_folder_of_another_user_is_not_used(runtime: Path) -> None:
    (runtime / "vscsi").mkdir(mode=0o700)
    os.chown(runtime / "vscsi", 12345, 12345)
    for attempt in (Listener, InitiatorConnection):
        with pytest.raises(BusError, match="belongs to user 12345"):
            attempt()


def test_two_targets_at_one_path(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    first = Listener(path)
    with pytest.raises(BusError, match=f"^another target is listening at {path}$"):
        Listener(path)
    assert path.is_socket()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    first.close()
    assert list(tmp_path.iterdir()) == []
    Listener(path).close()


def test_socket_of_a_killed_target_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(path)], stdout=subprocess.PIPE, text=True, cwd="/")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(BusError, match="another target is listening"):
        Listener(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.is_socket()
    with pytest.raises(BusError, match="no target is listening at"):
        InitiatorConnection(path, memory_nbytes=MEMORY)
    listener = Listener(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    listener.close()


def test_live_socket_is_respected_even_if_its_lock_was_swept_away(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    first = Listener(path)
    (tmp_path / "t.sock.lock").unlink()
    with pytest.raises(BusError, match="another target is listening"):
        Listener(path)
    assert path.is_socket()
    first.close()


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_text("precious")
    with pytest.raises(BusError, match="it exists and is not a socket"):
        Listener(path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_lock_is_no_way_to_write_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("")
    (tmp_path / "t.sock.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(BusError, match="cannot listen at"):
        Listener(tmp_path / "t.sock")


def test_lock_removed_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    real, swept = fcntl.flock, list[int]()

    def sweep(fd: int, how: int) -> None:
        if not swept:
            swept.append(fd)
            (tmp_path / "t.sock.lock").unlink()
        real(fd, how)

    monkeypatch.setattr(places.fcntl, "flock", sweep)
    first = Listener(tmp_path / "t.sock")
    with pytest.raises(BusError, match="another target"):
        Listener(tmp_path / "t.sock")
    first.close()


@pytest.mark.parametrize("attempt", [Listener, InitiatorConnection])
def test_path_too_long_for_a_socket(tmp_path: Path, attempt: type) -> None:
    with pytest.raises(BusError, match="longer than 107 bytes"):
        attempt(tmp_path / ("x" * 120))


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r"cannot listen at .*there is no folder"):
        Listener(tmp_path / "none" / "t.sock")
    with pytest.raises(BusError, match="no target is listening at"):
        InitiatorConnection(tmp_path / "none" / "t.sock", memory_nbytes=MEMORY)


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    (tmp_path / "t.sock").mkdir()
    with pytest.raises(BusError):
        Listener(tmp_path / "t.sock")
    (tmp_path / "t.sock").rmdir()
    with pytest.raises(BusError):
        InitiatorConnection(tmp_path / "t.sock", memory_nbytes=MEMORY)
    with pytest.raises(BusError):
        InitiatorConnection(tmp_path / "t.sock", memory_nbytes=0)
    assert list(tmp_path.iterdir()) == []
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_inherited_socket(tmp_path: Path) -> None:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(tmp_path / "i.sock"))
    made.listen()
    os.set_inheritable(made.fileno(), True)
    listener = Listener(fd=made.detach())
    assert listener.path == tmp_path / "i.sock"
    assert not os.get_inheritable(listener.fileno())
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "i.sock"))
        connection = listener.accept()
        assert connection is not None
        connection.close()
    listener.close()
    assert (tmp_path / "i.sock").exists(), "whoever made it removes it"


def test_descriptor_limit_is_lifted_but_never_lowered(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        for number in range(2):
            Listener(tmp_path / f"{number}.sock").close()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            assert soft == (min(hard, 1 << 16) if hard != resource.RLIM_INFINITY else 1 << 16)
            assert hard == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_inherited_descriptor_of_another_kind() -> None:
    with socket.socket(socket.AF_INET) as other:
        with pytest.raises(BusError, match="is not a Unix stream socket"):
            Listener(fd=other.fileno())
        assert other.getsockname()
    ends = os.pipe()
    with pytest.raises(BusError, match="is not a Unix stream socket"):
        Listener(fd=ends[0])
    for fd in ends:
        os.close(fd)
