# SPDX-License-Identifier: BSD-2-Clause
"""What was said in 2006 against SCSI as a virtual disk protocol, and what the numbers of this run say to it.

One function a claim. It answers from the JSON alone: for, against, in part, or "not answered yet" where a measurement
is missing; it never answers from what somebody hopes. Knows no HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from . import conformance, facts
from .facts import Document

AS_FAST = 0.97
"""What counts as "costs next to nothing": the goal for SRP over blkif."""


class Verdict(Enum):
    """What the numbers say to a claim."""

    REFUTED = "does not hold"
    HOLDS = "holds"
    PARTLY = "holds in part"
    OPEN = "not answered yet"


@dataclass(frozen=True)
class Answer:
    """`evidence`: sentences; `see`: keys of pictures."""

    verdict: Verdict
    evidence: tuple[str, ...]
    see: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """Somebody's objection, in our words."""

    text: str
    answer: Callable[[Document], Answer]


CLAIMS: list[Claim] = []
NOTHING = Answer(Verdict.OPEN, ("This run has no numbers for it.",))


def claim(text: str) -> Callable[[Callable[[Document], Answer]], Callable[[Document], Answer]]:
    """Puts a claim with its function on the list."""

    def put(answer: Callable[[Document], Answer]) -> Callable[[Document], Answer]:
        CLAIMS.append(Claim(text, answer))
        return answer

    return put


def answers(document: Document) -> list[tuple[str, Answer]]:
    """Every claim with its answer."""
    return [(one.text, one.answer(document)) for one in CLAIMS]


def _judge(found: list[tuple[str, dict[str, float]]]) -> Verdict:
    """Not slower (the interval reaches the goal) everywhere, nowhere, or somewhere."""
    missed = [ratio for _, ratio in found if ratio["high"] < AS_FAST]
    return Verdict.REFUTED if not missed else Verdict.HOLDS if len(missed) == len(found) else Verdict.PARTLY


@claim("SCSI is overkill: a virtual machine only wants blocks, and a block protocol does that with less.")
def overkill(document: Document) -> Answer:
    """IOPS of SRP over blkif."""
    found = facts.ratios(document, "srp_over_blkif")
    if not found:
        return NOTHING
    small = [one for one in found if " 4k " in one[0]] or found
    shown = [f"SRP does {facts.ratio_words(ratio)} of blkif's I/O per second: {name}." for name, ratio in small[:4]]
    shown.append(f"The verdict takes all {len(found)} workloads of this run together.")
    return Answer(_judge(found), tuple(shown), ("ratios", "depth"))


@claim("It has lots of overhead.")
def overhead(document: Document) -> Answer:
    """CPU time and events an I/O."""
    shown, worse = [], 0
    for workload, nbytes, depth in (("randread", 4096, 32), ("randread", 4096, 1)):
        rows = facts.results(document, workload=workload, block_size=nbytes, queue_depth=depth)
        by = {row["protocol"]: row for row in rows}
        if not {"srp", "blkif"} <= set(by):
            continue
        cpu = {name: sum(by[name]["cpu_us_per_io"].values()) for name in ("srp", "blkif")}
        target = {name: by[name]["cpu_us_per_io"]["target"] for name in ("srp", "blkif")}
        p50 = {name: by[name]["latency_us"]["p50"] for name in ("srp", "blkif")}
        worse += cpu["srp"] > 1.15 * cpu["blkif"]
        shown.append(
            f"{facts.label(by['srp'])}: {cpu['srp']:.2f} µs of CPU time an I/O for SRP ({target['srp']:.2f} in the "
            f"target), {cpu['blkif']:.2f} for blkif ({target['blkif']:.2f}); median latency {p50['srp']:.1f} and "
            f"{p50['blkif']:.1f} µs."
        )
    shown += [line for line in document.get("goals", {}).get("lines", []) if line.startswith("instructions")]
    if not shown:
        return NOTHING
    verdict = Verdict.REFUTED if not worse else Verdict.PARTLY
    return Answer(verdict, tuple(shown), ("cpu", "kicks", "latency-qd1", "latency-qd32"))


