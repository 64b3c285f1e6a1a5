# SPDX-License-Identifier: BSD-2-Clause
"""What a fault rule says, read and checked: `read,lba=100-107,count=3,sense=3/11/00`.

Words stand between commas or spaces, in any order: which commands, which blocks, when, and what happens to them. A new
word is a new row. Every mistake is one clear line that names the word. Knows no unit and no clock; runs nothing.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from target.access import port_pattern
from vscsi.scsi import cdb, sense
from vscsi.scsi.sense import Sense
from vscsi.scsi.status import Status

Key = tuple[int, int | None]
"""A command: opcode and service action."""
MAX_DELAY_MS = 24 * 3600 * 1000
LAST_LBA = (1 << 64) - 1


class RuleError(ValueError):
    """A rule is wrong: one line for the user."""


# ---- which commands ----

_CLASSES = {
    "read": r"READ_(6|10|12|16|32)",
    "write": r"WRITE_(?!BUFFER).*|ORWRITE_.*|COMPARE_AND_WRITE",
    "verify": r"VERIFY_.*",
    "sync": r"SYNCHRONIZE_CACHE_.*",
    "unmap": r"UNMAP",
    "all": r".*",
}


def _class(pattern: str) -> frozenset[Key]:
    return frozenset(row.key for row in cdb.ROWS.values() if re.fullmatch(pattern, row.symbol))


def _symbol(text: str) -> str:
    return re.sub(r"[ (-]", "_", text.replace(")", "")).upper()


def commands_of(text: str) -> frozenset[Key]:
    """The commands that one word names: a class, a command of the table of CDBs, or an opcode such as 9Eh or 0x9e."""
    if text.lower() in _CLASSES:
        return _class(_CLASSES[text.lower()])
    found = frozenset(row.key for row in cdb.ROWS.values() if row.symbol == _symbol(text))
    if found:
        return found
    digits = re.fullmatch(r"0x([0-9a-f]{1,2})|([0-9a-f]{2})h", text.lower())
    if digits:
        opcode = int(digits[1] or digits[2], 16)
        if found := frozenset(key for key in cdb.ROWS if key[0] == opcode):
            return found
        raise RuleError(f"'{text}': no command has this opcode here")
    known = [*_CLASSES, *(row.symbol.lower() for row in cdb.ROWS.values())]
    raise RuleError(f"'{text}' is neither a command nor a word of a rule{_did_you_mean(text, (*known, *WORDS))}")


def _did_you_mean(text: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(text.lower().replace("-", "_"), list(known), 1, 0.7)
    return f" (did you mean '{near[0]}'?)" if near else ""


# ---- values ----


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0 or value > LAST_LBA:
        raise ValueError(f"'{text}' is not a number")
    return value


def _positive(text: str) -> int:
    value = _number(text)
    if not value:
        raise ValueError("0 is too few")
    return value


def _range(text: str) -> tuple[int, int]:
    """First and last block."""
    if (found := re.fullmatch(r"([^+-]+)\+(.+)", text)) is not None:
        first = _number(found[1])
        last = first + _positive(found[2]) - 1
    else:
        start, dash, end = text.partition("-")
        first = _number(start)
        last = _number(end) if end else LAST_LBA if dash else first
    if last < first or last > LAST_LBA:
        raise ValueError(f"'{text}' is not a range: N, FIRST-LAST, FIRST- or FIRST+BLOCKS")
    return first, last


def _milliseconds(text: str) -> tuple[int, int]:
    """Shortest and longest delay."""
    low, dash, high = text.partition("-")
    found = _number(low), _number(high if dash else low)
    if found[1] < found[0] or found[1] > MAX_DELAY_MS:
        raise ValueError(f"'{text}' is not a delay: MS or MIN-MAX, at most a day")
    return found


def _chance(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1
    if not 0 < value <= 1:
        raise ValueError(f"'{text}' is not a probability: from 0 to 1, or a percentage such as 2.5%")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 86400:
        raise ValueError(f"'{text}' is not a time in seconds")
    return value


def _sense(text: str) -> Sense:
    named = sense.NAMED.get(_symbol(text))
    if named is not None:
        return named
    digits = re.fullmatch(r"([0-9a-f])/([0-9a-f]{1,2})/([0-9a-f]{1,2})", text.lower())
    if not digits:
        near = _did_you_mean(text, (name.lower() for name in sense.NAMED))
        raise ValueError(
            f"'{text}' is neither KEY/ASC/ASCQ in hex, such as 3/11/00, nor the name of a sense code{near}"
        )
    key, asc, ascq = (int(part, 16) for part in digits.groups())
    known = sense.lookup(asc, ascq)
    return Sense(key, asc, ascq, known.name if known else f"additional sense {asc:02X}h/{ascq:02X}h")


STATUSES = {
    each.name.lower(): each for each in Status if each not in (Status.GOOD, Status.CHECK_CONDITION)
}  # the others would need data or sense


def _status(text: str) -> Status:
    found = STATUSES.get(_symbol(text).lower())
    if found is None:
        raise ValueError(f"'{text}' is not one of {', '.join(STATUSES)} (sense= gives CHECK CONDITION)")
    return found


def _word(name: str, convert: Callable[[str], Any] | None, default: Any, help: str) -> Any:
    """`convert` None: the word stands alone."""
    return field(default=default, metadata={"word": name, "convert": convert, "help": help})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `text` is what it was made from, `commands` what it is about (None: all)."""

    text: str
    commands: frozenset[Key] | None = None
    lba: tuple[int, int] | None = _word(
        "lba", _range, None, "only commands that touch these blocks: N, FIRST-LAST, FIRST- or FIRST+BLOCKS"
    )
    port: str | None = _word(
        "port", port_pattern, None, "only this initiator port: hex, its beginning, or with * and ?"
    )
    skip: int = _word("skip", _number, 0, "let the first N commands pass")
    every: int = _word("every", _positive, 1, "then only each Nth")
    chance: float = _word("p", _chance, 1.0, "then only with this probability: 0.1 or 10%")
    seed: int | None = _word("seed", _number, None, "start of the random numbers, to repeat a run (default: any)")
    count: int | None = _word("count", _positive, None, "at most N times")
    up: float = _word("up", _seconds, 0.0, "in turns: for so many seconds nothing happens, ...")
    down: float = _word("down", _seconds, 0.0, "... then the rule is in force for so many")
    delay_ms: tuple[int, int] = _word("delay", _milliseconds, (0, 0), "wait MS, or MIN-MAX, milliseconds first")
    sense: Sense | None = _word("sense", _sense, None, "CHECK CONDITION with this: KEY/ASC/ASCQ in hex, or a name")  # noqa: RUF009
    status: Status | None = _word("status", _status, None, f"this status instead: {', '.join(STATUSES)}")  # noqa: RUF009
    short: int | None = _word("short", _number, None, "move only the first N bytes; GOOD, the rest is a residual")
    corrupt: int | None = _word("corrupt", _positive, None, "flip N bits of the data, either way")
    ignore: bool = _word("ignore", None, False, "GOOD, but nothing is done: a write or a flush that is lost")
    drop: bool = _word("drop", None, False, "never answer; the initiator may abort it")
    hang: bool = _word("hang", None, False, "as a stuck disk: not even an abort ends it, until the rule is removed")
    bad: bool = _word("bad", None, False, "the blocks of lba= cannot be read (3/11/00) until they are written again")
    after: bool = _word("after", None, False, "do what the command asks first: what follows is only its answer")

    @property
    def outcome(self) -> str | None:
        """The word that says how a command ends; None: as it would anyway, only later."""
        return next((n for n in OUTCOMES if not any(getattr(self, n) is off for off in (None, False))), None)


