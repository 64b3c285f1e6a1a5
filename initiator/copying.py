# SPDX-License-Identifier: BSD-2-Clause
"""Copies between two logical units: by the target itself (EXTENDED COPY, tokens), or through this initiator.

A method is a row of `METHODS`: a generator that yields the number of bytes done after each step, so that whoever asked
can show them. Knows what each method sends; must not know the command line. Every method raises what `Lun` raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initiator.errors import InitiatorError
from vscsi.scsi import cdb, copy, token, vpd, vpd_copy
from vscsi.scsi.vpd import Association, DesignatorType

if TYPE_CHECKING:
    from initiator.lun import Lun

CHUNK_NBYTES = 4 << 20
"""Bytes of one step, so that a progress bar moves and no command lasts long."""
MAX_SEGMENT_BLOCKS = 0xFFFF
LIST_ID = 1
PAGE_NBYTES = 4096


@dataclass(frozen=True, slots=True)
class Job:
    """So many blocks of `source` from `source_lba`, to `destination_lba` of `destination`. Bytes count, not blocks."""

    source: Lun
    source_lba: int
    destination: Lun
    destination_lba: int
    blocks: int
    """Of the source."""

    @property
    def nbytes(self) -> int:
        return self.blocks * self.source.block_nbytes

    def steps(self, most_nbytes: int) -> Iterator[tuple[int, int, int, int]]:
        """(source LBA, destination LBA, blocks of the source, bytes) of each step: whole blocks on both sides."""
        unit = max(self.source.block_nbytes, self.destination.block_nbytes)
        step = max(most_nbytes // unit, 1) * unit
        for at in range(0, self.nbytes, step):
            nbytes = min(step, self.nbytes - at)
            yield (
                self.source_lba + at // self.source.block_nbytes,
                self.destination_lba + at // self.destination.block_nbytes,
                nbytes // self.source.block_nbytes,
                nbytes,
            )


Method = Callable[[Job], Iterator[int]]


def through_host(job: Job) -> Iterator[int]:
    """Reads and writes."""
    for source_lba, destination_lba, blocks, nbytes in job.steps(CHUNK_NBYTES):
        job.destination.write(destination_lba, job.source.read(source_lba, blocks))
        yield nbytes


def _inquiry(lun: Lun, code: int) -> bytes:
    row = cdb.INQUIRY.build(evpd=1, page_code=code, allocation_length=PAGE_NBYTES)
    return bytes(lun.execute(row, data_in=PAGE_NBYTES, repeatable=True).data_in)


def _cscd(lun: Lun) -> bytes:
    """The descriptor that names a unit: its first designator that is short enough, an NAA one if there is any."""
    found = [
        d
        for d in vpd.decode_identification(_inquiry(lun, vpd.IDENTIFICATION.code))
        if d.association == Association.LOGICAL_UNIT and 0 < len(d.value) <= copy.MAX_DESIGNATOR_NBYTES
    ]
    if not found:
        raise InitiatorError(f"lun {lun.lun} has no designator that a copy manager can find it by")
    best = next((d for d in found if d.kind == DesignatorType.NAA), found[0])
    return copy.encode_cscd(best.code_set, best.association, best.kind, best.value, lun.block_nbytes)


def _segment_nbytes(lun: Lun) -> int:
    """Longest segment, by RECEIVE COPY OPERATING PARAMETERS."""
    row = cdb.RECEIVE_COPY_OPERATING_PARAMETERS.build(allocation_length=PAGE_NBYTES)
    data = bytes(lun.execute(row, data_in=PAGE_NBYTES, repeatable=True).data_in)
    most = copy.OPERATING_PARAMETERS.numbers(data).get("maximum_segment_length", 0)
    return min(most or CHUNK_NBYTES, CHUNK_NBYTES)


def _extended_copy(job: Job, *, lid4: bool) -> Iterator[int]:
    cscds = [_cscd(job.source), _cscd(job.destination)]
    most = min(_segment_nbytes(job.destination), MAX_SEGMENT_BLOCKS * job.source.block_nbytes)
    row = cdb.EXTENDED_COPY_LID4 if lid4 else cdb.EXTENDED_COPY_LID1
    encode = copy.encode_list_lid4 if lid4 else copy.encode_list_lid1
    for source_lba, destination_lba, blocks, nbytes in job.steps(most):
        segment = copy.encode_blocks(0, 1, blocks, source_lba, destination_lba)
        data = encode(LIST_ID, cscds, [segment], usage=copy.ListIdUsage.DISCARD)
        job.destination.execute(row.build(parameter_list_length=len(data)), data_out=data)
        yield nbytes


def by_lid1(job: Job) -> Iterator[int]:
    """EXTENDED COPY(LID1), one segment a command."""
    return _extended_copy(job, lid4=False)


def by_lid4(job: Job) -> Iterator[int]:
    """EXTENDED COPY(LID4), one segment a command."""
    return _extended_copy(job, lid4=True)


def _token_blocks(lun: Lun) -> int:
    """How many blocks of a unit one token stands for at most, by its VPD page 8Fh."""
    for kind, raw in vpd_copy.decode(_inquiry(lun, vpd_copy.CODE)):
        if kind == vpd_copy.Descriptor.BLOCK_ROD_LIMITS:
            most = vpd_copy.BLOCK_ROD_LIMITS.numbers(raw).get("maximum_token_transfer_size", 0)
            return most or (1 << 32) - 1
    return (1 << 32) - 1


def _result(lun: Lun) -> copy.DecodedStatus:
    row = cdb.RECEIVE_ROD_TOKEN_INFORMATION.build(list_identifier=LIST_ID, allocation_length=PAGE_NBYTES)
    return copy.decode_status_lid4(bytes(lun.execute(row, data_in=PAGE_NBYTES).data_in))


def by_token(job: Job) -> Iterator[int]:
    """POPULATE TOKEN, RECEIVE ROD TOKEN INFORMATION, WRITE USING TOKEN for each step."""
    source, destination = job.source, job.destination
    most = min(
        CHUNK_NBYTES, _token_blocks(source) * source.block_nbytes, _token_blocks(destination) * destination.block_nbytes
    )
    for source_lba, destination_lba, blocks, nbytes in job.steps(most):
        data = token.encode_populate([(source_lba, blocks)])
        row = cdb.POPULATE_TOKEN.build(list_identifier=LIST_ID, parameter_list_length=len(data))
        source.execute(row, data_out=data)
        made = token.decode_token_descriptors(_result(source).tail)
        if made is None:
            raise InitiatorError(f"lun {source.lun}: no token came back")
        data = token.encode_write_using(made, [(destination_lba, nbytes // destination.block_nbytes)], del_tkn=1)
        row = cdb.WRITE_USING_TOKEN.build(list_identifier=LIST_ID, parameter_list_length=len(data))
        destination.execute(row, data_out=data)
        done = _result(destination)
        written = done.fields.get("transfer_count", 0) * destination.block_nbytes
        if done.fields.get("copy_operation_status") != copy.Status.COMPLETED or written != nbytes:
            raise InitiatorError(f"lun {destination.lun}: {written} of {nbytes} bytes were written by token")
        yield nbytes


METHODS: dict[str, Method] = {"lid1": by_lid1, "lid4": by_lid4, "token": by_token, "host": through_host}
"""Every method by its name; all but `host` need both units on one target."""


def first_difference(job: Job) -> Iterator[tuple[int, int | None]]:
    """Reads both sides again: (bytes compared, offset of the first byte that differs or None) for each step."""
    for source_lba, destination_lba, blocks, nbytes in job.steps(CHUNK_NBYTES):
        one = job.source.read(source_lba, blocks)
        two = job.destination.read(destination_lba, nbytes // job.destination.block_nbytes)
        if one != two:
            yield nbytes, next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
            return
        yield nbytes, None
