# SPDX-License-Identifier: BSD-2-Clause
"""Sense codes and both formats, against pyscsi's dictionary and sg_decode_sense."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.scsi import sense
from vscsi.scsi.sense import Detail, Key, Pointer, Sense

CODES = pytest.mark.parametrize("code", list(sense.NAMED.values()), ids=list(sense.NAMED))


def words(text: str) -> list[str]:
    return re.findall(r"[A-Z0-9]+", text.upper())


@CODES
def test_codes_against_pyscsi(code: Sense) -> None:
    from pyscsi.pyscsi.scsi_sense import sense_ascq_dict

    if code is sense.NO_SENSE:  # pyscsi has no text for it
        return
    assert words(sense_ascq_dict[code.asc << 8 | code.ascq]) == words(code.name)


def test_no_code_stands_twice() -> None:
    assert len({(c.asc, c.ascq) for c in sense.NAMED.values()}) == len(sense.NAMED)
    assert sense.lookup(0x25, 0) is sense.LOGICAL_UNIT_NOT_SUPPORTED
    assert sense.lookup(0x99, 0x99) is None
    assert sense.LBA_OUT_OF_RANGE.code == 0x052100


def test_keys_against_pyscsi() -> None:
    from pyscsi.pyscsi.scsi_sense import sense_key_dict

    ours = {int(key): words(key.text) for key in Key if key is not Key.RESERVED}
    assert {number: words(name) for number, name in sense_key_dict.items()} == ours


def sg(raw: bytes) -> str:
    done = subprocess.run(["sg_decode_sense", *raw.hex(" ").split()], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("sg_decode_sense"), reason="needs sg3-utils")
@pytest.mark.parametrize("descriptor", [False, True], ids=["fixed", "descriptor"])
def test_codes_against_sg(descriptor: bool) -> None:
    for code in sense.NAMED.values():
        text = sg(code.encode(descriptor=descriptor))
        form = "Descriptor" if descriptor else "Fixed"
        head = re.search(r"^ *(\w+) format, current; Sense key: (.*)$", text, re.M)
        assert head and head[1] == form, text
        assert words(head[2]) == words(Key(code.key).text), text
        # sg3 writes some texts in its own words; the numbers must agree wherever it shows them
        extra = re.search(r"Additional sense: (.*)$", text, re.M)
        if code.asc or code.ascq:
            assert extra, text
            same = set(words(extra[1])) & set(words(code.name))
            assert len(same) >= min(2, len(words(code.name))), (text, code)


@pytest.mark.skipif(not shutil.which("sg_decode_sense"), reason="needs sg3-utils")
def test_details_against_sg() -> None:
    for descriptor in (False, True):
        text = sg(sense.INVALID_FIELD_IN_CDB.at(3, 5).encode(descriptor=descriptor))
        assert "Error in Command: byte 3 bit 5" in text
        text = sg(sense.INVALID_FIELD_IN_PARAMETER_LIST.at(0x102, in_cdb=False).encode(descriptor=descriptor))
        assert "Error in Data parameters: byte 258" in text
        assert "bit" not in text.split("byte 258")[1].splitlines()[0]
        text = sg(sense.UNRECOVERED_READ_ERROR.error(information=0x1234).encode(descriptor=descriptor))
        assert "1234" in text
        text = sg(sense.NOT_READY_FORMAT_IN_PROGRESS.error(progress=32768).encode(descriptor=descriptor))
        assert "50" in text
        text = sg(sense.WRITE_ERROR.error(deferred=True).encode(descriptor=descriptor))
        assert "deferred" in text


details = st.builds(
    Detail,
    information=st.none() | st.integers(0, 2**64 - 1),
    command_specific=st.none() | st.integers(1, 2**32 - 1),
    pointer=st.none() | st.builds(Pointer, st.integers(0, 0xFFFF), st.none() | st.integers(0, 7), st.booleans()),
    deferred=st.booleans(),
)


@given(st.sampled_from(list(sense.NAMED.values())), details, st.booleans())
def test_round_trip(code: Sense, detail: Detail, descriptor: bool) -> None:
    raw = code.encode(detail, descriptor=descriptor)
    got = sense.decode(raw)
    assert got.matches(code)
    assert got.deferred is detail.deferred
    assert got.response_code == 0x70 + 2 * descriptor + detail.deferred
    fits = descriptor or (detail.information or 0) <= 0xFFFFFFFF
    assert got.information == (detail.information if fits else None)
    assert got.command_specific == detail.command_specific
    if code.key == Key.COPY_ABORTED and detail.pointer:  # C/D means nothing there
        assert got.field_pointer == replace(detail.pointer, in_cdb=False)
    else:
        assert got.field_pointer == (detail.pointer if code.key == Key.ILLEGAL_REQUEST else None)
    assert code.name.lower() in got.describe()


@pytest.mark.skipif(not shutil.which("sg_decode_sense"), reason="needs sg3-utils")
def test_segment_pointers_against_sg() -> None:
    pointer = Pointer(12, 3, in_cdb=False, in_segment=True)
    for descriptor in (False, True):
        raw = sense.COPY_TARGET_DEVICE_NOT_REACHABLE.encode(Detail(pointer=pointer), descriptor=descriptor)
        assert sense.decode(raw).field_pointer == pointer
        assert str(pointer) == "byte 12 bit 3 of the segment descriptor"
        assert "Relative to start of segment descriptor, byte 12 bit 3" in " ".join(sg(raw).split())


def test_fixed_bytes() -> None:
    raw = sense.INVALID_FIELD_IN_CDB.at(2, 7).encode()
    assert raw.hex(" ") == "70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 cf 00 02"
    raw = sense.LBA_OUT_OF_RANGE.error(information=2**32).encode()
    assert raw[0] == 0x70, "VALID must be 0 where INFORMATION does not fit"


def test_progress() -> None:
    for descriptor in (False, True):
        raw = sense.NOT_READY_SANITIZE_IN_PROGRESS.error(progress=0x4000).encode(descriptor=descriptor)
        got = sense.decode(raw)
        assert got.progress == 0x4000
        assert "progress 25%" in got.describe()


def test_words_for_people() -> None:
    got = sense.decode(sense.INVALID_FIELD_IN_CDB.at(2, 7).encode())
    assert got.describe() == "illegal request: invalid field in cdb, at byte 2 bit 7 of the CDB"
    assert sense.decode(b"").describe() == "no sense data"
    assert sense.decode(b"\x01\x02").describe() == "unknown sense data 01 02"
    assert sense.decode(Sense(5, 0x99, 0x98, "?").encode()).describe() == "illegal request: asc 99h ascq 98h"
    assert str(sense.INVALID_FIELD_IN_CDB.at(2)) == "invalid field in cdb (byte 2 of the CDB)"


@given(st.binary(max_size=64))
def test_any_bytes_may_come(raw: bytes) -> None:
    got = sense.decode(raw)
    assert isinstance(got.describe(), str)


@given(details, st.integers(0, 40), st.booleans())
def test_cut_short(detail: Detail, nbytes: int, descriptor: bool) -> None:
    raw = sense.INVALID_FIELD_IN_CDB.encode(detail, descriptor=descriptor)[:nbytes]
    got = sense.decode(raw)
    assert got.asc in (0, 0x24)
    assert got.information in (None, detail.information) or nbytes < 7