WORDS = {f.metadata["word"]: f for f in fields(Rule) if f.metadata}
OUTCOMES = ("sense", "status", "short", "corrupt", "ignore", "drop", "hang", "bad")
_WITH_BAD = {"lba", "bad", "sense"}
_IN_PAIRS = {"up": "down", "down": "up"}


def parse(text: str) -> Rule:
    """Reads a rule. RuleError says which word is wrong, and why."""
    words = [word for word in re.split(r"[,\s]+", text.strip()) if word]
    values: dict[str, Any] = {}
    given: list[str] = []
    commands: set[Key] | None = None
    for word in words:
        name, equals, value = word.partition("=")
        row = WORDS.get(name.lower())
        if row is None:
            if equals:
                known = ", ".join(n for n, f in WORDS.items() if f.metadata["convert"])
                raise RuleError(f"unknown word '{name}=' (known: {known})")
            for each in word.split("+"):
                commands = (commands or set()) | commands_of(each)
            continue
        values[row.name] = _value(row, word, name, value, equals, twice=row.name in values)
        given.append(name.lower())
    rule = Rule(",".join(words), None if commands is None else frozenset(commands), **values)
    return _consistent(rule, given)


def _value(row: Any, word: str, name: str, value: str, equals: str, *, twice: bool) -> Any:
    convert = row.metadata["convert"]
    if twice:
        raise RuleError(f"'{name}' is given twice")
    if (convert is None) == bool(equals):
        raise RuleError(f"'{name}' takes no value" if equals else f"'{name}' needs a value: {name}=...")
    try:
        return True if convert is None else convert(value)
    except ValueError as error:
        raise RuleError(f"{name}: {error}") from error


def _consistent(rule: Rule, given: list[str]) -> Rule:
    if rule.bad:
        if rule.lba is None:
            raise RuleError("bad: needs lba=")
        if others := sorted({*given} - _WITH_BAD) + (["a command"] if rule.commands is not None else []):
            raise RuleError(f"bad: a property of blocks, so '{others[0]}' cannot go with it (only lba= and sense= can)")
        return rule
    outcomes = [name for name in given if name in OUTCOMES]
    if len(outcomes) > 1:
        raise RuleError(f"'{outcomes[0]}' and '{outcomes[1]}' contradict each other")
    if not outcomes and "delay" not in given:
        raise RuleError(f"nothing happens: give delay= or one of {', '.join(OUTCOMES)}")
    for one, other in _IN_PAIRS.items():
        if one in given and other not in given:
            raise RuleError(f"'{one}' needs '{other}'")
    if rule.after and (rule.hang or rule.ignore or rule.short is not None or rule.corrupt):
        raise RuleError(f"after: cannot go with '{outcomes[0]}'")
    if rule.sense is not None and rule.sense.key <= sense.Key.RECOVERED_ERROR:
        return replace(rule, after=True)  # which say that the command has been done
    return rule


def help_lines() -> list[tuple[str, str]]:
    """Every word with what it does, for people."""
    first = ("COMMANDS", f"{', '.join(_CLASSES)}, a command (read_10), or an opcode (9Eh); several with +")
    rows = [(f"{name}=" if f.metadata["convert"] else name, f.metadata["help"]) for name, f in WORDS.items()]
    return [first, *rows]
