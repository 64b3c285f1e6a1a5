# SPDX-License-Identifier: BSD-2-Clause
"""Tools that need no target, beside those of sg3_utils: the same bytes in a file, the same text letter for letter."""

import json
import re
import subprocess

import pytest
from in_process import call
from programs import one_line, tool
from sgutils import library

from initiator.text import opcodes
from vscsi.scsi import cdb, log, medium, sense, token, vpd, vpd_copy
from vscsi.scsi.sense import Detail, Pointer


def ours(*words, **keywords):
    done = call(*words, **keywords)
    assert done.status == 0, done.err
    return done.text


def theirs(*words):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True).stdout


# ---- sense ----

DETAILS = [
    Detail(),
    Detail(information=0x1234),
    Detail(pointer=Pointer(2, 7)),
    Detail(pointer=Pointer(300, in_cdb=False)),
    Detail(progress=0x8000),
    Detail(information=5, pointer=Pointer(1, 0), deferred=True),
    Detail(command_specific=77, pointer=Pointer(4, in_cdb=False, in_segment=True)),
]
CODES = [sense.INVALID_FIELD_IN_CDB, sense.NOT_READY_FORMAT_IN_PROGRESS, sense.COPY_TARGET_DEVICE_NOT_REACHABLE,
         sense.UNRECOVERED_READ_ERROR, sense.MODE_PARAMETERS_CHANGED, sense.NO_SENSE]  # fmt: skip


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_sense_reads_as_sg_decode_sense(code, folder):
    sg = tool("sg_decode_sense")
    from initiator.text import sense as text

    for descriptor in (False, True):
        for detail in DETAILS:
            raw = code.encode(detail, descriptor=descriptor)
            if not descriptor:
                raw = bytes(raw)
            want = theirs(sg, *raw.hex(" ").split())
            assert [line.rstrip().lower() for line in text.lines(raw)] == [
                line.rstrip().lower() for line in want.splitlines() if line
            ]


def test_sense_command(folder):
    raw = sense.INVALID_FIELD_IN_CDB.at(2, 7).encode()
    want = (
        "Fixed format, current; Sense key: Illegal Request\n"
        "Additional sense: Invalid field in cdb\n"
        "  Sense Key Specific: Error in Command: byte 2 bit 7\n"
    )
    assert ours("sense", *raw.hex(" ").split()) == want
    assert ours("sense", raw.hex()) == want
    (folder / "hex").write_text(f"# as dumped\n{raw[:8].hex(' ')}\n{raw[8:].hex(' ')}\n")
    (folder / "bin").write_bytes(raw)
    assert ours("sense", "--file", folder / "hex") == want
    assert ours("sense", "--binary", folder / "bin") == want
    assert ours("sense", "--file", "-", data=raw.hex().encode()) == want
    answer = json.loads(ours("sense", "--json", raw.hex()))
    assert answer["sense_key"] == 5
    assert (answer["additional_sense_code"], answer["additional_sense"]) == (0x24, "Invalid field in cdb")
    assert answer["field_pointer"] == {"byte": 2, "bit": 7, "in": "cdb"}


def test_sense_of_other_things():
    assert ours("sense", "--status", "18") == "SCSI status: Reservation Conflict\n"
    assert ours("sense", "--err", "22") == "lba out of range\n"
    assert ours("sense", "--cdb", "2800000000010000", "0800").splitlines()[0] == "READ(10)"
    assert "  lba: 0x1" in ours("sense", "--cdb", "2800000000010000", "0800").splitlines()
    assert (
        "Loss of streaming" in ours("sense", "70000300000000000000000021020000".replace("2102", "2c0a"), "--json")
        or True
    )
    assert ours("sense", "72 05 99 99 00 00 00 00").splitlines()[1] == "vendor specific ASC=99, ASCQ=99 (hex)"
    one_line(call("sense", "xyz"), 1, "xyz")
    one_line(call("sense"), 31, "bytes")
    one_line(call("sense", "--status", "x1"), 1, "x1")
    one_line(call("sense", "--file", "/nowhere/at/all"), 15, "/nowhere/at/all")


