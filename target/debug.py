# SPDX-License-Identifier: BSD-2-Clause
"""Debug flags: `-D component.flag=N` on the command line, read where they matter.

A new flag is one `declare` in the module that reads it. Knows no component.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Flag:
    """0 is off. Read it as `flag.value`, each time."""

    name: str
    help: str
    value: int = 0


_FLAGS: dict[str, Flag] = {}


def declare(name: str, help: str) -> Flag:
    """A new flag `component.flag`."""
    return _FLAGS.setdefault(name, Flag(name, help))


def flags() -> list[Flag]:
    """All flags, by name."""
    return [_FLAGS[name] for name in sorted(_FLAGS)]


def set_flag(text: str) -> None:
    """Takes `component.flag` or `component.flag=N`. ValueError with one clear line."""
    name, equals, number = text.partition("=")
    flag = _FLAGS.get(name)
    if flag is None:
        raise ValueError(f"unknown debug flag '{name}' (known: {', '.join(sorted(_FLAGS)) or 'none'})")
    if equals and not (number.isascii() and number.isdigit() and len(number) < 10):
        raise ValueError(f"debug flag '{name}': '{number}' is not a number")
    flag.value = int(number) if equals else 1
