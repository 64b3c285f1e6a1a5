# SPDX-License-Identifier: BSD-2-Clause
"""What the task sets of a logical unit obey: the control mode page's words on tasks, and a limit.

Knows `struct vt_task_policy`; must not know mode pages or task sets.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """`struct vt_task_policy`, field by field."""

    separate_sets: int = 0
    restricted: int = 0
    qerr: int = 0
    tas: int = 0
    ua_intlck: int = 0
    limit: int = 0

    def put(self, into: Any) -> None:
        """Fills a C struct."""
        for field in fields(self):
            setattr(into, field.name, getattr(self, field.name))
