# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-admin fault`: rules come and go while the target runs. Both ends: the actions, and the command line.

Knows what is asked and how the answer is shown. What rules say and do is the business of other `target.faults` modules.
"""

import argparse
from typing import TYPE_CHECKING, Any

from target.admin import AdminError, Fields, action, unit_of
from target.faults_rule import help_lines, parse

if TYPE_CHECKING:
    from target.lu import LogicalUnit
    from target.server import Server


def _faults(unit: "LogicalUnit") -> Any:
    from target.faults import Faults

    return unit.part(Faults)


def _units(server: "Server", fields: Fields) -> "list[LogicalUnit]":
    """The one that is meant, or all."""
    return list(server.units.values()) if fields.get("lun") is None else [unit_of(server, fields)]


def _answer(unit: "LogicalUnit", rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"lun": unit.lun, **rule} for rule in rules]


@action("fault-add")
def add(server: "Server", fields: Fields) -> Fields:
    """Brings the rule in `rule` into force."""
    unit, text = unit_of(server, fields), fields.get("rule")
    try:
        rule = parse(text if isinstance(text, str) else "")
        if rule.lba is not None and rule.lba[0] >= unit.blocks:
            raise AdminError(f"lba: LUN {unit.lun} has only {unit.blocks} blocks")
        made = _faults(unit).add(rule)
    except ValueError as error:
        raise AdminError(str(error)) from error
    return {"faults": [rule for rule in _answer(unit, _faults(unit).list()) if rule["id"] == made.number]}


@action("fault-list")
def show(server: "Server", fields: Fields) -> Fields:
    """Every rule with its counters."""
    return {"faults": [rule for unit in _units(server, fields) for rule in _answer(unit, _faults(unit).list())]}


@action("fault-remove")
def remove(server: "Server", fields: Fields) -> Fields:
    """Ends one rule."""
    unit, number = unit_of(server, fields), fields.get("id")
    gone = _faults(unit).remove(number) if isinstance(number, int) else []
    if not gone:
        raise AdminError(f"LUN {unit.lun} has no fault {number!a}")
    return {"faults": _answer(unit, gone)}


@action("fault-clear")
def clear(server: "Server", fields: Fields) -> Fields:
    """Ends all rules, of one unit or of all."""
    return {"faults": [rule for unit in _units(server, fields) for rule in _answer(unit, _faults(unit).remove())]}


# ---- the command line ----


def add_parser(actions: Any) -> None:
    """The sub-commands of `vscsi-admin fault`."""
    words = "let commands fail, wait or get lost, to test what uses them"
    fault = actions.add_parser("fault", help=words, description=words)
    what = fault.add_subparsers(dest="what", metavar="WHAT", required=True)

    def sub(name: str, help: str, lun: str | None = None, **more: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = what.add_parser(name, help=help, description=help, **more)
        parser.add_argument("lun", type=int, metavar="LUN", nargs=lun)
        parser.set_defaults(action=f"fault-{name}")
        return parser

    made = sub(
        "add", "bring a rule into force", epilog=rule_help(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("rule", nargs="+", metavar="RULE", help="words with commas or spaces between them")
    sub("list", "show every rule, and how often it has hit", "?")
    sub("remove", "end a rule; what hangs on it goes on").add_argument("id", type=int, metavar="ID")
    sub("clear", "end all rules, of one LUN or of all", "?")


def rule_help() -> str:
    """What stands in a rule."""
    width = max(len(name) for name, _ in help_lines())
    return "words of a rule:\n" + "\n".join(f"  {name:{width}}  {words}" for name, words in help_lines())


def in_words(answer: Fields) -> str:
    """One line for each rule."""
    return "\n".join(map(_line, answer["faults"])) or "no faults"


def _line(rule: Fields) -> str:
    words = [f"{rule['hits']} of {rule['seen']} hit"]
    words += [f"{rule['held']} held"] if rule["held"] else []
    words += [f"bad: {', '.join(f'{first}-{last}' for first, last in rule['bad'])}"] if rule.get("bad") else []
    words += ["spent"] if rule["spent"] else []
    return f"lun {rule['lun']} fault {rule['id']}: {rule['rule']} ({'; '.join(words)})"
