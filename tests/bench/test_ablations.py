# SPDX-License-Identifier: BSD-2-Clause
"""Ablations: each choice changes what it says, on a ring with a target played in Python and on a served one."""

import json

import bench_document
import pytest
from ablations import choices
from ablations import run as ablations_run
from programs import run

from vscsi.cli import CliError
from vscsi.native import lib

COMPARE = bench_document.ROOT / "bench" / "compare.py"


def test_every_choice_differs_from_the_default_in_one_thing():
    assert len({choice.name for choice in choices.CHOICES}) == len(choices.CHOICES)
    for choice in choices.CHOICES:
        differs = [choice.ring != choices.Ring(), choice.served != choices.Served()]
        assert any(differs), choice.name
        # Both ends spin or neither does; everything else is one end's.
        assert differs.count(True) == (2 if not choice.ring.spin else 1), choice.name


def test_the_slots_that_a_choice_names_are_those_of_its_ring():
    for choice in choices.CHOICES:
        if choice.name.startswith("slots-"):
            slots = lib.vscsi_ring_capacity(choice.ring.pages, lib.VSCSI_SRP_SLOT)
            assert choice.name == f"slots-{slots}"
            assert choice.workload.queue_depth <= slots - 2


def test_a_name_that_no_choice_has():
    with pytest.raises(CliError, match="no ablation 'magic'"):
        ablations_run.measure(None, ["magic"])


def test_choices_are_measured_and_shown(tmp_path):
    """Every kind of difference once: at the initiator's end, in the buffers, at the target's."""
    names = ["grants", "suppression-single", "table", "python"]
    options = ["--rounds", "2", "--seconds", "0.02", "--size", "4M", "--json", tmp_path / "x.json"]
    done = run(COMPARE, *options, "--ablations", *names, timeout=60)
    assert done.status == 0, done.err
    rows = json.loads((tmp_path / "x.json").read_text())["ablations"]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert row["title"].split(":")[0].split()[-1] in done.text
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
        for side in ("default", "otherwise"):
            assert row[side]["iops"] > 0
            assert "histogram" not in row[side]
    kicks = {row["name"]: sum(row["otherwise"]["kicks_per_io"].values()) for row in rows}
    assert kicks["suppression-single"] >= 1, "an event for every publication"
