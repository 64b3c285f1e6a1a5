# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is at the workers, and commands that leave their worker for a thread of their own."""

import pytest
from raw_wire import ABORT_TASK, srp_cmd, tsk_mgmt

from target.native import lib

SLOW = b"\x41" + bytes(9)


@pytest.fixture
def disk(rig):
    rig.lu(flags=4)
    rig.a, rig.b = rig.srp(), rig.srp()
    return rig


def queue(disk) -> None:
    """Two more of A, then one of B."""
    disk.a.send(srp_cmd(2, SLOW), srp_cmd(3, SLOW))
    disk.a.taken()
    disk.b.send(srp_cmd(4, SLOW))
    disk.b.taken()


def test_connection_that_occupies_a_worker_comes_second(disk):
    disk.a.send(srp_cmd(1, SLOW))
    running = disk.request()
    queue(disk)
    assert [disk.request().nexus for _ in range(3)] == [disk.b.nexus, disk.a.nexus, disk.a.nexus]
    disk.complete(running)


def test_detached_command_occupies_nobody(disk):
    disk.a.send(srp_cmd(1, SLOW))
    background = disk.request()
    assert lib.vt_request_detach(disk.t, background.task) == 0
    assert lib.vt_request_detach(disk.t, background.task) == 0, "once is enough"
    queue(disk)
    first = disk.request()
    assert first.nexus == disk.a.nexus
    assert disk.complete(background) == 0 and disk.a.answer().tag == 1
    # Its end takes nothing off the count of what runs: B has its turn before A's second.
    assert [disk.request().nexus for _ in range(2)] == [disk.b.nexus, disk.a.nexus]
    assert lib.vt_request_detach(disk.t, background.task) == -2


def test_detached_command_can_be_aborted(disk):
    disk.a.send(srp_cmd(1, SLOW))
    background = disk.request()
    lib.vt_request_detach(disk.t, background.task)
    disk.a.send(tsk_mgmt(9, ABORT_TASK, task_tag=1))
    assert disk.a.silent(0.05) and lib.vt_request_aborted(disk.t, background.task) == 1
    disk.complete(background)
    assert [disk.a.answer().tag, disk.a.answer().tag] == [1, 9]
