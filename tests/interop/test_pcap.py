# SPDX-License-Identifier: BSD-2-Clause
"""Captures of real sessions, of both programs, read by tshark: a decoder of CDBs, data and sense that is not ours."""

import json
import os
import signal
import subprocess
import time

import pcap_reader
import pytest
from programs import BIN, run, tool

READ_10, WRITE_10, INQUIRY, READ_CAPACITY_16 = "0x28", "0x2a", "0x12", "0x9e"


def decoded(path, display=None):
    """Every packet that tshark shows, as field names to lists of values."""
    command = [tool("tshark"), "-r", path, "-T", "json", "--no-duplicate-keys"]
    done = subprocess.run(
        [*command, *(["-Y", display] if display else [])], capture_output=True, check=True, timeout=60
    )
    packets = []
    for packet in json.loads(done.stdout or "[]"):
        fields = {}
        _flatten(packet["_source"]["layers"], fields)
        packets.append(fields)
    return packets


def _flatten(node, fields):
    for name, value in node.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                _flatten(one, fields)
            else:
                fields.setdefault(name, []).append(one)


def assert_sound(path):
    # Not ours to be warned of: sequence numbers that do not follow each other are errors too.
    assert decoded(path, "_ws.malformed || _ws.expert.severity == error || tcp.analysis.flags") == []


def one(packets):
    assert len(packets) == 1, packets
    return packets[0]


@pytest.fixture(params=["target", "initiator"])
def session(request, serve, folder):
    """Runs commands; the capture that one of the programs made of all of them, or of the last."""
    tool("tshark")

    def start(*commands):
        path = folder / "capture.pcap"
        image = folder / "d.img"
        image.write_bytes(b"".join(n.to_bytes(4, "big") * 128 for n in range(8192)))
        at_target = request.param == "target"
        target = serve(f"0={image}", "3=mem:1M,ro", options=["--pcap", path] if at_target else [])
        for command in commands:
            last = ["--pcap", path] if command is commands[-1] and not at_target else []
            target.initiator(*last, *command)
        if at_target:
            assert target.stop() == 0
        assert_sound(path)
        return path

    return start


def numbers(packet, name):
    return [int(value, 0) for value in packet[name]]


def test_inquiry_is_decoded(session):
    path = session(["inquiry"])
    command = one(decoded(path, f"iscsi.opcode == 0x01 && scsi_sbc.opcode == {INQUIRY} && scsi.inquiry.flags == 0"))
    assert numbers(command, "scsi.lun")[0] == 0
    data = one(decoded(path, "iscsi.opcode == 0x25 && scsi.inquiry.vendor_id"))
    assert numbers(data, "scsi.request_frame") == numbers(command, "frame.number")
    assert data["scsi.inquiry.vendor_id"][0].strip() == "VSCSI"
    assert data["scsi.inquiry.product_id"][0].strip() == "virtual disk"
    assert numbers(data, "scsi.inquiry.version") == [6]


def test_vpd_page_is_decoded(session):
    path = session(["inquiry", "--page", "di"])
    data = decoded(path, "iscsi.opcode == 0x25 && scsi.inquiry.evpd.pagecode == 0x83")[-1]
    assert 3 in numbers(data, "scsi.inquiry.evpd.devid.identifier_type"), "an NAA designator"
    assert numbers(data, "scsi.naa.ieee_company_id") == [0x025653]


def test_read_and_write(session, folder):
    data = os.urandom(100 * 1024)
    source = folder / "data"
    source.write_bytes(data)
    path = session(["--lun", "0", "write", "--lba", "24", "--verify", source])
    for opcode, direction in ((WRITE_10, "iscsi.scsicommand.W"), (READ_10, "iscsi.scsicommand.R")):
        command = one(decoded(path, f"iscsi.opcode == 0x01 && scsi_sbc.opcode == {opcode}"))
        assert numbers(command, "scsi_sbc.rdwr10.lba") == [24]
        assert numbers(command, "scsi_sbc.rdwr10.xferlen") == [200]
        assert numbers(command, direction) == [1]
        assert numbers(command, "iscsi.scsicommand.expecteddatatransferlength") == [len(data)]
        frame = command["frame.number"][0]
        answer = one(decoded(path, f"iscsi.opcode == 0x21 && scsi.request_frame == {frame}"))
        assert numbers(answer, "scsi.status") == [0]
        assert numbers(answer, "scsi_sbc.opcode") == [int(opcode, 0)], "tshark knows whose answer it is"
        assert float(answer["scsi.time"][0]) > 0
    for opcode in (0x05, 0x25):
        pieces = [pdu for pdu in pcap_reader.read(path.read_bytes()).pdus if pdu.opcode == opcode]
        assert b"".join(pdu.data for pdu in pieces)[-len(data) :] == data


def test_read_capacity_is_decoded(session):
    path = session(["readcap", "--long"])
    answer = one(decoded(path, f"iscsi.opcode == 0x25 && scsi_sbc.opcode == {READ_CAPACITY_16}"))
    assert numbers(answer, "scsi_sbc.lba64_add") == [8191]
    assert numbers(answer, "scsi_sbc.blocksize") == [512]


