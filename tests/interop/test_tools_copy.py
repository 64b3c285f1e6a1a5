# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-initiator copy` on real targets: every method, within one and between two; what goes wrong is told.

What each method sends is in tests/initiator/test_copying.py.
"""

import json

import pytest
from in_process import initiator, ours
from programs import one_line

from initiator.copying import METHODS
from initiator.errors import ScsiError
from vscsi.scsi import sense


@pytest.mark.parametrize("method", ["auto", "lid1", "lid4", "token", "host"])
def test_copy_within_a_target(two, method):
    answer = json.loads(ours(two, "copy", "0", "1", "--verify", "--json", "--method", method))
    assert answer == {
        "bytes": 4 << 20, "method": "lid1" if method == "auto" else method, "verified": True, "first_difference": None
    }  # fmt: skip
    assert initiator(two, "read", "--blocks", "8192", lun=1).out == two.content
    if method == "token":  # a token is for blocks of one length
        one_line(initiator(two, "copy", "0", "2", "--method", method), 5, "granularity")
        return
    ours(two, "copy", "0", "2", "--skip", "16", "--seek", "3", "--blocks", "24", "--method", method)
    assert initiator(two, "read", "--lba", "3", "--blocks", "3", lun=2).out == two.content[16 * 512 : 40 * 512]
    assert initiator(two, "read", "--lba", "6", "--blocks", "1", lun=2).out == bytes(4096)


def test_copy_between_targets(two, serve):
    other = serve("5=mem:8M")
    ours(two, "copy", "0", other.uri(5), "--verify", "--quiet")
    assert initiator(other, "read", "--blocks", "8192", lun=5).out == two.content
    one_line(initiator(two, "copy", "0", other.uri(5), "--method", "lid1"), 31, "one target")


def test_a_copy_sends_no_data_through_the_initiator(two):
    done = initiator(two, "-v", "copy", "0", "1")
    assert done.status == 0, done.err
    done = initiator(two, "copy", "0", "1", "--pcap", two.folder / "pcap")
    assert done.status == 0, done.err
    assert (two.folder / "pcap").stat().st_size < 100_000  # 4 MiB were copied


def test_copy_mistakes(two):
    one_line(initiator(two, "copy", "1", "0"), 22, "do not fit")
    one_line(initiator(two, "copy", "0", "1", "--blocks", "9000"), 22, "not within")
    one_line(initiator(two, "copy", "0", "2", "--blocks", "9"), 1, "whole number")
    one_line(initiator(two, "copy", "0", "0"), 31, "overlap")
    one_line(initiator(two, "copy", "0", "9"), 5, "not supported")
    one_line(initiator(two, "copy", "0", "nonsense"), 1, "nonsense")
    one_line(initiator(two, "copy", "0", "1", "--method", "magic"), 1, "magic")


def test_a_target_that_copies_nothing_by_itself_is_no_obstacle(two, monkeypatch):
    def refused(job):
        raise ScsiError(2, sense.INVALID_COMMAND_OPERATION_CODE.encode())
        yield 0

    monkeypatch.setitem(METHODS, "lid1", refused)
    assert json.loads(ours(two, "copy", "0", "1", "--json", "--verify"))["method"] == "host"
    one_line(initiator(two, "copy", "0", "1", "--method", "lid1"), 9, "operation code")


def test_a_copy_that_went_wrong_is_told(two, serve, monkeypatch):
    monkeypatch.setitem(METHODS, "lid4", lambda job: iter([job.nbytes]))  # and does nothing
    differs = next(i for i, byte in enumerate(two.content) if byte)
    done = initiator(two, "copy", "0", "1", "--method", "lid4", "--verify")
    one_line(done, 14, f"from byte {differs} on")
    done = initiator(two, "copy", "0", "1", "--method", "lid4", "--verify", "--json")
    assert (done.status, json.loads(done.text)["first_difference"]) == (14, differs)
    target = serve("0=mem:1M", "1=mem:1M,ro")
    one_line(initiator(target, "copy", "0", "1"), 10, "copy aborted")
    one_line(initiator(target, "copy", "0", "1", "--method", "host"), 7, "write protected")
