# SPDX-License-Identifier: BSD-2-Clause
"""sg3_utils' tools for media, copies, reservations and removable units, each used for what it is for, through the door.

LUN 0 is 8 MiB of known bytes and thin; LUN 1 is an empty disk on the same target, LUN 2 has a removable medium.
"""

import re

import pytest
from programs import tool

A, B = "/dev/vscsi@a/0", "/dev/vscsi@b/0"
TWO = ("--initiator", "a", "--initiator", "b")


@pytest.fixture
def target(serve, folder):
    image = folder / "disk.img"
    pattern = b"".join(n.to_bytes(4, "big") * 128 for n in range(16384))
    image.write_bytes(pattern)
    made = serve(f"0={image}", "1=mem:8M", "2=mem:1M,removable=on")
    made.image, made.pattern = image, pattern
    return made


@pytest.fixture
def shell(target):
    """Runs lines of shell behind the door: exit status and everything that was printed."""

    def run(line, *options):
        done = target.initiator("run", *options, "--", tool("sh"), "-c", line, cwd=target.folder)
        return done.status, done.text + done.err

    return run


def block(n, count=1):
    return b"".join(k.to_bytes(4, "big") * 128 for k in range(n, n + count))


def test_sg_xcopy_between_luns(target, shell):
    status, text = shell("sg_xcopy if=/dev/vscsi0 of=/dev/vscsi1 bs=512 && sg_dd if=/dev/vscsi1 of=back bs=512 2>&1")
    assert status == 0, text
    assert (target.folder / "back").read_bytes() == target.pattern


def test_sg_unmap_and_get_lba_status(target, shell):
    assert shell("sg_unmap --lba=1024 --num=512 --force /dev/vscsi0 2>&1")[0] == 0
    status, text = shell("sg_get_lba_status --lba=1024 /dev/vscsi0")
    assert status == 0
    assert re.search(r"0x0*400\s+blocks:\s*512\s+deallocated", text), text
    assert (
        shell("sg_read if=/dev/vscsi0 bs=512 count=16 && dd if=/dev/vscsi0b of=back bs=512 skip=1024 count=512")[0] == 0
    )
    assert (target.folder / "back").read_bytes() == bytes(512 * 512)


def test_sg_write_same(target, shell):
    (target.folder / "one").write_bytes(b"same" * 128)
    assert shell("sg_write_same --in=one --lba=10 --num=20 /dev/vscsi0")[0] == 0
    assert shell("sg_write_same --16 --ndob --lba=40 --num=2 /dev/vscsi0")[0] == 0
    assert shell("dd if=/dev/vscsi0b of=back bs=512 count=50")[0] == 0
    want = block(0, 10) + b"same" * 128 * 20 + block(30, 10) + bytes(1024) + block(42, 8)
    assert (target.folder / "back").read_bytes() == want


def test_sg_compare_and_write(target, shell):
    (target.folder / "caw").write_bytes(block(7) + b"new!" * 128)
    line = "sg_compare_and_write --in=caw --lba=7 --num=1 --xferlen=1024 /dev/vscsi0"
    assert shell(line)[0] == 0
    status, text = shell(line)
    assert status == 14, text  # MISCOMPARE
    assert shell("dd if=/dev/vscsi0b of=back bs=512 skip=7 count=1")[0] == 0
    assert (target.folder / "back").read_bytes() == b"new!" * 128


def test_sg_verify(target, shell):
    (target.folder / "right").write_bytes(block(5, 2))
    (target.folder / "wrong").write_bytes(block(5) + block(5))
    assert shell("sg_verify --lba=0 --count=16384 /dev/vscsi0")[0] == 0
    assert shell("sg_verify --ebytchk=1 --ndo=1024 --in=right --lba=5 --count=2 /dev/vscsi0")[0] == 0
    assert shell("sg_verify --ebytchk=1 --ndo=1024 --in=wrong --lba=5 --count=2 /dev/vscsi0")[0] == 14
    assert shell("sg_verify --lba=16384 --count=1 /dev/vscsi0")[0] == 22


