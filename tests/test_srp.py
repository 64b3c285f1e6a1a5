# SPDX-License-Identifier: BSD-2-Clause
"""The codecs of the twelve IUs: vectors, real captures, round trips, and bytes that mean nothing."""

import contextlib
import json
from pathlib import Path

import oracle_srp as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi import srp
from vscsi.native import ffi

LUN3 = bytes((0, 3, 0, 0, 0, 0, 0, 0))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


# From an independent packer: what is asserted is both directions.
COLD = [
    (
        srp.LoginReq(0x0102030405060708, 248, 6, 0, bytes(range(0x10, 0x20)), bytes(range(0x20, 0x30))),
        "00000000 00000000 01020304 05060708 000000f8 00000000 00060000 00000000 10111213 14151617 18191a1b 1c1d1e1f "
        "20212223 24252627 28292a2b 2c2d2e2f",
    ),
    (
        srp.LoginRsp(30, 0x0102030405060708, 248, 248, 6, 0),
        "c0000000 0000001e 01020304 05060708 000000f8 000000f8 00060000 00000000 00000000 00000000 00000000 00000000 "
        "00000000",
    ),
    (
        srp.LoginRej(0x00010003, 0x0102030405060708, 6),
        "c2000000 00010003 01020304 05060708 00000000 00000000 00060000 00000000",
    ),
    (srp.ILogout(0x0102030405060708), "03000000 00000000 01020304 05060708"),
    (srp.TLogout(1, 4, 0x0102030405060708), "80010000 00000004 01020304 05060708"),
    (srp.CredReq(0, -2, 7), "81000000 fffffffe 00000000 00000007"),
    (srp.CredRsp(7), "41000000 00000000 00000000 00000007"),
    (
        srp.AerReq(1, 1, 9, LUN3, unhex("70000600 0000000a")),
        "82010000 00000001 00000000 00000009 00000000 00030000 00000000 00000008 00000000 70000600 0000000a",
    ),
    (srp.AerRsp(9), "42000000 00000000 00000000 00000009"),
]

HOT = [
    (
        oracle.Cmd(0x11, LUN3, unhex("28000000 10000000 08000000 00000000"), data_in=oracle.Direct(0, 0x1234, 4096)),
        "02000000 00010000 00000000 00000011 00000000 00030000 00000000 00000000 28000000 10000000 08000000 00000000 "
        "00000000 00000000 00001234 00001000",
    ),
    (
        oracle.Cmd(
            0x12,
            LUN3,
            unhex("8a080000 00010000 00000000 00100000"),
            data_out=oracle.Indirect(
                oracle.Direct(0, 0, 32), 8192, (oracle.Direct(0, 0x200, 4096), oracle.Direct(0, 0x201, 4096))
            ),
            task_attr=2,
        ),
        "02000000 00200200 00000000 00000012 00000000 00030000 00000000 00020000 8a080000 00010000 00000000 00100000 "
        "00000000 00000000 00000000 00000020 00002000 00000000 00000000 00000200 00001000 00000000 00000000 00000201 "
        "00001000",
    ),
    (
        oracle.Rsp(0, 1, 0x12, 0x0A, 2, 8192, 0, b"", unhex("70000500 0000000a 00000000 21000000 0000")),
        "c1000000 00000001 00000000 00000012 00000a02 00002000 00000000 00000012 00000000 70000500 0000000a 00000000 "
        "21000000 0000",
    ),
    (
        oracle.Rsp(0, 1, 0x11, 0, 0, 0, 0, b"", b""),
        "c1000000 00000001 00000000 00000011 00000000 00000000 00000000 00000000 00000000",
    ),
    (
        oracle.TskMgmt(0, 0x13, LUN3, 1, 0x12),
        "01000000 00000000 00000000 00000013 00000000 00030000 00000000 00000100 00000000 00000012 00000000 00000000",
    ),
    (
        oracle.Rsp(0, 2, 0x13, 1, 0, 0, 0, bytes(4), b""),
        "c1000000 00000002 00000000 00000013 00000100 00000000 00000000 00000000 00000004 00000000",
    ),
]


@pytest.mark.parametrize(("iu", "text"), COLD, ids=lambda v: type(v).__name__ if not isinstance(v, str) else "")
def test_cold_vector(iu, text):
    assert srp.encode(iu) == unhex(text)
    assert srp.decode(unhex(text)) == iu
    assert srp.decode(unhex(text) + b"\xee" * (248 - len(unhex(text)))) == iu, "bytes behind the IU are ignored"


@pytest.mark.parametrize(("iu", "text"), HOT, ids=lambda v: type(v).__name__ if not isinstance(v, str) else "")
def test_hot_vector(iu, text):
    assert oracle.encode(iu) == unhex(text)
    assert oracle.decode(unhex(text)) == iu


def test_every_opcode_has_exactly_one_codec():
    opcodes = set(ffi.typeof("enum srp_opcode").elements)
    assert set(srp.LAYOUTS) | set(oracle.DECODERS) == opcodes
    assert not set(srp.LAYOUTS) & set(oracle.DECODERS)
    assert set(srp.SENDERS) == {layout.cls for layout in srp.LAYOUTS.values()}


def test_sizes_of_the_standard():
    assert {n: srp.LAYOUTS[n].nbytes for n in sorted(srp.LAYOUTS)} == {
        0x00: 64, 0x03: 16, 0x41: 16, 0x42: 16, 0x80: 16, 0x81: 16, 0x82: 36, 0xC0: 52, 0xC2: 32,
    }  # fmt: skip


def test_reserved_bytes_are_ignored_and_sent_as_zero():
    data = bytearray(srp.encode(srp.ILogout(5)))
    data[1:8] = b"\xff" * 7
    assert srp.encode(srp.decode(bytes(data))) == srp.encode(srp.ILogout(5))


