# SPDX-License-Identifier: BSD-2-Clause
"""Helper: more of tests/door_program.py: threads, forks, executed programs, signals, sg's write and read, trouble."""

# The calls themselves are what is tried.
# ruff: noqa: PTH116

import concurrent.futures
import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time

from door_program import BLOCK, DEVICE, NBYTES, TUR, expected, fails, integer, opened
from sg_headers import Command, read_10, write_10

# ---- processes and threads ----


def threads():
    def work(k):
        with opened() as own:
            for i in range(40):
                lba = 1000 * k + i
                fd = own if i % 2 else shared
                data = bytes((k, i)) * 256
                assert Command(write_10(lba, 1), data_out=data).run(fd).header.status == 0
                assert Command(read_10(lba, 1), room=512).run(fd).content == data

    with opened() as shared, concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))


def descriptors():
    with opened() as fd:
        copies = [os.dup(fd), fcntl.fcntl(fd, fcntl.F_DUPFD, 300), os.dup2(fd, 77)]
    for copy in copies:
        assert Command(TUR).run(copy).header.status == 0
        os.close(copy)
    with opened(BLOCK) as fd:
        copy = os.dup(fd)
        os.lseek(copy, 512, os.SEEK_SET)
        assert os.read(fd, 4) == (1).to_bytes(4, "big"), "dup shares the file offset"
    # A program that closes everything it does not know closes the library's links too.
    os.closerange(3, 1024)
    with opened() as fd:
        assert Command(read_10(1, 1), room=512).run(fd).content == expected(1, 1)
        os.closerange(400, 1024)
        null = [os.open("/dev/null", os.O_RDWR) for _ in range(20)]
        os.dup2(null[0], 400)
        assert Command(read_10(2, 1), room=512).run(fd).content == expected(2, 1)


def forks():
    with opened() as fd, opened(BLOCK) as block:
        assert Command(TUR).run(fd).header.status == 0
        children = []
        for k in range(4):
            if (child := os.fork()) == 0:
                for i in range(20):
                    assert Command(read_10(k * 50 + i, 1), room=512).run(fd).content == expected(k * 50 + i, 1)
                os._exit(0)
            children.append(child)
        for i in range(20):
            assert Command(read_10(i, 1), room=512).run(fd).content == expected(i, 1)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        os.lseek(block, 0, os.SEEK_SET)
        if (child := os.fork()) == 0:
            os.read(block, 512)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(block, 4) == (1).to_bytes(4, "big"), "fork shares the file offset"


def forks_beside_threads():
    stop = threading.Event()

    def work():
        with opened() as own:
            while not stop.is_set():
                assert Command(read_10(7, 1), room=512).run(own).content == expected(7, 1)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    with opened() as fd:
        for _ in range(15):
            if (child := os.fork()) == 0:
                ok = Command(read_10(8, 1), room=512).run(fd).content == expected(8, 1)
                os._exit(0 if ok else 1)
            assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for worker in workers:
        worker.join()


def executes():
    with opened() as fd, opened(BLOCK) as block:
        program = (
            "import os, fcntl, sys; sys.path.insert(0, os.path.dirname(sys.argv[1]));"
            "from door_program import *;"
            f"assert Command(read_10(4, 1), room=512).run({fd}).content == expected(4, 1);"
            f"assert os.pread({block}, 4, 512) == b'\\0\\0\\0\\1'; version_3_iovec()"
        )
        subprocess.run([sys.executable, "-c", program, __file__], pass_fds=(fd, block), check=True)
        done = subprocess.run(["cat"], stdin=block, capture_output=True, check=True)
        assert done.stdout == expected(0, 9) + done.stdout[9 * 512 :] and len(done.stdout) == NBYTES


