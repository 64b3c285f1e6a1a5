# SPDX-License-Identifier: BSD-2-Clause
"""What results mean together: what is unexplained, and whether everything that some set-up skips passes on another.

Knows results and the catalogue; starts nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .catalogue import FAILURES, SKIPS, excluded
from .log import Verdict
from .runner import Result

EXPLAINED = "impossible"
"""A skip or failure that the catalogue explains."""


def explanation(result: Result) -> str | None:
    """Why this skip or failure is right; None if it is not, or if the test passed."""
    rules = {Verdict.SKIPPED: SKIPS, Verdict.FAILED: FAILURES}.get(result.outcome.verdict, ())
    setup, test, notes = result.setup, result.test, result.outcome.notes
    return next((rule.why for rule in rules if rule.explains(setup, test, notes)), None)


@dataclass
class Report:
    """`wrong`: unexplained skips and failures. `never`: tests that passed nowhere, though explained everywhere."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[Result] = field(default_factory=list)
    explained: list[tuple[Result, str]] = field(default_factory=list)
    never: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing failed and every skip is explained and passed elsewhere."""
        return not self.wrong and not self.never


def report(results: Iterable[Result], *, complete: bool) -> Report:
    """`complete`: these are all tests on all set-ups, so that each must have passed on one of them."""
    made = Report()
    passed, seen = set(), []
    for result in results:
        why = explanation(result)
        verdict = result.outcome.verdict
        made.counts[result.setup][EXPLAINED if why else verdict.value] += 1
        if verdict is Verdict.PASSED:
            passed.add(result.test)
        elif why:
            made.explained.append((result, why))
        else:
            made.wrong.append(result)
        if result.test not in seen:
            seen.append(result.test)
    if complete:
        made.never = [test for test in seen if test not in passed]
    return made


def wanted(tests: Iterable[str]) -> list[str]:
    """Those that are started."""
    return [test for test in tests if excluded(test) is None]
