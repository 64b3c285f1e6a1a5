# SPDX-License-Identifier: BSD-2-Clause
"""What a picture of the report is, and the list of functions that draw one. Knows no picture.

A drawer takes the bench's JSON; it answers None where numbers are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

from .facts import Document

MODULES = ("pictures", "pictures_others")
"""Where the drawers are, in the order of the page."""


@dataclass(frozen=True)
class Picture:
    """SVG text, a sentence that says how to read it, and the same numbers as a table."""

    key: str
    title: str
    words: str
    svg: str
    header: tuple[str, ...]
    table: tuple[tuple[str, ...], ...] = field(default=())


Drawer = Callable[[Document], Picture | None]
DRAWERS: list[Drawer] = []


def picture(drawer: Drawer) -> Drawer:
    """Puts a drawer on the list; the page shows them in this order."""
    DRAWERS.append(drawer)
    return drawer


def draw(document: Document) -> list[Picture]:
    """All pictures that this JSON has numbers for."""
    for module in MODULES:
        import_module(f".{module}", __package__)
    return [found for drawer in DRAWERS if (found := drawer(document)) is not None]
