# SPDX-License-Identifier: BSD-2-Clause
"""Questions to the owner's side of a target: any fields for any action, one after the other on the same units.

The owner is trusted, his tools may be wrong: every question has an answer that JSON can say, and an error is one line.
"""

import json
import os
from types import SimpleNamespace

from fake_device import FakeDevice

from fuzz.python.files import HOME
from fuzz.python.mutation import Reader, of_items
from fuzz.python.registry import target
from target import admin
from vscsi.bus import wire
from vscsi.bus.errors import ProtocolError

UNITS = ("0=mem:64k", "1=mem:64k,removable=on", "3=mem:64k,sched=fair")
MEMORY = ("mem:", "null:", "sim:")


@target("admin", mutate=of_items)
def questions(data: bytes) -> None:
    """Items are the fields of a question as they stand in a frame."""
    device = FakeDevice(*UNITS)
    server = SimpleNamespace(units=device.units, device=device)
    asked = admin.Admin(server)  # type: ignore[arg-type]
    try:
        for ticket, (_, body) in enumerate(Reader(data).items(12)):
            try:
                fields = wire.decode(b'{"op":"x","fields":' + body + b"}").get("fields")
            except ProtocolError:
                continue
            if isinstance(fields, dict):
                one(asked, ticket, fields)
    finally:
        device.close()


def one(asked: admin.Admin, ticket: int, fields: dict[str, object]) -> None:
    asked.result(os.geteuid(), fields)
    name, store = fields.get("action"), fields.get("store")
    function = admin._ACTIONS.get(name) if isinstance(name, str) else None
    if function is None:
        assert "error" in asked.ask(os.geteuid(), fields)
        return
    if isinstance(store, str) and not store.startswith(MEMORY):
        fields["store"] = f"{HOME}/{store.replace('/', '_')}"  # nothing else on this machine
    asked._run(ticket, function, fields)
    answer = asked.result(os.geteuid(), {"ticket": ticket})
    json.dumps(answer)
    assert answer.keys() <= {"error", "result"}
    assert "\n" not in str(answer.get("error", "")), answer
