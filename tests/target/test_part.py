# SPDX-License-Identifier: BSD-2-Clause
"""Parts of a unit: one of each kind, told of what happens, and none can take another down."""

from pathlib import Path

import pytest
from fake_device import FakeDevice
from real_server import Target

from initiator import Initiator
from target.part import Nexus, Part
from vscsi.native import lib as abi


class Listener(Part):
    """Writes down what it is told."""

    def __init__(self, unit: object) -> None:
        super().__init__(unit)  # type: ignore[arg-type]
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")

    def reset(self) -> None:
        self.told.append("reset")

    def nexus_known(self, nexus: Nexus) -> None:
        self.told.append("known")

    def nexus_lost(self, nexus: Nexus) -> None:
        self.told.append("lost")

    def close(self) -> None:
        self.told.append("close")


class Broken(Part):
    """Fails at everything that must not stop others."""

    def reset(self) -> None:
        raise RuntimeError("reset")

    def close(self) -> None:
        raise RuntimeError("close")


def test_one_instance_of_each_kind() -> None:
    device = FakeDevice()
    unit = device.units[0]
    first = unit.part(Listener)
    assert unit.part(Listener) is first
    assert unit.part(Broken) is not first
    device.close()


def test_parts_start_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    class Late(Part):
        start_rank = 1

        def start(self) -> None:
            started.append("late")

    class Early(Part):
        start_rank = -1

        def start(self) -> None:
            started.append("early")

    monkeypatch.setattr("target.lu.KINDS", [Late, Early])
    FakeDevice().close()
    assert started == ["early", "late"]


def test_a_broken_part_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    device = FakeDevice()
    unit = device.units[0]
    unit.part(Broken)
    good = unit.part(Listener)
    unit.reset()
    unit.close()
    assert good.told == ["reset", "close"]
    assert caplog.text.count("internal error") == 2


def test_a_served_unit_tells_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("target.lu.KINDS", [Listener])
    target = Target(tmp_path / "s", "0=mem:1M")
    try:
        told = target.server.units[0].part(Listener).told
        with Initiator(tmp_path / "s") as initiator:
            assert initiator.task_management(abi.SRP_TMF_LUN_RESET, 0) == abi.SRP_RESP_COMPLETE
        target.until(lambda: "lost" in told, "the loss of the nexus was not told")
    finally:
        target.stop()
    assert told == ["start", "known", "reset", "lost", "close"]