@claim("Half an emulation of SCSI is worse than none.")
def emulation(document: Document) -> Answer:
    """Conformance is no speed: from the JSON of `make conformance`."""
    done = document.get("conformance")
    if not done:
        return Answer(
            Verdict.OPEN,
            (
                "No speed answers it. 'make conformance' runs libiscsi's test suite through the SG_IO door, over every "
                "kind of logical unit; this page has its answer if it is given its JSON (--conformance FILE).",
            ),
        )
    words = tuple(conformance.sentences(done))
    if not done["complete"]:
        return Answer(Verdict.OPEN, words)
    return Answer(Verdict.REFUTED if done["good"] else Verdict.PARTLY, words)


@claim("iSCSI does all that already.")
def iscsi(document: Document) -> Answer:
    """SRP over the ring against an iSCSI target on the same machine."""
    shown, best = [], []
    for row in document.get("peer_ratios", []):
        if row["peer"] == "tgt":
            how = "neither end spinning" if "sleeping" in row["ring"] else "both ends spinning"
            shown.append(
                f"{row['label']}: SRP over the ring, {how}, does {facts.ratio_words(row['ratio'])} times the I/O per "
                "second of tgt over loopback iSCSI in the same rounds."
            )
            best.append(row["ratio"]["low"])
    if not shown:
        return Answer(Verdict.OPEN, ("Needs a run with --peers where tgt and libiscsi's iscsi-perf are installed.",))
    verdict = Verdict.REFUTED if min(best) > 1 else Verdict.PARTLY if max(best) > 1 else Verdict.HOLDS
    return Answer(verdict, tuple(shown), ("peers",))


@claim("One driver replaces those for disk, CD and tape (said for SCSI, not against it).")
def one_driver(document: Document) -> Answer:
    """CD and tape are not served."""
    return Answer(
        Verdict.OPEN,
        ("This target serves disks: direct access block devices, fixed and removable. CD and tape are not served, so "
         "nothing has been measured on them.",),
    )  # fmt: skip


@claim("Guests that see a shared disk cannot schedule its head, so nobody can.")
def head(document: Document) -> Answer:
    """bench/scheduler.py's JSON."""
    scheduler: dict[str, Any] = document.get("scheduler") or {}
    if not scheduler.get("claims"):
        return Answer(Verdict.OPEN, ("Needs the JSON of bench/scheduler.py (--scheduler FILE).",))
    verdict = {"refuted": Verdict.REFUTED, "holds": Verdict.HOLDS}.get(scheduler.get("verdict", ""), Verdict.PARTLY)
    return Answer(verdict, tuple(str(words) for words in scheduler["claims"]), ("scheduler",))


@claim("Tagged queues and barriers are where such emulations corrupt data.")
def barriers(document: Document) -> Answer:
    """Not a measurement: proofs and tests by name."""
    return Answer(
        Verdict.REFUTED,
        (
            "No speed answers it; these do, by name: tests/model (every state of ring, task set and range locks; the C "
            "task set is driven beside the model), tests/crash (every crash point of recorded loads: what a completed "
            "flush, FUA or barrier promised is there), tests/stress/test_integrity.py (mixed loads of several "
            "initiators, every block checked), tests/interop/test_ext4.py and test_mount_filesystems.py (real file "
            "systems and their checkers).",
            "The verdict is what they showed when the project's suite last passed; this run did not repeat them.",
        ),
    )


@claim("A simpler protocol needs less code.")
def code(document: Document) -> Answer:
    """Lines by protocol."""
    rows = document.get("code", [])
    if not rows:
        return NOTHING
    totals: dict[str, int] = {}
    wire: dict[str, int] = {}
    for row in rows:
        totals[row["protocol"]] = totals.get(row["protocol"], 0) + int(row["lines"])
        if row["what"].startswith("on the wire"):
            wire[row["protocol"]] = int(row["lines"])
    return Answer(
        Verdict.HOLDS,
        (
            f"On the wire, in C, both sides: {wire.get('srp', 0)} lines for SRP, {wire.get('blkif', 0)} for blkif.",
            f"All that only one of them needs: {totals.get('srp', 0)} lines for SCSI over SRP (most of it commands, "
            f"pages, reservations and a task set that blkif does not have), {totals.get('blkif', 0)} for blkif; "
            f"{totals.get('both', 0)} serve both.",
        ),
        ("code",),
    )
