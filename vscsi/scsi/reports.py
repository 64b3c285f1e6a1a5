# SPDX-License-Identifier: BSD-2-Clause
"""Parameter data of the maintenance commands: target port groups, task management functions, time, names (SPC-4 6).

Knows where fields stand. Must not know what a target answers. REPORT SUPPORTED OPERATION CODES is in `parameters`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from vscsi.scsi.fields import Layout, be, be8, be16, be32, bit, bits

# REPORT TARGET PORT GROUPS (SPC-4 6.37)


class AccessState(IntEnum):
    """ASYMMETRIC ACCESS STATE."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    LOGICAL_BLOCK_DEPENDENT = 0x4
    OFFLINE = 0xE
    TRANSITIONING = 0xF

    @property
    def text(self) -> str:
        """The standard's words."""
        return self.name.lower().replace("active_", "active/").replace("_", " ")


LENGTH_ONLY, EXTENDED = 0, 1
"""PARAMETER DATA FORMAT: the header is the length alone, or has an implicit transition time too."""
GROUPS_EXTENDED_HEADER = Layout(
    8, return_data_length=be32(0), format_type=bits(4, 6, 4), implicit_transition_time=be8(5)
)
PORT_GROUP = Layout(
    8, pref=bit(0, 7), rtpg_fmt=bits(0, 6, 4), asymmetric_access_state=bits(0, 3, 0),
    t_sup=bit(1, 7), o_sup=bit(1, 6), lbd_sup=bit(1, 4), u_sup=bit(1, 3), s_sup=bit(1, 2), an_sup=bit(1, 1),
    ao_sup=bit(1, 0), target_port_group=be16(2), status_code=be8(5), vendor_specific=be8(6), target_port_count=be8(7),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PortGroup:
    """One target port group: its fields as in `PORT_GROUP`, and the relative identifiers of its ports."""

    fields: dict[str, int] = field(default_factory=dict)
    ports: tuple[int, ...] = ()

    def encode(self) -> bytes:
        head = PORT_GROUP.build(**{**self.fields, "target_port_count": len(self.ports)})
        return head + b"".join(port.to_bytes(4) for port in self.ports)


def encode_port_groups(groups: Iterable[PortGroup], data_format: int = LENGTH_ONLY, transition_time: int = 0) -> bytes:
    """REPORT TARGET PORT GROUPS parameter data; `transition_time` in seconds, with `EXTENDED` only."""
    body = b"".join(group.encode() for group in groups)
    if data_format == EXTENDED:
        return GROUPS_EXTENDED_HEADER.build(
            return_data_length=4 + len(body), format_type=1, implicit_transition_time=transition_time
        ) + body  # fmt: skip
    return len(body).to_bytes(4) + body


def decode_port_groups(data: bytes) -> list[PortGroup]:
    """Whole groups of either format, as far as the data goes; never raises."""
    rest = bytes(data[4 : 4 + int.from_bytes(data[:4])])
    # Byte 4 of the extended header has FORMAT TYPE 1; in a group those bits are reserved.
    if rest and rest[0] & 0x70 == 0x10:
        rest = rest[4:]
    found = []
    while len(rest) >= PORT_GROUP.nbytes:
        values = PORT_GROUP.numbers(rest)
        end = PORT_GROUP.nbytes + 4 * values["target_port_count"]
        ports = rest[PORT_GROUP.nbytes : end]
        if len(rest) < end:
            break
        found.append(PortGroup(values, tuple(int.from_bytes(ports[i + 2 : i + 4]) for i in range(0, len(ports), 4))))
        rest = rest[end:]
    return found


# REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36)

TASK_MANAGEMENT = Layout(
    4, ats=bit(0, 7), atss=bit(0, 6), cacas=bit(0, 5), ctss=bit(0, 4), lurs=bit(0, 3), qts=bit(0, 2),
    qaes=bit(1, 2), qtss=bit(1, 1), itnrs=bit(1, 0),
)  # fmt: skip
TASK_MANAGEMENT_EXTENDED = Layout(
    16, **TASK_MANAGEMENT.fields, additional_length=be8(3), tmftmov=bit(4, 0), atts=bit(6, 7), atsts=bit(6, 6),
    cacats=bit(6, 5), ctsts=bit(6, 4), lurts=bit(6, 3), qtts=bit(6, 2), qaets=bit(7, 2), qtsts=bit(7, 1),
    itnrts=bit(7, 0), long_timeout=be32(8), short_timeout=be32(12),
)  # fmt: skip
"""Asked for with REPD; time-outs in tenths of a second."""

# REPORT TIMESTAMP, SET TIMESTAMP (SPC-4 6.38, 6.47)

TIMESTAMP = Layout(12, length=be16(0), timestamp_origin=bits(2, 2, 0), timestamp=be(4, 6))
"""Milliseconds since the epoch of 1970."""
TIMESTAMP_LIST = Layout(12, timestamp=be(4, 6))
ORIGIN_ZERO_AT_RESET, ORIGIN_SET_BY_COMMAND, ORIGIN_SET_OTHERWISE = 0, 2, 3
"""TIMESTAMP ORIGIN: counts since power on or hard reset; SET TIMESTAMP set it; something else did."""


def encode_timestamp(milliseconds: int, origin: int) -> bytes:
    """REPORT TIMESTAMP parameter data; what is more than 48 bits wraps."""
    return TIMESTAMP.build(length=10, timestamp_origin=origin, timestamp=milliseconds & (1 << 48) - 1)


# REPORT IDENTIFYING INFORMATION, SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43)

TYPE_PERIPHERAL, TYPE_TEXT, TYPES_SUPPORTED = 0x00, 0x02, 0x7F
"""IDENTIFYING INFORMATION TYPE: of the peripheral device, as UTF-8 text of it; or which types there are."""
MAX_INFORMATION_NBYTES = {TYPE_PERIPHERAL: 512, TYPE_TEXT: 256}
INFORMATION_HEADER = Layout(4, identifying_information_length=be16(2))
INFORMATION_TYPE = Layout(4, identifying_information_type=bits(0, 6, 0), maximum_identifying_information_length=be16(2))


def encode_information(information: bytes) -> bytes:
    """REPORT IDENTIFYING INFORMATION parameter data."""
    return INFORMATION_HEADER.build(identifying_information_length=len(information)) + information


def encode_information_types(maximum_nbytes: dict[int, int]) -> bytes:
    """The same for type 7Fh: each type with its greatest length."""
    body = b"".join(
        INFORMATION_TYPE.build(identifying_information_type=kind, maximum_identifying_information_length=nbytes)
        for kind, nbytes in sorted(maximum_nbytes.items())
    )
    return INFORMATION_HEADER.build(identifying_information_length=len(body)) + body


# SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS (SPC-4 7.2)

DIAGNOSTIC_HEADER = Layout(4, page_code=be8(0), page_length=be16(2))
"""Of page 00h the codes of all pages follow."""
