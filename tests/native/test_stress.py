# SPDX-License-Identifier: BSD-2-Clause
"""Ring and grant table under fire: the C programs beside this file, plain, under ASan + UBSan, and under TSan.

Short here; `make stress` and `make tsan` run them for as long as one likes (VSCSI_STRESS_SECONDS). The second half
breaks the ring on purpose and expects the programs to notice: a stress test that passes on broken code proves nothing.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("VSCSI_STRESS_SECONDS", "2"))
SEED = int(os.environ.get("VSCSI_STRESS_SEED", random.randrange(1 << 32)))
ENDLESS = 1 << 62

# (slot bytes, pages): blkif and SRP as they are used, and a ring so small that it is always full.
SHAPES = [(112, 8), (248, 16), (504, 1)]


def ring(
    run_c,
    program: Path,
    how: str,
    shape: tuple[int, int],
    *,
    start: int = 0,
    seconds: float = SECONDS,
    entries: int = ENDLESS,
):  # type: ignore[no-untyped-def]
    return run_c(program, how, seconds, entries, SEED, start, *shape, timeout=seconds + 60)


def facts(line: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (word.partition("=") for word in line.split())}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(("how", "variant"), [("process", "plain"), ("process", "asan"), ("thread", "tsan")])
def test_ring(compile_c, run_c, how: str, variant: str, shape: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    """Sequence and payload of every entry, every entry answered once, no wake-up lost, across the wrap of the index."""
    done = ring(run_c, compile_c("ring_stress.c", variant), how, shape, start=0xFFFFFE00)
    assert (done.returncode, done.stderr) == (0, ""), f"seed {SEED}"
    seen = facts(done.stdout)
    assert seen["entries"] > 2048, "too few to have wrapped"
    assert seen["sleeps"] > 10, "never slept: nothing is proved about wake-ups"
    assert seen["kicks"] > 10


@pytest.mark.slow
def test_ring_millions(compile_c, run_c) -> None:  # type: ignore[no-untyped-def]
    """Two million entries between two processes."""
    done = ring(run_c, compile_c("ring_stress.c"), "process", (248, 16), seconds=100, entries=2_000_000)
    assert (done.returncode, done.stderr) == (0, ""), f"seed {SEED}"
    assert facts(done.stdout)["entries"] == 2_000_000


@pytest.mark.parametrize("variant", ["plain", "asan", "tsan"])
@pytest.mark.parametrize("peer", ["honest", "hostile"])
def test_grants(compile_c, run_c, variant: str, peer: str) -> None:  # type: ignore[no-untyped-def]
    """A page never changes owner while it is in use; a scribbling granter gets errors or its own pages, never more."""
    done = run_c(compile_c("grant_stress.c", variant), SECONDS, SEED, 3, peer, timeout=SECONDS + 60)
    assert (done.returncode, done.stderr) == (0, ""), f"seed {SEED}"
    seen = facts(done.stdout)
    assert min(seen["revokes"], seen["busy"], seen["mapped"], seen["refused"]) > 100


# ---- the programs notice what they are for ----

FENCE = "atomic_thread_fence(memory_order_seq_cst);"
BACK_CHECK = "vscsi_full_fence();\n    return vscsi_back_unconsumed(r);"
FRONT_CHECK = "vscsi_full_fence();\n    return vscsi_front_unconsumed(r);"
# A side may be put off the processor between any two instructions; this makes it likely.
PAUSE = "for (volatile int i = 0; i < 3000; i++);"

MUTANTS = {
    "no-fence": ("barrier.h", FENCE, ";"),
    "no-final-check-of-requests": ("ring.h", BACK_CHECK, "return 0;"),
    "no-final-check-of-responses": ("ring.h", FRONT_CHECK, "return 0;"),
    "event-index-one-too-low": ("ring.h", "req_event, r->req_cons + 1)", "req_event, r->req_cons)"),
    "event-index-one-too-high": ("ring.h", "req_event, r->req_cons + 1)", "req_event, r->req_cons + 2)"),
    "response-event-one-too-high": ("ring.h", "rsp_event, r->rsp_cons + ahead)", "rsp_event, r->rsp_cons + ahead + 1)"),
}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_lost_wakeup_is_noticed(compile_c, run_c, changed_native: Callable[..., Path], mutant: str) -> None:  # type: ignore[no-untyped-def]
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors at once")
    native = changed_native(*MUTANTS[mutant])
    flags, shape = ["-DPATIENCE_MS=500"], (504, 1)
    if mutant == "no-fence":
        # A window of nanoseconds in both sides at once: met at full speed, not by pausing.
        flags, shape = [*flags, "-DFULL_SPEED=0xfff000"], (248, 16)
    else:
        header = native / "ring.h"
        text = header.read_text()
        for line in ("vscsi_store_relaxed(&r->sring->req_event", "vscsi_store_relaxed(&r->sring->rsp_event"):
            assert text.count(line) == 1
            text = text.replace(line, f"{PAUSE}\n    {line}")
        header.write_text(text)
    program = compile_c("ring_stress.c", native=native, flags=tuple(flags))
    done = ring(run_c, program, "process", shape, seconds=90)
    assert done.returncode == 1
    assert "LOST WAKE-UP" in done.stderr


def test_pause_alone_loses_nothing(compile_c, run_c, changed_native: Callable[..., Path]) -> None:  # type: ignore[no-untyped-def]
    """The control of the mutants: the same pause, the ring as it is."""
    native = changed_native("ring.h", BACK_CHECK, f"{PAUSE}\n    {BACK_CHECK}")
    done = ring(run_c, compile_c("ring_stress.c", native=native), "process", (504, 1), seconds=2)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("function", "strong", "weak"),
    [
        ("vscsi_store_release", "(_Atomic uint32_t *)p, v, memory_order_release", "memory_order_relaxed"),
        ("vscsi_load_acquire", "(const _Atomic uint32_t *)p, memory_order_acquire", "memory_order_relaxed"),
    ],
)
def test_missing_order_is_noticed_by_tsan(  # type: ignore[no-untyped-def]
    compile_c, run_c, changed_native: Callable[..., Path], function: str, strong: str, weak: str
) -> None:
    native = changed_native("barrier.h", strong, strong.rsplit(" ", 1)[0] + " " + weak)
    done = ring(run_c, compile_c("ring_stress.c", "tsan", native=native), "thread", (248, 1), seconds=2)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr, function


def test_page_given_away_is_noticed(compile_c, run_c, changed_native: Callable[..., Path]) -> None:  # type: ignore[no-untyped-def]
    """A granter that does not look at the in-use bits."""
    native = changed_native("grant.h", "if (seen & GTF_IN_USE)", "if (false)")
    done = run_c(compile_c("grant_stress.c", native=native), 20, SEED, 3, "honest")
    assert done.returncode == 1
    assert "reference" in done.stderr


def test_claim_of_half_an_entry_is_noticed(compile_c, run_c, changed_native: Callable[..., Path]) -> None:  # type: ignore[no-untyped-def]
    """In-use bits set by a swap of flags and domain alone: the entry may have moved to another page meanwhile."""
    whole = "atomic_compare_exchange_strong_explicit((_Atomic uint64_t *)entry, &seen, seen | bits,"
    half = "atomic_compare_exchange_strong_explicit(vscsi_grant_low(entry), (uint32_t *)&seen, (uint32_t)seen | bits,"
    native = changed_native("grant.c", whole, half)
    done = run_c(compile_c("grant_stress.c", native=native), 30, SEED, 3, "honest")
    assert done.returncode == 1
    assert "reference" in done.stderr
