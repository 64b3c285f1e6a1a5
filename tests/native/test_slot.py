# SPDX-License-Identifier: BSD-2-Clause
"""A slot that changes while it is read: every word of it is loaded once, and what was checked is what is used.

Looked for in two places: in the machine code of a consumer, and in a copy taken while another thread flips the slot.
"""

import platform
import re
import shutil
import subprocess
import threading

import pytest

from vscsi.native import ffi, lib


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the machine code of x86-64")
@pytest.mark.parametrize("optimisation", ["-O1", "-O2", "-O3", "-Os"])
def test_each_word_is_loaded_once(compile_c, optimisation: str) -> None:  # type: ignore[no-untyped-def]
    """In all of the function, six loads through the slot's address: the six words of the head."""
    if not shutil.which("objdump"):
        pytest.skip("objdump is not installed")
    program = compile_c("slot.c", flags=(optimisation, "-fno-tree-vectorize", "-funroll-all-loops"))
    command = ["objdump", "-d", "--no-show-raw-insn", "--disassemble=consume", str(program)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The slot comes in rdi; every other memory operand of this function is on its stack.
    touched = {"rdi"}
    loads = []
    for line in code.splitlines():
        match = re.match(r"\s+[0-9a-f]+:\s+(\S+)\s*(.*)", line)
        if not match:
            continue
        operands = match.group(2).split("#")[0]
        moved = re.fullmatch(r"%(\w+),%(\w+)", operands.strip())
        if match.group(1) in ("mov", "lea") and moved and moved.group(1) in touched:
            touched.add(moved.group(2))
        for memory in re.findall(r"(-?(?:0x)?[0-9a-f]*)\((%\w+)?(?:,(%\w+))?(?:,\d)?\)", operands):
            registers = {register.lstrip("%") for register in memory[1:] if register}
            if registers & touched and not registers & {"rsp", "rbp"} and match.group(1) != "lea":
                loads.append(line.strip())
    assert loads, code
    unrolled = len(loads) == 6
    looped = len(loads) == 1
    assert unrolled or looped, "\n".join(loads)


def test_copy_is_taken_once_while_the_slot_flips() -> None:
    """Each word of a request taken off a flipping ring is one of the two values, and never changes afterwards."""
    page = ffi.new("uint8_t[4096]")
    lib.vscsi_ring_format(page)
    back = ffi.new("struct vscsi_back_ring *")
    assert lib.vscsi_ring_back(back, page, 1, 248, 0) == 0
    shared = ffi.cast("struct vscsi_sring *", page)
    patterns = [b"\x11" * (4096 - 64), b"\xee" * (4096 - 64)]
    words = {int.from_bytes(pattern[:8], "little") for pattern in patterns}
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            for pattern in patterns:
                ffi.memmove(page + 64, pattern, len(pattern))

    ffi.memmove(page + 64, patterns[0], len(patterns[0]))
    thread = threading.Thread(target=flip)
    thread.start()
    mixed = 0
    try:
        iu = ffi.new("uint64_t[31]")
        for index in range(20_000):
            shared.req_prod = index + 1
            assert lib.vscsi_ring_take_request(back, iu) == 1
            first = list(iu)
            assert set(first) <= words
            mixed += len(set(first)) > 1
            assert list(iu) == first
            back.rsp_published = back.rsp_prod_pvt = index + 1
    finally:
        stop.set()
        thread.join()
