# SPDX-License-Identifier: BSD-2-Clause
"""ACA, QERR, TST and a limit, in every order of arrivals, failures and functions: SAM-5's tables hold."""

from itertools import product

import pytest

from model.allegiance import MUTATIONS, QERR_ALL, QERR_NEXUS, QERR_NONE, Failing, Policy
from model.checker import assert_holds, explore

EVERY = [Policy(*p) for p in product((False, True), (QERR_NONE, QERR_ALL, QERR_NEXUS), (0, 2))]


@pytest.mark.parametrize("policy", EVERY, ids=str)
def test_every_policy(policy):
    assert_holds(Failing(commands=2, functions=1, policy=policy))


@pytest.mark.parametrize("policy", [Policy(), Policy(True, QERR_ALL, 2), Policy(False, QERR_NEXUS, 2)], ids=str)
def test_three_commands(policy):
    assert_holds(Failing(commands=3, functions=1, policy=policy))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_is_found(mutation):
    models = [Failing(commands=2, policy=policy, mutation=mutation) for policy in EVERY]
    models += [Failing(commands=3, policy=Policy(limit=limit), mutation=mutation) for limit in (0, 2)]
    results = (explore(model) for model in models)
    assert any(result.wrong and result.trace for result in results)
