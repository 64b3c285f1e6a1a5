# SPDX-License-Identifier: BSD-2-Clause
"""Tools that talk to a target: what they do to it, and their texts beside those of sg3_utils and sdparm.

Those ask the same target, through `vscsi-initiator run`.
"""

import json
import os
import re

import pytest
from in_process import initiator, ours, through_the_door
from programs import one_line, run, tool

from initiator.commands import find, names
from initiator.commands.persist import IN, OUT


@pytest.mark.parametrize("name", names())
def test_every_command_explains_itself(name):
    from argparse import ArgumentParser

    from initiator.cli import _common

    command = find(name)
    parser = ArgumentParser(prog=name)
    command.add_arguments(parser)
    _common(parser)
    assert command.HELP and command.DESCRIPTION
    assert "vscsi-initiator" in command.EXAMPLES and name in command.EXAMPLES


# ---- opcodes ----


LISTS = [[], ["--rctd"], ["--compact"], ["--rctd", "--compact"], ["--alpha"]]
ONES = ["0x28", "0x9e,0x10", "0xee", "0xa3,0x1f"]


def test_opcodes_reads_as_sg_opcodes(asked):
    ask = ("sg_opcodes", "--no-inquiry", "--pdt=0")
    theirs = through_the_door(asked, *((*ask, *options) for options in LISTS))
    for options, want in zip(LISTS, theirs, strict=True):
        assert ours(asked, "opcodes", *options) == want
    ones = [[f"--opcode={one.split(',')[0]}", *(f"--sa={sa}" for sa in one.split(",")[1:])] for one in ONES]
    theirs = through_the_door(asked, *((*ask, "--rctd", *words) for words in ones))
    for one, want in zip(ONES, theirs, strict=True):
        got = ours(asked, "opcodes", "--rctd", "--opcode", one)
        if one.startswith(("0xee", "0xa3")):  # a name is all that differs for what neither knows
            got, want = (re.sub("Command_name.*", "", text) for text in (got, want))
        assert got == want


def test_opcodes_json(asked):
    answer = json.loads(ours(asked, "opcodes", "--json", "--rctd"))
    read = next(row for row in answer["commands"] if row["operation_code"] == 0x28)
    assert (read["name"], read["cdb_length"], read["service_action"]) == ("Read(10)", 10, None)
    assert read["recommended_command_timeout"] > 0
    one = json.loads(ours(asked, "opcodes", "--opcode", "28h", "--json"))
    assert one["supported"] is True
    assert one["cdb_usage_data"].startswith("28")
    assert json.loads(ours(asked, "opcodes", "--opcode", "0xee", "--json"))["supported"] is False
    one_line(initiator(asked, "opcodes", "--sa", "1"), 31, "--opcode")
    one_line(initiator(asked, "opcodes", "--opcode", "0x28", "--sa", "1"), 5, "invalid field in cdb", "byte 2")


# ---- vpd ----


def test_vpd_reads_as_sg_vpd(asked):
    pages = ["sv", "sn", "di", "ei", "mpp", "tpc", "bl", "bdc", "lbpv"]
    for page, want in zip(pages, through_the_door(asked, *(("sg_vpd", f"--page={p}") for p in pages)), strict=True):
        assert ours(asked, "vpd", "--page", page) == want


def test_every_page_of_a_target(asked):
    pages = json.loads(ours(asked, "vpd", "--all", "--json"))["vpd_pages"]
    assert [f"0x{page['page_code']:02x}" for page in pages] == pages[0]["supported_vpd_pages"]
    assert ours(asked, "vpd") == ours(asked, "vpd", "--page", "sv")
    one_line(initiator(asked, "vpd", "--page", "0xc9"), 5, "invalid field in cdb")


# ---- modes ----


