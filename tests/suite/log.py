# SPDX-License-Identifier: BSD-2-Clause
"""Reads the log of one test of iscsi-test-cu. The tool's own summary counts a skip as a pass: the log decides.

Knows the texts of the tool and of CUnit; knows no target.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What became of a test."""

    PASSED = "passed"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """`notes`: what the log says of skips and failures, each once."""

    verdict: Verdict
    notes: tuple[str, ...] = ()


ENDED = (0, 1)
"""Exit statuses of a tool that came to its end; 1 if an assertion failed."""
NOTE = re.compile(r"\[(SKIPPED|FAILED)\]\s*(.*)")
COUNTS = re.compile(r"^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.MULTILINE)
ASSERT = re.compile(r"^\s+\d+\. (.*)$", re.MULTILINE)


def judge(log: str, status: int) -> Outcome:
    """The outcome of a run of exactly one test, from its whole output and the tool's exit status."""
    _, found, rest = log.partition("  Test: ")
    counts = COUNTS.search(rest)
    if not found or counts is None or status not in ENDED:
        # It did not even come to a summary: killed, timed out, no device.
        words = [line.strip() for line in log.splitlines() if line.strip()]
        return Outcome(Verdict.FAILED, (f"ended with status {status}: {' | '.join(words[-3:])}",))
    body = rest[: rest.find("Run Summary")]
    notes = [(kind, text.strip()) for kind, text in NOTE.findall(body)]
    total, ran, passed, failed = (int(n) for n in counts.groups())
    if (total, ran) != (1, 1):
        return Outcome(Verdict.FAILED, (f"{ran} of {total} tests ran",))
    failures = [text for kind, text in notes if kind == "FAILED"]
    # [FAILED] alone is not a failure: tests that try whether a command exists log it too.
    if failed or passed != 1:
        return Outcome(Verdict.FAILED, tuple(dict.fromkeys(failures or ASSERT.findall(body))))
    skips = tuple(dict.fromkeys(text for kind, text in notes if kind == "SKIPPED"))
    return Outcome(Verdict.SKIPPED if skips else Verdict.PASSED, skips)
