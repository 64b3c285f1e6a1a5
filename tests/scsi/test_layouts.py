# SPDX-License-Identifier: BSD-2-Clause
"""Parameter data of reservations, logs, copy, tokens, the medium and reports: both ways, against sg3_utils and against
the structures of FreeBSD's scsi_all.h; any bytes may come."""

import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgutils import library

from vscsi.scsi import copy, log, medium, reports, reservations, token, vpd, vpd_copy
from vscsi.scsi.fields import Layout
from vscsi.scsi.reservations import Registration, Type

MODULES = (copy, medium, reports, reservations, token, vpd_copy)
LAYOUTS = {
    f"{module.__name__.rsplit('.')[-1]}.{name}": layout
    for module in MODULES
    for name, layout in vars(module).items()
    if isinstance(layout, Layout)
}

FREEBSD: dict[Layout, dict[str, int | tuple[int, ...]]] = {
    copy.LIST_LID1: dict(cscd_descriptor_list_length=2, segment_descriptor_list_length=8, inline_data_length=12),
    copy.LIST_LID4: dict(
        header_cscd_descriptor_list_length=2, immed=15, header_cscd_descriptor_type_code=16, list_identifier=20,
        cscd_descriptor_list_length=42, segment_descriptor_list_length=44, inline_data_length=46,
    ),
    copy.CSCD: dict(
        relative_initiator_port_identifier=2, code_set=4, designator_type=5, designator_length=7, designator=8, pad=28,
        disk_block_length=29,
    ),
    copy.SEGMENT_BLOCKS: dict(
        descriptor_length=2, source_cscd=4, destination_cscd=6, number_of_blocks=10, source_lba=12, destination_lba=20
    ),
    copy.SEGMENT_VERIFY: dict(descriptor_length=2, source_cscd=4, tur=8),
    copy.SEGMENT_REGISTER_KEY: dict(
        descriptor_length=2, destination_cscd=6, reservation_key=8, service_action_reservation_key=16
    ),
    copy.STATUS_LID4: dict(transfer_count_units=15, transfer_count=16, segments_processed=24, sense_data_length=14),
    copy.OPERATING_PARAMETERS: dict(
        snlid=4, maximum_cscd_descriptor_count=8, maximum_segment_descriptor_count=10,
        maximum_descriptor_list_length=12, maximum_segment_length=16, maximum_inline_data_length=20,
        held_data_limit=24, maximum_stream_device_transfer_size=28, total_concurrent_copies=34,
        maximum_concurrent_copies=36, data_segment_granularity=37, inline_data_granularity=38,
        held_data_granularity=39, implemented_descriptor_list_length=43,
    ),
    token.POPULATE_TOKEN: dict(
        immed=2, rtv=2, inactivity_timeout=4, rod_type=8, block_device_range_descriptor_length=14
    ),
    token.WRITE_USING_TOKEN: dict(
        immed=2, del_tkn=2, offset_into_rod=8, rod_token=16, block_device_range_descriptor_length=534
    ),
    token.TOKEN: dict(rod_type=0, rod_token_length=6),
}  # fmt: skip
"""Offset of each member, counted from the declarations."""


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@settings(max_examples=20)
@given(data=st.data())
def test_layouts_both_ways(layout: Layout, data: st.DataObject) -> None:
    values = {name: data.draw(st.integers(0, field.mask)) for name, field in layout.fields.items()}
    raw = layout.build(**values)
    assert len(raw) == layout.nbytes
    assert layout.numbers(raw) == values


def test_offsets_against_freebsd() -> None:
    for layout, members in FREEBSD.items():
        assert {name: layout.fields[name].byte for name in members} == members


@pytest.mark.parametrize("module", (*MODULES, log), ids=lambda module: module.__name__)
def test_every_module_has_layouts(module: ModuleType) -> None:
    assert any(isinstance(value, Layout) for value in vars(module).values())


# ---- reservations ----

keys = st.integers(0, 2**64 - 1)
ports = st.binary(min_size=16, max_size=16)


