# SPDX-License-Identifier: BSD-2-Clause
"""What REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS return, as sg_opcodes prints it, and for JSON.

Knows sg_opcodes' words; layouts are in `vscsi/scsi`. Must not know how the data was fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vscsi.scsi import cdb
from vscsi.scsi.parameters import ONE_COMMAND, TIMEOUTS, SupportedOpcode
from vscsi.scsi.reports import TASK_MANAGEMENT, TASK_MANAGEMENT_EXTENDED

SUPPORT = {
    0: "not currently available",
    1: "NOT supported",
    3: "supported [conforming to SCSI standard]",
    5: "supported [in a vendor specific manner]",
}
DURATION_LIMITS = (
    "No command duration limit mode page", "Command duration limit A mode page", "Command duration limit B mode page",
    "reserved [CDLP=3]",
)  # fmt: skip
AFFECTED_UNITS = (
    "not reported", "affects only this logical unit", "affects more than 1, but not all LUs in this target",
    "affects all LUs in this target",
)  # fmt: skip
FUNCTIONS = {
    "ats": "Abort task", "atss": "Abort task set", "cacas": "Clear ACA", "ctss": "Clear task set",
    "lurs": "Logical unit reset", "qts": "Query task", "qaes": "Query asynchronous event", "qtss": "Query task set",
    "itnrs": "I_T nexus reset",
}  # fmt: skip
_SPELLED = {
    "TEST UNIT READY": "Test Unit Ready", "REQUEST SENSE": "Request Sense", "FORMAT UNIT": "Format Unit",
    "GET LBA STATUS": "Get LBA status(16)", "WRITE ATOMIC(32)": "Atomic write(32)",
    "EXTENDED COPY(LID1)": "Extended copy(LID1)", "EXTENDED COPY(LID4)": "Extended copy",
    "RECEIVE COPY STATUS(LID1)": "Receive copy status(LID1)", "RECEIVE COPY STATUS(LID4)": "Receive copy status",
    "RECEIVE COPY DATA(LID1)": "Receive copy data(LID1)", "RECEIVE COPY DATA(LID4)": "Receive copy data",
    "RECEIVE COPY FAILURE DETAILS(LID1)": "Receive copy failure details(LID1)",
    "RECEIVE ROD TOKEN INFORMATION": "Receive ROD token information",
    "REPORT ALL ROD TOKENS": "Report all ROD tokens", "WRITE BUFFER, ECHO": "Write buffer, write data to echo buffer",
    "READ BUFFER(10), ECHO": "Read buffer(10), read data from echo buffer",
    "READ BUFFER(10), ECHO DESCRIPTOR": "Read buffer(10), echo buffer descriptor",
    "READ BUFFER(16), ECHO": "Read buffer(16), read data from echo buffer",
    "READ BUFFER(16), ECHO DESCRIPTOR": "Read buffer(16), echo buffer descriptor",
}  # fmt: skip
"""Names that sg3_utils writes in its own way; all others have one large letter."""


def name_of(opcode: int, sa: int | None) -> str:
    """A command's name as sg_opcodes writes it."""
    row = cdb.ROWS.get((opcode, sa))
    if row is None:
        return f"Opcode={opcode:#x}" + (f", service action={sa:#x}" if sa is not None else "")
    return _SPELLED.get(row.name) or row.name.capitalize()


def list_lines(commands: Iterable[SupportedOpcode], *, timeouts: bool, compact: bool) -> Iterator[str]:
    """The table of all commands."""
    yield ""
    if timeouts and compact:
        yield from ("Opcode,sa  Nominal  Recommended  Name", "  (hex)    timeout  timeout(sec)     ", "-" * 56)
    elif timeouts:
        yield "Opcode  Service    CDB   Nominal  Recommended  Name"
        yield "(hex)   action(h)  size  timeout  timeout(sec)     "
        yield "-" * 64
    elif compact:
        yield from ("Opcode,sa  Name", "  (hex)        ", "-" * 39)
    else:
        yield from ("Opcode  Service    CDB  RWCDLP,  Name", "(hex)   action(h)  size   CDLP       ", "-" * 47)
    for c in commands:
        sa = "    " if c.service_action is None else f"{c.service_action:<4x}" if compact else f"{c.service_action:4x}"
        comma = " " if c.service_action is None else ","
        head = f" {c.opcode:02x}{comma}{sa}" if compact else f" {c.opcode:02x}     {sa}       {c.cdb_nbytes:3}"
        name = name_of(c.opcode, c.service_action)
        if not timeouts:
            yield f"{head}   {name}" if compact else f"{head}    0,0    {name}"
        elif c.timeouts is None:
            yield f"{head}                        {name}" if compact else f"{head}{'':25}{name}"
        else:
            nominal, recommended = (str(value) if value else "-" for value in c.timeouts)
            yield f"{head}  {nominal:>8}   {recommended:>8}    {name}"


