# SPDX-License-Identifier: BSD-2-Clause
"""The syntax of --lun."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target.lunspec import KEYS, LunSpecError, parse, parse_all, split_commas
from target.stores.sizes import format_size, parse_size


def test_defaults() -> None:
    spec = parse("0=disk.img")
    assert (spec.lun, spec.store, spec.block_nbytes, spec.cache) == (0, "disk.img", 512, "wb")
    assert (spec.readonly, spec.discard, spec.rotational, spec.size, spec.serial) == (False, True, None, None, None)
    assert (spec.vendor, spec.product) == ("VSCSI", "virtual disk")


def test_every_key() -> None:
    spec = parse(
        "16383=mem:1M,size=64k,ro,bs=4096,physical=8k,serial=S 1,naa=naa.60123456789abcdef0123456789abcdef"[:-1]
        + ",vendor=ACME,product=a=b,,c,cache=none,discard=off,removable=on,state=/s,rotational=1,protection=2,queue=7"
    )
    assert (spec.lun, spec.store, spec.size, spec.readonly) == (16383, "mem:1M", 65536, True)
    assert (spec.block_nbytes, spec.physical_nbytes, spec.serial) == (4096, 8192, "S 1")
    assert spec.naa == bytes.fromhex("60123456789abcdef0123456789abcde")
    assert (spec.vendor, spec.product, spec.cache) == ("ACME", "a=b,c", "none")
    assert (spec.discard, spec.state, spec.rotational, spec.protection, spec.queue) == (False, "/s", True, 2, 7)
    assert set(KEYS) == {
        "size", "ro", "bs", "physical", "serial", "naa", "vendor", "product", "cache", "discard", "removable",
        "state", "rotational", "prefetch", "threshold", "protection", "queue",
        "initiators", "ro-initiators", "sched", "depth", "idle", "device", "weight", "iops", "bw",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a,,b", ["a,b"]),
        ("a,,,b", ["a,", "b"]),
        ("a,,,,b", ["a,,b"]),
        ("a,", ["a", ""]),
        ("", [""]),
    ],
)
def test_commas(text: str, parts: list[str]) -> None:
    assert split_commas(text) == parts


@given(st.lists(st.text("a,=", min_size=1).filter(lambda s: not s.startswith(",")), min_size=1))
def test_doubled_commas_come_back(parts: list[str]) -> None:
    assert split_commas(",".join(part.replace(",", ",,") for part in parts)) == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("disk.img", "expected N=STORE"),
        ("=disk.img", "'' is not a LUN"),
        ("x=disk.img", "'x' is not a LUN"),
        ("-1=a", "is not a LUN"),
        ("16384=a", "'16384' is not a LUN"),
        ("9" * 5000 + "=a", "is not a LUN"),
        ("0=", "the store is missing"),
        ("0=,ro", "the store is missing"),
        ("0=a,colour=red", "lun 0: unknown key 'colour' (known: size, ro,"),
        ("0=a,", "unknown key ''"),
        ("0=a,ro,ro=off", "key 'ro' is given twice"),
        ("0=a,bs", "key 'bs' needs a value"),
        ("0=a,bs=513", "bs: 513 is not 512"),
        ("0=a,bs=big", "bs: 'big' is not a size"),
        ("0=a,size=0", "size=0: an image cannot be empty"),
        ("0=a,size=12q", "size: '12q' is not a size"),
        ("0=a,size=99999999T", "is not a size"),
        ("0=a,size=1000", "size=1000 is not a multiple of bs=512"),
        ("0=a,ro=maybe", "ro: 'maybe' is neither on nor off"),
        ("0=a,cache=lots", "cache: 'lots' is not one of wb, wt, none"),
        ("0=a,vendor=123456789", "1 to 8 printable ASCII"),
        ("0=a,serial=", "1 to 64 printable ASCII"),
        ("0=a,serial=ü", "printable ASCII"),
        ("0=a,physical=1000", "physical: 1000 is not a power of two"),
        ("0=a,bs=4096,physical=512", "physical=512 is less than bs=4096"),
        ("0=a,naa=1234", "is not an NAA name"),
        ("0=a,naa=zz", "is not an NAA name"),
        ("0=a,naa=" + "1" * 16, "is not an NAA name"),
    ],
)
def test_mistakes_are_one_clear_line(text: str, words: str) -> None:
    with pytest.raises(LunSpecError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_may_come(text: str) -> None:
    for candidate in (text, f"0={text}", f"0=a,{text}"):
        try:
            parse(candidate)
        except LunSpecError as error:
            assert str(error)


def test_threshold() -> None:
    assert (parse("0=a").threshold, parse("0=a,threshold=1").threshold, parse("0=a,threshold=99").threshold) == (
        None, 1, 99,
    )  # fmt: skip
    for text in ("0", "100", "-1", "1.5", "", "²", "0050", "9" * 5000):
        with pytest.raises(LunSpecError, match="threshold"):
            parse(f"0=a,threshold={text}")


def test_several() -> None:
    assert [s.lun for s in parse_all(["3=a", "0=b"])] == [0, 3]
    assert all(s.readonly for s in parse_all(["3=a", "0=b,ro=off"], readonly=True))
    with pytest.raises(LunSpecError, match="lun 3 is given twice"):
        parse_all(["3=a", "0=b", "3=c"])


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("0", 0), ("512", 512), ("1k", 1024), ("1K", 1024), ("2M", 2 << 20), ("3GiB", 3 << 30), ("1T", 1 << 40)],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5M", "1P", "0x10", " 1", "9" * 30, "9" * 5000, "²"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_sizes_for_people() -> None:
    assert [format_size(n) for n in (5, 1024, 100 << 20, 3 << 40)] == ["5 bytes", "1.0 KiB", "100.0 MiB", "3.0 TiB"]
