# SPDX-License-Identifier: BSD-2-Clause
"""The timestamp: the system's clock until it is set; then it counts on from there."""

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in

from vscsi.scsi import cdb, reports, sense

ISSUER, OTHER = 7, 8


class Clocks:
    """The device's clocks."""

    def __init__(self, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.monotonic = 1_700_000_000.25, 100.0
        monkeypatch.setattr(device, "now", lambda: self.now)
        monkeypatch.setattr(device, "monotonic", lambda: self.monotonic)


def report(device: FakeDevice) -> dict[str, int]:
    data = do_command_in(device, cdb.REPORT_TIMESTAMP.build(allocation_length=64))
    assert len(data) == 12
    assert data[:2] == b"\0\x0a"
    return reports.TIMESTAMP.numbers(data)


def test_timestamp(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    device.connect(ISSUER)
    device.connect(OTHER)
    clocks = Clocks(device, monkeypatch)
    assert report(device) == {"length": 10, "timestamp_origin": 3, "timestamp": 1_700_000_000_250}
    raw = cdb.SET_TIMESTAMP.build(parameter_list_length=12)
    do_command(device, raw, reports.TIMESTAMP_LIST.build(timestamp=5000))
    assert device.attentions[OTHER, 0] == [0x2A10]
    assert not device.attentions.get((ISSUER, 0))
    clocks.monotonic += 1.5
    clocks.now = 0
    assert report(device) == {"length": 10, "timestamp_origin": 2, "timestamp": 6500}
    device.units[0].reset()
    assert report(device)["timestamp"] == 6500, "a logical unit reset is no hard reset"
    do_command(device, raw, reports.TIMESTAMP_LIST.build(timestamp=(1 << 48) - 1))
    clocks.monotonic += 0.001
    assert report(device)["timestamp"] in (0, (1 << 48) - 1), "48 bits, whatever happens"


def test_cut_lists_set_nothing() -> None:
    device = FakeDevice()
    do_command(device, cdb.SET_TIMESTAMP.build())
    for nbytes in range(1, 12):
        raw = cdb.SET_TIMESTAMP.build(parameter_list_length=nbytes)
        do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=bytes(nbytes))
    assert report(device)["timestamp_origin"] == 3
    do_command(device, cdb.SET_TIMESTAMP.build(parameter_list_length=16), bytes(16))
    assert report(device)["timestamp_origin"] == 2
