# SPDX-License-Identifier: BSD-2-Clause
"""Configuration files say what the command line says, and the way back.

The list of options is taken from the program, so that a new one is tried here without a new line.
"""

import argparse
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from target import config
from target.cli import main
from target.lunspec import KEYS, join, parse, split
from target.options import build_parser
from target.options import settings as options
from vscsi.cli import CliError, ExitStatus

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "vscsi-target.toml"
PARSER = build_parser()

# A value for each key of --lun that no text will do for.
VALUES = {
    "size": st.sampled_from(["4k", "1G", "8192"]),
    "bs": st.sampled_from(["512", "4096"]),
    "physical": st.just("4096"),
    "naa": st.just("5000000000000001"),
    "threshold": st.integers(1, 99).map(str),
    "protection": st.sampled_from("0123"),
    "cache": st.sampled_from(["wb", "wt", "none"]),
    "prefetch": st.sampled_from(["good", "met"]),
    "initiators": st.lists(st.text("0123456789abcdef*?", min_size=1, max_size=8), min_size=1).map("+".join),
    "state": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    **dict.fromkeys(("vendor", "product", "serial"), st.text("aB ,=+#\"'\\", min_size=1, max_size=8)),
    **dict.fromkeys(("ro", "discard", "removable", "rotational"), st.sampled_from(["on", "off", "1", "0"])),
}
VALUES["ro-initiators"] = VALUES["initiators"]
STORES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def words() -> st.SearchStrategy[list[tuple[str, str | None]]]:
    known = st.sampled_from([name for name in KEYS if name in VALUES])
    one = known.flatmap(lambda name: VALUES[name].map(lambda value: (name, value))) | st.just(("ro", None))
    return st.lists(one, unique_by=lambda word: word[0])


def values_of(row: argparse.Action) -> st.SearchStrategy[list[str]]:
    """What the command line may say for an option, in words."""
    flag = row.option_strings[0]
    if isinstance(row, argparse._CountAction) or row.nargs == 0:
        return st.just([flag])
    if row.choices is not None:
        return st.sampled_from(sorted(row.choices)).map(lambda value: [f"{flag}={value}"])
    if row.metavar == "ID":
        return st.text("0123456789abcdef*?", min_size=1, max_size=8).map(lambda value: [f"{flag}={value}"])
    if row.metavar == "SIZE":
        return st.integers(1, 4).map(lambda value: [f"{flag}={value}M"])
    if row.type is not None:
        return st.integers(1, 4).map(lambda value: [f"{flag}={value}"])
    return st.text(st.characters(exclude_categories=["Cs"])).map(lambda value: [f"{flag}={value}"])


def read(text: str, folder: Path) -> argparse.Namespace:
    path = folder / "t.toml"
    path.write_bytes(text.encode())
    return PARSER.parse_args([], config.load(str(path), PARSER))


LUNS = st.builds(join, st.integers(0, 16383), STORES, words())


@given(LUNS)
def test_a_lun_in_pieces_is_put_together_again(text: str) -> None:
    assert join(*split(text)) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(LUNS, max_size=3, unique_by=lambda text: split(text)[0]),
    st.lists(st.sampled_from([row for name, row in options(PARSER).items() if name != "lun"]).flatmap(values_of)),
)
def test_whatever_the_command_line_says_comes_back(tmp_path: Path, luns: list[str], chosen: list[list[str]]) -> None:
    luns = [text for text in luns if _parses(text)]
    asked = PARSER.parse_args([*(f"--lun={text}" for text in luns), *itertools.chain(*chosen)])
    back = read(config.dump(asked, PARSER), tmp_path)
    assert [parse(text) for text in back.lun] == [parse(text) for text in asked.lun]
    assert vars(back) | {"lun": 0} == vars(asked) | {"lun": 0}


def _parses(text: str) -> bool:
    try:
        parse(text)
    except ValueError:  # the keys contradict each other
        return False
    return True