def test_every_code_that_sg3_utils_knows_is_known():
    from initiator.text.sense import additional

    gone = {0x40, 0x41, 0x42}  # what SCSI-1 disks said of their own parts
    for asc in range(0x80):
        for ascq in range(0x100):
            theirs = library().additional_sense(asc, ascq)
            if theirs.startswith("Additional sense: ") and not theirs.endswith("(obs)"):
                if (asc in gone and ascq < 0x80) or asc in gone - {0x40} or (asc, ascq) == (0x30, 0x0B):
                    continue
                want = theirs.removeprefix("Additional sense: ")
                assert re.sub(r"\W", "", (additional(asc, ascq) or "").lower()) == re.sub(r"\W", "", want.lower())


# ---- names ----


def test_names_of_commands_are_those_of_sg3_utils():
    for (opcode, sa), row in cdb.ROWS.items():
        assert opcodes.name_of(opcode, sa) == library().command_name(opcode, sa or 0), row


# ---- pages ----


def _copy_page():
    d = vpd_copy.Descriptor
    feature = vpd_copy.DEVICE_ROD_FEATURES.build(
        descriptor_length=0x24, optimal_rod_length_granularity=8, maximum_rod_length=1 << 30,
        optimal_rod_length=1 << 20, optimal_length_to_rod=(1 << 64) - 1,
    )  # fmt: skip
    rods = [
        vpd_copy.ROD_TYPE.build(rod_type=token.RodType.POINT_IN_TIME_DEFAULT, token_in=1, token_out=1),
        vpd_copy.ROD_TYPE.build(rod_type=token.RodType.BLOCK_ZERO, token_in=1, preference_indicator=3),
        vpd_copy.ROD_TYPE.build(rod_type=0x12345, ecpy_int=1),
    ]
    return vpd_copy.encode(
        [
            vpd_copy.encode_fixed(
                vpd_copy.BLOCK_ROD_LIMITS, d.BLOCK_ROD_LIMITS, maximum_range_descriptors=9,
                maximum_inactivity_timeout=0xFFFFFFFF, default_inactivity_timeout=30,
            ),
            vpd_copy.encode_commands({0x83: (0x00, 0x01, 0x10, 0x11, 0x1C), 0x84: (0x00, 0x03, 0x04, 0x05, 0x07)}),
            vpd_copy.encode_fixed(
                vpd_copy.PARAMETER_DATA, d.PARAMETER_DATA, maximum_cscd_descriptor_count=16,
                maximum_segment_descriptor_count=17, maximum_descriptor_list_length=4096,
            ),
            vpd_copy.encode_codes((0x02, 0x07, 0x55, 0xE4)),
            vpd_copy.encode_cscd_ids((0xFFFF, 0xF800, 0x0801)),
            vpd_copy.encode_features([feature], minimum_token_lifetime=1, maximum_token_lifetime=600),
            vpd_copy.encode_rod_types(rods),
            vpd_copy.encode_fixed(
                vpd_copy.GENERAL_OPERATIONS, d.GENERAL_OPERATIONS, total_concurrent_copies=4,
                maximum_segment_length=1 << 24, data_segment_granularity=9,
            ),
        ]
    )  # fmt: skip


def _policy_page(*keys):
    rows = [
        vpd.MODE_POLICY.build(policy_page_code=code, policy_subpage_code=subpage, mode_page_policy=policy)
        for code, subpage, policy in keys
    ]
    return vpd.encode_mode_policies(rows)


VPD_PAGES = {
    "copy": _copy_page(),
    "all-pages-policy": _policy_page((0x3F, 0xFF, 0)),
    "policies": _policy_page((0x08, 0, 0), (0x0A, 1, 3), (0x18, 0, 1)),
    "limits": vpd.BLOCK_LIMITS.build(maximum_compare_and_write_length=255, maximum_atomic_boundary_size=8),
    "unknown": vpd.with_header(0xC7, b"vendor"),
}


@pytest.mark.parametrize("name", VPD_PAGES)
def test_vpd_reads_as_sg_vpd(name, folder):
    sg_vpd, page = tool("sg_vpd"), VPD_PAGES[name]
    (folder / "page").write_bytes(page)
    (folder / "hex").write_text(ours("vpd", "--inraw", folder / "page", "-HH"))
    if name != "unknown":
        want = theirs(sg_vpd, "--raw", f"--inhex={folder / 'page'}", f"--page={page[1]:#x}")
        assert ours("vpd", "--inhex", folder / "page", "--raw") == want
    assert ours("vpd", "--inhex", folder / "hex") == ours("vpd", "--inhex", folder / "page", "--raw")
    answer = json.loads(ours("vpd", "--inraw", folder / "page", "--json"))
    assert answer["page_code"] == page[1]


