# SPDX-License-Identifier: BSD-2-Clause
"""`vscsi-admin schedule`: how a device is shared, looked at and changed while the target runs. Both ends of it.

Knows what is asked and how the answer is shown. What the rules mean is `target.scheduling`'s.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from target import scheduling
from target.admin import AdminError, Fields, action, unit_of
from target.stores.sizes import format_size

if TYPE_CHECKING:
    from target.server import Server

_RULES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "weight": ("weights", scheduling.weights, "W or PORT:W, with + between: shares of the device"),
    "iops": ("iops", scheduling.iops, "N or PORT:N: requests a second at most, each initiator; 0: no limit"),
    "bw": ("bandwidths", scheduling.bandwidths, "SIZE or PORT:SIZE: bytes a second at most, each; 0: no limit"),
    "depth": ("depth", scheduling.depth, "requests at the device at once"),
    "idle": ("idle_ms", scheduling.idle_ms, "ms that the head waits for the next request of a stream; 0: not at all"),
}
"""By option: the field of a Schedule, what reads the value, and the help."""


@action("schedule")
def schedule(server: "Server", fields: Fields) -> Fields:
    """Takes what is given in place of what was in force, for every LUN on the device; then how it is shared."""
    unit = unit_of(server, fields)
    part = unit.part(scheduling.Scheduling)
    if part.schedule is None:
        raise AdminError(f"LUN {unit.lun} has no scheduler (it was not given sched=fair)")
    values: dict[str, Any] = {}
    for name, (attribute, convert, _) in _RULES.items():
        text = fields.get(name)
        if text is None:
            continue
        try:
            values[attribute] = convert(text if isinstance(text, str) else "")
        except ValueError as error:
            raise AdminError(f"{name}: {error}") from error
    part.change(values)
    luns = sorted(other.lun for other in part.schedule.units)
    facts = {"luns": luns, "depth": part.schedule.depth, "rotational": part.schedule.rotational}
    facts["idle_ms"] = part.schedule.idle_ms
    return {"schedule": facts, "nexuses": list(part.shares())}


# ---- the command line ----


def add_parser(actions: Any) -> None:
    """The options of `vscsi-admin schedule`."""
    words = "see how initiators share a device, or change it (docs/scheduling.md)"
    parser: argparse.ArgumentParser = actions.add_parser("schedule", help=words, description=words)
    parser.add_argument("lun", type=int, metavar="LUN")
    for name, (_, _, text) in _RULES.items():
        parser.add_argument(f"--{name}", metavar="N" if name in ("depth", "idle") else "RULES", help=text)


def asked(args: argparse.Namespace) -> Fields:
    """What the options say."""
    return {name: getattr(args, name, None) for name in _RULES}


def _limit(value: int, text: str) -> str:
    return text if value else "-"


def in_words(answer: Fields) -> str:
    """The answer for people: a line for the device, and one for each initiator."""
    facts = answer["schedule"]
    kind = "rotational" if facts["rotational"] else "not rotational"
    waits = f", waits {facts['idle_ms']} ms for streams" if facts["idle_ms"] else ""
    lines = [f"device of LUN {', '.join(map(str, facts['luns']))}: {kind}, depth {facts['depth']}{waits}"]
    for one in answer["nexuses"]:
        limits = (
            f"iops {_limit(one['iops'], str(one['iops']))}, "
            f"bw {_limit(one['bytes_per_s'], format_size(one['bytes_per_s']))}"
        )
        had = f"{one['requests']} requests, {format_size(one['bytes'])}, waited {one['waited_us']} us on average"
        now = f"{one['waiting']} waiting, {one['running']} running"
        lines.append(f"{one['port']}: weight {one['weight']}, {limits}; {had}; {now}")
    return "\n".join(lines)
