# SPDX-License-Identifier: BSD-2-Clause
"""RECEIVE COPY: what the copy manager can do, and how an operation went. Results are held by `target.copying`."""

from target.commands.extended_copy import (
    DESCRIPTORS,
    LID1,
    LID4,
    MAX_CSCDS,
    MAX_LIST_NBYTES,
    MAX_SEGMENT_NBYTES,
    MAX_SEGMENTS,
)
from target.commands.table import Conflict, handles
from target.commands.task import Task
from target.copying import MAX_RUNNING, Copies, CopyOperation
from target.lu import LogicalUnit
from vscsi.scsi import cdb, copy, token

POPULATE, WRITE_USING = 0x10, 0x11
_LID1, _LID4 = frozenset((LID1,)), frozenset((LID4, POPULATE, WRITE_USING))
_TOKENS = frozenset((POPULATE, WRITE_USING))
_KIB_ABOVE = 1 << 32
_POLL_MS = 100


def _find(task: Task, actions: frozenset[int]) -> CopyOperation:
    operation = task.unit.part(Copies).find(task.nexus, task.fields["list_identifier"], actions)
    if operation is None:
        raise task.invalid("list_identifier")
    return operation


@handles(cdb.RECEIVE_COPY_OPERATING_PARAMETERS, Conflict.SPC2)
def operating_parameters(task: Task) -> bytes:
    """SPC-4 6.19."""
    return copy.encode_operating_parameters(
        DESCRIPTORS,
        maximum_cscd_descriptor_count=MAX_CSCDS,
        maximum_segment_descriptor_count=MAX_SEGMENTS,
        maximum_descriptor_list_length=MAX_LIST_NBYTES,
        maximum_segment_length=MAX_SEGMENT_NBYTES,
        total_concurrent_copies=MAX_RUNNING,
        maximum_concurrent_copies=MAX_RUNNING,
        data_segment_granularity=granularity(task.unit),
        snlid=1,
    )


def granularity(unit: LogicalUnit) -> int:
    """The exponent of the smallest number of bytes that can be copied."""
    return unit.block_nbytes.bit_length() - 1


@handles(cdb.RECEIVE_COPY_STATUS_LID1, Conflict.SPC2)
def status_lid1(task: Task) -> bytes:
    """SPC-4 6.21. Results stay for a while after they were fetched; held data there is none."""
    operation = _find(task, _LID1)
    states = {copy.Status.COMPLETED: copy.StatusLid1.COMPLETED}
    state = copy.StatusLid1.IN_PROGRESS if operation.running else states.get(
        copy.Status(operation.status), copy.StatusLid1.FAILED
    )  # fmt: skip
    large = operation.nbytes >= _KIB_ABOVE
    return copy.STATUS_LID1.build(
        available_data=copy.STATUS_LID1.nbytes - 4,
        hdd=1,
        copy_manager_status=state,
        segments_processed=operation.segments,
        transfer_count_units=copy.UNITS_KIB if large else copy.UNITS_BYTES,
        transfer_count=operation.nbytes >> 10 if large else operation.nbytes,
    )


@handles(cdb.RECEIVE_COPY_FAILURE_DETAILS_LID1, Conflict.SPC2)
def failure_details(task: Task) -> bytes:
    """SPC-4 6.18: the sense data of an operation that failed; fetched once."""
    operation = _find(task, _LID1)
    if operation.running or operation.status == copy.Status.COMPLETED:
        raise task.invalid("list_identifier")
    task.unit.part(Copies).discard(operation)
    head = copy.FAILURE_DETAILS.build(
        available_data=copy.FAILURE_DETAILS.nbytes - 4 + len(operation.sense),
        extended_copy_command_status=operation.scsi_status,
        sense_data_length=len(operation.sense),
    )
    return head + operation.sense


def _status(operation: CopyOperation, tail: bytes = b"") -> bytes:
    tokens = operation.service_action in _TOKENS
    return copy.encode_status_lid4(
        operation.sense,
        tail,
        response_to_service_action=operation.service_action,
        hdd=1,
        copy_operation_status=operation.status,
        estimated_status_update_delay=_POLL_MS if operation.running else 0xFFFFFFFE,
        extended_copy_completion_status=operation.scsi_status,
        transfer_count_units=copy.UNITS_BLOCKS if tokens else copy.UNITS_BYTES,
        transfer_count=operation.blocks if tokens else operation.nbytes,
        segments_processed=operation.segments,
    )


@handles(cdb.RECEIVE_COPY_STATUS_LID4, Conflict.SPC2)
def status_lid4(task: Task) -> bytes:
    """SPC-4 6.22."""
    return _status(_find(task, _LID4))


@handles(cdb.RECEIVE_ROD_TOKEN_INFORMATION, Conflict.SPC2)
def rod_token_information(task: Task) -> bytes:
    """SPC-4 6.24, SBC-3 5.22: how POPULATE TOKEN or WRITE USING TOKEN went, and the token. Kept until the list
    identifier is used again or the time for holding it is over."""
    operation = _find(task, _TOKENS)
    return _status(operation, token.encode_token_descriptors(operation.token))
