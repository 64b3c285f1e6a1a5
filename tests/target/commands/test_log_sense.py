# SPDX-License-Identifier: BSD-2-Clause
"""LOG SENSE and LOG SELECT: lists of pages, parameters from a pointer on, resets; as sg_logs reads them too."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in

from target import log_pages
from target.log_pages import PAGES, LogPage
from target.scsi_device import Counts
from vscsi.scsi import cdb, log, sense

ISSUER, OTHER = 7, 8
needs_sg = pytest.mark.skipif(not shutil.which("sg_logs"), reason="needs sg3-utils")


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M")
    made.connect(ISSUER)
    made.connect(OTHER)
    yield made
    made.close()


def log_sense(device: FakeDevice, code: int, subpage: int = 0, **fields: int) -> bytes:
    values = {"pc": 1, "page_code": code, "subpage_code": subpage, "allocation_length": 4096, **fields}
    return do_command_in(device, cdb.LOG_SENSE.build(**values))


def listed(device: FakeDevice) -> list[tuple[int, int]]:
    return log.decode_supported(log_sense(device, 0, 0xFF))


def test_lists_of_pages(device: FakeDevice) -> None:
    every = listed(device)
    assert every[:2] == [(0, 0), (0, 0xFF)]
    assert {(0x0D, 0), (0x2F, 0)} <= set(every)
    assert every == sorted(every)
    assert log.decode_supported(log_sense(device, 0)) == [(code, 0) for code in sorted({code for code, _ in every})]


def test_every_page_that_is_listed_is_there_and_no_other(device: FakeDevice) -> None:
    every = listed(device)
    for code in range(0x40):
        for subpage in (0, 1, 0xFF):
            if (code, subpage) in every:
                data = log_sense(device, code, subpage)
                head, _ = log.decode(data)
                assert (head["page_code"], head["subpage_code"], head["spf"]) == (code, subpage, int(subpage != 0))
                assert head["page_length"] == len(data) - 4
                continue
            at = (3, None) if any(known == code for known, _ in every) else (2, 5)
            raw = cdb.LOG_SENSE.build(pc=1, page_code=code, subpage_code=subpage, allocation_length=64)
            do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, at)


def test_temperature_is_not_known(device: FakeDevice) -> None:
    assert log_sense(device, 0x0D).hex(" ") == "8d 00 00 0c 00 00 03 02 00 ff 00 01 03 02 00 ff"
    assert log_sense(device, 0x2F).hex(" ") == "af 00 00 08 00 00 03 04 00 00 ff 00"


def test_parameter_pointer(device: FakeDevice) -> None:
    assert log_sense(device, 0x0D, parameter_pointer=1).hex(" ") == "8d 00 00 06 00 01 03 02 00 ff"
    raw = cdb.LOG_SENSE.build(page_code=0x0D, parameter_pointer=2, allocation_length=64)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (5, None))
    raw = cdb.LOG_SENSE.build(page_code=0, parameter_pointer=1, allocation_length=64)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (5, None))


def test_nothing_is_saved(device: FakeDevice) -> None:
    do_command_fail(device, cdb.LOG_SENSE.build(sp=1), sense.INVALID_FIELD_IN_CDB, (1, 0))
    do_command_fail(device, cdb.LOG_SELECT.build(sp=1), sense.INVALID_FIELD_IN_CDB, (1, 0))


# ---- LOG SELECT ----


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A page that counts, with the LUNs of those that were reset."""
    resets: list[int] = []
    row = LogPage(log.NON_MEDIUM_ERRORS, lambda _: {0: {"value": 5}}, lambda unit: resets.append(unit.lun))
    monkeypatch.setitem(PAGES, row.page.key, row)
    return resets