def test_modes_reads_as_sdparm(asked):
    pages = ["rw", "ca", "ie"]
    usual, *theirs = through_the_door(asked, ("sdparm",), *(("sdparm", f"--page={page}") for page in pages))
    assert ours(asked, "modes").splitlines() == usual.splitlines()[1:]  # the first line says who answers
    obsolete = {"COR_S", "HOC", "DSOC", "LBPERE", "MWR"}
    for page, text in zip(pages, theirs, strict=True):
        fields = dict(line.split()[:2] for line in text.splitlines() if line.startswith("  ") and "[cha" in line)
        got = dict(line.split()[:2] for line in ours(asked, "modes", "--page", page).splitlines()[1:])
        assert {name: value for name, value in fields.items() if name not in obsolete}.items() <= got.items()


def test_modes_sets_saves_and_clears(disk):
    assert ours(disk, "modes", "--get", "WCE", "--quiet") == "1\n"
    assert ours(disk, "modes", "--set", "WCE=0") == ""
    assert ours(disk, "modes", "--get", "WCE") == "  WCE           0  [cha: y, def:  1, sav:  1]\n"
    assert "WCE           0  [cha: y, def:  1, sav:  1]" in through_the_door(disk, ("sdparm", "--get=WCE"))[0]
    assert ours(disk, "modes", "--set", "WCE=0,SWP=1", "--save") == ""
    assert json.loads(ours(disk, "modes", "--get", "WCE,swp", "--json")) == {"wce": 0, "swp": 1}
    one_line(initiator(disk, "--lun", "0", "write", "--lba", "0", data=bytes(512)), 7, "write protected")
    ours(disk, "modes", "--clear", "SWP")
    ours(disk, "--lun", "0", "write", "--lba", "0", data=bytes(512))
    pages = json.loads(ours(disk, "modes", "--page", "co", "--json"))["mode_pages"]
    assert [page["current"]["swp"] for page in pages if page["subpage_code"] == 0] == [0]
    assert [page["saved"]["swp"] for page in pages if page["subpage_code"] == 0] == [1]
    ours(disk, "modes", "--defaults", "--save")
    assert ours(disk, "modes", "--get", "WCE,SWP", "--quiet") == "1\n0\n"


def test_modes_mistakes(asked):
    one_line(initiator(asked, "modes", "--get", "NONSENSE"), 1, "NONSENSE")
    one_line(initiator(asked, "modes", "--set", "WCE=2"), 1, "at most 1")
    one_line(initiator(asked, "modes", "--set", "WCE=x"), 1, "bad number")
    one_line(initiator(asked, "modes", "--save"), 31, "--save")
    one_line(initiator(asked, "modes", "--set", "RCD=1"), 5, "parameter list")
    one_line(initiator(asked, "modes", "--page", "zz"), 1, "zz")


# ---- unmap, lbas, caw ----


def test_unmap_and_lbas(two):
    assert ours(two, "lbas", "--brief") == "0\n"
    ours(two, "unmap", "--lba", "0,1024", "--num", "512,8")
    assert ours(two, "read", "--blocks", "512") == "\0" * (512 * 512)
    listed = ours(two, "lbas")
    assert [listed] == through_the_door(two, ("sg_get_lba_status", "--maxlen=9999"))
    assert "[1] LBA: 0x0000000000000000  blocks:        512  deallocated" in listed
    answer = json.loads(ours(two, "lbas", "--json"))["lba_status_descriptors"]
    assert sum(row["blocks"] for row in answer) == 8192
    assert ours(two, "lbas", "--lba", "1024", "--brief") == "1\n"
    assert ours(two, "lbas", "--lba", "1032", "--brief") == "0\n"
    (two.folder / "ranges").write_text("# of no use any more\n0x200, 8\n")
    ours(two, "unmap", "--in", two.folder / "ranges")
    assert ours(two, "lbas", "--lba", "0x200", "--brief") == "1\n"
    assert ours(two, "unmap", "--lba", "8", "--num", "2", "--dry-run") == "would unmap 2 blocks from lba 0x8\n"
    ours(two, "unmap", "--all")
    assert [row["provisioning_status"] for row in json.loads(ours(two, "lbas", "-j"))["lba_status_descriptors"]] == [1]


