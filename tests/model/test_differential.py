# SPDX-License-Identifier: BSD-2-Clause
"""The C task set and its model, driven by the same random schedules, agree after every step.

VSCSI_MODEL_SCHEDULES says how many schedules; `make model` tries many, from other seeds each time.
"""

import os
import random

import pytest
from raw_initiator import Rig

from model.driver import Driver, random_schedule

SCHEDULES = int(os.environ.get("VSCSI_MODEL_SCHEDULES", "0"))


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path, loops=2)
    yield rig
    rig.close()


@pytest.mark.parametrize("nexuses", [1, 3])
def test_target_and_model_agree(rig, nexuses):
    seeds = random.SystemRandom().sample(range(1 << 32), SCHEDULES) if SCHEDULES else range(30)
    driver = Driver(rig, nexuses)
    for seed in seeds:
        random_schedule(driver, seed, 40)
    state = driver.state
    print(f"{len(seeds)} schedules, {nexuses} nexuses: {state.arrived} commands, {state.asked} functions, as modelled")


@pytest.mark.parametrize(
    "mutation", ["HEAD OF QUEUE waits", "nobody is enabled when another ends", "a function is never answered"]
)
def test_a_model_that_is_wrong_is_noticed(rig, mutation):
    driver = Driver(rig, 2, mutation)
    try:
        with pytest.raises(AssertionError, match="schedule:"):
            for seed in range(20):
                random_schedule(driver, seed, 40)
    finally:
        driver.release()
