# SPDX-License-Identifier: BSD-2-Clause
"""Coming back after a loss: the target killed and started anew, suspended, stopped in order; sockets cut.

What is outstanding ends with an error, nothing is sent twice behind the user's back, and later commands work.
"""

import logging
import socket
import threading
import time

import pytest

from initiator import Backoff, CacheLost, Initiator, TransportError
from initiator.errors import ConnectError
from initiator.recovery import Recovery
from initiator.vbd import Vbd
from vscsi.scsi import cdb, sense

TUR = cdb.TEST_UNIT_READY.build()
SECONDS = 30.0
PORT_ID = b"recovering port!"
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.1, seconds=SECONDS)


def until(predicate, what):
    end = time.monotonic() + SECONDS
    while not predicate():
        assert time.monotonic() < end, what
        time.sleep(0.005)


@pytest.fixture
def initiator(restarting):
    with Initiator(restarting.socket, port_id=PORT_ID, reconnect=QUICK, timeout=SECONDS) as made:
        yield made


def cut(connection):
    """As if the socket had been torn."""
    connection._sock.shutdown(socket.SHUT_RDWR)


def attention_of(done):
    found = sense.decode(done.sense)
    return done.status, found.key, found.asc << 8 | found.ascq


# ---- the policy ----


def test_delays_double_up_to_the_longest_and_are_counted():
    policy = Backoff(first_seconds=1, longest_seconds=5, jitter=0.5, attempts=5)
    assert list(policy.delays(lambda: 0.0)) == [1, 2, 4, 5, 5]
    assert list(policy.delays(lambda: 1.0)) == [0.5, 1, 2, 2.5, 2.5]


@pytest.mark.parametrize(
    "wrong", [{"first_seconds": 0}, {"longest_seconds": 0.001}, {"jitter": 1.1}, {"attempts": 0}, {"seconds": 0}]
)
def test_policies_that_make_no_sense(wrong):
    with pytest.raises(ValueError):
        Backoff(**wrong)


def test_it_gives_up_and_says_so(caplog):
    tried = []

    def again():
        tried.append(1)
        raise ConnectError("nobody there")

    recovery = Recovery(again, Backoff(first_seconds=0.001, longest_seconds=0.002, attempts=4), "it")
    caplog.set_level(logging.INFO, "vscsi.initiator")
    recovery.lost("gone")
    recovery.lost("gone")
    with pytest.raises(TransportError, match=r"given up after 4 attempts.*nobody there"):
        recovery.wait(SECONDS)
    assert len(tried) == 4 and not recovery.hopeful
    assert [record.levelname for record in caplog.records] == ["WARNING", *["INFO"] * 4, "ERROR"]
    recovery.close()


def test_without_a_policy_nothing_is_tried():
    recovery = Recovery(lambda: pytest.fail("tried"), None, "it")
    recovery.lost("gone")
    assert recovery.live and not recovery.hopeful
    recovery.close()


# ---- SRP ----


def test_a_killed_target_is_found_again(restarting, initiator, caplog):
    caplog.set_level(logging.INFO, "vscsi.initiator")
    disk = initiator.lun(0)
    disk.write(5, b"a" * 512)
    pid = initiator.target_info.pid
    restarting.kill()
    results = []
    reader = threading.Thread(target=lambda: results.append(disk.read(5, 1)))
    reader.start()  # waits for the target, whether it is sent before or after the loss is noticed
    restarting.start()
    reader.join(SECONDS)
    assert results == [b"a" * 512]
    assert initiator.target_info.pid != pid
    assert "connected again after" in caplog.text
    with pytest.raises(CacheLost):
        disk.flush()
    disk.flush()
    disk.write(6, b"b" * 512)
    disk.flush()