def signals():
    """A signal's handler runs while a command is under way, and uses the device itself."""
    seen = []
    with opened() as fd:

        def handle(*_):
            seen.append(Command(read_10(1, 1), room=512).run(fd).content == expected(1, 1))

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for i in range(300):
            assert Command(read_10(i, 1), room=512).run(fd).content == expected(i, 1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert seen and all(seen)


# ---- sg's write and read ----


def asynchronous():
    with opened(flags=os.O_RDWR | os.O_NONBLOCK) as fd:
        fails(errno.EAGAIN, os.read, fd, 88)
        assert select.poll() and not _readable(fd, 0)
        commands = {k: Command(read_10(k, 1), room=512, pack_id=k) for k in range(1, 9)}
        for command in commands.values():
            assert os.write(fd, bytes(command.header)) == 88
        assert integer(fd, 0x227D) <= 8  # SG_GET_NUM_WAITING
        got = set()
        while len(got) < 8:
            assert _readable(fd, 20000)
            header = type(commands[1].header).from_buffer_copy(os.read(fd, 88))
            assert (header.status, header.resid) == (0, 0)
            got.add(header.pack_id)
        assert got == set(commands)
        for k, command in commands.items():
            command.check()
            assert command.content == expected(k, 1)
    with opened() as fd:  # blocking, by pack_id
        integer(fd, 0x227B, 1)  # SG_SET_FORCE_PACK_ID
        commands = {k: Command(read_10(k, 1), room=512, pack_id=k) for k in (5, 6, 7)}
        for command in commands.values():
            os.write(fd, bytes(command.header))
        for k in (7, 5, 6):
            found = bytearray(bytes(Command(TUR, pack_id=k).header))
            assert os.readv(fd, [found]) == 88
            assert type(commands[5].header).from_buffer(found).pack_id == k
            assert commands[k].content == expected(k, 1)


def _readable(fd, timeout_ms):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


# ---- trouble ----


def time_out():
    """The target sleeps: the command is given up, and so is its channel; later ones have a new login."""
    target = int(sys.argv[2])
    with opened() as fd:
        assert Command(TUR).run(fd).header.status == 0
        os.kill(target, signal.SIGSTOP)
        try:
            done = Command(read_10(0, 1), room=512, timeout_ms=200).run(fd)
        finally:
            os.kill(target, signal.SIGCONT)
        assert (done.header.host_status, done.header.driver_status, done.header.status) == (3, 6, 0)
        assert done.header.resid == 512 and done.header.duration >= 200
        assert done.content == b"\xee" * 512
        attention = Command(TUR).run(fd)
        assert (attention.header.status, attention.sense[2], attention.sense[12]) == (2, 6, 0x29)
        # The reset that was asked for while it slept may come behind the new login.
        while (again := Command(TUR).run(fd)).header.status == 2:
            assert again.sense[2] == 6
        assert Command(read_10(1, 1), room=512).run(fd).content == expected(1, 1)


def parent_killed():
    with opened() as fd, opened(BLOCK) as block:
        assert Command(TUR).run(fd).header.status == 0
        os.kill(os.getppid(), signal.SIGKILL)
        while os.getppid() != 1 and _alive():
            time.sleep(0.01)
        fails(errno.ENODEV, Command(TUR).run, fd)
        fails(errno.ENODEV, os.read, block, 512)
        fails(errno.ENODEV, os.open, DEVICE, os.O_RDWR)
        fails(errno.ENODEV, os.stat, DEVICE)
        print("ENODEV everywhere", flush=True)


def _alive():
    with contextlib.suppress(OSError):
        os.stat(DEVICE)
        return True
    return False


def kill(pid):
    """Returns once that process is dead, and its sockets with it: until then it may still answer."""
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([fd], [], [])
    os.close(fd)


def target_killed():
    pid = int(sys.argv[2])
    with opened() as fd:
        assert Command(TUR).run(fd).header.status == 0
        kill(pid)
        for _ in range(2):  # disrupted if it was sent before the loss was noticed, no connect after that
            done = Command(TUR, timeout_ms=300).run(fd).header
            assert done.host_status in (1, 14) and (done.status, done.info) == (0, 1)
        assert done.host_status == 1
        with opened(BLOCK) as block:
            fails(errno.ENODEV, os.read, block, 512)


def target_restarted():
    """Whoever started us starts the target anew."""
    pid = int(sys.argv[2])
    with opened() as fd, opened(BLOCK) as block:
        assert Command(TUR).run(fd).header.status == 0
        data = os.read(block, 512)
        os.pwrite(block, data, 4096)
        kill(pid)
        seen = []
        while not seen or seen[-1] != (0, 0):
            done = Command(TUR).run(fd).header
            seen.append((done.host_status, done.status))
        # In flight: disrupted, once. Then power on, once, for this is SG_IO.
        assert seen in ([(0, 2), (0, 0)], [(14, 0), (0, 2), (0, 0)]), seen
        assert os.pread(block, 512, 0) == data
        fails(errno.EIO, os.fsync, block)  # what was written before might have been lost
        os.fsync(block)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