def test_keys_of_every_type(tmp_path: Path) -> None:
    text = """
        readonly = true
        loops = 2
        spin-us = "0x10"
        verbose = 2
        allow-uid = 7
        allow-gid = [8, "9"]
        [[lun]]
        number = 3
        path = "a,b=c:d.img"
        size = 65536
        ro = false
        initiators = ["Ab", "0xcd*"]
        [[lun]]
        number = 0
        store = "mem:1M"
        initiators = "ab+cd"
    """
    args = read(text, tmp_path)
    assert (args.readonly, args.loops, args.spin_us, args.verbose, args.engine) == (True, 2, 16, 2, "auto")
    assert (args.allow_uid, args.allow_gid, args.allow_initiator) == ([7], [8, 9], [])
    first, second = map(parse, args.lun)
    assert (first.lun, first.store, first.size, first.readonly) == (3, "file:a,b=c:d.img", 65536, False)
    assert (first.initiators, second.initiators) == (("ab*", "cd*"), ("ab*", "cd*"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loops = ", "not TOML: "),
        ("loops = 1\nloops = 2", "not TOML: "),
        ("redonly = true", "unknown key 'redonly' (did you mean 'readonly'?)"),
        ("spin_us = 1", "unknown key 'spin_us' (did you mean 'spin-us'?)"),
        ("colour = 1", "unknown key 'colour' (known: lun, unix,"),
        ("config = 'x'", "unknown key 'config'"),
        ("check = true", "unknown key 'check'"),
        ("loops = 0", "loops: 0 is out of range"),
        ("loops = true", "loops: expected a text in quotes or a whole number"),
        ("loops = [1]", "loops: expected a text"),
        ("loops = 1.5", "loops: expected a text"),
        ("loops = 1979-05-27", "loops: expected a text"),
        ("readonly = 'yes'", "readonly: expected true or false"),
        ("verbose = -1", "verbose: expected a number"),
        ("engine = 'magic'", "engine: 'magic' is not one of auto, io_uring, pool"),
        ("allow-uid = ['root']", "allow-uid: 'root' is not a number"),
        ("allow-initiator = ['xyz']", "allow-initiator: 'xyz' is not an initiator port"),
        ("lun = '0=mem:1M'", "lun: expected tables"),
        ("[lun]\nnumber = 0", "lun: expected tables"),
        ("[[lun]]\nstore = 'mem:1M'", "[[lun]]: number: expected the LUN"),
        ("[[lun]]\nnumber = 'a'\nstore = 'mem:1M'", "[[lun]]: number: expected the LUN"),
        ("[[lun]]\nnumber = 99999\nstore = 'mem:1M'", "'99999' is not a LUN"),
        ("[[lun]]\nnumber = 0", "lun 0: expected either store or path"),
        ("[[lun]]\nnumber = 0\nstore = 'a'\npath = 'a'", "lun 0: expected either store or path"),
        ("[[lun]]\nnumber = 0\nstore = 1", "lun 0: store: expected a text"),
        ("[[lun]]\nnumber = 0\npath = ''", "lun 0: path: expected a text"),
        ("[[lun]]\nnumber = 0\nstore = 'a'\nsise = 1", "lun 0: unknown key 'sise' (did you mean 'size'?)"),
        ("[[lun]]\nnumber = 0\nstore = 'a'\nbs = 513", "lun 0: bs: 513 is not 512"),
        ("[[lun]]\nnumber = 0\nstore = 'a'\nbs = [512]", "lun 0: bs: expected a text"),
        ("[[lun]]\nnumber = 0\nstore = 'a'\ninitiators = [['a']]", "lun 0: initiators: expected a text"),
        ("[[lun]]\nnumber = 0\nstore = 'a'\n" * 2, "lun 0 is given twice"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CliError) as caught:
        read(text, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/t.toml: ")
    assert words in message
    assert "\n" not in message
    assert caught.value.status == ExitStatus.SYNTAX


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", f"{tmp_path}/none"]) == ExitStatus.FILE
    assert capsys.readouterr().err == f"vscsi-target: {tmp_path}/none: no such file or directory\n"
    assert main(["--config", str(tmp_path)]) == ExitStatus.FILE
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert main(["--config", f"{tmp_path}/binary"]) == ExitStatus.SYNTAX


def test_the_command_line_adds_and_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.toml"
    path.write_text(
        'loops = 2\nspin-us = 7\nallow-uid = [5]\n[[lun]]\nnumber = 0\nstore = "mem:1M"\n'
        '[[lun]]\nnumber = 1\nstore = "mem:2M"\n'
    )
    more = ["-t", "3", "--allow-uid", "6", "--lun", "1=mem:4M,ro", "--lun", "2=null:1M"]
    assert main(["--config", str(path), "--dump-config", *more]) == 0
    args = read(capsys.readouterr().out, tmp_path)
    assert (args.loops, args.spin_us, args.allow_uid) == (3, 7, [5, 6])
    assert args.lun == ["0=mem:1M", "1=mem:4M,ro=on", "2=null:1M"]
    assert main(["--config", str(path), "--check"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_toml_cannot_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dump-config", "--lun", "0=a\udcff"]) == ExitStatus.SYNTAX
    assert "not UTF-8" in capsys.readouterr().err
    assert main(["--dump-config", "--lun", "0=a,colour=red"]) == ExitStatus.SYNTAX


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["--config", str(EXAMPLE), "--check"]) == 0
    assert capsys.readouterr().out.startswith("lun 0: file:disks/first, second=third.img, 262144 blocks")