@pytest.mark.parametrize(
    ("words", "key", "code"),
    [
        (["read", "--lba", "8192", "--blocks", "1"], 5, 0x2100),
        (["--lun", "3", "raw", "2a000000000000000100", "--out", "BLOCK"], 7, 0x2700),
        (["raw", "ff" + "00" * 15], 5, 0x2000),
    ],
)
def test_sense_is_decoded(session, folder, words, key, code):
    block = folder / "block"
    block.write_bytes(bytes(512))
    path = session([str(block) if word == "BLOCK" else word for word in words])
    bad = decoded(path, "iscsi.scsiresponse.status == 2")[-1]
    assert numbers(bad, "scsi.sns.key") == [key]
    assert numbers(bad, "scsi.sns.ascascq") == [code]
    assert "iscsi.request_frame" in bad


def test_residual(session):
    path = session(["raw", "120000002400", "--in", "96"])
    answer = decoded(path, "iscsi.opcode == 0x21 && iscsi.scsiresponse.U == 1")[-1]
    assert int(answer["iscsi.scsiresponse.residualcount"][0], 0) == 60


def test_parameter_list_is_decoded(session):
    path = session(["--lun", "0", "unmap", "--lba", "40", "--num", "8"])
    # The initiator shows what it sends; one that met a unit attention was sent again.
    data = decoded(path, "iscsi.opcode == 0x05 && scsi_sbc.opcode == 0x42")[-1]
    assert numbers(data, "scsi_sbc.unmap.lba") == [40]
    assert numbers(data, "scsi_sbc.unmap.num_blocks") == [8]


def test_task_management_and_any_program(session):
    """What goes through the door of `run` is captured as well."""
    tool("sg_reset")
    path = session(["run", "--", "sg_reset", "-d", "/dev/vscsi0"])
    asked = one(decoded(path, "iscsi.opcode == 0x02"))
    assert numbers(asked, "iscsi.taskmanfun.function") == [5], "LOGICAL UNIT RESET"
    answered = one(decoded(path, "iscsi.opcode == 0x22"))
    assert numbers(answered, "iscsi.taskmanfun.response") == [0]
    assert numbers(answered, "iscsi.initiatortasktag") == numbers(asked, "iscsi.initiatortasktag")


def test_snap_length(serve, folder):
    tool("tshark")
    path = folder / "snap.pcap"
    target = serve("0=mem:4M", options=["--pcap", path, "--snaplen", "128"])
    assert target.initiator("read", "--blocks", "64").status == 0
    assert target.stop() == 0
    found = pcap_reader.read(path.read_bytes())
    assert max(len(pdu.data) for pdu in found.pdus) == 40
    assert found.cut
    assert decoded(path, "scsi_sbc.rdwr10.xferlen == 64") != []


def test_killed_target_leaves_a_sound_file(serve, folder):
    tool("tshark")
    path = folder / "killed.pcap"
    target = serve("0=mem:4M", options=["--pcap", path])
    assert target.initiator("turs").status == 0
    deadline = time.monotonic() + 30
    while not any(pdu.opcode == 0x26 for pdu in pcap_reader.read(path.read_bytes()).pdus):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    target.process.send_signal(signal.SIGKILL)
    target.process.wait()
    assert pcap_reader.read(path.read_bytes()).left == b""
    assert_sound(path)
    assert decoded(path, "scsi_sbc.opcode == 0x00") != []


def test_several_initiators_are_several_streams(serve, folder):
    tool("tshark")
    path = folder / "many.pcap"
    target = serve("0=mem:1M", "3=mem:2M", options=["--pcap", path])
    for lun in (0, 3, 3):
        assert target.initiator("readcap", lun=lun).status == 0
    assert target.stop() == 0
    assert_sound(path)
    streams = {packet["tcp.stream"][0]: packet["ip.src"][0] for packet in decoded(path, "iscsi.opcode == 0x01")}
    assert len(streams) == 3 and len(set(streams.values())) == 3
    luns = {value for packet in decoded(path, "iscsi.opcode == 0x01") for value in packet["scsi.lun"]}
    assert {int(lun, 0) for lun in luns} == {0, 3}


def test_standard_output_is_the_capture_alone(folder):
    """The live form: what the programs print goes to stderr."""
    tshark = tool("tshark")
    command = f'{BIN}/vscsi-initiator -u "$uri" readcap --brief'
    made = run(BIN / "vscsi-target", "--pcap", "-", "--lun", "0=mem:1M", "-U", "-", "--run", command)
    assert made.status == 0
    assert "0x800 0x200" in made.err
    done = subprocess.run([tshark, "-r", "-"], input=made.out, capture_output=True, check=True, timeout=60)
    assert b"Read Capacity" in done.stdout or b"READ CAPACITY" in done.stdout.upper()


def test_mistakes_are_one_line(serve, folder):
    done = run(BIN / "vscsi-target", "--pcap", folder / "no" / "f", "--lun", "0=mem:1M", "-U", "-", "--run", "true")
    assert done.status == 15 and done.err.count("\n") == 1 and "no/f" in done.err
    target = serve("0=mem:1M")
    done = target.initiator("--pcap", folder / "no" / "f", "turs")
    assert done.status == 15 and done.err.count("\n") == 1
    done = target.initiator("--protocol", "blkif", "--pcap", folder / "f", "read")
    assert done.status == 31 and "--pcap" in done.err
    for done in (
        target.initiator("--snaplen", "100", "turs"),
        run(BIN / "vscsi-target", "--snaplen", "100", "--lun", "0=mem:1M", "-U", "-", "--run", "true"),
    ):
        assert done.status == 31 and done.err.count("\n") == 1 and "--pcap" in done.err