def test_unmap_mistakes(asked):
    one_line(initiator(asked, "unmap", "--lba", "1,2", "--num", "3"), 1, "2 LBAs", "1 numbers")
    one_line(initiator(asked, "unmap"), 1, "0 LBAs")
    one_line(initiator(asked, "unmap", "--lba", "16384", "--num", "1"), 22, "out of range")
    one_line(initiator(asked, "unmap", "--lba", "x", "--num", "1"), 1, "bad number")
    one_line(initiator(asked, "unmap", "--all", "--lba", "1"), 31, "--all")


def test_compare_and_write(disk, folder):
    old, new = disk.pattern[512 * 7 : 512 * 9], os.urandom(1024)
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    ours(disk, "caw", "--lba", "7", "--in", folder / "old", "--write", folder / "new")
    assert initiator(disk, "read", "--lba", "7", "--blocks", "2").out == new
    done = initiator(disk, "caw", "--lba", "7", "--in", folder / "old", "--write", folder / "new")
    one_line(done, 14, "miscompare")
    differs = next(i for i in range(1024) if old[i] != new[i])
    done = initiator(disk, "caw", "--lba", "7", "--in", folder / "old", "--write", folder / "new", "--json")
    assert (done.status, json.loads(done.text)) == (14, {"equal": False, "miscompare_offset": differs})
    (folder / "both").write_bytes(new + old)
    assert json.loads(ours(disk, "caw", "--lba", "7", "--in", folder / "both", "--json"))["equal"] is True
    assert initiator(disk, "read", "--lba", "7", "--blocks", "2").out == old
    (folder / "odd").write_bytes(bytes(700))
    one_line(initiator(disk, "caw", "--lba", "7", "--in", folder / "odd"), 15, "700 bytes")
    one_line(initiator(disk, "caw", "--lba", "99999", "--in", folder / "both"), 22, "out of range")


# ---- sanitize ----


def test_sanitize(two, folder):
    (folder / "pattern").write_bytes(b"\xaa\x55")
    answer = json.loads(
        ours(two, "sanitize", "--overwrite", "--pattern", folder / "pattern", "--quick", "--json", "--poll", "0.05")
    )
    assert answer == {"sanitize": "overwrite", "finished": True}
    assert initiator(two, "read", "--lba", "5", "--blocks", "2").out == b"\xaa\x55" * 512
    ours(two, "sanitize", "--overwrite", "--zero", "--quick", "--wait")
    assert initiator(two, "read", "--lba", "5", "--blocks", "2").out == bytes(1024)
    ours(two, "sanitize", "--block", "--quick", "--poll", "0.05")
    assert json.loads(ours(two, "lbas", "-j"))["lba_status_descriptors"][0]["provisioning_status"] == 1
    ours(two, "sanitize", "--fail")
    one_line(initiator(two, "sanitize", "--overwrite", "--quick"), 31, "--pattern")
    one_line(initiator(two, "sanitize", "--quick"), 1, "required")
    one_line(initiator(two, "sanitize", "--block", "--znr", "--quick"), 5, "invalid field in cdb")


# ---- format ----


def test_format(serve, folder):
    (folder / "disk.img").write_bytes(os.urandom(1 << 20))
    target = serve(f"0={folder / 'disk.img'}")
    answer = json.loads(ours(target, "format", "--quick", "--json", "--poll", "0.05"))
    assert answer == {"protection_type": 0, "finished": True}
    assert initiator(target, "read").out == bytes(1 << 20)
    done = initiator(target, "format", "--quick", "--pi", "1", "--poll", "0.05")
    assert (done.status, done.err) == (0, "FORMAT UNIT Complete\n"), done.err
    capacity = json.loads(ours(target, "readcap", "--long", "--json"))
    assert (capacity["prot_en"], capacity["p_type"]) == (1, 0)
    assert ours(target, "format", "--quick", "--wait") == ""
    assert json.loads(ours(target, "readcap", "--long", "--json"))["prot_en"] == 0
    one_line(initiator(target, "format", "--quick", "--size", "520"), 5, "parameter list")
    one_line(initiator(target, "format", "--quick", "--pi", "4"), 1, "out of range")


