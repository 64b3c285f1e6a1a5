# SPDX-License-Identifier: BSD-2-Clause
"""What a target sends may be anything: every text and every JSON is made of it without a traceback."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from initiator.text import copy_page, inquiry, logs, modes, opcodes, persist, sense, vpd
from vscsi.scsi import log, vpd_copy
from vscsi.scsi import vpd as standard
from vscsi.scsi.mode import PageControl
from vscsi.scsi.parameters import decode_opcodes

ANY = st.binary(max_size=300)


def _listed(raw: bytes) -> None:
    found = decode_opcodes(raw)
    for compact in (False, True):
        for timeouts in (False, True):
            list(opcodes.list_lines(found, timeouts=timeouts, compact=compact))
    json.dumps(opcodes.list_json(found))


def _one(raw: bytes) -> None:
    list(opcodes.one_lines(0x9E, 0x10, raw))
    json.dumps(opcodes.one_json(0x9E, 0x10, raw))


def _pair(lines: Callable[[bytes], Any], fields: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    def both(raw: bytes) -> None:
        assert all(isinstance(line, str) for line in lines(raw))
        json.dumps(fields(raw))

    return both


def _mode_page(raw: bytes) -> None:
    for key in ((0x08, 0), (0x0A, 1), (0x3E, 0)):
        values = modes.Values(key, dict.fromkeys(PageControl, raw))
        list(modes.lines(values, every=True))
        json.dumps(modes.to_json(values))


SHOWN = {
    "sense": _pair(sense.lines, sense.to_json),
    "list of opcodes": _listed,
    "one opcode": _one,
    "functions": _pair(opcodes.functions_lines, opcodes.functions_json),
    "keys": _pair(persist.keys_lines, persist.keys_json),
    "reservation": _pair(persist.reservation_lines, persist.reservation_json),
    "capabilities": _pair(persist.capabilities_lines, persist.capabilities_json),
    "full status": _pair(persist.full_status_lines, persist.full_status_json),
    "log page": _pair(logs.lines, logs.to_json),
    "mode page": _mode_page,
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
@given(raw=ANY)
@example(raw=b"")
def test_any_bytes_can_be_shown(show: Callable[[bytes], None], raw: bytes) -> None:
    show(raw)


@pytest.mark.parametrize("form", [0x70, 0x71, 0x72, 0x73])
@given(rest=ANY)
def test_any_sense_data_can_be_shown(form: int, rest: bytes) -> None:
    SHOWN["sense"](bytes([form]) + rest)


@pytest.mark.parametrize("code", [*vpd.SHOWN, 0xC9])
@settings(max_examples=40)
@given(body=ANY)
def test_any_vpd_page_can_be_shown(code: int, body: bytes) -> None:
    page = standard.with_header(code, body)
    list(vpd.lines(page))
    json.dumps(vpd.to_json(page))


@pytest.mark.parametrize("kind", list(vpd_copy.Descriptor), ids=lambda kind: kind.name)
@settings(max_examples=40)
@given(body=ANY)
def test_any_copy_descriptor_can_be_shown(kind: vpd_copy.Descriptor, body: bytes) -> None:
    page = vpd_copy.encode([vpd_copy.encode_descriptor(kind, body)])
    list(copy_page.lines(page))
    json.dumps(copy_page.fields(page))


@pytest.mark.parametrize("key", log.PAGES, ids=lambda key: f"{key[0]:02x}-{key[1]:02x}")
@settings(max_examples=40)
@given(data=st.data())
def test_any_log_parameters_can_be_shown(key: tuple[int, int], data: st.DataObject) -> None:
    codes = st.one_of(st.integers(0, 0xFFFF), st.sampled_from(sorted(log.PAGES[key].parameters) or [0]))
    parameters = data.draw(st.lists(st.tuples(codes, st.binary(max_size=80)), max_size=4))
    body = b"".join(code.to_bytes(2) + b"\3" + bytes([len(raw)]) + raw for code, raw in parameters)
    page = log.encode(*key, body)
    list(logs.lines(page, control=True))
    json.dumps(logs.to_json(page))


@given(raw=ANY)
def test_any_inquiry_data_can_be_shown(raw: bytes) -> None:
    list(inquiry.lines(raw))
    json.dumps(inquiry.to_json(raw))
