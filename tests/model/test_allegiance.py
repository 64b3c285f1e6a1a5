# SPDX-License-Identifier: BSD-2-Clause
"""ACA, QERR, TST and a limit, in every order of arrivals, failures and functions: SAM-5's tables hold."""

from itertools import product

import pytest

from model.allegiance import (
    MUTATIONS,
    MUTATIONS_OF_PREEMPTION,
    QERR_ALL,
    QERR_NEXUS,
    QERR_NONE,
    Policy,
)
from model.checker import assert_holds, explore
from model.failing import Failing

EVERY = [Policy(*p) for p in product((False, True), (QERR_NONE, QERR_ALL, QERR_NEXUS), (0, 2))]

NEEDS_THREE = ("ACA does not block what is on its way", "two ACA tasks", "no limit")


@pytest.mark.parametrize("policy", EVERY, ids=str)
def test_every_policy(policy):
    assert_holds(Failing(commands=2, functions=1, policy=policy))


@pytest.mark.parametrize("policy", [Policy(), Policy(True, QERR_ALL, 2)], ids=str)
def test_three_commands(policy):
    assert_holds(Failing(commands=3, functions=1, policy=policy))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_is_found(mutation):
    if mutation in NEEDS_THREE:
        models = [Failing(commands=3, functions=0, policy=Policy(limit=n), mutation=mutation) for n in (0, 2)]
    else:
        models = [Failing(commands=2, policy=policy, mutation=mutation) for policy in EVERY]
    results = (explore(model) for model in models)
    assert any(result.wrong and result.trace for result in results)


@pytest.mark.parametrize("policy", [Policy(), Policy(True, QERR_ALL, 2)], ids=str)
def test_preempt_and_abort(policy):
    assert_holds(Failing(commands=2, functions=0 if policy.separate else 1, policy=policy, preempts=True))


@pytest.mark.parametrize("mutation", MUTATIONS_OF_PREEMPTION)
def test_a_mistake_in_preemption_is_found(mutation):
    result = explore(Failing(commands=2, functions=0, preempts=True, mutation=mutation))
    assert result.wrong and result.trace