def test_after_a_restart_the_attention_is_power_on_after_a_cut_nexus_loss(restarting, initiator):
    until(lambda: attention_of(initiator.execute(0, TUR))[0] == 0, "ready")
    cut(initiator.connection)
    until(lambda: initiator.recovery.recovered == 1, "back")
    assert attention_of(initiator.execute(0, TUR)) == (2, 6, 0x2907)
    restarting.kill()
    restarting.start()
    until(lambda: initiator.recovery.recovered == 2, "back")
    assert attention_of(initiator.execute(0, TUR)) == (2, 6, 0x2900)
    assert initiator.power_losses[0] == 2  # one at the very first login


def test_an_orderly_restart(restarting, initiator):
    disk = initiator.lun(0)
    disk.write(1, b"x" * 512, fua=True)
    assert restarting.target.stop() == 0
    restarting.start()
    assert disk.read(1, 1) == b"x" * 512
    disk.flush()  # nothing was written that a flush would have had to keep


def test_what_is_outstanding_fails_and_is_not_sent_again(restarting, initiator):
    tags = 16
    until(lambda: attention_of(initiator.execute(0, TUR))[0] == 0, "ready")
    restarting.freeze()
    for k in range(tags):
        initiator.submit(0, TUR, cookie=k)
    restarting.kill()
    restarting.start()
    until(lambda: initiator.recovery.recovered == 1, "back")
    found = []
    while len(found) < tags:
        found += initiator.reap(min=1, timeout=SECONDS)
    assert sorted(done.cookie for done in found) == list(range(tags))
    assert all(isinstance(done.error, TransportError) for done in found)
    assert not initiator.reap(min=1, timeout=0)
    assert initiator.stats()["outstanding"] == 0


def test_a_target_that_is_suspended_loses_nothing(restarting, initiator):
    disk = initiator.lun(0)
    disk.write(0, b"1" * 512)
    restarting.freeze()
    threads = [threading.Thread(target=disk.write, args=(k, bytes([k]) * 512)) for k in range(8)]
    for thread in threads:
        thread.start()
    restarting.thaw()
    for thread in threads:
        thread.join(SECONDS)
    assert disk.read(0, 8) == b"".join(bytes([k]) * 512 for k in range(8))
    assert initiator.recovery.recovered == 0
    disk.flush()


def test_suspend_and_resume(restarting):
    with Initiator(restarting.socket, port_id=PORT_ID, timeout=SECONDS) as initiator:
        disk = initiator.lun(0)
        disk.write(3, b"s" * 512)
        initiator.suspend()
        with pytest.raises(TransportError, match="suspended"):
            initiator.execute(0, TUR, timeout=0.01)
        results = []
        reader = threading.Thread(target=lambda: results.append(disk.read(3, 1)))
        reader.start()
        initiator.resume()
        reader.join(SECONDS)
        assert results == [b"s" * 512]
        disk.flush()  # a nexus loss loses no cache


def test_reservations_and_keys_outlive_the_nexus(restarting, initiator):
    def persist_in():
        disk = initiator.lun(0)
        row = cdb.PERSISTENT_RESERVE_IN_READ_KEYS.build(allocation_length=64)
        return bytes(disk.execute(row, data_in=64).data_in)

    key = b"ourkey!!"
    parameters = bytes(8) + key + bytes([0, 0, 0, 0, 1, 0, 0, 0])  # APTPL
    out = cdb.PERSISTENT_RESERVE_OUT_REGISTER.build(parameter_list_length=24)
    initiator.lun(0).execute(out, data_out=parameters)
    assert key in persist_in()
    cut(initiator.connection)
    until(lambda: initiator.recovery.recovered == 1, "back")
    assert key in persist_in()
    restarting.kill()
    restarting.start()
    until(lambda: initiator.recovery.recovered == 2, "back")
    assert key in persist_in()
    # RESERVE with the key: only who is registered may.
    reserve = cdb.PERSISTENT_RESERVE_OUT_RESERVE.build(type=1, parameter_list_length=24)
    initiator.lun(0).execute(reserve, data_out=key + bytes(16))


