# SPDX-License-Identifier: BSD-2-Clause
"""Every command with an allocation length, in forms that return as much as it can: for tests that sweep the length.

The commands come from the target's table; one that needs fields to return anything has them in `FORMS`.
"""

from collections.abc import Iterator

from target import commands
from vscsi.scsi import cdb, vpd
from vscsi.scsi.cdb import Cdb, Data

FORMS: dict[Cdb, list[dict[str, int]]] = {
    cdb.REQUEST_SENSE: [{}, {"desc": 1}],
    cdb.INQUIRY: [{}, *({"evpd": 1, "page_code": code} for code in vpd.PAGES)],
    cdb.MODE_SENSE_6: [{"page_code": 0x3F}, {"page_code": 0x3F, "subpage_code": 0xFF}],
    cdb.MODE_SENSE_10: [{"page_code": 0x3F, "subpage_code": 0xFF, "llbaa": 1}],
    cdb.LOG_SENSE: [{}, {"subpage_code": 0xFF}, {"page_code": 0x0D}],
    cdb.READ_DEFECT_DATA_10: [{"req_plist": 1, "req_glist": 1}],
    cdb.READ_DEFECT_DATA_12: [{"req_plist": 1, "req_glist": 1}],
    cdb.REPORT_IDENTIFYING_INFORMATION: [{}, {"identifying_information_type": 0x7F}],
    cdb.REPORT_LUNS: [{"select_report": 2}],
    cdb.REPORT_SUPPORTED_OPERATION_CODES: [
        {"rctd": 1}, {"rctd": 1, "reporting_options": 3, "requested_operation_code": 0x28},
    ],
    cdb.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS: [{}, {"repd": 1}],
    cdb.REPORT_TARGET_PORT_GROUPS: [{}, {"parameter_data_format": 1}],
}  # fmt: skip
PREPARED = [
    (cdb.WRITE_BUFFER_ECHO.build(parameter_list_length=300), bytes(range(150)) * 2),
    (cdb.WRITE_BUFFER_DATA.build(parameter_list_length=65536), bytes(range(256)) * 256),
    (cdb.SET_IDENTIFYING_INFORMATION.build(parameter_list_length=9), b"rack 7/12"),
]
"""Commands to run first, so that there is something to return."""


def asking() -> Iterator[tuple[Cdb, dict[str, int]]]:
    """Every command with an allocation length that the target has, with fields."""
    for handler in commands.handlers().values():
        if handler.row.data is Data.IN and "allocation_length" in handler.row.fields:
            for fields in FORMS.get(handler.row, [{}]):
                yield handler.row, fields


def greatest(row: Cdb) -> int:
    """The greatest allocation length to try: what the field holds, at most 64 KiB."""
    return min(row.fields["allocation_length"].mask, 0xFFFF)


def lengths(row: Cdb, nbytes: int, step: int) -> list[int]:
    """Allocation lengths around everything that could matter to an answer of `nbytes`, and every `step`th beyond."""
    most = greatest(row)
    near = {*range(min(nbytes, 64)), *range(nbytes - 8, nbytes + 9), *(1 << k for k in range(17)), most}
    near |= {n - 1 for n in near} | set(range(0, most, step))
    return sorted(n for n in near if 0 <= n <= most)


def name(case: tuple[Cdb, dict[str, int]]) -> str:
    """For the test's id."""
    row, fields = case
    return " ".join([row.symbol, *(f"{key}={value:x}" for key, value in fields.items())])
