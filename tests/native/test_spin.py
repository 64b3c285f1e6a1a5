# SPDX-License-Identifier: BSD-2-Clause
"""Spinning: bounded, reset, taught by experience, a peer at work; moving to another CPU and staying as free."""

import pytest


@pytest.mark.parametrize("variant", ["plain", "asan"])
def test_spin(compile_c, run_c, variant: str) -> None:  # type: ignore[no-untyped-def]
    done = run_c(compile_c("spin.c", variant))
    if done.returncode == 77:
        pytest.skip("one CPU only")
    assert done.returncode == 0, done.stderr
