# SPDX-License-Identifier: BSD-2-Clause
"""Which tests of the tool are started, and which skips and failures are explained, by name and with the reason.

Written for libiscsi 1.19.0, read from its source: 230 tests, of which 179 run. Knows names; starts nothing.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

SESSION = "needs iSCSI sessions of its own (login, logout, resets, a second initiator)"
ASYNCHRONOUS = "needs libiscsi's asynchronous calls; elsewhere it passes without a word in the log"
PACKETS = "edits iSCSI packets"
HOOK = "edits the CDB in a hook of iSCSI, does not notice that SG_IO has none, and then erases the disk for good"

EXCLUDED: dict[str, str] = {
    "CompareAndWrite.InvalidDataOutSize": PACKETS,
    "PreventAllow.ITNexusLoss": SESSION,
    "PreventAllow.Logout": SESSION,
    "PreventAllow.WarmReset": SESSION,
    "PreventAllow.ColdReset": SESSION,
    "PreventAllow.LUNReset": SESSION,
    "PreventAllow.2ITNexuses": SESSION,
    "ProutReserve.Access*": SESSION,
    "ProutReserve.Ownership*": SESSION,
    "ProutPreempt.RemoveRegistration": SESSION,
    "Read10.Async": ASYNCHRONOUS,
    "Write10.Async": ASYNCHRONOUS,
    "Reserve6.2Initiators": SESSION,
    "Reserve6.Logout": SESSION,
    "Reserve6.ITNexusLoss": SESSION,
    "Reserve6.TargetColdReset": SESSION,
    "Reserve6.TargetWarmReset": SESSION,
    "Reserve6.LUNReset": SESSION,
    "Sanitize.BlockEraseReserved": HOOK,
    "Sanitize.CryptoEraseReserved": HOOK,
    "Sanitize.OverwriteReserved": HOOK,
    "Sanitize.Readonly": SESSION,
    "Sanitize.Reservations": SESSION,
    "Sanitize.Reset": SESSION,
    "iSCSIcmdsn.*": PACKETS,
    "iSCSIdatasn.*": PACKETS,
    "iSCSIResiduals.*": PACKETS,
    "iSCSITMF.*": ASYNCHRONOUS,
    "MultipathIO.Reset": SESSION,
    "MultipathIO.CompareAndWriteAsync": ASYNCHRONOUS,
}
"""Never started through the door. MultipathIO's other two have two paths: a second initiator port of the door."""

STARTED = 179
"""How many tests of 1.19.0 are left."""


def excluded(test: str) -> str | None:
    """Why this test is not started; None if it is."""
    return next((why for pattern, why in EXCLUDED.items() if fnmatchcase(test, pattern)), None)


@dataclass(frozen=True)
class Rule:
    """An outcome that is right: on these set-ups, for these tests, if every note of the log is one of these.

    `first`: only the first note is looked at, for the others follow from it.
    """

    setups: str
    tests: str
    notes: str
    why: str
    first: bool = False

    def explains(self, setup: str, test: str, notes: tuple[str, ...]) -> bool:
        """Whether this rule is about it."""
        return (
            setup in self.setups.split()
            and any(fnmatchcase(test, pattern) for pattern in self.tests.split())
            and bool(notes)
            and all(re.search(self.notes, note) for note in (notes[:1] if self.first else notes))
        )


SKIPS = (
    Rule(
        "512n 512e 4Kn thick encrypted read-only",
        "PreventAllow.* StartStopUnit.*",
        "not removable",
        "the medium is not removable",
    ),
    Rule(
        "512n 512e 4Kn thick removable",
        "ReadOnly.ReadOnlySBC",
        "not write-protected",
        "the disk is not write protected",
    ),
    Rule(
        "512n 4Kn thick removable encrypted read-only",
        "WriteSame1?.UnmapUnaligned WriteSame1?.InvalidDataOutSize",
        "LBPPB < 2",
        "needs a physical block of several logical ones",
    ),
    Rule(
        "512n 512e 4Kn thick removable read-only",
        "Sanitize.CryptoErase",
        "CRYPTO_ERASE is not implemented according to REPORT_SUPPORTED_OPCODES",
        "nothing is encrypted: there is no key to erase",
    ),
    Rule(
        "thick",
        "GetLBAStatus.UnmapSingle Inquiry.BlockLimits Unmap.* WriteSame1?.Unmap* WriteSame1?.InvalidDataOutSize",
        "fully provisioned",
        "the disk is fully provisioned: it has nothing to unmap",
    ),
    Rule(
        "thick",
        "GetLBAStatus.Simple GetLBAStatus.BeyondEol Unmap.VPD",
        "^(GET_LBA_STATUS|GETLBASTATUS|UNMAP) is not implemented",
        "the disk is fully provisioned: it has nothing to unmap",
    ),
    Rule(
        "thick",
        "Sanitize.BlockErase",
        "BLOCK_ERASE is not implemented according to REPORT_SUPPORTED_OPCODES",
        "there is nothing to deallocate, and the test wants deallocated blocks",
    ),
    Rule(
        "512n 512e 4Kn removable",
        "WriteSame1?.ZeroBlocks",
        "does not support 0-blocks",
        "WSNZ=1: only a fully provisioned disk takes no blocks for all of them",
    ),
)
"""Skips that are right."""

WRITERS = """
CompareAndWrite.* ExtendedCopy.* GetLBAStatus.UnmapSingle MultipathIO.* OrWrite.* Sanitize.* Unmap.*
Write10.* Write12.* Write16.* WriteAtomic16.* WriteSame10.* WriteSame16.*
WriteVerify10.* WriteVerify12.* WriteVerify16.*
"""

FAILURES = (
    Rule(
        "read-only",
        WRITERS,
        r"WRITE_PROTECTED\(0x2700\)",
        "it writes, and the disk says WRITE PROTECTED as it must",
        first=True,
    ),
    Rule(
        "read-only",
        "ExtendedCopy.* ReceiveCopyResults.CopyStatus",
        "0x0d01",
        "it copies to the disk, whose WRITE PROTECTED ends the copy as THIRD PARTY DEVICE FAILURE",
        first=True,
    ),
    Rule(
        "512e",
        "GetLBAStatus.UnmapSingle",
        "lba offset in first descriptor",
        "the test is wrong: it asks about block i + 1 and wants block i + 8 described; right only where both are one",
    ),
)
"""Failures of tests that are wrong for the set-up."""
