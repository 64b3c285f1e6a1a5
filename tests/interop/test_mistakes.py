# SPDX-License-Identifier: BSD-2-Clause
"""vscsi-initiator on bad days: mistakes, targets that are not there or go away. One line, the right status."""

import signal
import subprocess

import pytest
from programs import BIN, one_line, run

INITIATOR = BIN / "vscsi-initiator"


def test_no_target(folder):
    one_line(run(INITIATOR, "--socket", folder / "none.sock", "inquiry"), 15, "none.sock")
    env = {"XDG_RUNTIME_DIR": str(folder)}
    one_line(run(INITIATOR, "inquiry", env=env), 15, str(folder))


def test_unknown_lun(disk):
    one_line(disk.initiator("--lun", "9", "turs"), 5, "logical unit not supported")
    assert "PQual=3" in disk.initiator("--lun", "9", "inquiry").text
    assert disk.initiator("--lun", "9", "read", "--blocks", "1").status == 5
    blkif = disk.initiator("--lun", "9", "--protocol", "blkif", "read", "--blocks", "1")
    assert blkif.status == 15, blkif.err


def test_out_of_range(disk):
    one_line(disk.initiator("read", "--lba", "16384", "--blocks", "1"), 22, "out of range")
    one_line(disk.initiator("read", "--lba", "16383", "--blocks", "2"), 22, "out of range")
    one_line(disk.initiator("--lun", "0", "write", "--lba", "16383", data=bytes(1024)), 22)
    one_line(disk.initiator("read", "--lba", "1M"), 22)
    assert disk.image.read_bytes() == disk.pattern


@pytest.mark.parametrize("protocol", ["srp", "blkif"])
def test_what_cannot_be_read_whole_touches_no_file(disk, protocol):
    out = disk.folder / "out"
    for blocks in ("16385", "0xffffffffffffffff"):
        one_line(disk.initiator("--protocol", protocol, "read", "--blocks", blocks, out), 22)
    one_line(disk.initiator("--protocol", protocol, "read", "--lba", "16385", out), 22)
    assert not out.exists()


def test_read_only(serve, folder):
    image = folder / "ro.img"
    image.write_bytes(bytes(1 << 20))
    target = serve(f"0={image},ro")
    one_line(target.initiator("--lun", "0", "write", data=bytes(512)), 7, "write protected")
    one_line(target.initiator("--lun", "0", "--protocol", "blkif", "write", data=bytes(512)), 7, "write protected")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["raw", "zz"], 1, "hex"),
        (["raw", "12"], 1, "6 to"),
        (["inquiry", "--page", "nonsense"], 1, "nonsense"),
        (["inquiry", "--page", "0x100"], 1, "0x100"),
        (["read", "--lba", "12q"], 1, "12q"),
        (["readcap", "--hex", "--raw"], 1, "not allowed"),
        (["nonsense"], 1, "nonsense"),
        ([], 1, "COMMAND"),
        (["--lun", "99999", "inquiry"], 1, "99999"),
        (["--timeout", "0", "inquiry"], 1, "0"),
        (["--uri", "http://x", "inquiry"], 1, "http://x"),
        (["--protocol", "blkif", "inquiry"], 31, "blkif"),
        (["--protocol", "nfs", "read"], 1, "nfs"),
        (["--uri", "vscsi+unix://[/0", "inquiry"], 1, "vscsi+unix://["),
        (["write", "/dev/null"], 31, "name the logical unit"),
        (["--protocol", "blkif", "sync", "--lba", "3"], 31, "whole disk"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_line(disk, arguments, status, words):
    one_line(disk.initiator(*arguments), status, words)


def test_files_that_are_not_there(disk):
    one_line(disk.initiator("--lun", "0", "write", disk.folder / "none"), 15, "none")
    one_line(disk.initiator("read", disk.folder / "none" / "file"), 15, "none")
    one_line(disk.initiator("raw", "120000002400", "--out", disk.folder / "none"), 15, "none")


@pytest.mark.parametrize(
    ("command", "descriptor", "name"),
    [("inquiry", 1, "stdout"), ("read", 1, "stdout"), ("write", 0, "stdin"), ("inquiry --raw", 1, "stdout")],
)
def test_a_closed_standard_stream(disk, command, descriptor, name):
    line = f"exec {INITIATOR} --socket {disk.socket} --lun 0 {command} {descriptor}>&-"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (59, f"vscsi-initiator: {name}: Bad file descriptor\n")
    assert disk.image.read_bytes() == disk.pattern


def test_a_closed_stderr_is_no_socket(disk):
    line = f"exec {INITIATOR} --socket {disk.socket} --lun 9 turs 2>&-"
    assert subprocess.run(["sh", "-c", line], timeout=60, check=False).returncode == 5


@pytest.mark.parametrize("command", ["inquiry", "read", "read --hex --blocks 4", "luns --raw"])
def test_a_full_stdout_is_named(disk, command):
    line = f"exec {INITIATOR} --socket {disk.socket} {command} > /dev/full"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (78, "vscsi-initiator: stdout: No space left on device\n")


def test_a_full_file_is_named(disk):
    one_line(disk.initiator("read", "/dev/full"), 78, "/dev/full: No space left")


def test_closed_pipe_is_quiet(disk):
    reading = subprocess.Popen(
        [INITIATOR, "--socket", disk.socket, "read"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    )
    assert reading.stdout.read(10) == disk.pattern[:10]
    reading.stdout.close()
    assert reading.stderr.read() == b""
    assert reading.wait(30) == 128 + signal.SIGPIPE


def reading(target):
    """A program in the middle of reading."""
    process = subprocess.Popen(
        [INITIATOR, "--socket", target.socket, "read"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.read(1) == "\0"
    return process


def test_target_killed_under_a_read(serve):
    target = serve("0=null:1T")
    process = reading(target)
    target.process.kill()
    target.process.wait()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 99, err
    assert err.count("\n") == 1
    assert err.startswith("vscsi-initiator: read: ")


def test_target_stopped_under_a_read(serve):
    target = serve("0=null:1T")
    process = reading(target)
    assert target.stop() == 0
    _, err = process.communicate(timeout=60)
    assert process.returncode == 99, err
    assert err.count("\n") == 1
