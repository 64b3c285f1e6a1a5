# SPDX-License-Identifier: BSD-2-Clause
"""vscsi-initiator as its users run it: real processes, real texts, real exit statuses, good days and bad ones."""

import hashlib
import json
import os
import pty
import re
import subprocess
import time

import pytest
from programs import BIN, one_line, run

INITIATOR = BIN / "vscsi-initiator"


def terminal():
    """Both ends of a new pseudo-terminal."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminals here: {error}")


# ---- what is asked for ----


def test_readcap(disk):
    assert disk.initiator("readcap").text == (
        "Read Capacity results:\n"
        "   Last LBA=16383 (0x3fff), Number of logical blocks=16384\n"
        "   Logical block length=512 bytes\n"
        "Hence:\n"
        "   Device size: 8388608 bytes, 8.0 MiB, 0.01 GB\n"
    )
    assert disk.initiator("readcap", "--brief").text == "0x4000 0x200\n"
    assert disk.initiator("readcap", "--raw").out == bytes.fromhex("00003fff00000200")
    assert disk.initiator("readcap", "--hex").text.startswith(" 00     00 00 3f ff 00 00 02 00")
    long = disk.initiator("readcap", "--long").text
    assert "   Protection: prot_en=0, p_type=0, p_i_exponent=0\n" in long
    answer = json.loads(disk.initiator("readcap", "-l", "--json").text)
    assert answer["logical_blocks"] == 16384
    assert answer["device_size"] == 8 << 20
    assert answer["lbpme"] in (0, 1)


def test_readcap_of_a_large_disk_changes_to_16(serve):
    target = serve("0=null:3T")
    assert "Number of logical blocks=6442450944" in target.initiator("readcap").text
    assert target.initiator("readcap", "--brief").text == "0x180000000 0x200\n"


def test_luns(serve, folder):
    target = serve("1=mem:1M", "7=null:1M", "300=mem:1M,bs=4096")
    assert target.initiator("luns").text == (
        "Lun list length = 24 which implies 3 lun entries\n"
        "Report luns [select_report=0x0]:\n"
        "    0001000000000000\n    0007000000000000\n    412c000000000000\n"
    )
    assert target.initiator("luns", "-q").text == "0001000000000000\n0007000000000000\n412c000000000000\n"
    assert [one["number"] for one in json.loads(target.initiator("luns", "-j").text)["luns"]] == [1, 7, 300]
    assert target.initiator("luns", "--raw").out[:4] == bytes([0, 0, 0, 24])


def test_list(serve):
    target = serve("0=mem:1M,vendor=ACME,product=rocket", "12=mem:64M,bs=4096")
    lines = target.initiator("list").text.splitlines()
    assert lines[0].startswith("[0:0:0:0]    disk    ACME     rocket           ")
    assert lines[0].endswith(f"  vscsi+unix:///0?socket={target.socket}")
    assert lines[1].startswith("[0:0:0:12]   disk    VSCSI    ")
    sized = target.initiator("list", "--size").text.splitlines()
    assert sized[1].endswith("67.1MB")
    # The URI it prints leads to the logical unit.
    uri = lines[1].split()[-1]
    assert run(INITIATOR, "-u", uri, "readcap", "--brief").text == "0x4000 0x1000\n"


def test_list_verbose_tells_who_the_target_is(disk):
    shown = disk.initiator("list", "-v").text
    assert re.search(rf"^target: .+ \d+\.\d+\.\d+, .*Linux.*, pid {disk.process.pid}, at ", shown, re.M), shown
    assert re.search(r"target port id: +[0-9a-f]{32}$", shown, re.M)
    assert re.search(r"initiator port id: +[0-9a-f]{32}$", shown, re.M)
    assert re.search(r"largest transfer: +\d+ bytes$", shown, re.M)
    assert re.search(r"credits: +254$", shown, re.M)
    who = json.loads(disk.initiator("list", "--json").text)["target"]
    assert who["pid"] == disk.process.pid
    assert who["request_limit"] == 254
    assert who["max_transfer"] >= 8 << 20


def test_turs(disk):
    quiet = disk.initiator("turs")
    assert (quiet.status, quiet.text) == (0, "")
    many = disk.initiator("turs", "-n", "50", "--time").text
    assert "Completed 50 Test Unit Ready commands with 0 errors" in many
    assert re.search(r"time to perform commands was \d+\.\d{6} secs; \d+ operations/sec", many)
    assert json.loads(disk.initiator("turs", "-j").text)["ready"] is True


def test_turs_not_ready(disk):
    assert disk.initiator("raw", "1b 00 00 00 00 00").status == 0, "START STOP UNIT, stop"
    one_line(disk.initiator("turs"), 2, "turs: not ready")
    many = disk.initiator("turs", "-n", "3")
    assert many.status == 2
    assert "with 3 errors" in many.text


# ---- reading and writing ----


@pytest.mark.parametrize("protocol", ["srp", "blkif"])
def test_read(disk, protocol):
    whole = disk.initiator("--protocol", protocol, "read")
    assert whole.out == disk.pattern
    part = disk.initiator("read", "--protocol", protocol, "--lba", "0x100", "--blocks", "3")
    assert part.out == disk.pattern[0x100 * 512 : 0x103 * 512]
    file = disk.folder / "out"
    assert disk.initiator("--protocol", protocol, "read", file, "--skip", "16380").out == b""
    assert file.read_bytes() == disk.pattern[16380 * 512 :]


def test_read_hex(disk):
    dump = disk.initiator("read", "--lba", "1", "--blocks", "1", "--hex").text.splitlines()
    assert len(dump) == 32
    assert dump[0] == " 00     00 00 00 01 00 00 00 01  00 00 00 01 00 00 00 01    ................"
    assert dump[16].startswith(" 100    00 00 00 01")
    plain = disk.initiator("read", "--lba", "1", "--blocks", "1", "-HH").text
    assert bytes.fromhex(plain) == disk.pattern[512:1024]


@pytest.mark.parametrize("protocol", ["srp", "blkif"])
def test_write_from_file_and_pipe(disk, protocol):
    data = os.urandom(3 << 20)
    file = disk.folder / "in"
    file.write_bytes(data)
    done = disk.initiator("--lun", "0", "--protocol", protocol, "write", "--lba", "8", "--verify", file)
    assert (done.status, done.err, done.out) == (0, "", b"")
    assert disk.image.read_bytes() == disk.pattern[: 8 * 512] + data + disk.pattern[8 * 512 + len(data) :]
    piped = os.urandom(5000)
    done = disk.initiator("--lun", "0", "--protocol", protocol, "write", "--fua", data=piped)
    assert done.status == 0, done.err
    # The last block is filled up with zeros.
    assert disk.image.read_bytes()[:5120] == piped + bytes(120)


def test_write_takes_no_more_than_asked_for(disk):
    done = disk.initiator("--lun", "0", "write", "--lba", "4", "--blocks", "2", data=b"\xaa" * 5000)
    assert done.status == 0, done.err
    assert disk.image.read_bytes()[: 8 * 512] == disk.pattern[:2048] + b"\xaa" * 1024 + disk.pattern[3072:4096]
    short = disk.initiator("--lun", "0", "write", "--blocks", "4", data=b"\xbb" * 1024)
    one_line(short, 15, "1024 bytes before 4 blocks")


def test_write_4096(serve, folder):
    target = serve(f"3={folder / 'new.img'},size=4M,bs=4096")
    data = os.urandom(1 << 20)
    assert target.initiator("write", "--verify", "--lba", "16", data=data, lun=3).status == 0
    assert (folder / "new.img").read_bytes()[65536 : 65536 + len(data)] == data
    assert hashlib.sha256(target.initiator("read", "--lba", "16", "--blocks", "256", lun=3).out).digest() == (
        hashlib.sha256(data).digest()
    )


@pytest.mark.parametrize("protocol", ["srp", "blkif"])
def test_sync(disk, protocol):
    assert disk.initiator("--protocol", protocol, "sync").status == 0


def test_progress_bar_only_on_a_terminal(disk):
    leader, follower = terminal()
    process = subprocess.Popen(
        [INITIATOR, "--socket", disk.socket, "read", disk.folder / "out"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.wait(30) == 0
    assert b"read" in shown
    assert b"8.4/8.4 MB" in shown or b"8.0/8.0 MiB" in shown
    assert disk.initiator("read", disk.folder / "out").err == ""


def test_read_refuses_a_terminal(disk):
    leader, follower = terminal()
    done = subprocess.run(
        [INITIATOR, "--socket", disk.socket, "read"],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(follower)
    os.close(leader)
    assert done.returncode == 31
    assert "terminal" in done.stderr


# ---- raw ----


def test_raw(disk):
    shown = disk.initiator("raw", "12", "00", "00", "00", "24", "00", "--in", "36")
    assert shown.status == 0
    assert shown.text.startswith("Received 36 bytes of data:\n 00     00 00 06 ") or "VSCSI" in shown.text
    assert "SCSI Status: GOOD" in shown.err
    more = disk.initiator("raw", "120000002400", "--in", "100")
    assert "data-in: residual under 64 bytes" in more.err
    file = disk.folder / "out"
    assert disk.initiator("raw", "120000002400", "--in", "36", "-o", file).text == ""
    assert file.read_bytes() == disk.initiator("inquiry", "--raw", "-m", "36").out


def test_raw_shows_what_others_absorb_if_asked(disk):
    assert disk.initiator("raw", "00 00 00 00 00 00").status == 0
    shown = disk.initiator("raw", "--keep-attention", "00 00 00 00 00 00")
    assert shown.status == 6
    assert "unit attention" in shown.err
    assert "CHECK CONDITION" in shown.err


def test_raw_writes(disk):
    block = disk.folder / "block"
    block.write_bytes(b"\xcc" * 512)
    first = disk.initiator("raw", "--keep-attention", "2a 00 00 00 00 05 00 00 01 00", "--out", block)
    assert first.status == 6, "a new nexus: unit attention first"
    assert disk.image.read_bytes() == disk.pattern
    second = disk.initiator("raw", "2a 00 00 00 00 05 00 00 01 00", "--out", block)
    assert second.status == 0, second.err
    assert disk.image.read_bytes()[2560:3072] == b"\xcc" * 512
    for attribute in ("simple", "ordered", "head-of-queue"):
        command = ["raw", "12 00 00 00 05 00", "--in", "5", "--task-attribute", attribute]
        assert disk.initiator(*command).status == 0


def test_verbose_shows_cdb_and_sense(disk):
    once = disk.initiator("-v", "turs")
    assert "TEST UNIT READY cdb: [00 00 00 00 00 00]" in once.err
    assert "sense data" not in once.err
    twice = disk.initiator("turs", "-vv")
    assert twice.status == 0
    assert "unit attention" in twice.err, "-vv shows even what was absorbed"


# ---- as a whole ----


def test_default_target_is_found(folder):
    env = {"XDG_RUNTIME_DIR": str(folder)}
    process = subprocess.Popen(
        [BIN / "vscsi-target", "--lun", "0=mem:1M", "--pidfile", folder / "pid"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **env},
    )
    try:
        end = time.monotonic() + 30
        while not (folder / "pid").exists() and time.monotonic() < end:
            time.sleep(0.01)
        done = run(INITIATOR, "inquiry", env=env)
        assert done.status == 0, done.err
        assert "Vendor identification: VSCSI" in done.text
        uri = f"vscsi+unix:///0?socket={folder}/vscsi/default.sock"
        assert run(INITIATOR, "readcap", "-b", env={"VSCSI_URI": uri}).text == "0x800 0x200\n"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_help_and_version():
    helped = run(INITIATOR, "--help")
    assert helped.status == 0
    for word in ("inquiry", "readcap", "examples:", "--uri"):
        assert word in helped.text
    for command in ("inquiry", "list", "luns", "raw", "read", "readcap", "sync", "turs", "write"):
        text = run(INITIATOR, command, "--help").text
        assert "examples:" in text
        assert f"vscsi-initiator {command}" in text.replace("--lun 0 ", "").replace("--protocol blkif ", "")
    assert re.fullmatch(r"vscsi-initiator \d+\.\d+\.\d+\n", run(INITIATOR, "--version").text)


def test_captive_mode(folder):
    command = 'vscsi-initiator -u "$uri" readcap --brief'
    env = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = run(BIN / "vscsi-target", "-U", "-", "--lun", "0=mem:2M", "--run", command, env=env)
    assert (done.status, done.text) == (0, "0x1000 0x200\n"), done.err
    done = run(BIN / "vscsi-target", "-U", "-", "--lun", "0=mem:2M", "--run", "exit 9", env=env)
    assert done.status == 9
    failing = 'vscsi-initiator -u "$uri" read --lba 99999 --blocks 1'
    assert run(BIN / "vscsi-target", "-U", "-", "--lun", "0=mem:2M", "--run", failing, env=env).status == 22


def test_starts_quickly(disk):
    times = []
    for _ in range(5):
        started = time.monotonic()
        assert disk.initiator("inquiry").status == 0
        times.append(time.monotonic() - started)
    # A bound for a busy machine; what it is on a quiet one stands in README.md.
    assert min(times) < 1.0, times