def test_sg_write_verify(target, shell):
    (target.folder / "data").write_bytes(b"twice" * 200 + bytes(24))
    assert shell("sg_write_verify --in=data --ilen=1024 --lba=8 --num=2 /dev/vscsi0")[0] == 0
    assert shell("dd if=/dev/vscsi0b of=back bs=512 skip=8 count=2")[0] == 0
    assert (target.folder / "back").read_bytes() == b"twice" * 200 + bytes(24)


def test_sg_sanitize(target, shell):
    status, text = shell("sg_sanitize --block --quick --wait /dev/vscsi0")
    assert status == 0, text
    assert shell("dd if=/dev/vscsi0b of=back bs=1M")[0] == 0
    assert (target.folder / "back").read_bytes() == bytes(len(target.pattern))


def test_sg_format(target, shell):
    status, text = shell("sg_format --format --quick --wait /dev/vscsi0")
    assert status == 0, text
    assert shell("dd if=/dev/vscsi0b of=back bs=1M")[0] == 0
    assert (target.folder / "back").read_bytes() == bytes(len(target.pattern))


def test_sg_persist_keeps_the_other_initiator_out(shell):
    steps = [
        (f"sg_persist --out --register --param-sark=0xaa {A}", 0),
        (f"sg_persist --out --reserve --param-rk=0xaa --prout-type=1 {A}", 0),
        (f"sg_dd if=/dev/zero of={A} bs=512 count=1", 0),
        (f"sg_turs {B}", 0),
        (f"sg_dd if={B} of=/dev/null bs=512 count=1", 0),
        (f"sg_raw -s 512 -i /dev/zero {B} 2a 00 00 00 00 00 00 00 01 00", 24),  # RESERVATION CONFLICT
        (f"sg_persist --out --register --param-sark=0xbb {B}", 0),
        (f"sg_persist --out --preempt --param-rk=0xbb --param-sark=0xaa --prout-type=1 {B}", 0),
        (f"sg_raw -s 512 -i /dev/zero {B} 2a 00 00 00 00 00 00 00 01 00", 0),
    ]
    line = "; ".join(f"{step} >/dev/null 2>&1; echo $?" for step, _ in steps)
    status, text = shell(f"{line}; sg_persist --in --read-keys {A}; sg_persist --in --read-reservation {B}", *TWO)
    assert status == 0
    assert [int(n) for n in text.split()[: len(steps)]] == [want for _, want in steps], text
    assert "0xbb" in text and "0xaa" not in text
    assert "Write Exclusive" in text


def test_sg_prevent_and_sg_start(shell):
    steps = [
        ("sg_prevent --prevent=1 /dev/vscsi2", 0),
        ("sg_start --eject /dev/vscsi2", 5),
        ("sg_prevent --allow /dev/vscsi2", 0),
        ("sg_start --eject /dev/vscsi2", 0),
        ("sg_turs /dev/vscsi2", 2),
        ("sg_start --load /dev/vscsi2", 0),
        ("sg_raw /dev/vscsi2 0 0 0 0 0 0 || true", 0),  # the medium may have changed
        ("sg_turs /dev/vscsi2", 0),
    ]
    line = "; ".join(f"({step}) >/dev/null 2>&1; echo $?" for step, _ in steps)
    assert [int(n) for n in shell(line)[1].split()] == [want for _, want in steps]


def test_sg_get_lba_status_and_rtpg_and_opcodes_tell_something(shell):
    assert "target port group asymmetric access state" in shell("sg_rtpg /dev/vscsi0")[1].lower()
    assert "compare and write" in shell("sg_opcodes /dev/vscsi0")[1].lower()
    assert shell("sg_opcodes --opcode=0x89 /dev/vscsi0")[0] == 0
