# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-target` as its users see it: options, messages, exit statuses, captive mode, signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from target.cli import main, uri_of
from vscsi.cli import ExitStatus

PROGRAM = [sys.executable, "-P", "-c", "import sys; from target.cli import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder


def target(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *args], capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def start(*args: str, ready: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([*PROGRAM, "-P", str(ready), *args], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ready.exists(), process.communicate()[1]
    return process


# ---- mistakes ----


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ([], ExitStatus.SYNTAX, "nothing to serve: give at least one --lun"),
        (["--lun", "disk.img"], ExitStatus.SYNTAX, "expected N=STORE"),
        (["--lun", "0=mem:1M", "--lun", "0=mem:1M"], ExitStatus.SYNTAX, "lun 0 is given twice"),
        (["--lun", "0=mem:1M,colour=red"], ExitStatus.SYNTAX, "unknown key 'colour'"),
        ([f"--lun={n}=null:1M" for n in range(257)], ExitStatus.SYNTAX, "257 logical units are too many: at most 256"),
        (["--lun", "0=mem:1M", "--colour"], ExitStatus.SYNTAX, "--colour"),
        (["--lun", "0=mem:1M", "-t", "0"], ExitStatus.SYNTAX, "out of range"),
        (["--lun", "0=mem:1M", "-D", "x.y=1"], ExitStatus.SYNTAX, "unknown debug flag 'x.y' (known: "),
        (["--lun", "0=mem:1M", "-D", "worker.trace=x"], ExitStatus.SYNTAX, "'x' is not a number"),
        (["--lun", "0=mem:1M", "--engine", "magic"], ExitStatus.SYNTAX, "magic"),
        (["--lun", "0=mem:1M", "--check", "--run", "true"], ExitStatus.CONTRADICTING_OPTIONS, "--check"),
        (["--lun", "0=/no/such/file"], ExitStatus.FILE, "lun 0: /no/such/file: no such file"),
        (["--lun", "0=/tmp"], ExitStatus.FILE, "neither a file nor a block device"),
        (["--lun", "0=mem:1000"], ExitStatus.FILE, "not a multiple of bs=512"),
        (["--lun", "0=mem:1M", "-U", "/no/such/folder/socket"], ExitStatus.FILE, "/no/such/folder"),
        (["--lun", "0=mem:1M", "-U", "/tmp/" + "x" * 200], ExitStatus.FILE, "x" * 100),
        (["--lun", "0=mem:1M", "-U", "-", "-P", "/no/such/folder/pid"], ExitStatus.FILE, "cannot write the pid file"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(
    args: list[str], status: ExitStatus, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        got = main(args)
    except SystemExit as end:
        got = end.code  # type: ignore[assignment]
    out, err = capfd.readouterr()
    assert got == status
    assert words in err
    assert err.startswith("vscsi-target: ")
    # a target that got as far as listening has said so first
    assert [line for line in err.splitlines() if "vscsi+unix:" not in line] == err.splitlines()[-1:]
    assert out == ""


def test_an_image_in_use(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    process = start("--lun", f"0={image},size=1M", ready=tmp_path / "pid")
    done = target("--lun", f"0={image}", "-U", "-")
    assert (done.returncode, len(done.stderr.splitlines())) == (ExitStatus.FILE, 1)
    assert "locked" in done.stderr
    done = target("--lun", "0=mem:1M")
    assert (done.returncode, len(done.stderr.splitlines())) == (ExitStatus.FILE, 1)
    assert "another target is listening" in done.stderr
    process.terminate()
    assert process.wait(30) == 0


# ---- words ----


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for words in ("examples:", "mem:SIZE", "physical=", "worker.trace", "Exit statuses", "--exit-with-parent"):
        assert words in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import vscsi

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"vscsi-target {vscsi.__version__}\n"


def test_dump_stores(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dump-stores"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["crypt", "file", "mem", "null", "sim"]


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(bytes(1024))
    assert main(["--check", "--lun", "3=mem:1M,bs=4096", "--lun", f"0={tmp_path}/a", "-r"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"lun 0: {tmp_path}/a, 2 blocks of 512 bytes, read-only",
        "lun 3: mem:1M, 256 blocks of 4096 bytes, read-only",
    ]


@pytest.mark.parametrize(
    "more",
    [["--check"], ["-U", "/no/such/folder/s"], ["--lun", "1=/no/such/file"], ["-P", "/no/such/folder/pid"]],
    ids=lambda more: more[0],
)
def test_an_image_that_was_never_served_is_not_left_behind(tmp_path: Path, more: list[str]) -> None:
    there = tmp_path / "there"
    there.write_bytes(bytes(512))
    done = target("--lun", f"0={tmp_path}/new,size=1M", "--lun", f"2={there},size=1M", *more)
    assert done.returncode == (0 if more == ["--check"] else ExitStatus.FILE)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["there"]


def test_an_image_that_was_served_stays(tmp_path: Path) -> None:
    assert target("--lun", f"0={tmp_path}/new,size=1M", "--run", "exit 3").returncode == 3
    assert (tmp_path / "new").stat().st_size == 1 << 20


def test_a_socket_in_a_missing_folder(tmp_path: Path) -> None:
    done = target("--lun", "0=mem:1M", "-U", f"{tmp_path}/none/s")
    assert done.returncode == ExitStatus.FILE
    assert done.stderr == f"vscsi-target: cannot listen at {tmp_path}/none/s: there is no folder {tmp_path}/none\n"


def test_uri() -> None:
    assert uri_of(Path("/run/x y/s.sock"), 3) == "vscsi+unix:///3?socket=/run/x%20y/s.sock"


# ---- running ----


def test_runs_until_told_to_stop(tmp_path: Path, runtime: Path) -> None:
    pid = tmp_path / "pid"
    process = start("--lun", "0=mem:1M", "--lun", "5=null:1M", ready=pid)
    socket = runtime / "vscsi" / "default.sock"
    assert int(pid.read_text()) == process.pid
    assert socket.is_socket()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.splitlines() == [
        f"vscsi-target: lun 0: mem:1M, 2048 blocks of 512 bytes: vscsi+unix:///0?socket={socket}",
        f"vscsi-target: lun 5: null:1M, 2048 blocks of 512 bytes: vscsi+unix:///5?socket={socket}",
    ]
    assert not pid.exists()
    assert not socket.exists()


def test_log_null_says_nothing(tmp_path: Path) -> None:
    process = start("--lun", "0=mem:1M", "--log=null", "-U", "-", ready=tmp_path / "pid")
    process.terminate()
    assert process.communicate(timeout=30) == (None, "")
    assert process.returncode == 0


@pytest.mark.parametrize("engine", ["auto", "pool"])
def test_engines(tmp_path: Path, engine: str) -> None:
    assert target("--lun", "0=mem:1M", "--engine", engine, "--run", "exit 3").returncode == 3


def test_captive_mode(tmp_path: Path) -> None:
    script = 'test -S "$unixsocket" && echo "$uri" "$unixsocket" "$VSCSI_URI"; exit 36'
    done = target("--lun", "2=mem:1M", "--lun", "7=mem:1M", "--run", script)
    assert done.returncode == 36
    uri, socket, same = done.stdout.split()
    assert uri == same == f"vscsi+unix:///2?socket={socket}"
    assert not Path(socket).exists()
    assert not Path(socket).parent.exists()
    assert done.stderr == ""


def test_captive_mode_with_a_socket_of_ones_own(tmp_path: Path) -> None:
    done = target("--lun", "0=mem:1M", "-U", f"{tmp_path}/s", "--run", 'echo "$unixsocket"')
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/s\n")


def test_paths_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff \xfc")
    script = 'printf "%s " "$uri"; vscsi-initiator turs && vscsi-initiator list'
    spec, socket = f"{tmp_path}/{name}.img,size=1M", f"{tmp_path}/{name}"
    done = target("--lun", f"0={spec}", "-U", socket, "--run", script, errors="surrogateescape")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[0] == words[-1] == f"vscsi+unix:///0?socket={tmp_path}/%FF%20%FC"
    check = target("--lun", f"0={spec}", "--check", errors="surrogateescape")
    assert (check.returncode, check.stdout) == (0, f"lun 0: {tmp_path}/{name}.img, 2048 blocks of 512 bytes\n")


def test_a_relative_socket_is_named_in_full(tmp_path: Path) -> None:
    done = target("--lun", "0=mem:1M", "-U", "s", "--run", 'echo "$uri"', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"vscsi+unix:///0?socket={tmp_path}/s\n")


def test_the_captive_dies_with_us_and_by_its_signal(tmp_path: Path) -> None:
    done = target("--lun", "0=mem:1M", "--run", "kill -9 $$")
    assert done.returncode == 128 + 9
    pid = tmp_path / "child"
    process = start("--lun", "0=mem:1M", "--run", f"echo $$ > {pid}; exec sleep 100", ready=tmp_path / "pid")
    while not pid.exists() or not pid.read_text():
        time.sleep(0.01)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_exit_with_parent(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    command = [*PROGRAM, "--lun", "0=mem:1M", "--exit-with-parent", "-P", str(ready)]
    parent = (
        "import subprocess, sys, time, pathlib\n"
        f"process = subprocess.Popen({command!r}, stderr=subprocess.DEVNULL)\n"
        f"while not pathlib.Path({str(ready)!r}).exists() and process.poll() is None: time.sleep(0.01)\n"
    )
    subprocess.run([sys.executable, "-c", parent], check=True, timeout=60)
    deadline = time.monotonic() + 30
    while ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not ready.exists(), "the target outlived its parent"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--max-initiator-memory=1M", "more memory than the 1048576 bytes that this target maps for one initiator"),
        ("--max-memory=2M", "more memory than the 2097152 bytes"),
        ("--max-initiator-channels=1", "no more than 1 channels for one connection"),
        ("--max-initiator-nexuses=1", "no more than 1 nexuses for one connection"),
        ("--max-connections=1", "1 connections already"),
    ],
)
def test_limits_are_the_users_to_choose(option: str, words: str) -> None:
    script = (
        f"{sys.executable} -P -c 'import os; from initiator import Initiator; from initiator.vbd import Vbd\n"
        'path = os.environ["unixsocket"]\n'
        "one = Initiator(path, channels=2)\n"
        "from bus_initiator import Raw, RawVbd\n"
        "raw = Raw(path); raw.srp().login(); vbd = RawVbd(raw); vbd.connect()\n"
        'assert vbd.state == 4, vbd.read("error")\''
    )
    tests = str(Path(__file__).resolve().parents[1])
    done = target("--lun", "0=mem:1M", option, "--run", script, env=os.environ | {"PYTHONPATH": tests})
    assert done.returncode != 0
    assert words in done.stderr