@given(st.integers(0, 2**32 - 1), st.lists(keys, max_size=20))
def test_keys(generation: int, held: list[int]) -> None:
    assert reservations.decode_keys(reservations.encode_keys(generation, held)) == (generation, held)


@given(st.integers(0, 2**32 - 1), keys, st.sampled_from(list(Type)))
def test_reservation(generation: int, key: int, kind: Type) -> None:
    got = reservations.decode_reservation(reservations.encode_reservation(generation, (key, kind)))
    assert got == (generation, {"reservation_key": key, "scope": 0, "type": kind})
    assert reservations.decode_reservation(reservations.encode_reservation(generation, None)) == (generation, None)


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(keys, ports, st.integers(0, 0xFFFF), st.booleans()), max_size=9))
def test_full_status(generation: int, rows: list[tuple[int, bytes, int, bool]]) -> None:
    held = [
        Registration(key, reservations.encode_srp_transportid(port), rtpi, holder, 5 if holder else 0)
        for key, port, rtpi, holder in rows
    ]
    assert reservations.decode_full_status(reservations.encode_full_status(generation, held)) == (generation, held)


@given(ports)
def test_transportids(port: bytes) -> None:
    ours = reservations.encode_srp_transportid(port)
    assert reservations.decode_srp_transportid(ours) == port
    iscsi = reservations.encode_iscsi_transportid("iqn.2006-05.org.example:x", 0x80123456789A)
    assert reservations.split_transportids(ours + iscsi + ours) == [ours, iscsi, ours]
    assert reservations.split_transportids(ours + iscsi[:-1]) is None
    assert port.hex() in reservations.describe_transportid(ours)
    assert reservations.describe_transportid(iscsi) == "iSCSI iqn.2006-05.org.example:x,i,0x80123456789a"
    assert reservations.decode_srp_transportid(iscsi) is None


def test_transportids_against_sg() -> None:
    port = bytes(range(1, 17))
    text = library().transportid(reservations.encode_srp_transportid(port))
    assert "RDMA initiator port identifier" in text and port.hex() in text.replace(" ", "")
    text = library().transportid(reservations.encode_iscsi_transportid("iqn.2006-05.org.example:x", 0x80123456789A))
    assert "iqn.2006-05.org.example:x" in text and "world wide unique port id" in text
    text = library().transportid(reservations.encode_iscsi_transportid("iqn.2006-05.org.example:x"))
    assert "iSCSI name: iqn.2006-05.org.example:x" in text


def test_out_lists() -> None:
    raw = reservations.encode_out(0x11, 0x22, aptpl=1)
    assert raw.hex() == "0000000000000011" + "0000000000000022" + "00000000" + "01000000"
    one = reservations.encode_srp_transportid(bytes(16))
    raw = reservations.encode_out(0x11, 0x22, transportids=[one])
    assert (raw[20], raw[24:28].hex(), raw[28:]) == (0x08, "00000018", one)
    raw = reservations.encode_move(1, 2, 3, one, unreg=True, aptpl=True)
    assert raw[16:24].hex() == "0003000300000018"
    assert raw[24:] == one


def test_types_say_what_they_are() -> None:
    assert [t.text for t in Type] == [
        "write exclusive", "exclusive access", "write exclusive, registrants only",
        "exclusive access, registrants only", "write exclusive, all registrants", "exclusive access, all registrants",
    ]  # fmt: skip
    assert [t for t in Type if t.excludes_reads] == [3, 6, 8]
    assert [t for t in Type if t.registrants_only] == [5, 6]
    assert [t for t in Type if t.all_registrants] == [7, 8]


# ---- logs ----


@pytest.mark.parametrize("page", log.PAGES.values(), ids=lambda page: page.abbreviation)
@settings(max_examples=20)
@given(data=st.data())
def test_log_pages_both_ways(page: log.Page, data: st.DataObject) -> None:
    body, want = b"", []
    for parameter in page.parameters.values():
        fields = {n: f for n, f in parameter.layout.fields.items() if not f.text}
        values = {n: data.draw(st.integers(0, f.mask)) for n, f in fields.items()}
        raw = parameter.build(**values)
        assert {n: v for n, v in parameter.decode(raw).items() if n in values} == values
        want.append((parameter.code, raw))
        body += raw
    head, got = log.decode(log.encode(page.code, page.subpage, body))
    assert (head["page_code"], head["subpage_code"], head["spf"]) == (*page.key, page.subpage != 0)
    assert [(p.code, p.raw) for p in got] == want


