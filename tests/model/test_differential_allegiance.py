# SPDX-License-Identifier: BSD-2-Clause
"""The C task set and the model of ACA, QERR, TST and a limit, driven by the same random schedules, agree.

VSCSI_MODEL_SCHEDULES says how many schedules of each policy; `make model` tries many, from other seeds each time.
"""

import os
import random

import pytest
from raw_initiator import Rig

from model.allegiance import Policy
from model.driver_allegiance import AllegianceDriver, random_schedule

SCHEDULES = int(os.environ.get("VSCSI_MODEL_SCHEDULES", "0"))


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path, loops=2)
    yield rig
    rig.close()


@pytest.mark.parametrize("limit", [0, 4])
@pytest.mark.parametrize("qerr", [0, 1, 3])
@pytest.mark.parametrize("separate", [False, True])
def test_target_and_model_agree(rig, separate, qerr, limit):
    policy = Policy(separate, qerr, limit)
    seeds = random.SystemRandom().sample(range(1 << 32), SCHEDULES) if SCHEDULES else range(5)
    driver = AllegianceDriver(rig, 3, policy)
    for seed in seeds:
        random_schedule(driver, seed, 40)
    state = driver.state
    print(f"{len(seeds)} schedules, {policy}: {state.arrived} commands, {state.asked} functions, as modelled")


@pytest.mark.parametrize(
    "mutation",
    ["the faulted nexus goes on", "nobody is enabled when ACA ends", "no limit", "PREEMPT AND ABORT leaves ACA"],
)
def test_a_model_that_is_wrong_is_noticed(rig, mutation):
    driver = AllegianceDriver(rig, 2, Policy(limit=4 if mutation == "no limit" else 0), mutation)
    try:
        with pytest.raises(AssertionError, match="schedule:"):
            for seed in range(60):
                random_schedule(driver, seed, 40)
    finally:
        driver.release()
