# SPDX-License-Identifier: BSD-2-Clause
"""What `make demo` shows: a disk image served as SCSI to another process, written, verified, compared with blkif.

Runs the installed programs as a user would, in a folder of its own, and cleans up. Exit status 1 if anything is not
as it should be. Knows command lines only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
IMAGE_NBYTES = 64 << 20
SCRATCH_NBYTES = 32 << 20
START_SECONDS = 20.0


class DemoError(Exception):
    """Something is not as it should be."""


def say(text: str) -> None:
    """A heading."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def run(*command: str | Path) -> None:
    """Run a command before the user's eyes."""
    words = [str(word) for word in command]
    print("$ " + " ".join([Path(words[0]).name, *words[1:]]), flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DemoError(f"{Path(words[0]).name} ended with exit status {done.returncode}")


def tool(name: str) -> str | None:
    """A program that may be in /usr/sbin."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expect_same(what: str, *paths: Path) -> None:
    """All files have the same content."""
    sums = {sha256(path) for path in paths}
    if len(sums) != 1:
        raise DemoError(f"{what}: checksums differ")
    print(f"{what}: identical, sha256 {sums.pop()[:16]}...")


def make_image(path: Path, folder: Path) -> bool:
    """An ext4 image with this project's files in it; True if it is one (else random bytes, without mkfs.ext4)."""
    mkfs = tool("mkfs.ext4")
    if mkfs is None:
        path.write_bytes(os.urandom(IMAGE_NBYTES))
        print("mkfs.ext4 is not installed: an image of random bytes instead")
        return False
    files = folder / "files"
    for name in ("vscsi", "target", "initiator"):
        shutil.copytree(ROOT / name, files / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    with path.open("wb") as file:
        file.truncate(IMAGE_NBYTES)
    run(mkfs, "-q", "-F", "-d", files, path)
    return True


def start_target(folder: Path, image: Path, scratch: Path) -> subprocess.Popen[bytes]:
    """A target with two logical units; returns when it is ready."""
    pidfile = folder / "target.pid"
    command = [
        str(BIN / "vscsi-target"),
        *("-U", str(folder / "target.sock"), "--pidfile", str(pidfile), "--exit-with-parent"),
        *("--lun", f"0={image},ro,product=demo image"),
        *("--lun", f"1={scratch},size={SCRATCH_NBYTES},product=scratch"),
    ]
    print("$ vscsi-target " + " ".join(f"'{word}'" if " " in word else word for word in command[1:]), flush=True)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    end = time.monotonic() + START_SECONDS
    while not pidfile.exists():
        if process.poll() is not None:
            raise DemoError(f"vscsi-target ended with exit status {process.returncode}")
        if time.monotonic() > end:
            process.kill()
            raise DemoError("vscsi-target did not become ready")
        time.sleep(0.02)
    time.sleep(0.2)  # it says where it listens just after that
    return process


def demonstrate(folder: Path) -> None:
    """The whole show. Raises DemoError."""
    os.chdir(folder)
    folder = Path()
    image, scratch = folder / "disk.img", folder / "scratch.img"
    say("an image")
    ext4 = make_image(image, folder)
    before = sha256(image)

    say("served as SCSI logical units over a shared-memory ring")
    target = start_target(folder, image, scratch)
    try:
        use(folder, image, scratch, ext4=ext4)
    finally:
        target.terminate()
        status = target.wait(30)
    if status:
        raise DemoError(f"vscsi-target ended with exit status {status}")
    if sha256(image) != before:
        raise DemoError("the image that was served read-only has changed")

    say("native blkif and SCSI over the same ring, compared (--quick: rough; bench/compare.py takes its time)")
    run(sys.executable, ROOT / "bench" / "compare.py", "--quick")


def use(folder: Path, image: Path, scratch: Path, *, ext4: bool) -> None:
    """What another process does with the target."""
    os.environ["VSCSI_URI"] = f"vscsi+unix:///0?socket={folder / 'target.sock'}"
    initiator = BIN / "vscsi-initiator"
    run(initiator, "inquiry")
    run(initiator, "list", "-v", "--size")
    run(initiator, "readcap", "--long")

    say("written through SRP, read back, verified")
    data = folder / "data"
    data.write_bytes(os.urandom(SCRATCH_NBYTES))
    run(initiator, "--lun", "1", "write", "--verify", data)
    run(initiator, "--lun", "1", "sync")
    expect_same("what was written and what the image holds", data, scratch)
    back = folder / "back"
    run(initiator, "--lun", "1", "read", back)
    expect_same("what was written and what is read over SRP", data, back)
    run(initiator, "--lun", "1", "--protocol", "blkif", "read", back)
    expect_same("what was written and what is read over blkif", data, back)

    say("the file system copied out, through SRP and through blkif")
    copies = []
    for protocol in ("srp", "blkif"):
        copy = folder / f"copy-{protocol}.img"
        run(initiator, "--protocol", protocol, "read", copy)
        copies.append(copy)
    expect_same("the image and both copies", image, *copies)
    e2fsck = tool("e2fsck")
    if ext4 and e2fsck:
        for copy in copies:
            run(e2fsck, "-fn", copy)


def main() -> int:
    """The entry point."""
    started = time.monotonic()
    scratch = "/var/tmp" if Path("/var/tmp").is_dir() else None
    try:
        with tempfile.TemporaryDirectory(prefix="vscsi-demo-", dir=scratch) as folder:
            demonstrate(Path(folder))
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    say(f"all of it worked, in {time.monotonic() - started:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