def _sg_logs(folder: Path, raw: bytes) -> str:
    (folder / "page").write_bytes(raw)
    done = subprocess.run(["sg_logs", "--raw", f"--in={folder / 'page'}"], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def test_log_pages_against_sg(tmp_path: Path) -> None:
    read = log.READ_ERRORS
    text = _sg_logs(tmp_path, log.encode(3, 0, b"".join(p.build(value=70 + c) for c, p in read.parameters.items())))
    for code, parameter in read.parameters.items():
        assert f"{parameter.name} = {70 + code}" in text
    general = log.STATISTICS.parameters[1]
    values = {name: 1000 + i for i, name in enumerate(general.layout.fields)}
    rest = b"".join(log.STATISTICS.parameters[code].build() for code in (2, 3))  # sg_logs reads no shorter page
    text = _sg_logs(tmp_path, log.encode(0x19, 0, general.build(**values) + rest))
    lines = [line for line in text.splitlines() if " = " in line]
    assert len(lines) >= len(values)
    for (name, value), line in zip(values.items(), lines, strict=False):
        assert line.endswith(f" = {value}")
        assert line.split()[:2] == name.split("_")[:2]
    provisioning = log.BLOCK_PROVISIONING.parameters
    body = provisioning[1].build(resource_count=11, scope=1) + provisioning[3].build(percentage=42, scope=2)
    text = _sg_logs(tmp_path, log.encode(0x0C, 0, body))
    assert "Available LBA mapping resource count: 11" in text or "threshold resource count: 11" in text
    assert "dedicated to lu" in text.lower() and "42 %" in text
    text = _sg_logs(tmp_path, log.encode(0x0D, 0, log.TEMPERATURE.parameters[0].build(temperature=33)))
    assert "Current temperature = 33 C" in text
    text = _sg_logs(tmp_path, log.encode(0x0E, 0, log.START_STOP.parameters[4].build(count=77)))
    assert "Accumulated start-stop cycles = 77" in text
    ie = log.INFORMATIONAL_EXCEPTIONS.parameters[0]
    text = _sg_logs(tmp_path, log.encode(0x2F, 0, ie.build(additional_sense_code=0x5D, most_recent_temperature=40)))
    assert "asc = 0x5d" in text
    assert "40 C" in text


def test_supported_log_pages(tmp_path: Path) -> None:
    pairs = [(0x00, 0x00), (0x00, 0xFF), (0x0C, 0x00), (0x2F, 0x00)]
    flat, deep = log.encode_supported(pairs), log.encode_supported(pairs, subpages=True)
    assert log.decode_supported(flat) == [(0, 0), (0x0C, 0), (0x2F, 0)]
    assert log.decode_supported(deep) == pairs
    assert "Logical block provisioning" in _sg_logs(tmp_path, flat)
    assert "Logical block provisioning" in _sg_logs(tmp_path, deep)
    assert log.find("LBP") is log.BLOCK_PROVISIONING
    assert log.find("nonsense") is None


# ---- the medium ----

extents = st.builds(
    medium.LbaStatus, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 15), st.integers(0, 255)
)


@given(st.lists(extents, max_size=20))
def test_lba_status(held: list[medium.LbaStatus]) -> None:
    raw = medium.encode_lba_status(held)
    assert int.from_bytes(raw[:4]) == len(raw) - 4
    assert medium.decode_lba_status(raw) == held


