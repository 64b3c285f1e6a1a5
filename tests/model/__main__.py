# SPDX-License-Identifier: BSD-2-Clause
"""`make model`: the models with larger bounds than the tests have time for; prints what was looked at.

Knows which bounds are large; the properties are the models' own. Ends with 1 if anything is wrong.
"""

import sys
import time

from model.allegiance import QERR_ALL, QERR_NEXUS, Policy
from model.checker import Model, explore
from model.failing import Failing
from model.ranges import Blocks, Ranges
from model.ring import MUTATIONS, Ring
from model.taskset import HEAD, ORDERED, SIMPLE, Starving, TaskSet

A, B, BOTH, OTHER_LU = Blocks(0, 0, 1), Blocks(0, 1, 1), Blocks(0, 0, 2), Blocks(1, 0, 1)
SEVERAL = ((A, B, OTHER_LU), (BOTH, OTHER_LU), (OTHER_LU,))

LARGE: tuple[tuple[str, Model], ...] = (
    ("ring, 1 slot, 5 requests", Ring(slots=1, requests=5)),
    ("ring, 2 slots, 3 requests", Ring(slots=2, requests=3)),
    ("ring, 2 slots, 3 requests, the front spins", Ring(slots=2, requests=3, spins="front")),
    ("ring, 2 slots, 3 requests, the back spins", Ring(slots=2, requests=3, spins="back")),
    ("ring, 4 slots, 2 requests, either may die", Ring(slots=4, requests=2, may_die="both")),
    ("ring, 2 slots, 3 requests, either may die", Ring(slots=2, requests=3, may_die="both")),
    ("task set, 6 commands, no function", TaskSet(commands=6, nexuses=1, functions=0)),
    ("task set, 4 commands of 2 nexuses, 1 function, stops", TaskSet(commands=4, nexuses=2, stops=True)),
    ("task set, 3 commands of 2 nexuses, 2 functions", TaskSet(commands=3, nexuses=2, functions=2)),
    *(
        (f"task set, an endless queue with one {a} in it", Starving(a, room=5, heads=3))
        for a in (SIMPLE, ORDERED, HEAD)
    ),
    ("task set with ACA, 4 commands, no function", Failing(commands=4, functions=0)),
    ("task set with ACA and QERR, 3 commands, 2 functions", Failing(functions=2, policy=Policy(qerr=QERR_ALL))),
    ("task set with ACA and PREEMPT AND ABORT, 3 commands, a function", Failing(functions=1, preempts=True)),
    ("task sets with ACA, 3 commands, 2 functions", Failing(functions=2, policy=Policy(True, QERR_NEXUS, 2))),
    ("range locks, 2 units, 3 lockers, 3 commands", Ranges((A, BOTH, OTHER_LU), SEVERAL)),
    ("range locks, 2 units, 3 lockers, 1 command, aborts and time-outs", Ranges((BOTH,), SEVERAL, errors=True)),
    ("range locks, 2 lockers, 3 commands, losses", Ranges((A, BOTH, BOTH), ((A, B), (BOTH,)), losses=True)),
    *(
        (
            f"range locks without end, {kind} {n} is watched",
            Ranges((A, BOTH, B), ((A,), (BOTH,), (B,)), watched=(kind, n)),
        )
        for kind in ("fast", "locker")
        for n in range(2)
    ),
)


def main() -> int:
    """Explore them all."""
    failed = 0
    for name, model in LARGE:
        began = time.monotonic()
        result = explore(model)
        print(f"{name}: {result} ({time.monotonic() - began:.1f} s)", flush=True)
        failed += bool(result.wrong)
    for mutation in MUTATIONS:
        result = explore(Ring(slots=2, requests=2, mutation=mutation))
        found = f"found in {result.states} states: {result.wrong}" if result.wrong else "NOT FOUND"
        print(f"ring, mistake '{mutation}': {found}", flush=True)
        failed += not result.wrong
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
