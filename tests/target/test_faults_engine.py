# SPDX-License-Identifier: BSD-2-Clause
"""Which rule hits which command, against plain models: sets of blocks, and conditions one by one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target.faults_engine import MAX_RULES, Command, Engine, Extents
from target.faults_rule import LAST_LBA, parse
from vscsi.scsi import cdb

READ, WRITE, TUR = cdb.READ_10.key, cdb.WRITE_10.key, cdb.TEST_UNIT_READY.key
PORT = bytes(range(16))
blocks = st.tuples(st.integers(0, 30), st.integers(0, 12))


def engine(*rules: str) -> Engine:
    made = Engine()
    for rule in rules:
        made.add(parse(rule), 0)
    return made


def hits(made: Engine, command: Command, count: int, step: float = 0) -> list[int]:
    """Numbers, from 1, of those of so many equal commands that something happens to."""
    return [n for n in range(1, count + 1) if made.decide(command, n * step).hits]


# ---- blocks ----


@given(blocks, st.lists(st.tuples(st.booleans(), blocks)))
def test_extents_are_a_set(first, steps):
    extents, model = Extents(first[0], first[0] + first[1]), set(range(first[0], first[0] + first[1] + 1))
    for remove, (start, nblocks) in steps:
        last = start + nblocks
        if remove:
            extents.remove(start, last)
            model -= set(range(start, last + 1))
        assert extents.first_in(start, last) == min((n for n in model if start <= n <= last), default=None)
    ranges = list(extents)
    assert [n for low, high in ranges for n in range(low, high + 1)] == sorted(model)
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(ranges)), "apart, in order"


@given(st.lists(blocks, min_size=1, max_size=4), st.lists(st.tuples(st.booleans(), blocks)))
def test_bad_blocks_are_bad_until_they_are_written(places, steps):
    made = engine(*(f"bad,lba={lba}-{lba + more}" for lba, more in places))
    models = [set(range(lba, lba + more + 1)) for lba, more in places]
    failed = 0
    for write, (lba, count) in steps:
        asked = set(range(lba, lba + count))
        if write:
            made.written(lba, count)
            models = [model - asked for model in models]
            continue
        found = made.unreadable(lba, count)
        bad = min(set().union(*models) & asked, default=None)
        assert (found and found[1]) == bad
        failed += bad is not None
    assert sum(rule.hits for rule in made.rules) == failed
    assert made.active == any(models)
    assert not made.decide(Command(READ, 0, 64), 0).hits, "a matter of blocks, not of commands"


# ---- commands ----


@given(
    st.sampled_from(["", "read", "write", "read+write"]),
    st.none() | st.tuples(st.integers(0, 20), st.integers(0, 20)),
    st.booleans(),
    st.sampled_from([READ, WRITE, TUR]),
    st.tuples(st.integers(0, 40), st.none() | st.integers(0, 5)),
    st.sampled_from([None, PORT, bytes(16)]),
)
def test_what_a_rule_is_about(commands, lba, of_port, key, place, port_id):
    rule = "drop" + (f",{commands}" if commands else "")
    rule += f",lba={lba[0]}+{lba[1] + 1}" if lba else ""
    rule += f",port={PORT.hex()}" if of_port else ""
    command = Command(key, *(place if key != TUR else (None, None)), port_id)
    last = LAST_LBA if place[1] is None else place[0] + place[1] - 1
    about = not commands or {READ: "read", WRITE: "write", TUR: "?"}[key] in commands
    if lba:
        about &= key != TUR and place[0] <= last and place[0] <= lba[0] + lba[1] and last >= lba[0]
    about &= not of_port or port_id == PORT
    made = engine(rule)
    assert bool(made.decide(command, 0).hits) == about
    assert (made.rules[0].seen, made.rules[0].hits) == (about, about)


@given(st.integers(0, 5), st.integers(1, 5), st.none() | st.integers(1, 5), st.integers(0, 60))
def test_how_often_a_rule_hits(skip, every, count, commands):
    made = engine(f"drop,skip={skip},every={every}" + (f",count={count}" if count else ""))
    behind = [n for n in range(1, commands + 1) if n > skip and (n - skip) % every == 0]
    assert hits(made, Command(READ, 0, 1), commands) == behind[:count]
    assert made.rules[0].spent == (count is not None and len(behind) >= count) != made.active


@given(st.integers(0, 1 << 32), st.floats(0.05, 1))
def test_a_seed_repeats_a_run(seed, chance):
    rule = f"drop,p={chance},seed={seed}"
    one, other = engine(rule), engine(rule)
    expected = hits(one, Command(READ, 0, 1), 200)
    assert hits(other, Command(READ, 0, 1), 200) == expected
    assert chance < 1 or expected == list(range(1, 201))


def test_the_seed_of_a_rule_that_has_none_is_told():
    made = engine("drop,p=0.5")
    again = engine(made.rules[0].text())
    command = Command(READ, 0, 1)
    assert hits(made, command, 100) == hits(again, command, 100)
    assert 10 < made.rules[0].hits < 90
    assert engine("drop").rules[0].text() == "drop"


def test_in_turns():
    made = engine("drop,up=2,down=1")
    assert hits(made, Command(READ, 0, 1), 9, step=1.0) == [2, 5, 8]
    assert made.rules[0].seen == 3, "while it sleeps it sees nothing"


def test_delays_add_up_and_the_first_end_is_the_end():
    made = engine("delay=5", "read,delay=10,status=busy", "drop", "delay=1")
    verdict = made.decide(Command(READ, 3, 1), 0)
    assert (verdict.delay_ms, verdict.decisive, verdict.information) == (15, made.rules[1], 3)
    assert [rule.hits for rule in made.rules] == [1, 1, 0, 0]
    verdict = made.decide(Command(TUR), 0)
    assert (verdict.delay_ms, verdict.decisive, verdict.information) == (5, made.rules[2], None)


def test_information_is_the_first_block_that_the_rule_is_about():
    made = engine("drop,lba=10-20")
    assert made.decide(Command(READ, 8, 8), 0).information == 10
    assert made.decide(Command(READ, 12, None), 0).information == 12


def test_rules_come_and_go():
    made = engine("drop", "status=busy", "delay=1")
    assert [gone.number for gone in made.remove(2)] == [2] and made.remove(2) == []
    assert [rule.number for rule in made.rules] == [1, 3]
    assert made.add(parse("hang"), 0).number == 4
    assert len(made.remove(None)) == 3 and not made.active
    for _ in range(MAX_RULES):
        made.add(parse("drop"), 0)
    with pytest.raises(ValueError, match="256 rules already"):
        made.add(parse("drop"), 0)
