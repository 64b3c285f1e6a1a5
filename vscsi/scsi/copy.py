# SPDX-License-Identifier: BSD-2-Clause
"""Parameter data of EXTENDED COPY and what it reports (SPC-4 6.4, 6.17 to 6.22); both ways.

Knows where fields stand. Must not know which logical units there are, nor how many descriptors a target takes. Tokens
stand in `token`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from vscsi.scsi.fields import Layout, be, be8, be16, be24, be32, be64, bit, bits

# Parameter lists: header, CSCD descriptors, segment descriptors, inline data


class ListIdUsage(IntEnum):
    """LIST ID USAGE: whether results are kept for a RECEIVE COPY command."""

    HOLD = 0
    DISCARD = 2
    NONE = 3


LIST_LID1 = Layout(
    16, list_identifier=be8(0), str=bit(1, 5), list_id_usage=bits(1, 4, 3), priority=bits(1, 2, 0),
    cscd_descriptor_list_length=be16(2), segment_descriptor_list_length=be32(8), inline_data_length=be32(12),
)  # fmt: skip
LIST_LID4 = Layout(
    48, parameter_list_format=be8(0), str=bit(1, 5), list_id_usage=bits(1, 4, 3), priority=bits(1, 2, 0),
    header_cscd_descriptor_list_length=be16(2), g_sense=bit(15, 1), immed=bit(15, 0),
    header_cscd_descriptor_type_code=be8(16), list_identifier=be32(20), cscd_descriptor_list_length=be16(42),
    segment_descriptor_list_length=be16(44), inline_data_length=be16(46),
)  # fmt: skip
LID4_FORMAT, LID4_HEADER_CSCD_NBYTES, LID4_HEADER_CSCD_TYPE = 0x01, 0x20, 0xFF

CSCD_NBYTES = 32
CSCD_IDENTIFICATION = 0xE4
"""The one type of CSCD descriptor everyone has: a designator of VPD page 83h."""
CSCD = Layout(
    32, descriptor_type_code=be8(0), lu_id_type=bits(1, 7, 6), nul=bit(1, 5), peripheral_device_type=bits(1, 4, 0),
    relative_initiator_port_identifier=be16(2), code_set=bits(4, 3, 0), association=bits(5, 5, 4),
    designator_type=bits(5, 3, 0), designator_length=be8(7), designator=be(8, 20), pad=bit(28, 2),
    disk_block_length=be24(29),
)  # fmt: skip
MAX_DESIGNATOR_NBYTES = 20
CSCD_ID_THIS_UNIT, CSCD_ID_NONE = 0xFFFF, 0xF800
"""CSCD descriptor ids that need no descriptor (SPC-4 table 126)."""

SEGMENT_HEADER = Layout(4, descriptor_type_code=be8(0), dc=bit(1, 1), cat=bit(1, 0), descriptor_length=be16(2))
BLOCK_TO_BLOCK, VERIFY_CSCD, REGISTER_KEY = 0x02, 0x07, 0x14
"""Segment descriptor types."""
SEGMENT_BLOCKS = Layout(
    28, descriptor_type_code=be8(0), fco=bit(1, 2), dc=bit(1, 1), cat=bit(1, 0), descriptor_length=be16(2),
    source_cscd=be16(4), destination_cscd=be16(6), number_of_blocks=be16(10), source_lba=be64(12),
    destination_lba=be64(20),
)  # fmt: skip
SEGMENT_VERIFY = Layout(12, descriptor_type_code=be8(0), descriptor_length=be16(2), source_cscd=be16(4), tur=bit(8, 0))
SEGMENT_REGISTER_KEY = Layout(
    28, descriptor_type_code=be8(0), descriptor_length=be16(2), destination_cscd=be16(6), reservation_key=be64(8),
    service_action_reservation_key=be64(16),
)  # fmt: skip
SEGMENT_LAYOUTS = {BLOCK_TO_BLOCK: SEGMENT_BLOCKS, VERIFY_CSCD: SEGMENT_VERIFY, REGISTER_KEY: SEGMENT_REGISTER_KEY}


def encode_cscd(code_set: int, association: int, kind: int, designator: bytes, block_nbytes: int = 0) -> bytes:
    """An identification CSCD descriptor: the unit with this designator of VPD page 83h, at most 20 bytes long."""
    return CSCD.build(
        descriptor_type_code=CSCD_IDENTIFICATION,
        code_set=code_set,
        association=association,
        designator_type=kind,
        designator_length=len(designator),
        designator=int.from_bytes(designator.ljust(MAX_DESIGNATOR_NBYTES, b"\0")),
        disk_block_length=block_nbytes,
    )


def encode_blocks(
    source: int, destination: int, blocks: int, source_lba: int, destination_lba: int, *, dc: bool = False
) -> bytes:
    """A block to block segment between two CSCD indexes; `blocks` counts the destination's if `dc`."""
    return SEGMENT_BLOCKS.build(
        descriptor_type_code=BLOCK_TO_BLOCK,
        dc=dc,
        descriptor_length=SEGMENT_BLOCKS.nbytes - 4,
        source_cscd=source,
        destination_cscd=destination,
        number_of_blocks=blocks,
        source_lba=source_lba,
        destination_lba=destination_lba,
    )


def encode_list_lid1(
    list_id: int, cscds: Iterable[bytes], segments: Iterable[bytes], *, usage: int = ListIdUsage.HOLD
) -> bytes:
    """The parameter list of EXTENDED COPY(LID1)."""
    first, second = b"".join(cscds), b"".join(segments)
    head = LIST_LID1.build(
        list_identifier=list_id,
        list_id_usage=usage,
        cscd_descriptor_list_length=len(first),
        segment_descriptor_list_length=len(second),
    )
    return head + first + second


