# SPDX-License-Identifier: BSD-2-Clause
"""What fault rules say: every word, and one clear line for every mistake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target.faults_rule import LAST_LBA, OUTCOMES, STATUSES, WORDS, RuleError, commands_of, help_lines, parse
from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status

EXAMPLES = {
    "lba": ("7", (7, 7)),
    "port": ("0xAB", "ab*"),
    "skip": ("3", 3),
    "every": ("2", 2),
    "p": ("12.5%", 0.125),
    "seed": ("0", 0),
    "count": ("1", 1),
    "up": ("0.5", 0.5),
    "down": ("2", 2.0),
    "delay": ("5-10", (5, 10)),
    "sense": ("b/4b/00", sense.DATA_PHASE_ERROR),
    "status": ("task_set_full", Status.TASK_SET_FULL),
    "short": ("0", 0),
    "corrupt": ("9", 9),
}
"""A value for every word that has one, and what it means."""
CONDITIONS = ("lba", "port", "skip", "every", "p", "seed", "count")


def test_every_word_has_an_example_and_help():
    assert set(EXAMPLES) == {name for name, row in WORDS.items() if row.metadata["convert"]}
    assert [name.rstrip("=") for name, _ in help_lines()] == ["COMMANDS", *WORDS]
    assert set(OUTCOMES) <= set(WORDS)


@given(
    st.sets(st.sampled_from(CONDITIONS)),
    st.sampled_from([name for name in OUTCOMES if name != "bad"]),
    st.sampled_from(["", "read", "write_10+9Eh", "all"]),
    st.booleans(),
    st.sampled_from([",", " ", ", "]),
    st.randoms(use_true_random=False),
)
def test_words_in_any_order(conditions, outcome, commands, late, comma, rng):
    names = [*sorted(conditions), outcome, *(["delay"] if late else [])]
    words = [f"{name}={EXAMPLES[name][0]}" if name in EXAMPLES else name for name in names]
    words += [commands] if commands else []
    rng.shuffle(words)
    rule = parse(comma.join(words))
    assert rule.outcome == outcome
    for name in names:
        assert getattr(rule, WORDS[name].name) == (EXAMPLES[name][1] if name in EXAMPLES else True)
    for name in {*CONDITIONS, "delay"} - set(names):
        assert getattr(rule, WORDS[name].name) == WORDS[name].default
    expected = set().union(*(commands_of(word) for word in commands.split("+"))) if commands else None
    assert rule.commands == expected
    assert parse(rule.text) == rule, "what is shown says the same"


@given(st.text())
def test_any_text_is_a_rule_or_one_line(text):
    try:
        parse(text)
    except RuleError as error:
        assert str(error).isprintable() or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", (5, 5)), ("5-9", (5, 9)), ("0x10+16", (16, 31)), ("7-", (7, LAST_LBA)), ("0-0", (0, 0))],
)
def test_ranges_of_blocks(text, expected):
    assert parse(f"drop,lba={text}").lba == expected


def test_commands():
    assert commands_of("read") == {row.key for row in (cdb.READ_6, cdb.READ_10, cdb.READ_12, cdb.READ_16, cdb.READ_32)}
    assert cdb.COMPARE_AND_WRITE.key in commands_of("write") and cdb.READ_16.key not in commands_of("write")
    assert commands_of("READ(10)") == commands_of("read_10") == commands_of("28h") == {cdb.READ_10.key}
    assert commands_of("0x9e") == {row.key for row in cdb.ROWS.values() if row.opcode == 0x9E}
    for name in ("verify", "sync", "unmap"):
        assert commands_of(name)


@pytest.mark.parametrize("name", STATUSES)
def test_statuses(name):
    assert parse(f"status={name}").status.name.lower() == name


def test_sense_that_says_that_all_went_well_comes_afterwards():
    assert parse("sense=1/17/01").after
    assert not parse("sense=3/11/00").after


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing happens: give delay= or one of sense, status, short, corrupt, ignore, drop, hang, bad"),
        ("read", "nothing happens"),
        ("raed,drop", "'raed' is neither a command nor a word of a rule (did you mean 'read'?)"),
        ("dorp", "'dorp' is neither a command nor a word of a rule (did you mean 'drop'?)"),
        ("c0h,drop", "'c0h': no command has this opcode"),
        ("cuont=3,drop", "unknown word 'cuont=' (known: lba, port"),
        ("drop=1", "'drop' takes no value"),
        ("count,drop", "'count' needs a value: count=..."),
        ("drop,count=1,count=2", "'count' is given twice"),
        ("drop,count=0", "count: 0 is too few"),
        ("drop,skip=-1", "skip: '-1' is not a number"),
        ("drop,lba=9-5", "lba: '9-5' is not a range"),
        ("drop,lba=9+0", "lba: 0 is too few"),
        ("drop,lba=x", "lba: 'x' is not a number"),
        ("drop,port=xyz", "port: 'xyz' is not an initiator port identifier"),
        ("drop,p=0", "p: '0' is not a probability"),
        ("drop,p=101%", "p: '101%' is not a probability"),
        ("drop,p=often", "p: 'often' is not a probability"),
        ("delay=1s", "delay: '1s' is not a number"),
        ("delay=9-1", "delay: '9-1' is not a delay"),
        ("delay=99999999999", "is not a delay: MS or MIN-MAX, at most a day"),
        ("drop,up=1", "'up' needs 'down'"),
        ("drop,down=1", "'down' needs 'up'"),
        ("drop,up=0,down=1", "up: '0' is not a time in seconds"),
        ("sense=unrecovered_reed_error", "nor the name of a sense code (did you mean 'unrecovered_read_error'?)"),
        ("sense=3/11", "sense: '3/11' is neither KEY/ASC/ASCQ in hex"),
        ("status=good", "status: 'good' is not one of"),
        ("drop,hang", "'drop' and 'hang' contradict each other"),
        ("bad", "bad: needs lba="),
        ("bad,lba=1,count=3", "'count' cannot go with it"),
        ("bad,lba=1,read", "'a command' cannot go with it"),
        ("hang,after", "after: cannot go with 'hang'"),
    ],
)
def test_one_line_names_the_word_that_is_wrong(text, said):
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)
