# SPDX-License-Identifier: BSD-2-Clause
"""What `make conformance ARGS=--json` printed, as the report keeps and words it.

Knows the keys of that JSON (`tests/suite/__main__.py` writes them) and no set-up or test by name.
"""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "passed": "passed",
    "impossible": "impossible for the set-up, each with its reason",
    "skipped": "skipped without a reason",
    "failed": "failed",
}
"""The verdicts that the suite counts for each set-up, as a reader sees them."""
ALWAYS = ("passed", "failed")
KEYS = {"good", "complete", "tests", "not_started", "passed_somewhere", "passed_nowhere", "counts"}


def digest(found: dict[str, Any]) -> dict[str, Any] | None:
    """The `conformance` of the report's JSON: all but the single results; None if this is something else."""
    if not set(found) >= KEYS or not isinstance(found["counts"], dict):
        return None
    counts = found["counts"]
    if not counts or not all(isinstance(one, dict) and set(one) <= set(COLUMNS) for one in counts.values()):
        return None
    rows = {setup: {column: int(one.get(column, 0)) for column in COLUMNS} for setup, one in counts.items()}
    return {key: found[key] for key in sorted(KEYS)} | {"counts": rows}


def total(done: dict[str, Any], column: str) -> int:
    """Of all set-ups."""
    return sum(one[column] for one in done["counts"].values())


def sentences(done: dict[str, Any]) -> list[str]:
    """All set-ups together, then each, then what passed nowhere."""
    started = f"{done['tests']} tests of libiscsi's conformance suite were started through the SG_IO door"
    if not done["complete"]:
        started = f"Only a part of libiscsi's conformance suite was run: {done['tests']} tests"
    out = [
        f"{started}, on {len(done['counts'])} kinds of logical unit; {done['passed_somewhere']} passed on at least "
        f"one. {done['not_started']} others need iSCSI itself or cannot be run through that door; they are not started."
    ]
    for setup, counts in done["counts"].items():
        shown = [f"{counts[column]} {words}" for column, words in COLUMNS.items() if counts[column] or column in ALWAYS]
        out.append(f"{setup}: {'; '.join(shown)}.")
    if done["passed_nowhere"]:
        out.append(f"Passed on no set-up: {', '.join(done['passed_nowhere'])}.")
    return out