def test_lba_status_against_sg(tmp_path: Path) -> None:
    raw = medium.encode_lba_status([medium.LbaStatus(0x10, 0x20, 1), medium.LbaStatus(0x30, 5, 2)])
    (tmp_path / "raw").write_bytes(raw)
    done = subprocess.run(
        ["sg_get_lba_status", "--raw", "--maxlen=99", f"--inhex={tmp_path / 'raw'}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "LBA: 0x0000000000000010  blocks:         32  deallocated" in done.stdout
    assert "LBA: 0x0000000000000030  blocks:          5  anchored" in done.stdout


def test_overwrite_list() -> None:
    assert medium.encode_overwrite(b"\xaa\x55", 3, invert=True).hex() == "83000002aa55"


# ---- reports ----


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 0xFFFF), st.lists(st.integers(1, 0xFFFF), max_size=5))),
    st.integers(0, 1),
)
def test_port_groups(rows: list[tuple[int, int, list[int]]], form: int) -> None:
    groups = [
        reports.PortGroup({"asymmetric_access_state": state, "target_port_group": number}, tuple(held))
        for state, number, held in rows
    ]
    raw = reports.encode_port_groups(groups, form, transition_time=7)
    assert int.from_bytes(raw[:4]) == len(raw) - 4
    got = reports.decode_port_groups(raw)
    assert [(g.fields["asymmetric_access_state"], g.fields["target_port_group"], g.ports) for g in got] == [
        (state, number, tuple(held)) for state, number, held in rows
    ]


def test_reports() -> None:
    assert reports.encode_timestamp(0x0102030405060, 2).hex() == "000a0200" + "102030405060" + "0000"
    assert reports.encode_information(b"name").hex() == "00000004" + b"name".hex()
    assert reports.encode_information_types({2: 256, 0: 512}).hex() == "00000008" + "00000200" + "02000100"
    assert reports.AccessState.ACTIVE_OPTIMIZED.text == "active/optimized"


# ---- copy and tokens ----


def test_copy_lists() -> None:
    cscd = copy.encode_cscd(1, 0, 3, bytes.fromhex("6025653123456789aabbccddeeff0011"), 512)
    assert cscd.hex() == "e400000001030010" + "6025653123456789aabbccddeeff001100000000" + "00000200"
    segment = copy.encode_blocks(0, 1, 8, 0x10, 0x20, dc=True)
    assert segment.hex() == "02020018" + "00000001" + "00000008" + "0000000000000010" + "0000000000000020"
    raw = copy.encode_list_lid1(7, [cscd, cscd], [segment])
    assert raw[:16].hex() == "07000040" + "00000000" + "0000001c" + "00000000"
    raw = copy.encode_list_lid4(7, [cscd, cscd], [segment], usage=copy.ListIdUsage.DISCARD, immed=True)
    assert raw[:48].hex() == (
        "01100020" + "00" * 11 + "01" + "ff000000" + "00000007" + "00" * 18 + "0040" + "001c" + "0000"
    )
    assert raw[48:] == cscd + cscd + segment


def test_copy_status() -> None:
    raw = copy.encode_status_lid4(b"SENSE", b"TAIL", copy_operation_status=copy.Status.FAILED, transfer_count=9)
    got = copy.decode_status_lid4(raw)
    assert (got.fields["copy_operation_status"], got.fields["transfer_count"]) == (2, 9)
    assert (got.sense, got.tail, got.running) == (b"SENSE", b"TAIL", False)
    raw = copy.encode_operating_parameters((0xE4, 0x02), maximum_segment_length=1 << 20)
    assert (raw[:4].hex(), raw[43:].hex()) == ("0000002a", "0202e4")


def test_tokens() -> None:
    raw = token.encode_populate([(5, 6)], rod_type=token.RodType.ACCESS_UPON_REFERENCE)
    assert raw.hex() == "001e0200" + "00000000" + "00010000" + "00000010" + "0000000000000005" + "00000006" + "00000000"
    raw = token.encode_write_using(token.BLOCK_ZERO_TOKEN, [(5, 6), (7, 8)], 3, immed=1)
    assert (len(raw), raw[:3].hex(), raw[8:16].hex()) == (568, "023601", "0000000000000003")
    assert raw[16:24].hex() == "ffff0001000001f8"
    assert token.decode_ranges(raw[536:]) == [(5, 6), (7, 8)]
    tail = token.encode_token_descriptors(token.BLOCK_ZERO_TOKEN)
    assert (len(tail), tail[:4].hex()) == (4 + 514, "00000202")
    assert token.decode_token_descriptors(tail) == token.BLOCK_ZERO_TOKEN
    assert token.decode_token_descriptors(token.encode_token_descriptors(None)) is None


