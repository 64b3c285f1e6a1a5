# SPDX-License-Identifier: BSD-2-Clause
"""Configuration files (TOML): everything that the command line of `vscsi-target` can say, and the way back.

Keys are the long options and, in `[[lun]]` tables, the keys of `--lun`: both are taken from there, none is listed here.
A file becomes what the command line would have become. Must not know what any option does.
"""

import argparse
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from target.lunspec import KEYS, LunSpecError, join, parse, parse_all, split
from target.options import settings
from vscsi.cli import CliError, ExitStatus

LUN = "lun"
NUMBER, STORE, PATH = "number", "store", "path"
"""Keys of a `[[lun]]` table for what `--lun` says without a key; `path` is a store that is a file whatever its name."""
_TEXT = str | int


def load(path: str, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the file says, as `parser` would have read it from the command line. CliError: one line that names the file.

    Only what the file mentions is in it, so that `parse_args` fills in the rest and goes on from there.
    """
    try:
        with Path(path).open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise CliError(f"{path}: {(error.strerror or str(error)).lower()}", ExitStatus.FILE) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CliError(f"{path}: not TOML: {error}") from error
    try:
        return _namespace(document, parser)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise CliError(f"{path}: {error}") from error


def load_under(path: str, parser: argparse.ArgumentParser, over: argparse.Namespace) -> argparse.Namespace:
    """The same without the logical units that `over`, the command line, defines anew. CliError."""
    base = load(path, parser)
    anew = {_number(text) for text in over.lun}
    if LUN in base:
        base.lun = [text for text in base.lun if _number(text) not in anew]
    return base


def _number(text: str) -> int | None:
    try:
        return split(text)[0]
    except LunSpecError:
        return None


def _namespace(document: Mapping[str, Any], parser: argparse.ArgumentParser) -> argparse.Namespace:
    rows = settings(parser)
    base = argparse.Namespace()
    for name, value in document.items():
        if name not in rows:
            raise ValueError(f"unknown key '{name}'{_meant(name, rows)}")
        if name == LUN:
            base.lun = list(_luns(value))
            parse_all(base.lun)
            continue
        try:
            setattr(base, rows[name].dest, _value(rows[name], value))
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{name}: {error}") from error
    return base


def _meant(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.replace("_", "-").lower(), known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"


# ---- options ----


def _value(row: argparse.Action, value: object) -> Any:
    """What the option's own action would have made of it. ValueError."""
    if isinstance(row, argparse._AppendAction):
        return [_one(row, member) for member in (value if isinstance(value, list) else [value])]
    if isinstance(row, argparse._CountAction):
        if type(value) is not int or value < 0:
            raise ValueError("expected a number, 0 or more")
        return value
    if row.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    return _one(row, value)


def _one(row: argparse.Action, value: object) -> Any:
    text = _text(value)
    result = row.type(text) if callable(row.type) else text
    if row.choices is not None and result not in row.choices:
        raise ValueError(f"'{text}' is not one of {', '.join(map(str, row.choices))}")
    return result


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, _TEXT):
        raise ValueError("expected a text in quotes or a whole number")
    return str(value)


# ---- logical units ----


def _luns(tables: object) -> Iterator[str]:
    """Each table as `--lun` would say it. ValueError."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{LUN}: expected tables that begin with [[{LUN}]]")
    for table in tables:
        text = _lun(table)
        parse(text)
        yield text


def _lun(table: Mapping[str, Any]) -> str:
    number = table.get(NUMBER)
    if type(number) is not int or number < 0:
        raise ValueError(f"[[{LUN}]]: {NUMBER}: expected the LUN, a number")
    if (STORE in table) == (PATH in table):
        raise ValueError(f"lun {number}: expected either {STORE} or {PATH}")
    place = table.get(STORE, table.get(PATH))
    if not isinstance(place, str) or not place:
        raise ValueError(f"lun {number}: {STORE if STORE in table else PATH}: expected a text in quotes")
    words = []
    for name, value in table.items():
        if name in (NUMBER, STORE, PATH):
            continue
        if name not in KEYS:
            raise ValueError(
                f"lun {number}: unknown key '{name}'{_meant(name, {NUMBER: 0, STORE: 0, PATH: 0, **KEYS})}"
            )
        try:
            words.append((name, _word(value, several=KEYS[name].metadata["several"])))
        except ValueError as error:
            raise ValueError(f"lun {number}: {name}: {error}") from error
    return join(number, place if STORE in table else f"file:{place}", words)


def _word(value: object, *, several: bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if several and isinstance(value, list):
        return "+".join(_text(member) for member in value)
    return _text(value)


# ---- the way back ----


def dump(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """A file that says what `args` says, without what is so by default. CliError if TOML has no words for it."""
    lines = []
    for name, row in settings(parser).items():
        value = getattr(args, row.dest)
        if name != LUN and value != row.default:
            lines.append(f"{name} = {_toml(value)}")
    for text in args.lun:
        number, store, words = split(text)
        lines += ["", f"[[{LUN}]]", f"{NUMBER} = {number}", f"{STORE} = {_toml(store)}"]
        lines += [f"{name} = {_toml(_listed(name, value))}" for name, value in words]
    return "\n".join(lines).lstrip("\n") + "\n"


def _listed(name: str, value: str | None) -> object:
    if value is None:
        return True
    return value.split("+") if KEYS[name].metadata["several"] else value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CliError(f"{text!a} is not UTF-8: only the command line can say it") from None
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    return f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char