def encode_list_lid4(
    list_id: int,
    cscds: Iterable[bytes],
    segments: Iterable[bytes],
    *,
    usage: int = ListIdUsage.HOLD,
    immed: bool = False,
    g_sense: bool = False,
) -> bytes:
    """The parameter list of EXTENDED COPY(LID4)."""
    first, second = b"".join(cscds), b"".join(segments)
    head = LIST_LID4.build(
        parameter_list_format=LID4_FORMAT,
        list_id_usage=usage,
        header_cscd_descriptor_list_length=LID4_HEADER_CSCD_NBYTES,
        g_sense=g_sense,
        immed=immed,
        header_cscd_descriptor_type_code=LID4_HEADER_CSCD_TYPE,
        list_identifier=list_id,
        cscd_descriptor_list_length=len(first),
        segment_descriptor_list_length=len(second),
    )
    return head + first + second


# What RECEIVE COPY returns


class StatusLid1(IntEnum):
    """COPY MANAGER STATUS of RECEIVE COPY STATUS(LID1)."""

    IN_PROGRESS = 0x00
    COMPLETED = 0x01
    FAILED = 0x02


class Status(IntEnum):
    """COPY OPERATION STATUS (SPC-4 table 273)."""

    COMPLETED = 0x01
    FAILED = 0x02
    COMPLETED_PARTIAL_TOKEN = 0x03
    COMPLETED_RESIDUAL = 0x04
    IN_PROGRESS = 0x10
    IN_PROGRESS_FOREGROUND = 0x11
    IN_PROGRESS_BACKGROUND = 0x12
    TERMINATED = 0x60


UNITS_BYTES, UNITS_KIB, UNITS_MIB, UNITS_GIB, UNITS_BLOCKS = 0x00, 0x01, 0x02, 0x03, 0xF1
"""TRANSFER COUNT UNITS (SPC-4 table 275)."""
STATUS_LID1 = Layout(
    12, available_data=be32(0), hdd=bit(4, 7), copy_manager_status=bits(4, 6, 0), segments_processed=be16(5),
    transfer_count_units=be8(7), transfer_count=be32(8),
)  # fmt: skip
STATUS_LID4 = Layout(
    32, available_data=be32(0), response_to_service_action=bits(4, 4, 0), hdd=bit(5, 7),
    copy_operation_status=bits(5, 6, 0), operation_counter=be16(6), estimated_status_update_delay=be32(8),
    extended_copy_completion_status=be8(12), length_of_the_sense_data_field=be8(13), sense_data_length=be8(14),
    transfer_count_units=be8(15), transfer_count=be64(16), segments_processed=be16(24),
)  # fmt: skip
"""The sense data field follows. ESTIMATED STATUS UPDATE DELAY in milliseconds."""
FAILURE_DETAILS = Layout(60, available_data=be32(0), extended_copy_command_status=be8(56), sense_data_length=be16(58))
"""The sense data follows."""
OPERATING_PARAMETERS = Layout(
    44, available_data=be32(0), snlid=bit(4, 0), maximum_cscd_descriptor_count=be16(8),
    maximum_segment_descriptor_count=be16(10), maximum_descriptor_list_length=be32(12), maximum_segment_length=be32(16),
    maximum_inline_data_length=be32(20), held_data_limit=be32(24), maximum_stream_device_transfer_size=be32(28),
    total_concurrent_copies=be16(34), maximum_concurrent_copies=be8(36), data_segment_granularity=be8(37),
    inline_data_granularity=be8(38), held_data_granularity=be8(39), implemented_descriptor_list_length=be8(43),
)  # fmt: skip
"""The type codes follow, ascending. Granularities are powers of two of bytes, by their exponent."""


def encode_operating_parameters(codes: Iterable[int], **values: int) -> bytes:
    """RECEIVE COPY OPERATING PARAMETERS parameter data, with the types of descriptors that are known."""
    types = bytes(sorted(codes))
    head = OPERATING_PARAMETERS.build(
        available_data=OPERATING_PARAMETERS.nbytes - 4 + len(types),
        implemented_descriptor_list_length=len(types),
        **values,
    )
    return head + types


def encode_status_lid4(sense: bytes = b"", tail: bytes = b"", **values: int) -> bytes:
    """RECEIVE COPY STATUS(LID4) parameter data; `tail` is what RECEIVE ROD TOKEN INFORMATION adds."""
    head = STATUS_LID4.build(
        available_data=STATUS_LID4.nbytes - 4 + len(sense) + len(tail),
        length_of_the_sense_data_field=len(sense),
        sense_data_length=len(sense),
        **values,
    )
    return head + sense + tail


@dataclass(frozen=True, slots=True)
class DecodedStatus:
    """RECEIVE COPY STATUS(LID4) as received: its fields, the sense data, and what comes behind."""

    fields: dict[str, int]
    sense: bytes
    tail: bytes

    @property
    def running(self) -> bool:
        return self.fields.get("copy_operation_status", 0) in (0x10, 0x11, 0x12)


def decode_status_lid4(data: bytes) -> DecodedStatus:
    """As far as the data goes; never raises."""
    fields = STATUS_LID4.numbers(data)
    data = data[: 4 + fields.get("available_data", 0)]
    end = STATUS_LID4.nbytes + fields.get("length_of_the_sense_data_field", 0)
    sense_end = STATUS_LID4.nbytes + fields.get("sense_data_length", 0)
    return DecodedStatus(fields, bytes(data[STATUS_LID4.nbytes : min(end, sense_end)]), bytes(data[end:]))