def test_copy_page_against_sg(tmp_path: Path) -> None:
    d = vpd_copy.Descriptor
    rods = [vpd_copy.ROD_TYPE.build(rod_type=token.RodType.BLOCK_ZERO, token_in=1)]
    features = vpd_copy.DEVICE_ROD_FEATURES.build(descriptor_length=0x24, maximum_rod_length=1 << 30)
    descriptors = [
        vpd_copy.encode_fixed(vpd_copy.BLOCK_ROD_LIMITS, d.BLOCK_ROD_LIMITS, maximum_range_descriptors=9),
        vpd_copy.encode_commands({0x83: (0x00, 0x01, 0x10), 0x84: (0x03,)}),
        vpd_copy.encode_fixed(vpd_copy.PARAMETER_DATA, d.PARAMETER_DATA, maximum_cscd_descriptor_count=16),
        vpd_copy.encode_codes((0x02, 0xE4)),
        vpd_copy.encode_cscd_ids((0xFFFF,)),
        vpd_copy.encode_features([features], maximum_token_lifetime=600),
        vpd_copy.encode_rod_types(rods),
        vpd_copy.encode_fixed(vpd_copy.GENERAL_OPERATIONS, d.GENERAL_OPERATIONS, total_concurrent_copies=4),
    ]
    page = vpd_copy.encode(descriptors)
    assert [raw for _, raw in vpd_copy.decode(page)] == descriptors
    (tmp_path / "page").write_bytes(page)
    command = ["sg_vpd", "--raw", f"--inhex={tmp_path / 'page'}", "--page=tpc"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    for words in (
        "Maximum Range Descriptors: 9", "Extended copy(LID1)", "Populate token", "Receive copy operating parameters",
        "Maximum CSCD Descriptor Count: 16", "Total concurrent copies: 4", "Maximum token lifetime: 600",
    ):  # fmt: skip
        assert words.lower() in done.stdout.lower(), (words, done.stdout)


def test_mode_policies_against_sg(tmp_path: Path) -> None:
    rows = [
        vpd.MODE_POLICY.build(policy_page_code=0x08, mode_page_policy=vpd.Policy.SHARED),
        vpd.MODE_POLICY.build(policy_page_code=0x3F, policy_subpage_code=0xFF, mlus=1, mode_page_policy=3),
    ]
    page = vpd.encode_mode_policies(rows)
    assert [row["policy_page_code"] for row in vpd.decode_mode_policies(page)] == [0x08, 0x3F]
    (tmp_path / "page").write_bytes(page)
    command = ["sg_vpd", "--raw", f"--inhex={tmp_path / 'page'}", "--page=mpp"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Policy page code: 0x8\n    MLUS=0,  Policy: shared" in text
    assert "Policy page code: 0x3f,  subpage code: 0xff\n    MLUS=1,  Policy: per I_T nexus" in text


# ---- whatever bytes come ----


@given(st.binary(max_size=700))
def test_any_bytes_may_come(raw: bytes) -> None:
    reservations.decode_keys(raw)
    reservations.decode_reservation(raw)
    reservations.decode_full_status(raw)
    reservations.split_transportids(raw)
    reservations.describe_transportid(raw)
    log.decode_supported(raw)
    _, parameters = log.decode(raw)
    assert sum(len(p.raw) for p in parameters) <= len(raw)
    for page in log.PAGES.values():
        for parameter in page.parameters.values():
            parameter.decode(raw)
    assert len(medium.decode_lba_status(raw)) <= len(raw) // 16
    reports.decode_port_groups(raw)
    copy.decode_status_lid4(raw)
    token.decode_ranges(raw)
    token.decode_token_descriptors(raw)
    assert sum(len(body) for _, body in vpd_copy.decode(raw)) <= len(raw)
    vpd.decode_mode_policies(raw)
