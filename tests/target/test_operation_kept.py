# SPDX-License-Identifier: BSD-2-Clause
"""The document of a long operation, damaged: nobody knows what its blocks hold, so nobody is let near them before they
are formatted anew; and that is not forgotten at the next start.
"""

import json
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort

from target.operation import DOCUMENT, Operation
from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status

OVERWRITE = {"pattern": "00", "passes": 1, "invert": False}
FORMAT = {**OVERWRITE, "protection": 0}


def whole(**changes: object) -> dict[str, object]:
    rest = {"kind": "format", "parameters": FORMAT, "blocks": 128, "done": 0, "ause": False, "failed": False}
    return {**rest, **changes}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        *(
            json.dumps(document)
            for document in (
                {},
                whole(kind="another"),
                whole(kind=["format"]),
                whole(kind=None),
                whole(parameters=None),
                whole(parameters={}),
                whole(parameters=OVERWRITE),
                whole(parameters={**FORMAT, "pattern": ""}),
                whole(parameters={**FORMAT, "pattern": "0" * 4000}),
                whole(parameters={**FORMAT, "pattern": 7}),
                whole(parameters={**FORMAT, "passes": 0}),
                whole(parameters={**FORMAT, "passes": 1 << 40}),
                whole(parameters={**FORMAT, "passes": "x"}),
                whole(parameters={**FORMAT, "protection": 4}),
                whole(parameters={**FORMAT, "protection": [0]}),
                whole(kind="sanitize cryptographic erase"),
            )
        ),
    ],
    ids=lambda text: text[:24],
)
def test_what_cannot_be_read_must_be_done_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / f"{DOCUMENT}.json").write_text(text)
    for _ in range(2):
        device = FakeDevice(f"0=mem:64k,state={folder}")
        assert device.units[0].part(Operation).has_failed
        assert device.states[0] == sense.FORMAT_COMMAND_FAILED.code
        device.close()
    assert "cannot be understood" in caplog.text and "format it anew" in caplog.text
    assert (folder / f"{DOCUMENT}.damaged").read_text() == text
    device = FakeDevice(f"0=mem:64k,state={folder}")
    assert device.run(cdb.FORMAT_UNIT.build(), FakePort()).status is Status.GOOD
    assert device.states[0] == 0
    device.close()
    device = FakeDevice(f"0=mem:64k,state={folder}")
    assert not device.units[0].part(Operation).has_failed
    device.close()


@pytest.mark.parametrize("done", [-1, 129, 1 << 70, 0.5, "7", None, True])
def test_from_the_beginning_where_it_does_not_say_how_far(tmp_path: Path, done: object) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / f"{DOCUMENT}.json").write_text(json.dumps(whole(done=done)))
    device = FakeDevice(f"0=mem:64k,state={folder}")
    thread = device.units[0].part(Operation)._thread
    if thread is not None:
        thread.join()
    assert not device.units[0].part(Operation).has_failed
    assert not (folder / f"{DOCUMENT}.json").exists(), "done"
    device.close()
