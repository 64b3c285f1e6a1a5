# SPDX-License-Identifier: BSD-2-Clause
"""What `--lun N=STORE[,key=value...]` says, read and checked.

Knows the syntax and the keys; a new key is a new row. Every mistake is one clear line that names the key. Must not
open anything: that is `target.lu`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from target import scheduling
from target.access import port_patterns
from target.faults_rule import Rule
from target.faults_rule import parse as parse_rule
from target.stores.sizes import parse_size
from vscsi.scsi.lun import LUN_MAX


class LunSpecError(ValueError):
    """A --lun argument is wrong: one line for the user."""


def _boolean(text: str) -> bool:
    if text in ("on", "yes", "1"):
        return True
    if text in ("off", "no", "0"):
        return False
    raise ValueError(f"'{text}' is neither on nor off")


def _choice(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"'{text}' is not one of {', '.join(words)}")
        return text

    return convert


def _ascii(longest: int) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not 1 <= len(text) <= longest or not (text.isascii() and text.isprintable()):
            raise ValueError(f"'{text}' is not 1 to {longest} printable ASCII characters")
        return text

    return convert


def _block(text: str) -> int:
    value = parse_size(text)
    if value not in (512, 1024, 2048, 4096):
        raise ValueError(f"{text} is not 512, 1024, 2048 or 4096")
    return value


def _physical(text: str) -> int:
    value = parse_size(text)
    if not 512 <= value <= 1 << 20 or value & (value - 1):
        raise ValueError(f"{text} is not a power of two from 512 to 1M")
    return value


def _protection(text: str) -> int:
    if text not in ("0", "1", "2", "3"):
        raise ValueError(f"'{text}' is not 0, 1, 2 or 3")
    return int(text)


def _naa(text: str) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("0x").removeprefix("naa."))
    except ValueError:
        value = b""
    if (len(value), value[:1].hex()[:1]) not in {(8, "2"), (8, "3"), (8, "5"), (16, "6")}:
        raise ValueError(f"'{text}' is not an NAA name: 16 hex digits from 2, 3 or 5 on, or 32 from 6 on")
    return value


def _percent(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 3 and int(text)):
        raise ValueError(f"'{text}' is not a percentage from 1 to 99")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise ValueError(f"'{text}' is not a number from 1 to 65535")
    return int(text)


def _folder(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("is not a path")
    return text


def _key(name: str, convert: Callable[[str], Any], default: Any, help: str, *, several: bool = False) -> Any:
    """`several`: the value is a list, with + between its members."""
    return field(default=default, metadata={"key": name, "convert": convert, "help": help, "several": several})


@dataclass(frozen=True, slots=True)
class LunSpec:
    """One logical unit as the user asked for it; None is 'choose for me'."""

    lun: int
    store: str
    size: int | None = _key("size", parse_size, None, "create a sparse image of this size if there is none")
    readonly: bool = _key("ro", _boolean, False, "write protected; 'ro' alone will do")
    block_nbytes: int = _key("bs", _block, 512, "logical block size: 512 (default), 1024, 2048 or 4096")
    physical_nbytes: int | None = _key(
        "physical", _physical, None, "physical block size (default: what the store says)"
    )
    serial: str | None = _key("serial", _ascii(64), None, "unit serial number (default: made from the path)")
    naa: bytes | None = _key("naa", _naa, None, "NAA name, in hex (default: made from the serial number)")
    vendor: str = _key("vendor", _ascii(8), "VSCSI", "T10 vendor identification (default: VSCSI)")
    product: str = _key("product", _ascii(16), "virtual disk", "product identification (default: virtual disk)")
    cache: str = _key(
        "cache", _choice("wb", "wt", "none"), "wb", "wb write back (default), wt write through, none O_DIRECT"
    )
    discard: bool = _key(
        "discard", _boolean, True, "on (default): thin, unmapping gives space back; off: thick, a new image is filled"
    )
    removable: bool = _key("removable", _boolean, False, "on: the medium can be ejected and changed; off (default)")
    threshold: int | None = _key(
        "threshold", _percent, None, "warn initiators (38/07) once so many percent of the space are used: 1 to 99"
    )
    prefetch: str = _key(
        "prefetch", _choice("good", "met"), "good", "how PRE-FETCH ends: good (default), or met for CONDITION MET"
    )
    protection: int | None = _key(
        "protection",
        _protection,
        None,
        "1, 2 or 3: format a new image with that type of protection information (T10 DIF); 0: without (default)",
    )
    state: str | None = _key(
        "state",
        _folder,
        None,
        "folder for what outlives the target: reservations, mode pages, format (default: IMAGE.vscsi beside the image)",
    )
    initiators: tuple[str, ...] | None = _key(
        "initiators",
        port_patterns,
        None,
        "ID+ID...: exists for these initiator ports only (hex, its beginning, or with * and ?), not for blkif",
        several=True,
    )
    ro_initiators: tuple[str, ...] | None = _key(
        "ro-initiators",
        port_patterns,
        None,
        "ID+ID...: read-only to these initiator ports, and to blkif",
        several=True,
    )
    queue: int | None = _key(
        "queue", _count, None, "most commands in a task set; then TASK SET FULL or BUSY: 1 to 65535 (default: no limit)"
    )
    rotational: bool | None = _key(
        "rotational", _boolean, None, "0 solid state, 1 rotating (default: what the store says)"
    )
    sched: str = _key("sched", _choice("off", "fair"), "off", "fair: initiators share the device; off (default)")
    depth: int | None = _key(
        "depth", scheduling.depth, None, "fair: requests at the device at once (default: 1 if rotating, else 16)"
    )
    idle_ms: int | None = _key(
        "idle", scheduling.idle_ms, None, "fair, rotating: ms that the head waits for the next request of a stream (0)"
    )
    device: str | None = _key(
        "device", _ascii(32), None, "fair: a name for the device, the same for LUNs that share it (default: the disk)"
    )
    weights: tuple[scheduling.Rule, ...] | None = _key(
        "weight",
        scheduling.weights,
        None,
        "fair: W or PORT:W, with + between: shares of the device, 1 to 10000 (default: 100); PORT as in initiators=",
        several=True,
    )
    iops: tuple[scheduling.Rule, ...] | None = _key(
        "iops", scheduling.iops, None, "fair: N or PORT:N: requests a second at most, each initiator", several=True
    )
    bandwidths: tuple[scheduling.Rule, ...] | None = _key(
        "bw", scheduling.bandwidths, None, "fair: SIZE or PORT:SIZE: bytes a second at most, each", several=True
    )
    faults: tuple[Rule, ...] = ()
    """What --fault says of it."""


KEYS = {f.metadata["key"]: f for f in fields(LunSpec) if f.metadata}


def split_commas(text: str) -> list[str]:
    """Splits at commas; a doubled comma is a literal one."""
    parts, rest = [""], text
    while rest:
        head, comma, rest = rest.partition(",")
        parts[-1] += head
        if comma and rest.startswith(","):
            parts[-1] += ","
            rest = rest[1:]
        elif comma:
            parts.append("")
    return parts


def split(text: str) -> tuple[int, str, list[tuple[str, str | None]]]:
    """Cuts one --lun argument into LUN, store and keys, each with its value if it has one. LunSpecError.

    `join` puts it together again.
    """
    number, equals, rest = text.partition("=")
    if not equals:
        raise LunSpecError(f"'{text}': expected N=STORE[,key=value...], for example 0=disk.img")
    if not (number.isascii() and number.isdigit()) or len(number) > 6 or int(number) > LUN_MAX:
        raise LunSpecError(f"'{text}': '{number}' is not a LUN (0 to {LUN_MAX})")
    store, *words = split_commas(rest)
    if not store:
        raise LunSpecError(f"'{text}': the store is missing after '{number}='")
    cut = [word.partition("=") for word in words]
    return int(number), store, [(name, value if equals else None) for name, equals, value in cut]


def join(number: int, store: str, words: Iterable[tuple[str, str | None]]) -> str:
    """The --lun argument that `split` cuts into these."""
    cut = [store, *(name if value is None else f"{name}={value}" for name, value in words)]
    return f"{number}=" + ",".join(part.replace(",", ",,") for part in cut)


def parse(text: str) -> LunSpec:
    """Reads one --lun argument. LunSpecError says what is wrong and with which key."""
    number, store, words = split(text)
    values: dict[str, Any] = {}
    for name, value in words:
        row = KEYS.get(name)
        if row is None:
            raise LunSpecError(f"lun {number}: unknown key '{name}' (known: {', '.join(KEYS)})")
        if row.name in values:
            raise LunSpecError(f"lun {number}: key '{name}' is given twice")
        if value is None and name != "ro":
            raise LunSpecError(f"lun {number}: key '{name}' needs a value: {name}=...")
        try:
            values[row.name] = True if value is None else row.metadata["convert"](value)
        except ValueError as error:
            raise LunSpecError(f"lun {number}: {name}: {error}") from error
    return _consistent(LunSpec(number, store, **values))


def _consistent(spec: LunSpec) -> LunSpec:
    if spec.physical_nbytes is not None and spec.physical_nbytes < spec.block_nbytes:
        raise LunSpecError(f"lun {spec.lun}: physical={spec.physical_nbytes} is less than bs={spec.block_nbytes}")
    if spec.size == 0:
        raise LunSpecError(f"lun {spec.lun}: size=0: an image cannot be empty")
    if spec.size is not None and spec.size % spec.block_nbytes:
        raise LunSpecError(f"lun {spec.lun}: size={spec.size} is not a multiple of bs={spec.block_nbytes}")
    if spec.sched == "off":
        for name in ("depth", "idle", "device", "weight", "iops", "bw"):
            if getattr(spec, KEYS[name].name) is not None:
                raise LunSpecError(f"lun {spec.lun}: {name}= needs sched=fair")
    return spec


def with_fault(specs: list[LunSpec], text: str) -> list[LunSpec]:
    """Reads one --fault argument, LUN:RULE, and adds the rule to those of its unit. LunSpecError."""
    number, colon, words = text.partition(":")
    if not colon:
        raise LunSpecError(f"'{text}': expected LUN:RULE, for example 0:read,lba=100,sense=3/11/00")
    if not any(str(spec.lun) == number for spec in specs):
        raise LunSpecError(f"'{text}': there is no LUN '{number}'")
    try:
        rule = parse_rule(words)
    except ValueError as error:
        raise LunSpecError(f"lun {number}: {error}") from error
    return [replace(spec, faults=(*spec.faults, rule)) if str(spec.lun) == number else spec for spec in specs]


def parse_all(texts: list[str], *, readonly: bool = False, faults: Iterable[str] = ()) -> list[LunSpec]:
    """Reads every --lun argument; no LUN may be given twice. `readonly` protects them all. `faults`: of --fault."""
    specs = [parse(text) for text in texts]
    if readonly:
        specs = [replace(spec, readonly=True) for spec in specs]
    seen: set[int] = set()
    for spec in specs:
        if spec.lun in seen:
            raise LunSpecError(f"lun {spec.lun} is given twice")
        seen.add(spec.lun)
    for text in faults:
        specs = with_fault(specs, text)
    return sorted(specs, key=lambda spec: spec.lun)
