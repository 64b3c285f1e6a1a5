# SPDX-License-Identifier: BSD-2-Clause
"""Parameter data of single commands: capacity, LUN inventory, UNMAP lists, operation codes; both ways.

Knows where fields stand (SBC-3 5, SPC-4 6). Must not know what a target answers, nor which values it accepts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from vscsi.scsi import lun as lun_
from vscsi.scsi.cdb import Cdb
from vscsi.scsi.fields import Field, Layout, be8, be16, be32, be64, bit, bits

CAPACITY_10 = Layout(8, returned_logical_block_address=be32(0), logical_block_length=be32(4))
CAPACITY_16 = Layout(
    32, returned_logical_block_address=be64(0), logical_block_length=be32(8), p_type=bits(12, 3, 1), prot_en=bit(12, 0),
    p_i_exponent=bits(13, 7, 4), logical_blocks_per_physical_block_exponent=bits(13, 3, 0), lbpme=bit(14, 7),
    lbprz=bit(14, 6), lowest_aligned_logical_block_address=Field(14, 2, 0, 14),
)  # fmt: skip

UNMAP_HEADER_NBYTES = 8
UNMAP_DESCRIPTOR_NBYTES = 16
UNMAP_DESCRIPTORS_MAX = (0xFFFF - 6) // UNMAP_DESCRIPTOR_NBYTES
"""As many as the length of a list can say (SBC-3 5.28.2)."""


def encode_luns(luns: Iterable[int]) -> bytes:
    """REPORT LUNS parameter data."""
    body = b"".join(lun_.encode(n) for n in luns)
    return len(body).to_bytes(4) + bytes(4) + body


def decode_luns(data: bytes) -> list[int | None]:
    """LUNs of REPORT LUNS data, as far as the data goes; None for one whose addressing we do not know."""
    end = min(len(data), 8 + int.from_bytes(data[:4]))
    return [lun_.decode(bytes(data[i : i + 8])) for i in range(8, end - 7, 8)]


def encode_unmap(extents: Iterable[tuple[int, int]]) -> bytes:
    """UNMAP parameter list of (lba, blocks) pairs."""
    body = b"".join(lba.to_bytes(8) + blocks.to_bytes(4) + bytes(4) for lba, blocks in extents)
    return (len(body) + 6).to_bytes(2) + len(body).to_bytes(2) + bytes(4) + body


def decode_unmap(data: bytes) -> list[tuple[int, int]]:
    """(lba, blocks) of each whole descriptor of an UNMAP parameter list; a cut one at the end is left out."""
    end = min(len(data), UNMAP_HEADER_NBYTES + int.from_bytes(data[2:4]))
    return [
        (int.from_bytes(data[i : i + 8]), int.from_bytes(data[i + 8 : i + 12]))
        for i in range(UNMAP_HEADER_NBYTES, end - UNMAP_DESCRIPTOR_NBYTES + 1, UNMAP_DESCRIPTOR_NBYTES)
    ]


# REPORT SUPPORTED OPERATION CODES (SPC-4 6.35)

NOT_SUPPORTED, SUPPORTED = 1, 3
TIMEOUTS = Layout(
    12, length=be16(0), command_specific=be8(3), nominal_command_processing_timeout=be32(4),
    recommended_command_timeout=be32(8),
)  # fmt: skip
OPCODE_DESCRIPTOR = Layout(
    8, operation_code=be8(0), service_action=be16(2), ctdp=bit(5, 1), servactv=bit(5, 0), cdb_length=be16(6)
)
ONE_COMMAND = Layout(4, ctdp=bit(1, 7), support=bits(1, 2, 0), cdb_size=be16(2))


def encode_timeouts(nominal: int, recommended: int) -> bytes:
    """A command timeouts descriptor; seconds."""
    return TIMEOUTS.build(
        length=10, nominal_command_processing_timeout=nominal, recommended_command_timeout=recommended
    )


@dataclass(frozen=True, slots=True)
class SupportedOpcode:
    """One entry of the list of all commands."""

    opcode: int
    service_action: int | None
    cdb_nbytes: int
    timeouts: tuple[int, int] | None = None


def encode_opcode(row: Cdb, timeouts: bytes = b"") -> bytes:
    """One command descriptor, with its timeouts descriptor if there is one."""
    has_sa, sa = row.sa is not None, row.sa or 0
    fixed = OPCODE_DESCRIPTOR.build(
        operation_code=row.opcode, service_action=sa, ctdp=bool(timeouts), servactv=has_sa, cdb_length=row.nbytes
    )
    return fixed + timeouts


def decode_opcodes(data: bytes) -> list[SupportedOpcode]:
    """The list of all commands, as far as the data goes; never raises."""
    rest = data[4 : 4 + int.from_bytes(data[:4])]
    found = []
    while len(rest) >= OPCODE_DESCRIPTOR.nbytes:
        head = OPCODE_DESCRIPTOR.numbers(rest)
        rest = rest[OPCODE_DESCRIPTOR.nbytes :]
        sa = head["service_action"] if head["servactv"] else None
        timeouts = None
        if head["ctdp"]:
            if len(rest) < TIMEOUTS.nbytes:
                break
            values = TIMEOUTS.numbers(rest)
            timeouts = values["nominal_command_processing_timeout"], values["recommended_command_timeout"]
            rest = rest[2 + values["length"] :]
        found.append(SupportedOpcode(head["operation_code"], sa, head["cdb_length"], timeouts))
    return found
