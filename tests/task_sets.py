# SPDX-License-Identifier: BSD-2-Clause
"""Task sets from raw rings: two or three nexuses on one unit whose policy changes, and what a nexus finds queued.

Knows raw rings and the native core's words; must not know how the core decides.
"""

from raw_wire import RSPVALID, SIMPLE, code, read10, srp_cmd

from target.native import ffi, lib

SLOW = b"\x41" + bytes(9)
SLOW_NACA = b"\x41" + bytes(8) + b"\4"
READY = read10(0, 0)
"""A command that ends GOOD without a worker."""
READY_NACA = READY[:9] + b"\4"
BAD = READY[:6] + b"\1" + READY[7:]
"""A reserved bit: CHECK CONDITION."""
BAD_NACA = BAD[:9] + b"\4"
PREEMPT_AND_ABORT = b"\x5f\5" + bytes(8)
PREEMPT_AND_ABORT_NACA = b"\x5f\5" + bytes(7) + b"\4"
GOOD, CHECK_CONDITION, BUSY, RESERVATION_CONFLICT, TASK_SET_FULL, ACA_ACTIVE, TASK_ABORTED = (
    *(0x00, 0x02, 0x08, 0x18, 0x28),
    *(0x30, 0x40),
)
INVALID_FIELD = 0x052400
ENDED_QUIETLY = (RSPVALID, b"\0\0\0\0")


def built(rig, loops: int = 1, **policy):
    """Three nexuses on one LU."""
    rig.fd = rig.file()
    rig.lu(fd=rig.fd, **policy)
    rig.a, rig.b, rig.c = (rig.srp(loop=n % loops) for n in range(3))
    return rig


def obey(rig, **policy) -> None:
    assert lib.vt_lu_update(rig.t, 0, rig.lu_config(fd=rig.fd, **policy)) == 0


def none_queued(rig) -> bool:
    return lib.vt_request_next(rig.t, ffi.new("struct vt_request *"), 60) == 0


def running(rig, who, tag: int = 1, cdb: bytes = SLOW, attribute: int = SIMPLE):
    """A command that a worker runs until the test completes it."""
    who.send(srp_cmd(tag, cdb, attribute=attribute))
    return rig.request()


def waiting(who, tag: int, cdb: bytes = SLOW, attribute: int = SIMPLE) -> None:
    """A command that has entered the task set."""
    who.send(srp_cmd(tag, cdb, attribute=attribute))
    who.taken()


def attentions(rig, who) -> list[int]:
    found = []
    while ua := lib.vt_ua_take(rig.t, who.nexus, 0):
        found.append(ua)
    return found


def ended_quietly(rsp, tag: int) -> bool:
    return (rsp.tag, rsp.flags, rsp.response) == (tag, *ENDED_QUIETLY)


def establish(who) -> None:
    """An ACA condition, by an error with NACA."""
    assert code(who.command(BAD_NACA)) == INVALID_FIELD
