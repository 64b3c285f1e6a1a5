# SPDX-License-Identifier: BSD-2-Clause
"""What the answers to commands promise: for every sector, the contents it may have after a crash now.

Knows SBC-3's and blkif's rules: what FUA, SYNCHRONIZE CACHE, no write cache, FLUSH and BARRIER make durable, and when.
Must not know how the contents came to the image.
"""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Version:
    """What one command wrote to one sector. Places in the log; acked and durable None until they are known."""

    sector: int
    data: bytes
    sent: int
    command: "Command | None" = None
    acked: int | None = None
    durable: bool = False


@dataclass(eq=False)
class Command:
    """One command. `writes`: sector -> content. `flushes`: a SYNCHRONIZE CACHE, FLUSH; both: a barrier.

    `durable`: its own data is on the medium when it is answered. `ordered`: it is carried out after everything that its
    channel sent before it.
    """

    channel: object
    writes: dict[int, bytes] = field(default_factory=dict)
    durable: bool = False
    flushes: bool = False
    ordered: bool = False
    whole: bool = False
    failed: bool = False
    """Answered with an error: it may have done anything, and promises nothing."""
    name: str = ""
    sent: int = -1
    versions: list[Version] = field(default_factory=list)


class Promises:
    """Fed in the log's order."""

    def __init__(self, before: dict[int, bytes] | None = None, zero: bytes = bytes(512)) -> None:
        self._may: dict[int, list[Version]] = {}
        self._before, self._zero = before or {}, zero
        self._unsettled: set[Version] = set()

    def _versions(self, sector: int) -> list[Version]:
        if sector not in self._may:
            content = self._before.get(sector, self._zero)
            self._may[sector] = [Version(sector, content, -1, acked=-1, durable=True)]
        return self._may[sector]

    def sent(self, command: Command, now: int) -> None:
        command.sent = now
        command.versions = [Version(sector, data, now, command) for sector, data in command.writes.items()]
        for version in command.versions:
            self._versions(version.sector).append(version)
        self._unsettled.update(command.versions)

    def acked(self, command: Command, now: int) -> set[int]:
        """The sectors of which more is promised now."""
        if command.failed:
            return set()
        for version in command.versions:
            version.acked = now
        touched = self._settle(command.versions) if command.durable else set()
        return touched | (self.flushed(command) if command.flushes else set())

    def flushed(self, command: Command) -> set[int]:
        """What was answered before the command was sent is durable; with `ordered` what was sent before it, too."""

        def covered(v: Version) -> bool:
            if v.acked is not None and v.acked < command.sent:
                return True
            mine = v.command is not None and v.command.channel is command.channel and not v.command.failed
            return command.ordered and mine and v.sent < command.sent

        return self._settle([v for v in self._unsettled if v.command is not command and covered(v)])

    def _settle(self, versions: list[Version]) -> set[int]:
        for version in versions:
            self._unsettled.discard(version)
            version.durable = True
            may = self._versions(version.sector)
            # What was answered before this one was sent has been written over for good.
            may[:] = [v for v in may if v is version or v.acked is None or v.acked >= version.sent]
        return {version.sector for version in versions}

    def allows(self, sector: int, content: bytes) -> bool:
        return any(v.data == content for v in self._versions(sector))

    def barriers(self, sector: int, content: bytes) -> list[Command]:
        """Barriers that wrote this: as soon as it can be seen, everything before them must be there."""
        commands = (v.command for v in self._versions(sector) if v.data == content)
        return [c for c in commands if c is not None and c.flushes]

    def told(self, sector: int) -> list[str]:
        """For the message of a failed test."""
        return [
            f"{v.command.name if v.command else 'before'} sent {v.sent} acked {v.acked}{' durable' * v.durable}"
            for v in self._versions(sector)
        ]