# ---- persist ----

QUESTIONS = ["--read-keys", "--read-reservation", "--report-capabilities", "--read-full-status"]


def as_port(target, port, *words):
    """`persist` of an initiator that comes back under its name."""
    return initiator(target, "--initiator-port", port, "persist", *words)


def test_persist_reads_as_sg_persist(disk):
    for held in (False, True):
        if held:
            assert as_port(disk, "1", "--register", "--param-sark", "abc").status == 0
            assert as_port(disk, "2", "--register-ignore", "--param-sark", "def", "--param-aptpl").status == 0
            assert as_port(disk, "1", "--reserve", "--param-rk", "abc", "--prout-type", "5").status == 0
        theirs = through_the_door(disk, *(("sg_persist", question) for question in QUESTIONS))
        for question, want in zip(QUESTIONS, theirs, strict=True):
            assert ours(disk, "persist", question) == want


def test_persist_story(disk):
    def keys():
        return json.loads(ours(disk, "persist", "--json"))["reservation_keys"]

    def held():
        return json.loads(ours(disk, "persist", "--read-reservation", "--json"))["reservation"]

    def good(port, *words):
        done = as_port(disk, port, *words)
        assert done.status == 0, done.err

    one_line(as_port(disk, "1", "--reserve", "--param-rk", "a", "--prout-type", "1"), 24, "RESERVATION CONFLICT")
    good("1", "--register", "--param-sark", "a")
    good("2", "--register", "--param-sark", "b")
    assert keys() == ["0xa", "0xb"]
    good("1", "--reserve", "--param-rk", "a", "--prout-type", "3")
    assert held() == {"reservation_key": "0xa", "scope": 0, "type": 3, "type_name": "Exclusive Access"}
    one_line(initiator(disk, "read", "--blocks", "1", "--hex"), 24, "RESERVATION CONFLICT")
    assert initiator(disk, "--initiator-port", "1", "read", "--blocks", "1").out == disk.pattern[:512]
    good("2", "--preempt", "--param-rk", "b", "--param-sark", "a", "--prout-type", "6")
    assert (keys(), held()["reservation_key"], held()["type"]) == (["0xb"], "0xb", 6)
    one_line(as_port(disk, "1", "--register", "--param-sark", "c"), 6, "registrations preempted")
    good("1", "--register", "--param-sark", "c")
    good("2", "--register-move", "--param-rk", "b", "--param-sark", "c", "--transport-id", "srp,1", "-Q", "1")
    assert held()["reservation_key"] == "0xc"
    good("1", "--release", "--param-rk", "c", "--prout-type", "6")
    assert held() is None
    good("3", "--register", "--param-sark", "d", "--transport-id", "srp,77")
    full = json.loads(ours(disk, "persist", "--read-full-status", "--json"))["full_status_descriptors"]
    assert {row["initiator_port"][-2:]: row["reservation_key"] for row in full} == {
        "01": "0xc", "02": "0xb", "03": "0xd", "77": "0xd"
    }  # fmt: skip
    good("3", "--clear", "--param-rk", "d")
    assert keys() == []
    assert json.loads(ours(disk, "persist", "--report-capabilities", "--json"))["ptpl_c"] == 1


# ---- logs, task management functions ----


