# SPDX-License-Identifier: BSD-2-Clause
"""WRITE BUFFER and READ BUFFER: data, descriptor, echo. No microcode comes this way. Memory is in `target.buffers`."""

from target.buffers import DATA_NBYTES, ECHO_NBYTES, Buffers
from target.commands.table import AS_READ, AS_WRITE, handles
from target.commands.task import Task
from vscsi.scsi import cdb, sense
from vscsi.scsi.medium import BUFFER_DESCRIPTOR, ECHO_BUFFER_DESCRIPTOR

_WITHOUT = ("mode_specific",)
_ONLY_BUFFER = 0


def _check_place(task: Task) -> int:
    if task.fields["buffer_id"] != _ONLY_BUFFER:
        raise task.invalid("buffer_id")
    offset = task.fields["buffer_offset"]
    if offset >= DATA_NBYTES:
        raise task.invalid("buffer_offset")
    return offset


@handles(cdb.WRITE_BUFFER_DATA, AS_WRITE, without=_WITHOUT)
def write_buffer_data(task: Task) -> None:
    """SPC-4 6.49.3. Of several initiators the last one's data stays."""
    offset = _check_place(task)
    if offset + task.fields["parameter_list_length"] > DATA_NBYTES:
        raise task.invalid("parameter_list_length")
    task.unit.part(Buffers).write(offset, task.parameter_list())


@handles(cdb.READ_BUFFER_10_DATA, AS_READ, without=_WITHOUT)
@handles(cdb.READ_BUFFER_16_DATA, AS_READ, without=_WITHOUT)
def read_buffer_data(task: Task) -> bytes:
    """SPC-4 6.18.4."""
    return task.unit.part(Buffers).read(_check_place(task))


@handles(cdb.READ_BUFFER_10_DESCRIPTOR, AS_READ, without=_WITHOUT)
@handles(cdb.READ_BUFFER_16_DESCRIPTOR, AS_READ, without=_WITHOUT)
def read_buffer_descriptor(task: Task) -> bytes:
    """SPC-4 6.18.5. A buffer that is not there has no capacity; offsets may be any byte."""
    there = task.fields["buffer_id"] == _ONLY_BUFFER
    return BUFFER_DESCRIPTOR.build(buffer_capacity=DATA_NBYTES if there else 0)


@handles(cdb.WRITE_BUFFER_ECHO, AS_WRITE, without=_WITHOUT)
def write_buffer_echo(task: Task) -> None:
    """SPC-4 6.49.7. Buffer identifier and offset mean nothing."""
    if task.fields["parameter_list_length"] > ECHO_NBYTES:
        raise task.invalid("parameter_list_length")
    task.unit.part(Buffers).set_echo(task.nexus, task.parameter_list())


@handles(cdb.READ_BUFFER_10_ECHO, AS_READ, without=_WITHOUT)
@handles(cdb.READ_BUFFER_16_ECHO, AS_READ, without=_WITHOUT)
def read_buffer_echo(task: Task) -> bytes:
    """SPC-4 6.18.7: what the same nexus wrote last."""
    data = task.unit.part(Buffers).echo(task.nexus)
    if data is None:
        raise sense.COMMAND_SEQUENCE_ERROR.error()
    return data


@handles(cdb.READ_BUFFER_10_ECHO_DESCRIPTOR, AS_READ, without=_WITHOUT)
@handles(cdb.READ_BUFFER_16_ECHO_DESCRIPTOR, AS_READ, without=_WITHOUT)
def read_buffer_echo_descriptor(task: Task) -> bytes:
    """SPC-4 6.18.8. EBOS is zero: each nexus has its own, which no other overwrites."""
    return ECHO_BUFFER_DESCRIPTOR.build(buffer_capacity=ECHO_NBYTES)