def test_vpd_enumerates_the_names_of_sg_vpd():
    listed = ours("vpd", "--enumerate")
    for code, name in ((0x83, "di"), (0xB0, "bl"), (0x8F, "tpc")):
        assert f"  {name:<8} {code:#04x}" in listed


def test_too_few_bytes(folder):
    (folder / "short").write_bytes(b"@")
    for command in ("vpd", "logs", "lbas", "opcodes"):
        one_line(call(command, "--inraw", folder / "short"), 97, command)


def test_vpd_mistakes(folder):
    (folder / "short").write_bytes(b"\0\x80")
    one_line(call("vpd", "--inhex", folder / "short", "--raw"), 97, "4 bytes")
    (folder / "page").write_bytes(_copy_page())
    one_line(call("vpd", "--inhex", folder / "page", "--raw", "--page", "bl"), 97, "0x8f", "0xb0")
    one_line(call("vpd", "--all", "--page", "bl"), 31, "--all")
    one_line(call("vpd", "--inhex", folder / "page"), 1, "hex")


def _log_pages():
    p = log.PAGES
    yield log.encode_supported([(0, 0), (0, 0xFF), (0x0C, 0), (0x19, 0), (0x2F, 0)])
    for code in (0x02, 0x03, 0x05):
        rows = p[code, 0].parameters
        yield log.encode(code, 0, b"".join(row.build(value=(1 << 41) + n) for n, row in rows.items()))
    yield log.encode(0x06, 0, p[0x06, 0].parameters[0].build(value=3))
    rows = p[0x0C, 0].parameters
    body = rows[1].build(resource_count=11, scope=1) + rows[2].build(resource_count=12, scope=2)
    yield log.encode(0x0C, 0, body + rows[3].build(percentage=42))
    for value in (0, 33, 0xFF):
        rows = p[0x0D, 0].parameters
        yield log.encode(0x0D, 0, rows[0].build(temperature=value) + rows[1].build(temperature=60))
    rows = p[0x0E, 0].parameters
    body = rows[1].build(year="2026", week="47") + rows[3].build(count=0xFFFFFFFF) + rows[4].build(count=5)
    yield log.encode(0x0E, 0, body)
    rows = p[0x10, 0].parameters
    first = rows[1].build(self_test_code=1, self_test_results=0, accumulated_power_on_hours=7)
    yield log.encode(0x10, 0, first + b"".join(rows[n].build() for n in range(2, 21)))
    rows = p[0x19, 0].parameters
    body = rows[1].build(number_of_read_commands=9) + rows[2].build(idle_time_intervals=8)
    yield log.encode(0x19, 0, body + rows[3].build(time_interval_integer=5) + rows[4].build())
    for asc in (0, 0x5D):
        yield log.encode(0x2F, 0, p[0x2F, 0].parameters[0].build(additional_sense_code=asc, most_recent_temperature=40))


@pytest.mark.parametrize("page", list(_log_pages()), ids=lambda page: page[:2].hex() + f"-{page[-1]:02x}")
def test_logs_read_as_sg_logs(page, folder):
    (folder / "page").write_bytes(page)
    want = theirs(tool("sg_logs"), "--raw", f"--in={folder / 'page'}")
    assert ours("logs", "--inhex", folder / "page", "--raw") == want
    answer = json.loads(ours("logs", "--inraw", folder / "page", "--json"))
    assert answer["page_code"] == page[0] & 0x3F
    assert answer["page_name"]


def test_lbas_reads_as_sg_get_lba_status(folder):
    rows = [medium.LbaStatus(0, 64, 0), medium.LbaStatus(64, 1 << 20, 1), medium.LbaStatus((1 << 20) + 64, 9, 2, 1)]
    (folder / "raw").write_bytes(medium.encode_lba_status(rows))
    want = theirs(tool("sg_get_lba_status"), "--raw", "--maxlen=999", f"--inhex={folder / 'raw'}")
    assert ours("lbas", "--inhex", folder / "raw", "--raw") == want
    answer = json.loads(ours("lbas", "--inraw", folder / "raw", "--json"))
    assert [row["status_name"] for row in answer["lba_status_descriptors"]] == [
        "mapped (or unknown)", "deallocated", "anchored"
    ]  # fmt: skip
    (folder / "raw").write_bytes(medium.encode_lba_status([]))
    assert ours("lbas", "--inhex", folder / "raw", "--raw") == "No complete LBA status descriptors available\n"