def test_many_threads_survive_cuts(restarting, initiator):
    """Each thread reads back what it wrote, whatever is torn meanwhile."""
    disk, failures, stop = initiator.lun(0), [], threading.Event()
    rounds = [0] * 4

    def work(me):
        try:
            while not stop.is_set():
                data = bytes([me, rounds[me] % 251]) * 256 * 8
                disk.write(me * 100, data)
                assert disk.read(me * 100, 8) == data
                rounds[me] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, 11):
        before = list(rounds)
        until(lambda: failures or all(a > b for a, b in zip(rounds, before, strict=True)), "progress")  # noqa: B023
        cut(initiator.connection)
        until(lambda: failures or initiator.recovery.recovered >= turn, "back")  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
    assert not failures


# ---- blkif ----


@pytest.fixture
def vbd(restarting):
    with Vbd(restarting.socket, reconnect=QUICK, timeout=SECONDS) as made:
        yield made


def test_a_vbd_sends_again_what_was_outstanding(restarting, vbd):
    restarting.freeze()
    threads = [threading.Thread(target=vbd.write, args=(k, bytes([k]) * 512)) for k in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: vbd.stats()["outstanding"] == len(threads), "all sent")
    restarting.kill()
    restarting.start()
    for thread in threads:
        thread.join(SECONDS)
    assert vbd.recovery.recovered == 1
    assert vbd.read(0, 8) == b"".join(bytes([k]) * 512 for k in range(8))
    vbd.flush()  # all of it was written to the target there is now


def test_a_vbd_tells_of_a_cache_that_may_be_lost(restarting, vbd):
    vbd.write(0, b"c" * 512)
    cut(vbd.connection)
    until(lambda: vbd.recovery.recovered == 1, "back")
    vbd.flush()  # the same process: nothing is lost
    vbd.write(0, b"d" * 512)
    restarting.kill()
    restarting.start()
    assert vbd.read(0, 1) == b"d" * 512
    with pytest.raises(CacheLost):
        vbd.flush()
    vbd.flush()


def test_a_vbd_without_a_policy_says_that_the_target_is_gone(restarting):
    with Vbd(restarting.socket, timeout=SECONDS) as vbd:
        vbd.read(0, 1)
        restarting.kill()
        with pytest.raises(TransportError, match="gone"):
            vbd.read(0, 1)


# ---- both at once, again and again ----


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_upgrades_under_load(restarting, end):
    """The target is replaced under writers over SRP and blkif: none of them sees an error, and all of it is there."""
    failures, done = [], [0, 0]
    stop = threading.Event()

    def work(me, disk):
        try:
            while not stop.is_set():
                data = bytes([me + 1, done[me] % 251]) * 256
                disk.write(me * 100 + done[me] % 100, data)
                assert disk.read(me * 100 + done[me] % 100, 1) == data
                done[me] += 1
        except BaseException as error:
            failures.append(error)

    with (
        Initiator(restarting.socket, reconnect=QUICK, timeout=SECONDS) as initiator,
        Vbd(restarting.socket, reconnect=QUICK, timeout=SECONDS) as vbd,
    ):
        disks = initiator.lun(0), vbd
        threads = [threading.Thread(target=work, args=(me, disk)) for me, disk in enumerate(disks)]
        for thread in threads:
            thread.start()
        for turn in range(1, 4):
            before = list(done)
            until(lambda: failures or all(a > b for a, b in zip(done, before, strict=True)), "progress")  # noqa: B023
            if end == "kill":
                restarting.kill()
            else:
                assert restarting.target.stop() == 0
            restarting.start()
            recoveries = initiator.recovery, vbd.recovery
            until(lambda: failures or all(r.recovered >= turn for r in recoveries), "back")  # noqa: B023
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
        assert not failures
        assert initiator.stats()["outstanding"] == vbd.stats()["outstanding"] == 0
