# SPDX-License-Identifier: BSD-2-Clause
"""VPD page 8Fh: what third-party copy can do here. Its numbers are those that the commands enforce."""

from target.commands import table, vpd_pages
from target.commands.copy_results import granularity
from target.commands.extended_copy import (
    DESCRIPTORS,
    MAX_CSCDS,
    MAX_LIST_NBYTES,
    MAX_SEGMENT_NBYTES,
    MAX_SEGMENTS,
)
from target.commands.task import Task
from target.commands.token_copy import MAX_RANGES, max_blocks
from target.copying import CHUNK_NBYTES, MAX_RUNNING
from target.lu import LogicalUnit
from target.rod_tokens import DEFAULT_SECONDS, MAX_SECONDS
from vscsi.scsi import copy, vpd, vpd_copy
from vscsi.scsi.token import RodType
from vscsi.scsi.vpd_copy import Descriptor, encode_fixed

_OPCODES = (0x83, 0x84)


@vpd_pages.page(vpd.THIRD_PARTY_COPY)
def third_party_copy(_task: Task, lu: LogicalUnit, device: int) -> bytes:
    """SPC-4 7.8.17."""
    most = max_blocks(lu)
    actions: dict[int, list[int]] = {opcode: [] for opcode in _OPCODES}
    for (opcode, sa), handler in table.handlers().items():
        if opcode in actions and sa is not None and handler.supported(lu):
            actions[opcode].append(sa)
    rod = vpd_copy.DEVICE_ROD_FEATURES.build(
        descriptor_length=vpd_copy.DEVICE_ROD_FEATURES.nbytes - 4,
        maximum_rod_length=most * lu.block_nbytes,
        optimal_rod_length=CHUNK_NBYTES,
        optimal_length_to_rod=CHUNK_NBYTES,
        optimal_length_from_rod=CHUNK_NBYTES,
    )
    return vpd_copy.encode(
        [
            encode_fixed(
                vpd_copy.BLOCK_ROD_LIMITS, Descriptor.BLOCK_ROD_LIMITS,
                maximum_range_descriptors=MAX_RANGES, maximum_inactivity_timeout=MAX_SECONDS,
                default_inactivity_timeout=DEFAULT_SECONDS, maximum_token_transfer_size=most,
                optimal_transfer_count=CHUNK_NBYTES // lu.block_nbytes,
            ),
            vpd_copy.encode_commands(actions),
            encode_fixed(
                vpd_copy.PARAMETER_DATA, Descriptor.PARAMETER_DATA,
                maximum_cscd_descriptor_count=MAX_CSCDS, maximum_segment_descriptor_count=MAX_SEGMENTS,
                maximum_descriptor_list_length=MAX_LIST_NBYTES,
            ),
            vpd_copy.encode_codes(DESCRIPTORS),
            vpd_copy.encode_cscd_ids([copy.CSCD_ID_THIS_UNIT]),
            vpd_copy.encode_features([rod], maximum_token_lifetime=MAX_SECONDS,
                                     maximum_token_inactivity_timeout=MAX_SECONDS),
            vpd_copy.encode_rod_types(
                vpd_copy.ROD_TYPE.build(rod_type=kind, token_in=1, token_out=out, preference_indicator=preference)
                for kind, out, preference in (
                    (RodType.ACCESS_UPON_REFERENCE, 1, 0x8000), (RodType.BLOCK_ZERO, 0, 0),
                )
            ),
            encode_fixed(
                vpd_copy.GENERAL_OPERATIONS, Descriptor.GENERAL_OPERATIONS,
                total_concurrent_copies=MAX_RUNNING, maximum_identified_concurrent_copies=MAX_RUNNING,
                maximum_segment_length=MAX_SEGMENT_NBYTES, data_segment_granularity=granularity(lu),
            ),
        ],
        device,
    )  # fmt: skip