def test_resets(device: FakeDevice, counted: list[int]) -> None:
    assert log_sense(device, 6)[-8:] == (5).to_bytes(8)
    for fields, done in (
        ({"pcr": 1}, True),
        ({"pcr": 1, "page_code": 6}, True),
        ({"pc": 3}, True),
        ({"pc": 1, "page_code": 6}, True),
        ({"pcr": 1, "page_code": 0x0D}, False),
        ({"pc": 0}, False),
    ):
        device.attentions.clear()
        counted.clear()
        do_command(device, cdb.LOG_SELECT.build(**fields))
        assert counted == ([0] if done else [])
        assert device.attentions.get((OTHER, 0), []) == ([0x2A02] if done else [])
        assert not device.attentions.get((ISSUER, 0))
    do_command_fail(device, cdb.LOG_SELECT.build(pcr=1, page_code=5), sense.INVALID_FIELD_IN_CDB, (2, 5))


def test_lists_may_name_pages_but_set_nothing(device: FakeDevice, counted: list[int]) -> None:
    page = log.encode(6, 0, b"")
    raw = cdb.LOG_SELECT.build(pc=1, parameter_list_length=4)
    do_command(device, raw, page)
    for data, expected in (
        (log.encode(5, 0, b""), sense.INVALID_FIELD_IN_PARAMETER_LIST),
        (log.encode(6, 1, b""), sense.INVALID_FIELD_IN_PARAMETER_LIST),
        (page + log_sense(device, 6), sense.INVALID_FIELD_IN_PARAMETER_LIST),
    ):
        raw = cdb.LOG_SELECT.build(pc=1, parameter_list_length=len(data))
        do_command_fail(device, raw, expected, data_out=data)
    whole = log_sense(device, 6)
    for nbytes in range(1, len(whole)):
        raw = cdb.LOG_SELECT.build(pc=1, parameter_list_length=nbytes)
        do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=whole[:nbytes])
    assert not counted
    assert not device.attentions.get((OTHER, 0))
    raw = cdb.LOG_SELECT.build(pcr=1, parameter_list_length=4)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (7, None), data_out=page)
    raw = cdb.LOG_SELECT.build(page_code=6, parameter_list_length=4)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, 5), data_out=page)


def test_a_page_has_one_function() -> None:
    with pytest.raises(ValueError, match="is there already"):
        log_pages.log_page(log.TEMPERATURE)(lambda _: {})


# ---- what is counted ----


def counters(device: FakeDevice, code: int, **fields: int) -> dict[int, int]:
    return {found.code: int.from_bytes(found.raw[4:]) for found in log.decode(log_sense(device, code, **fields))[1]}


def test_error_counters(device: FakeDevice) -> None:
    assert counters(device, 3) == {5: 0, 6: 0}
    device.counted[0] = Counts(10, 20, 100, 200, 1, 2)
    assert counters(device, 3) == {5: 51200, 6: 1}
    assert counters(device, 2) == {5: 102400, 6: 2}
    assert counters(device, 2, pc=3) == {5: 0, 6: 0}
    for pc in (0, 2):
        raw = cdb.LOG_SENSE.build(pc=pc, page_code=2, allocation_length=64)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None))
    do_command(device, cdb.LOG_SELECT.build(pcr=1, page_code=3))
    device.counted[0] = Counts(11, 20, 101, 200, 2, 2)
    assert counters(device, 3) == {5: 512, 6: 1}
    assert counters(device, 2) == {5: 102400, 6: 2}, "another page"
    device.units[0].reset()
    assert counters(device, 3) == {5: 512, 6: 1}
    assert device.attentions[OTHER, 0] == [0x2A02]


def test_general_statistics(device: FakeDevice) -> None:
    device.counted[0] = Counts(10, 20, 100, 200, 1, 2)
    _, (found, idle, interval) = log.decode(log_sense(device, 0x19))
    assert (idle.code, interval.code) == (2, 3)
    assert not any(idle.raw[4:] + interval.raw[4:]), "no time is measured"
    values = log.STATISTICS.parameters[1].decode(found.raw)
    assert list(values.values()) == [10, 20, 200, 100, 0, 0, 0, 0]


@needs_sg
def test_sg_logs_reads_every_page(device: FakeDevice) -> None:
    for key in listed(device):
        command = ["sg_logs", "--inhex=-", "--raw"]
        done = subprocess.run(command, input=log_sense(device, *key), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode()
        assert text.strip()
        assert "bad" not in text.lower()
        assert "unable to decode" not in text.lower()
