# SPDX-License-Identifier: BSD-2-Clause
"""What a hostile target answers, as far as we only take it apart and show it: any bytes have some words.

Knows which functions look at such data; knows no layout.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from fuzz.python.mutation import of_bytes
from fuzz.python.registry import target
from initiator.device import to_fixed
from initiator.errors import ScsiError
from initiator.text import copy_page, inquiry, logs, modes, opcodes, persist, sense, vpd
from vscsi import srp
from vscsi.errors import RemoteProtocolError
from vscsi.scsi import copy, parameters, token, vpd_copy
from vscsi.scsi import sense as sense_
from vscsi.scsi import vpd as vpd_
from vscsi.scsi.mode import PageControl


def _shown(lines: Callable[[bytes], Iterable[str]], fields: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    def both(raw: bytes) -> None:
        assert all(isinstance(line, str) for line in lines(raw))
        json.dumps(fields(raw))

    return both


def _opcodes(raw: bytes) -> None:
    found = parameters.decode_opcodes(raw)
    for compact in (False, True):
        list(opcodes.list_lines(found, timeouts=compact, compact=compact))
    json.dumps(opcodes.list_json(found))


def _mode(raw: bytes) -> None:
    for key in ((0x08, 0), (0x0A, 1), (0x3E, 0)):
        values = modes.Values(key, dict.fromkeys(PageControl, raw))
        list(modes.lines(values, every=True))
        json.dumps(modes.to_json(values))


def _sense(raw: bytes) -> None:
    found = sense_.decode(raw)
    found.describe()
    str(ScsiError(2, raw, "x"))
    again = sense_.decode(to_fixed(raw))
    if found.response_code and raw:
        assert (again.key, again.asc, again.ascq) == (found.key, found.asc, found.ascq)


def _lists(raw: bytes) -> None:
    parameters.decode_luns(raw)
    parameters.decode_unmap(raw)
    vpd_.decode_identification(raw)
    vpd_copy.decode(raw)
    token.decode_token_descriptors(raw)
    copy.decode_status_lid4(raw)


def _iu(raw: bytes) -> None:
    try:
        iu = srp.decode(raw)
    except RemoteProtocolError:
        return
    assert srp.decode(srp.encode(iu)) == iu


def _page(raw: bytes) -> None:
    page = vpd_.with_header(raw[0] if raw else 0, raw[1:])
    list(vpd.lines(page))
    json.dumps(vpd.to_json(page))


def _log(raw: bytes) -> None:
    list(logs.lines(raw, control=True))
    json.dumps(logs.to_json(raw))


LOOKS: tuple[Callable[[bytes], None], ...] = (
    _sense, _lists, _iu, _opcodes, _mode, _page, _log,
    _shown(sense.lines, sense.to_json),
    _shown(inquiry.lines, inquiry.to_json),
    _shown(copy_page.lines, copy_page.fields),
    _shown(lambda raw: opcodes.one_lines(0x9E, 0x10, raw), lambda raw: opcodes.one_json(0x9E, 0x10, raw)),
    _shown(opcodes.functions_lines, opcodes.functions_json),
    _shown(persist.keys_lines, persist.keys_json),
    _shown(persist.reservation_lines, persist.reservation_json),
    _shown(persist.capabilities_lines, persist.capabilities_json),
    _shown(persist.full_status_lines, persist.full_status_json),
)  # fmt: skip


@target("pages", mutate=of_bytes, weight=2)
def pages(data: bytes) -> None:
    """Shown in every way there is, whatever it was meant for."""
    for look in LOOKS:
        look(data)