@pytest.mark.parametrize("opcode", [0x01, 0x02, 0xC1])
def test_hot_iu_in_the_cold_codec_is_an_invalid_type(opcode):
    with pytest.raises(srp.RemoteProtocolError) as caught:
        srp.decode(bytes((opcode,)).ljust(248, b"\0"))
    assert caught.value.reason == 2


@pytest.mark.parametrize("iu", [iu for iu, _ in COLD], ids=lambda iu: type(iu).__name__)
def test_every_truncation_is_refused(iu):
    data = srp.encode(iu)
    for nbytes in range(len(data)):
        with pytest.raises(srp.RemoteProtocolError):
            srp.decode(data[:nbytes])


@pytest.mark.parametrize(
    "iu",
    [
        srp.ILogout(1 << 64),
        srp.CredReq(0, 1 << 31, 1),
        srp.CredReq(256, 1, 1),
        srp.LoginRej(-1, 0, 6),
        srp.LoginReq(0, 64, 6, 0, b"short", bytes(16)),
        srp.AerReq(0, 1, 1, bytes(9), b""),
    ],
)
def test_values_that_do_not_fit_are_our_bug(iu):
    with pytest.raises(srp.LocalProtocolError):
        srp.encode(iu)


u8, u16, u32, u64 = (st.integers(0, 2**n - 1) for n in (8, 16, 32, 64))
s32 = st.integers(-(2**31), 2**31 - 1)
id16, lun8 = st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)
directs = st.builds(oracle.Direct, u64, u32, u32)
indirects = st.builds(oracle.Indirect, directs, u32, st.lists(directs, max_size=4).map(tuple))
descriptors = st.one_of(st.none(), directs, indirects)
cdbs = st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))

COLD_IUS = st.one_of(
    st.builds(srp.LoginReq, u64, u32, u16, u8, id16, id16),
    st.builds(srp.LoginRsp, s32, u64, u32, u32, u16, u8),
    st.builds(srp.LoginRej, u32, u64, u16),
    st.builds(srp.ILogout, u64),
    st.builds(srp.TLogout, u8, u32, u64),
    st.builds(srp.CredReq, u8, s32, u64),
    st.builds(srp.CredRsp, u64),
    st.builds(srp.AerReq, u8, s32, u64, lun8, st.binary(max_size=212)),
    st.builds(srp.AerRsp, u64),
)
HOT_IUS = st.one_of(
    st.builds(oracle.Cmd, u64, lun8, cdbs, descriptors, descriptors, st.integers(0, 7), u8),
    st.builds(oracle.TskMgmt, u8, u64, lun8, u8, u64),
    st.builds(oracle.Rsp, u8, s32, u64, u8, u8, u32, u32, st.binary(max_size=8), st.binary(max_size=200)),
)


@given(COLD_IUS)
def test_cold_round_trip(iu):
    assert srp.decode(srp.encode(iu)) == iu


@given(HOT_IUS)
def test_hot_round_trip(iu):
    assert oracle.decode(oracle.encode(iu)) == iu


@given(st.one_of(st.binary(max_size=260), st.sampled_from(sorted(srp.LAYOUTS)).flatmap(
    lambda opcode: st.binary(max_size=259).map(lambda tail: bytes((opcode,)) + tail))))  # fmt: skip
def test_any_bytes_decode_or_raise_remote_protocol_error(data):
    for decode in (srp.decode, oracle.decode):
        with contextlib.suppress(srp.RemoteProtocolError):
            decode(data)


def captures() -> dict[str, dict]:
    for above in Path(__file__).resolve().parents[2:]:
        path = above / "shared" / "vectors" / "ibmvscsi.json"
        if path.exists():
            return json.loads(path.read_text())
    return {}


CAPTURED = {name: entry for name, entry in captures().items() if entry["kind"].startswith("SRP_")}


@pytest.mark.skipif(not CAPTURED, reason="the captured vectors are not beside the checkout")
@pytest.mark.parametrize("name", CAPTURED or ["none"])
def test_captured_iu(name):
    entry = CAPTURED[name]
    data = bytes.fromhex(entry["iu"])
    decode, encode = (oracle.decode, oracle.encode) if data[0] in oracle.DECODERS else (srp.decode, srp.encode)
    iu = decode(data)
    assert type(iu).__name__ == entry["kind"].removeprefix("SRP_").title().replace("_", "")
    assert iu.tag == int(entry["tag"], 16)
    assert encode(iu) == data
    if isinstance(iu, oracle.Cmd):
        assert iu.lun.hex() == entry["lun"]
        if "ext_table" in entry:
            table = bytes.fromhex(entry["ext_table"])
            wire = iu.data_in or iu.data_out
            assert wire.table.len == len(table)
            assert b"".join(d.encode() for d in wire.desc_list) == table[: len(wire.desc_list) * 16]
    if isinstance(iu, oracle.Rsp):
        assert (iu.status, iu.flags, len(iu.sense_data)) == (entry["status"], entry["flags"], entry["sense_len"])


@pytest.mark.skipif(not CAPTURED, reason="the captured vectors are not beside the checkout")
def test_captured_login_makes_a_session_on_both_sides():
    asked, answered = (bytes.fromhex(CAPTURED[name]["iu"]) for name in ("login_req", "login_rsp"))
    target, initiator = srp.TargetSession(), srp.InitiatorSession()
    assert initiator.send(srp.decode(asked)) == asked
    request = target.receive(asked)
    assert isinstance(request, srp.LoginReq) and request.req_it_iu_len == 256
    assert target.send(srp.decode(answered)) == answered
    assert initiator.receive(answered).req_lim_delta == 22
    assert initiator.state is target.state is srp.State.LIVE
