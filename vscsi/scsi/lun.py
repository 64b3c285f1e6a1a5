# SPDX-License-Identifier: BSD-2-Clause
"""The 8-byte LUN of SAM-5 4.7 to and from a number.

Knows single-level peripheral (0-255) and flat (256-16383) addressing, and the REPORT LUNS well-known logical unit.
Anything else names no logical unit here and decodes to None. Must not know which logical units exist.
"""

LUN_MAX = 16383
WLUN_REPORT_LUNS = 0xC101
"""Number that stands for the REPORT LUNS well-known logical unit: its first level as it stands in the LUN."""

_FLAT = 0x4000


def encode(lun: int) -> bytes:
    """The LUN field for logical unit `lun` (0 to 16383, or WLUN_REPORT_LUNS). ValueError otherwise."""
    if lun == WLUN_REPORT_LUNS or 0 <= lun <= 0xFF:
        first = lun
    elif 0 <= lun <= LUN_MAX:
        first = _FLAT | lun
    else:
        raise ValueError(f"LUN {lun} is not within 0 to {LUN_MAX}")
    return first.to_bytes(2) + bytes(6)


def decode(field: bytes) -> int | None:
    """The number of the logical unit that a LUN field names, or None if it cannot name one of ours."""
    if len(field) != 8 or any(field[2:]):
        return None
    first = int.from_bytes(field[:2])
    if first <= 0xFF or first == WLUN_REPORT_LUNS:
        return first
    return first & LUN_MAX if first & 0xC000 == _FLAT else None
