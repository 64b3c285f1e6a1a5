# SPDX-License-Identifier: BSD-2-Clause
"""Mode pages under initiators that come back and a target that is killed and started anew.

What was saved (SP=1) is in force again, what was not is gone; and who has to be told that parameters have changed is
told, once, by whatever connection it has by then.
"""

import socket
import time

import pytest
from served import absorb, mode_page, mode_select

from initiator import Backoff, CacheLost, Initiator, ScsiError
from vscsi.scsi import mode
from vscsi.scsi.sense import MODE_PARAMETERS_CHANGED

SECONDS = 30.0
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.1, seconds=SECONDS)
CHANGED = MODE_PARAMETERS_CHANGED.code & 0xFFFF
POWER_ON, NEXUS_LOSS = 0x2900, 0x2907
SAVED, DEFAULT = 3, 2
WCE, SWP, D_SENSE = 4, 8, 4


@pytest.fixture
def pair(restarting):
    """Two initiator ports that come back by themselves; what they were told at first is behind them."""
    with (
        Initiator(restarting.socket, port_id=b"the one port....", reconnect=QUICK, timeout=SECONDS) as one,
        Initiator(restarting.socket, port_id=b"the other port..", reconnect=QUICK, timeout=SECONDS) as two,
    ):
        assert absorb(one) == absorb(two) == [POWER_ON]
        yield one, two


def came_back(initiators, loss):
    before = [initiator.recovery.recovered for initiator in initiators]
    loss()
    end = time.monotonic() + SECONDS
    while any(one.recovery.recovered == n for one, n in zip(initiators, before, strict=True)):
        assert time.monotonic() < end
        time.sleep(0.005)


def lose(initiator):
    """Its socket is torn, and it comes back."""
    came_back([initiator], lambda: initiator.connection._sock.shutdown(socket.SHUT_RDWR))


def replace(restarting, initiators):
    came_back(initiators, lambda: (restarting.kill(), restarting.start()))


def test_saved_pages_outlive_kill_and_loss_and_what_was_not_saved_does_not(restarting, pair):
    one, two = pair
    mode_select(one, mode.CACHING, sp=1, wce=0)
    mode_select(one, mode.CONTROL, swp=1)
    assert absorb(two) == [CHANGED]
    with pytest.raises(ScsiError, match="write protect"):
        two.lun(0).write(0, bytes(512))
    lose(one)
    assert mode_page(two, mode.CONTROL)[4] & SWP, "a nexus that is lost changes nobody's pages"
    for _ in range(2):
        replace(restarting, pair)
        assert absorb(one) == absorb(two) == [POWER_ON], "a target that starts anew has changed no parameters"
        assert mode_page(one, mode.CACHING)[2] & WCE == 0 == mode_page(one, mode.CACHING, SAVED)[2] & WCE
        assert mode_page(one, mode.CACHING, DEFAULT)[2] & WCE
        assert mode_page(two, mode.CONTROL)[4] & SWP == 0 == mode_page(two, mode.CONTROL, SAVED)[4] & SWP
    disk = two.lun(0)
    disk.write(0, b"w" * 512)  # durable by itself: the write cache is off
    replace(restarting, pair)
    with pytest.raises(CacheLost):  # which the initiator need not know: it warns too often rather than never
        disk.flush()
    assert disk.read(0, 1) == b"w" * 512


def test_others_are_told_of_changed_parameters_and_who_changed_them_is_not(restarting, pair):
    one, two = pair
    mode_select(one, mode.CONTROL, sp=1, d_sense=1)
    assert (absorb(one), absorb(two)) == ([], [CHANGED])
    mode_select(two, mode.CONTROL, d_sense=0)
    assert (absorb(one), absorb(two)) == ([CHANGED], [])
    # Told late: the nexus that is lost before it has heard of it hears of its loss, and of what it missed.
    mode_select(two, mode.CONTROL, d_sense=1)
    lose(one)
    told = absorb(one)
    assert told[0] == NEXUS_LOSS and set(told[1:]) <= {CHANGED}
    assert absorb(two) == []
    # While one is away it is changed once more.
    one.suspend()
    mode_select(two, mode.CONTROL, d_sense=0)
    one.resume()
    assert absorb(one)[0] == NEXUS_LOSS
    assert mode_page(one, mode.CONTROL)[2] & D_SENSE == 0
    replace(restarting, pair)
    assert absorb(one) == absorb(two) == [POWER_ON]
    assert mode_page(one, mode.CONTROL)[2] & D_SENSE, "back to what was saved"