def test_functions_read_as_sg_opcodes(asked):
    ask = ("sg_opcodes", "--no-inquiry", "--pdt=0", "--tmf")
    assert [ours(asked, "opcodes", "--tmf"), ours(asked, "opcodes", "--tmf", "--repd")] == through_the_door(
        asked, ask, (*ask, "--repd")
    )
    assert json.loads(ours(asked, "opcodes", "--tmf", "--json"))["ats"] == 1


def test_log_pages_read_as_sg_logs(asked):
    pages = json.loads(ours(asked, "logs", "--all", "--json"))["log_pages"]
    assert (0x0D, 0) in {(page["page_code"], page["subpage_code"]) for page in pages}
    assert all(page["page_name"] for page in pages)
    codes = [f"{page['page_code']:#x}" for page in pages if page["page_code"] != 0x19]  # that counts on meanwhile
    theirs = through_the_door(asked, *(("sg_logs", f"--page={code}") for code in codes))
    for code, want in zip(codes, theirs, strict=True):
        assert ours(asked, "logs", "--page", code).splitlines() == want.splitlines()[1:]
    one_line(initiator(asked, "logs", "--page", "0x3e"), 5, "invalid field in cdb")
    one_line(initiator(asked, "logs", "--page", "lbp", "--all"), 31, "--page")
    one_line(initiator(asked, "logs", "--page", "zz"), 1, "zz")


# ---- options that need no target to be tested ----


@pytest.mark.parametrize("option", [*IN, *OUT])
def test_persist_has_the_options_of_sg_persist(option):
    words = run(tool("sg_persist"), "-hh").err + run(tool("sg_persist"), "-h").err
    assert f"--{option}|" in words or f"--{option} " in words


def test_persist_mistakes(asked):
    one_line(initiator(asked, "persist", "--register-move", "--param-rk", "1"), 31, "--transport-id")
    one_line(initiator(asked, "persist", "--register", "--param-rk", "xyz"), 1, "xyz")
    one_line(initiator(asked, "persist", "--register", "--unreg"), 31, "--register-move")
    one_line(initiator(asked, "persist", "--register", "--reserve"), 1, "not allowed")
    one_line(initiator(asked, "persist", "--register", "-X", "srp,xx"), 1, "32 hex digits")
    one_line(initiator(asked, "--initiator-port", "xx", "persist"), 1, "port identifier")


NUMBERS = [
    ("unmap", "--lba", "0", "--num", "1", "--grpnum"), ("unmap", "--lba", "0", "--num"), ("caw", "--in", "x", "--lba"),
    ("caw", "--in", "/dev/null", "--lba", "0", "--num"), ("lbas", "--lba"), ("lbas", "--maxlen"), ("logs", "--paramp"),
    ("logs", "--page"), ("logs", "--maxlen"), ("modes", "--page"), ("modes", "--set"), ("opcodes", "--opcode"),
    ("opcodes", "--opcode", "0xa3", "--sa"), ("persist", "--register", "--param-rk"), ("persist", "--alloc-length"),
    ("persist", "--register", "--prout-type"), ("persist", "--register", "--transport-id"), ("vpd", "--page"),
    ("vpd", "--maxlen"), ("sanitize", "--overwrite", "--zero", "--quick", "--count"), ("format", "--quick", "--size"),
    ("sanitize", "--overwrite", "--zero", "--quick", "--ipl"), ("copy", "0", "1", "--skip"),
    ("copy", "--blocks", "1", "0"),
]  # fmt: skip


@pytest.mark.parametrize("words", NUMBERS, ids=" ".join)
@pytest.mark.parametrize("value", ["-1", "0x1ffffffffffffffff", "nonsense", "iqn.x,i,zz", "WCE=99999999999999999999"])
def test_numbers_that_fit_nowhere_are_told_in_one_line(asked, words, value):
    done = initiator(asked, *words, value)
    assert done.status in (1, 15, 22), (done.status, done.err)
    assert done.err.count("\n") == 1, done.err
    assert done.out == b""
