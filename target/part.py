# SPDX-License-Identifier: BSD-2-Clause
"""What a logical unit has besides its blocks: reservations, mode pages, a running operation, a medium that can go.

The base class of such parts, and the registry of those that every unit has from the start. A new part is a new file.
Knows when a part is told something; must not know what any of them does.
"""

from typing import TYPE_CHECKING, Protocol, TypeVar

from vscsi.scsi.sense import CheckCondition

if TYPE_CHECKING:
    from target.commands.table import Conflict
    from target.lu import LogicalUnit


class Nexus(Protocol):
    """An I_T nexus, as far as a part may know it."""

    @property
    def index(self) -> int:
        """The native core's number for it, for as long as it is known."""

    @property
    def initiator_port_id(self) -> bytes:
        """16 bytes."""

    @property
    def target_port_id(self) -> bytes:
        """16 bytes."""


class Part:
    """One aspect of one logical unit. Hooks run in any thread and must be quick; those not needed do nothing."""

    start_rank = 0
    """Parts with a smaller one start first."""

    def __init__(self, unit: "LogicalUnit") -> None:
        self.unit = unit

    def start(self) -> None:
        """The unit is about to be served: `unit.device` and `unit.index` are there, no nexus is yet."""

    def reset(self) -> None:
        """LOGICAL UNIT RESET has aborted every task; the unit attention is established elsewhere."""

    def nexus_known(self, nexus: Nexus) -> None:
        """A nexus has got an index; its login has not been answered yet."""

    def nexus_lost(self, nexus: Nexus) -> None:
        """The nexus has lost its last channel (I_T nexus loss)."""

    def nexus_forgotten(self, nexus: Nexus) -> None:
        """Its index will be given to another."""

    def remembers(self, nexus: Nexus) -> bool:
        """Whether the nexus must not be forgotten while it is away."""
        return False

    def sanitized(self) -> None:
        """SANITIZE or FORMAT UNIT begins, or goes on after a restart: what was kept of old blocks has to go.
        No other command touches the medium then. An exception makes the operation fail."""

    def medium_changed(self) -> None:
        """Another medium has taken the place of the one that was ejected; it is not ready yet."""

    def shutdown(self) -> None:
        """The target is about to end, `unit.device` still works: threads of this part end now."""

    def denies(self, nexus: int, conflict: "Conflict") -> bool:
        """Whether a reservation keeps the nexus (by index) from commands of these classes."""
        return False

    def obstacle(self) -> CheckCondition | None:
        """Why the medium cannot be accessed now, for what reaches it by other ways than a command on this unit."""
        return None

    def tick(self) -> None:
        """About once a second while somebody is connected."""

    def close(self) -> None:
        """The unit is not served any more; its store is still open."""


P = TypeVar("P", bound=Part)
KINDS: list[type[Part]] = []


def part(kind: type[P]) -> type[P]:
    """Registers a kind that every unit has from its start; any other comes into being when it is first asked for."""
    KINDS.append(kind)
    return kind
