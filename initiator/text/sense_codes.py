# SPDX-License-Identifier: BSD-2-Clause
"""Words for additional sense codes that only other targets give: newer than SPC-4, or with a number in their ASCQ.

A table only. Our own codes are in `vscsi/scsi/sense.py`, the older ones in pyscsi. Must not know how they are shown.
"""

NEWER = {
    0x0022: "Deferred microcode is pending",
    0x0423: "Logical unit not ready, affiliation required",
    0x0424: "Depopulation in progress",
    0x0425: "Depopulation restoration in progress",
    0x0B0A: "Warning - high critical temperature limit exceeded",
    0x0B0B: "Warning - low critical temperature limit exceeded",
    0x0B0C: "Warning - high operating temperature limit exceeded",
    0x0B0D: "Warning - low operating temperature limit exceeded",
    0x0B0E: "Warning - high critical humidity limit exceeded",
    0x0B0F: "Warning - low critical humidity limit exceeded",
    0x0B10: "Warning - high operating humidity limit exceeded",
    0x0B11: "Warning - low operating humidity limit exceeded",
    0x0B12: "Warning - microcode security at risk",
    0x0B13: "Warning - microcode digital signature validation failure",
    0x0B14: "Warning - physical element status change",
    0x0C11: "Write error - recovery scan needed",
    0x0C12: "Write error - insufficient zone resources",
    0x200D: "Not an administrative logical unit",
    0x200E: "Not a subsidiary logical unit",
    0x200F: "Not a conglomerate logical unit",
    0x2108: "Misaligned write command",
    0x2109: "Attempt to access gap zone",
    0x2409: "Invalid fast format",
    0x2613: "Application tag mode page is invalid",
    0x2614: "Tape stream mirroring prevented",
    0x2615: "Copy source or copy destination not authorized",
    0x2616: "Fast copy not possible",
    0x2A16: "Zone reset write pointer recommended",
    0x2C0F: "Stream not open",
    0x2C10: "Unwritten data in zone",
    0x2C11: "Descriptor format sense data required",
    0x2C12: "Zone is inactive",
    0x2C13: "Well known logical unit access required",
    0x3104: "Depopulation failed",
    0x3105: "Depopulation restoration failed",
    0x3808: "Depopulation interrupted",
    0x3B20: "Element static information changed",
    0x3F17: "Zone transition to full",
    0x3F18: "Bind completed",
    0x3F19: "Bind redirected",
    0x3F1A: "Subsidiary binding changed",
    0x550F: "Insufficient zone resources to complete write",
    0x5510: "Maximum number of streams open",
    0x5511: "Insufficient resources to bind",
    0x5D1D: "Hardware impending failure power loss protection circuit",
    0x5D73: "Media impending failure endurance limit met",
    0x670C: "Command rejected",
    0x670D: "Explicit bind not allowed",
    0x6F08: "Insufficient permission",
    0x6F09: "Invalid drive-host pairing server",
    0x6F0A: "Drive-host pairing suspended",
}
"""By ASC << 8 | ASCQ."""

NUMBERED = {
    0x40: (0x80, "Diagnostic failure on component [{:#x}]"),
    0x4D: (0x00, "Tagged overlapped commands [{:#x}]"),
    0x70: (0x00, "Decompression exception short algorithm id of {:#x}"),
}
"""ASC: the least ASCQ that is a number, and the words around it."""


def words(asc: int, ascq: int) -> str | None:
    """What such a code is called, None if it is none of these."""
    known = NEWER.get(asc << 8 | ascq)
    least, pattern = NUMBERED.get(asc, (0x100, ""))
    return known or (pattern.format(ascq) if ascq >= least else None)
