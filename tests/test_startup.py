# SPDX-License-Identifier: BSD-2-Clause
"""What the programs load until they are ready: each module costs a millisecond or so, and starting is most of what a
short command does. Modules are counted, not milliseconds. Knows names of modules only.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import BIN, Target

TARGET_NEVER = {
    "initiator", "vscsi.bus.local_initiator", "vscsi.pcap", "vscsi.pcapfile", "target.config", "target.pcap", "tomllib",
    "shutil", "random", "secrets", "difflib", "tempfile", "subprocess", "importlib.metadata", "ssl", "uuid",
}  # fmt: skip
INITIATOR_NEVER = {
    "target", "vscsi.bus.local_listener", "vscsi.bus.local_target", "vscsi.pcap", "vscsi.pcapfile", "vscsi.blkif",
    "initiator.pcap", "initiator.vbd", "initiator.text.vpd", "initiator.text.modes", "initiator.mount",
    "initiator.door.server", "shutil", "random", "secrets", "difflib", "tempfile", "subprocess", "ctypes",
    "importlib.metadata", "ssl", "rich", "pyscsi",
}  # fmt: skip
MODULES_MAX = {"target": 251, "initiator": 175}
"""Those of the standard library included, and some more than it takes today."""


def loaded(text: str) -> set[str]:
    """Modules that a program run with -X importtime has loaded."""
    return set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", text, re.MULTILINE))


def test_a_target_that_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    target = Target(tmp_path, f"0={tmp_path}/disk.img", "1=mem:1M")
    ready = loaded(target.log.read_text())
    assert target.stop() == 0
    assert "target.server" in ready
    assert ready & TARGET_NEVER == set()
    assert len(ready) <= MODULES_MAX["target"], sorted(ready)


def test_a_short_command(tmp_path: Path) -> None:
    target = Target(tmp_path, "0=mem:1M")
    command = [BIN / "vscsi-initiator", "--socket", target.socket, "inquiry"]
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert target.stop() == 0
    assert "standard INQUIRY" in done.stdout
    assert "initiator.initiator" in loaded(done.stderr)
    assert loaded(done.stderr) & INITIATOR_NEVER == set()
    assert len(loaded(done.stderr)) <= MODULES_MAX["initiator"], sorted(loaded(done.stderr))


def test_sources_are_hashed_once() -> None:
    """Every native module checks that it was built from the C files beside it; they are read once for all."""
    script = "import target.native, initiator.native, vscsi.native as n; print(n._expected.cache_info()[:2])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "(2, 1)\n"
