# SPDX-License-Identifier: BSD-2-Clause
"""The commands of `vscsi-initiator`: one file each, found by its name.

A command's file defines HELP (one line), DESCRIPTION, EXAMPLES, `add_arguments(parser)` and `run(args, session) -> int`
(an exit status). A new command is a new file here and nothing else. Files whose names begin with `_` are not commands.
Only the file of the command that was asked for is imported, so that a short command starts quickly.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from initiator.cli_session import Session


class Command(Protocol):
    """What the file of a command defines."""

    HELP: str
    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own options."""

    def run(self, args: argparse.Namespace, session: Session) -> int:
        """Do it; the exit status."""


def names() -> list[str]:
    """Every command there is, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> Command:
    """The command called `name`; KeyError if there is none."""
    if name not in names():
        raise KeyError(name)
    return cast(Command, importlib.import_module(f"{__name__}.{name}"))
