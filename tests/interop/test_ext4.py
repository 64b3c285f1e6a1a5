# SPDX-License-Identifier: BSD-2-Clause
"""A real file system, served: copied out through both protocols, written through one, checked by e2fsck."""

import hashlib
import os
import subprocess
import threading

import pytest
from programs import BIN, run, tool


@pytest.fixture
def ext4(folder):
    """A 16 MiB ext4 image with files in it; the folder they came from is `files` beside it."""
    files = folder / "files"
    (files / "sub").mkdir(parents=True)
    for number in range(40):
        (files / "sub" / f"file{number}").write_bytes(os.urandom(1 + number * 3001))
    image = folder / "ext4.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run([tool("mkfs.ext4"), "-q", "-F", "-d", files, image], check=True)
    return image


def clean(image):
    done = subprocess.run([tool("e2fsck"), "-fn", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_copied_out_by_both_protocols(ext4, serve, folder):
    before = hashlib.sha256(ext4.read_bytes()).hexdigest()
    target = serve(f"0={ext4},ro")
    for protocol in ("srp", "blkif"):
        copy = folder / f"{protocol}.img"
        done = target.initiator("--protocol", protocol, "read", copy)
        assert done.status == 0, done.err
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == before
        clean(copy)
        files = {path.name: path.read_bytes() for path in (folder / "files" / "sub").iterdir()}
        names = f"{tool('debugfs')} -R 'ls -p /sub' {copy}"
        listed = subprocess.run(["sh", "-c", names], capture_output=True, text=True, check=True).stdout
        assert all(f"/{name}/" in listed for name in files)
        one = subprocess.run([tool("debugfs"), "-R", "cat /sub/file39", copy], capture_output=True, check=True).stdout
        assert one == files["file39"]
    assert target.stop() == 0
    assert hashlib.sha256(ext4.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(("writer", "reader"), [("srp", "blkif"), ("blkif", "srp")])
def test_written_by_one_read_by_the_other(ext4, serve, folder, writer, reader):
    target = serve(f"5={folder / 'new.img'},size=16M")
    done = target.initiator("--protocol", writer, "write", "--verify", ext4, lun=5)
    assert done.status == 0, done.err
    assert target.initiator("--protocol", writer, "sync", lun=5).status == 0
    assert target.initiator("--protocol", reader, "read", lun=5).out == ext4.read_bytes()
    assert target.stop() == 0
    clean(folder / "new.img")


def test_a_4096_byte_disk(ext4, serve, folder):
    target = serve(f"0={folder / 'new.img'},size=16M,bs=4096", f"1={ext4},bs=4096,ro")
    assert target.initiator("write", ext4, lun=0).status == 0
    for lun in (0, 1):
        for protocol in ("srp", "blkif"):
            assert target.initiator("--protocol", protocol, "read", lun=lun).out == ext4.read_bytes()


def test_many_initiators_at_once(serve, folder):
    """Two on one LUN and one on another, over and over, both protocols among them."""
    target = serve(f"0={folder / 'a.img'},size=8M", f"1={folder / 'b.img'},size=8M")
    failures = []

    def work(protocol, lun, first_lba, seed):
        for turn in range(4):
            data = hashlib.sha256(f"{seed} {turn}".encode()).digest() * (1 << 15)
            place = ["--protocol", protocol, "--lun", lun]
            done = target.initiator(*place, "write", "--lba", first_lba, data=data)
            back = target.initiator(*place, "read", "--lba", first_lba, "--blocks", len(data) // 512)
            if done.status or back.out != data:
                failures.append((seed, turn, done.err, back.err))

    workers = [
        threading.Thread(target=work, args=arguments)
        for arguments in (("srp", 0, 0, "a"), ("srp", 0, 4096, "b"), ("srp", 1, 0, "c"), ("blkif", 1, 8192, "d"))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def test_target_keeps_what_it_promised_when_killed(serve, folder):
    image = folder / "kept.img"
    target = serve(f"0={image},size=8M")
    data = os.urandom(1 << 20)
    assert target.initiator("--lun", "0", "write", "--fua", data=data).status == 0
    target.process.kill()
    target.process.wait()
    assert image.read_bytes()[: len(data)] == data
    again = serve(f"0={image}")
    assert again.initiator("read", "--blocks", "2048").out == data


def test_two_targets_cannot_have_one_image(serve, folder):
    image = folder / "one.img"
    serve(f"0={image},size=1M")
    done = run(BIN / "vscsi-target", "-U", "-", "--lun", f"0={image}", "--run", "true")
    assert done.status != 0
    assert str(image) in done.err
