# SPDX-License-Identifier: BSD-2-Clause
"""Layouts and numbers of the ABI against a second witness: Xen's own headers, as Debian's libxen-dev installs them.

A throw-away C program prints what Xen's headers say; this file compares it with what cffi read from ours.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from vscsi.native import ffi, lib

# (our struct, Xen's struct, {our field: Xen's field})
STRUCTS = [
    (
        "struct vscsi_grant_entry",
        "grant_entry_v1_t",
        {"flags": "flags", "domid": "domid", "frame": "frame"},
    ),
    (
        "struct blkif_segment",
        "struct blkif_request_segment",
        {"gref": "gref", "first_sect": "first_sect", "last_sect": "last_sect"},
    ),
    (
        "struct blkif_request",
        "blkif_request_t",
        {name: name for name in ("operation", "nr_segments", "handle", "id", "sector_number", "seg")},
    ),
    (
        "struct blkif_request_discard",
        "blkif_request_discard_t",
        {name: name for name in ("operation", "flag", "handle", "id", "sector_number", "nr_sectors")},
    ),
    (
        "struct blkif_request_indirect",
        "blkif_request_indirect_t",
        {
            name: name
            for name in ("operation", "indirect_op", "nr_segments", "id", "sector_number", "handle", "indirect_grefs")
        },
    ),
    (
        "struct blkif_response",
        "blkif_response_t",
        {"id": "id", "operation": "operation", "status": "status"},
    ),
    (
        "struct vscsi_sring",
        "struct blkif_sring",
        {"req_prod": "req_prod", "req_event": "req_event", "rsp_prod": "rsp_prod", "rsp_event": "rsp_event"},
    ),
]

# Our name: Xen's, where they differ.
NUMBERS = {
    "GTF_INVALID": "GTF_invalid",
    "GTF_PERMIT_ACCESS": "GTF_permit_access",
    "GTF_ACCEPT_TRANSFER": "GTF_accept_transfer",
    "GTF_TRANSITIVE": "GTF_transitive",
    "GTF_TYPE_MASK": "GTF_type_mask",
    "GTF_READONLY": "GTF_readonly",
    "GTF_READING": "GTF_reading",
    "GTF_WRITING": "GTF_writing",
    "GTF_SUB_PAGE": "GTF_sub_page",
    "VSCSI_GREF_RESERVED": "GNTTAB_NR_RESERVED_ENTRIES",
    "XENBUS_UNKNOWN": "XenbusStateUnknown",
    "XENBUS_INITIALISING": "XenbusStateInitialising",
    "XENBUS_INIT_WAIT": "XenbusStateInitWait",
    "XENBUS_INITIALISED": "XenbusStateInitialised",
    "XENBUS_CONNECTED": "XenbusStateConnected",
    "XENBUS_CLOSING": "XenbusStateClosing",
    "XENBUS_CLOSED": "XenbusStateClosed",
    "XENBUS_RECONFIGURING": "XenbusStateReconfiguring",
    "XENBUS_RECONFIGURED": "XenbusStateReconfigured",
    **{
        name: name
        for name in (
            *("BLKIF_OP_READ", "BLKIF_OP_WRITE", "BLKIF_OP_WRITE_BARRIER", "BLKIF_OP_FLUSH_DISKCACHE"),
            *("BLKIF_OP_RESERVED_1", "BLKIF_OP_DISCARD", "BLKIF_OP_INDIRECT"),
            *("BLKIF_RSP_OKAY", "BLKIF_RSP_ERROR", "BLKIF_RSP_EOPNOTSUPP"),
            *("BLKIF_MAX_SEGMENTS_PER_REQUEST", "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST"),
            *("VDISK_CDROM", "VDISK_REMOVABLE", "VDISK_READONLY"),
        )
    },
    "BLKIF_DISCARD_SECURE": "BLKIF_DISCARD_SECURE",
}

HEAD = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/event_channel.h>
#include <xen/io/xenbus.h>
#include <xen/io/blkif.h>
int main(void) {
"""


@pytest.fixture(scope="module")
def xen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What Xen's headers say, by expression."""
    if not shutil.which("gcc") or not Path("/usr/include/xen/io/blkif.h").exists():
        pytest.skip("Xen's headers (libxen-dev) are not installed")
    expressions = [*NUMBERS.values()]
    for _, theirs, fields in STRUCTS:
        expressions.append(f"sizeof({theirs})")
        expressions += [f"offsetof({theirs}, {field})" for field in fields.values()]
        expressions += [f"sizeof((({theirs} *)0)->{field})" for field in fields.values()]
    expressions.append("offsetof(struct blkif_sring, ring)")
    lines = [f'    printf("%lld\\n", (long long)({expression}));\n' for expression in expressions]
    folder = tmp_path_factory.mktemp("xen")
    (folder / "facts.c").write_text(HEAD + "".join(lines) + "    return 0;\n}\n")
    subprocess.run(["gcc", "-std=gnu11", "-w", str(folder / "facts.c"), "-o", str(folder / "facts")], check=True)
    done = subprocess.run([str(folder / "facts")], capture_output=True, text=True, check=True)
    return dict(zip(expressions, map(int, done.stdout.split()), strict=True))


@pytest.mark.parametrize(("ours", "theirs", "fields"), STRUCTS, ids=[row[0] for row in STRUCTS])
def test_struct_is_xens(xen: dict[str, int], ours: str, theirs: str, fields: dict[str, str]) -> None:
    described = dict(ffi.typeof(ours).fields)
    for our_field, their_field in fields.items():
        assert described[our_field].offset == xen[f"offsetof({theirs}, {their_field})"], our_field
        assert ffi.sizeof(described[our_field].type) == xen[f"sizeof((({theirs} *)0)->{their_field})"], our_field
    if ours == "struct vscsi_sring":
        assert ffi.sizeof(ours) == xen["offsetof(struct blkif_sring, ring)"]
    elif ours == "struct blkif_request_discard":
        assert ffi.sizeof(ours) >= xen[f"sizeof({theirs})"]
    else:
        assert ffi.sizeof(ours) == xen[f"sizeof({theirs})"]


def test_numbers_are_xens(xen: dict[str, int]) -> None:
    wrong = {
        name: (getattr(lib, name), xen[theirs]) for name, theirs in NUMBERS.items() if getattr(lib, name) != xen[theirs]
    }
    assert wrong == {}


def test_every_number_taken_from_xen_is_checked() -> None:
    """Whoever adds a number to one of Xen's enums in the ABI adds it here."""
    for enum in ("vscsi_gtf", "vscsi_xenbus_state", "blkif_op", "blkif_status", "blkif_vdisk_info"):
        assert set(ffi.typeof(f"enum {enum}").relements) <= set(NUMBERS), enum
