# SPDX-License-Identifier: BSD-2-Clause
"""The choices: one row each, with the load on which it shows, and what is done otherwise, at which end.

Knows options of initiator and target, and loads. A new row is all that a new ablation takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from comparison.workloads import Workload

from vscsi.native import lib

READ = Workload("randread", 4096, 32, 100, True)
SINGLE = Workload("randread", 4096, 1, 100, True)
LARGE = Workload("seqread", 128 << 10, 8, 100, False)
ELEVEN = Workload("randread", 11 * 4096, 8, 100, True)
TWELVE = Workload("randread", 12 * 4096, 8, 100, True)
SHALLOW = Workload("randread", 4096, 24, 100, True)


@dataclass(frozen=True)
class Ring:
    """How the initiator's end is set up; the default is how the bench measures SRP everywhere else."""

    spin: bool = True
    persistent: bool = True
    pages: int = 16
    eager_events: bool = False
    scatter: int = 0


@dataclass(frozen=True)
class Served:
    """How the target's end is set up."""

    spin: bool = True
    keys: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """`words`: what is done otherwise, and what that shows."""

    name: str
    words: str
    workload: Workload
    ring: Ring = field(default_factory=Ring)
    served: Served = field(default_factory=Served)


CHOICES = (
    Choice("grants", "a page is granted for each request and revoked after it", READ, Ring(persistent=False)),
    Choice("grants-large", "the same with 32 pages a request", LARGE, Ring(persistent=False)),
    Choice("spinning", "neither end spins: each request sleeps and wakes twice", SINGLE, Ring(spin=False),
           Served(spin=False)),
    Choice("spinning-deep", "the same with 32 requests under way", READ, Ring(spin=False), Served(spin=False)),
    Choice("suppression", "no event suppression: an event for every publication, both ways", READ,
           Ring(eager_events=True)),
    Choice("suppression-single", "the same with one request under way", SINGLE, Ring(eager_events=True)),
    Choice("descriptors", "11 descriptors of neighbouring pages instead of one for the run", ELEVEN,
           Ring(scatter=lib.VSCSI_SCATTER_PAGES)),
    Choice("scattered", "11 descriptors of pages that lie apart, all in the slot", ELEVEN,
           Ring(scatter=lib.VSCSI_SCATTER_APART)),
    Choice("table", "12 descriptors of pages that lie apart, in an external table", TWELVE,
           Ring(scatter=lib.VSCSI_SCATTER_APART)),
    Choice("slots-32", "32 slots instead of 256", SHALLOW, Ring(pages=2)),
    Choice("slots-64", "64 slots instead of 256", SHALLOW, Ring(pages=4)),
    Choice("slots-128", "128 slots instead of 256", SHALLOW, Ring(pages=8)),
    Choice("o-direct", "the image is opened O_DIRECT: no page cache", READ, served=Served(keys=",cache=none")),
    Choice("python", "reads go through Python's workers instead of C", READ,
           served=Served(options=("--debug", "store.slow"))),
)  # fmt: skip