def list_json(commands: Iterable[SupportedOpcode]) -> list[dict[str, Any]]:
    """The same, every field by its name; time-outs in seconds."""
    return [
        {
            "operation_code": c.opcode,
            "service_action": c.service_action,
            "name": name_of(c.opcode, c.service_action),
            "cdb_length": c.cdb_nbytes,
            **_timeouts_json(c.timeouts),
        }
        for c in commands
    ]


def _timeouts_json(timeouts: tuple[int, int] | None) -> dict[str, int]:
    if timeouts is None:
        return {}
    return {"nominal_command_processing_timeout": timeouts[0], "recommended_command_timeout": timeouts[1]}


def _one(data: bytes) -> tuple[dict[str, int], bytes, tuple[int, int] | None]:
    """Header, usage map and time-outs of one command's data, as far as they are there."""
    head = ONE_COMMAND.numbers(data.ljust(ONE_COMMAND.nbytes, b"\0"))
    end = ONE_COMMAND.nbytes + head["cdb_size"]
    timeouts = None
    if head["ctdp"] and len(data) >= end + TIMEOUTS.nbytes:
        values = TIMEOUTS.numbers(data[end:])
        timeouts = values["nominal_command_processing_timeout"], values["recommended_command_timeout"]
    return head, data[ONE_COMMAND.nbytes : end], timeouts


def one_lines(opcode: int, sa: int | None, data: bytes) -> Iterator[str]:
    """What is known of one command."""
    head, usage, timeouts = _one(data)
    support = head["support"]
    yield ""
    yield f"  Opcode=0x{opcode:02x}" + (f"  Service_action=0x{sa:04x}" if sa is not None else "")
    yield f"  Command_name: {name_of(opcode, sa)}"
    yield f"  Command is {SUPPORT.get(support) or f'support reserved [{support:#x}]'}"
    yield f"  {DURATION_LIMITS[data[1] >> 3 & 3 if len(data) > 1 else 0]}"
    yield f"  Multiple Logical Units (MLU): {AFFECTED_UNITS[data[1] >> 5 & 3 if len(data) > 1 else 0]}"
    if head["support"] in (3, 5):
        yield f"  Usage data: {usage.hex(' ')} "
    if timeouts:
        nominal = f"nominal timeout: {timeouts[0]} secs" if timeouts[0] else "no nominal timeout"
        recommended = f"recommended timeout: {timeouts[1]} secs" if timeouts[1] else "no recommended timeout"
        yield f"  {nominal}, {recommended}"


def one_json(opcode: int, sa: int | None, data: bytes) -> dict[str, Any]:
    """The same for JSON."""
    head, usage, timeouts = _one(data)
    return {
        "operation_code": opcode,
        "service_action": sa,
        "name": name_of(opcode, sa),
        "support": head["support"],
        "supported": head["support"] in (3, 5),
        "cdb_length": head["cdb_size"],
        "cdb_usage_data": usage.hex(),
        **_timeouts_json(timeouts),
    }


def functions_lines(data: bytes) -> Iterator[str]:
    """Task management functions; with REPD their time-outs too."""
    fields = TASK_MANAGEMENT.numbers(data.ljust(TASK_MANAGEMENT.nbytes, b"\0"))
    yield ""
    yield "Task Management Functions supported by device:"
    for key, words in FUNCTIONS.items():
        if fields[key]:
            yield f"    {words}"
    if len(data) >= TASK_MANAGEMENT_EXTENDED.nbytes:
        more = TASK_MANAGEMENT_EXTENDED.numbers(data)
        yield "  Extended parameter data:"
        for key in ("tmftmov", "atts", "atsts", "cacats", "ctsts", "lurts", "qtts", "qaets", "qtsts", "itnrts"):
            yield f"    {key.upper()}={more[key]}"
        yield f"    tmf long timeout: {more['long_timeout']} (100 ms units)"
        yield f"    tmf short timeout: {more['short_timeout']} (100 ms units)"


def functions_json(data: bytes) -> dict[str, Any]:
    """The same for JSON."""
    return dict((TASK_MANAGEMENT_EXTENDED if len(data) >= 16 else TASK_MANAGEMENT).numbers(data))
