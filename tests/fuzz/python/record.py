# SPDX-License-Identifier: BSD-2-Clause
"""Makes the corpus: real sessions of a real target and a real initiator, in this process, with an ear at every place
where bytes of one come to the other. PYTHONPATH=tests .venv/bin/python -P -m fuzz.python.record

Knows where the product can be listened to, and how each target wants its input; knows no target's insides.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import in_process
from real_server import Target

import initiator.initiator
from fuzz.programs import ROOT, pack
from fuzz.python import bus, commands, conversation, door, files, programs
from fuzz.python.mutation import Reader, item
from initiator import Initiator
from initiator.door.server import Link
from initiator.errors import InitiatorError
from initiator.hba import ReverseRing
from initiator.lun import Lun
from initiator.native import lib
from initiator.vbd import Vbd
from target import pcap, worker
from target.journal import Record
from target.srp_device import SrpDevice, grow_credits, send_async_event
from target.state import State
from vscsi import srp
from vscsi.bus.local_initiator import InitiatorConnection
from vscsi.bus.local_target import TargetConnection
from vscsi.bus.memory import PAGE, RESERVED
from vscsi.pcapfile import PcapFile
from vscsi.scsi import sense

LONGEST_NBYTES = 600
"""Of one recorded body; what is longer is cut."""
MEMORY_NBYTES = conversation.FRAMES * PAGE
PACK_NBYTES = 30_000


class Ears:
    """What was heard, by the target that wants it; `cut` ends a session."""

    def __init__(self) -> None:
        self.items: dict[str, list[bytes]] = defaultdict(list)
        self.seeds: dict[str, set[bytes]] = defaultdict(set)
        self.prefix: dict[str, bytes] = {}
        self.deaf: set[str] = set()

    def hear(self, name: str, kind: int, body: bytes) -> None:
        if name in self.deaf:
            return
        self.items[name].append(item(kind, body[:LONGEST_NBYTES] if name != "conversation" else body))

    def whole(self, name: str, data: bytes) -> None:
        self.seeds[name].add(data)

    def cut(self) -> None:
        for name, found in self.items.items():
            if found:
                self.seeds[name].add(self.prefix.get(name, b"") + b"".join(found[:64]))
        self.items.clear()


EARS = Ears()


def wrap(owner: Any, name: str, before: Callable[..., None]) -> Any:
    """Calls `before` with the arguments of each call."""
    real = getattr(owner, name)

    def call(*args: Any, **more: Any) -> Any:
        before(*args, **more)
        return real(*args, **more)

    return mock.patch.object(owner, name, call)


def _said(_self: Any, frame: bytes, fds: Any = ()) -> None:
    EARS.hear("conversation", conversation.HELLO if fds else conversation.JSON, frame[4:])


def _answered(_self: Any, frame: bytes, fds: Any = ()) -> None:
    EARS.hear("answers-on-the-bus", bus.EVENT if fds else bus.JSON, frame[4:])


def _iu(device: SrpDevice, _channel: int, data: bytes) -> None:
    page = device.nodes.ring.grefs[0] - RESERVED if device.nodes else 0
    EARS.hear("conversation", conversation.FORWARD, page.to_bytes(2, "little") + data.rstrip(b"\0"))


def _reverse(ring: ReverseRing, iu: bytes) -> None:
    page = (ring._offset or 0) // PAGE
    EARS.hear("conversation", conversation.REVERSE, page.to_bytes(2, "little") + iu)


def _command(port: Any, _device: Any, raw: bytes, *, lu: Any, lun: bytes, nexus: int) -> None:
    data = port.fetch(0, min(port.data_out_nbytes, 8192)) if port.data_out_nbytes else b""
    kind = (lun[1] & commands.LUN) | nexus % commands.NEXUSES << 3
    EARS.items["commands"].append(item(kind, bytes((len(raw),)) + raw + data))


def _message(link: Link) -> None:
    from initiator.native import ffi

    EARS.hear("door", door.WHOLE, bytes(ffi.buffer(link._request)).rstrip(b"\0"))


def _saved(_self: State, name: str, document: dict[str, Any]) -> None:
    place = files.DOCUMENTS.index(f"{name}.json")
    EARS.whole("documents", bytes((place,)) + json.dumps(document, indent=1).encode())


def _record(_self: Any, record: Any) -> None:
    native = worker.lib
    kinds = (native.VT_TAP_REQUEST, native.VT_TAP_DATA_OUT, native.VT_TAP_DATA_IN, native.VT_TAP_RESPONSE)
    if record.kind in kinds:
        head = bytes((1,)) + (record.out_nbytes or record.in_nbytes).to_bytes(4, "little") + bytes(4)
        EARS.hear("capture", kinds.index(record.kind), head + record.iu + record.data)


@contextlib.contextmanager
def results() -> Iterator[None]:
    """What `Initiator.execute` gave, as items of `programs` and `disks`."""
    real = initiator.initiator.Initiator.execute

    def execute(self: Any, *args: Any, **more: Any) -> Any:
        try:
            done = real(self, *args, **more)
        except InitiatorError:
            EARS.hear("answers", programs.GONE, b"")
            raise
        if done.status == 0:
            EARS.hear("answers", 0, bytes(done.data_in))
            EARS.whole("pages", bytes(done.data_in[:LONGEST_NBYTES]) or b"\0")
        elif done.sense:
            EARS.hear("answers", programs.SENSE, done.sense)
            EARS.whole("pages", done.sense)
        else:
            EARS.hear("answers", programs.STATUS, bytes((done.status,)))
        return done

    with mock.patch.object(initiator.initiator.Initiator, "execute", execute):
        yield


def answered_as(name: str, prefix: bytes) -> None:
    """What was answered since the last cut is an input of that target."""
    EARS.whole(name, prefix + b"".join(EARS.items.pop("answers", [])))
    EARS.cut()


# ---- the sessions ----


def conversations(target: Target) -> None:
    """Logins, commands, what the target asks, logouts; one channel and several; blkif; the owner's questions."""
    with Initiator(target.path, memory_nbytes=MEMORY_NBYTES) as hba:
        hba.lun(0).write(0, bytes(512))
        hba.connection.request("info")
        hba.connection.request("stats")
        devices = [device for device in target.server._devices() if isinstance(device, SrpDevice)]
        target.do(lambda: grow_credits(devices[0], -3))
        target.do(lambda: send_async_event(devices[0].nexus, bytes(8), bytes.fromhex("70000600000000 0a000000002a09")))
        hba.lun(0).flush()
        store = hba.connection.store
        nodes(0, store.below("device/vscsi-srp/0"))
        nodes(1, store.below("backend/vscsi-srp/0"))
    EARS.cut()
    with Vbd(target.path, memory_nbytes=MEMORY_NBYTES, queues=2) as vbd:
        vbd.read(0, 8)
        below = vbd.session.connection.store.below if hasattr(vbd, "session") else None
        if below is not None:
            path = vbd.session.device
            nodes(2, below(path.peer_path))
            nodes(3, below(path.peer_path))
            nodes(4, below(path.path))
    EARS.cut()
    connection = InitiatorConnection(target.path, memory_nbytes=MEMORY_NBYTES)
    connection.request("admin", action="resize", lun=0)
    connection.request("admin-result", ticket=1)
    connection.close()
    EARS.cut()
    for states in ("I2456-", "I2-16", "T1345-", "T13456131", "T133", "I2444456"):
        EARS.hear("nodes", 5, states[:1].encode().replace(b"I", b"\0") + states[1:].encode())
        EARS.hear("nodes", 6, states[1:].encode())
        EARS.cut()


def nodes(parser: int, found: dict[str, str]) -> None:
    EARS.hear("nodes", parser, "\n".join(f"{name}={value}" for name, value in found.items()).encode())


def logins(target: Target) -> None:
    """What a target says on the rings."""
    with (
        wrap(SrpDevice, "_respond", lambda self, iu: EARS.hear("login", 0, srp.encode(iu))),
        wrap(SrpDevice, "_ask", lambda self, data: EARS.hear("login", 0, data)),
        Initiator(target.path, memory_nbytes=MEMORY_NBYTES) as hba,
    ):
        hba.lun(0).read(0, 1)
        devices = [device for device in target.server._devices() if isinstance(device, SrpDevice)]
        target.do(lambda: grow_credits(devices[0], -3))
        target.do(lambda: send_async_event(devices[0].nexus, bytes(8), bytes.fromhex("70000600000000 0a000000002a09")))
        hba.lun(0).flush()
        target.do(lambda: devices[0].log_out(0, "the end of the recording"))
    EARS.cut()


def command_lines(target: Target) -> None:
    """Every command line of `programs`, and more that only change something."""
    EARS.deaf |= {"conversation", "answers-on-the-bus"}  # it is always the same
    with results():
        for number, words in enumerate(programs.COMMANDS):
            in_process.call("--socket", target.path, "--lun", 0, *words.replace("FILE", str(programs.FILE)).split())
            answered_as("programs", bytes((number,)) + (1 << 20).to_bytes(4, "little"))
            if "SWP=1" in words:  # else nothing is written any more
                in_process.call("--socket", target.path, "--lun", 0, "modes", "--set", "SWP=0", "--save")
                EARS.items.clear()
        for words in MORE:
            in_process.call("--socket", target.path, *words.split())
            EARS.cut()


MORE = (
    "--lun 2 read --lba 0 --blocks 1", "--lun 2 format --pi 1 --quick", "--lun 1 raw 1b 00 00 00 02 00",
    "--lun 1 raw 1b 00 00 00 03 00", "--initiator-port 1 persist --register --param-sark abc --param-aptpl",
    "--initiator-port 1 persist --reserve --param-rk abc --prout-type 5",
    "--initiator-port 2 persist --register --param-sark def",
    "--initiator-port 2 persist --preempt --param-rk def --param-sark abc --prout-type 6",
    "--initiator-port 2 persist --clear --param-rk def", "sanitize --overwrite --zero",
    "raw a3 05 00 00 00 00 00 00 01 00 00 00 --in 256", "raw a4 06 00 00 00 00 00 00 00 04 04 00 --out DATA4",
    "raw a4 0f 00 00 00 00 00 00 00 0c 00 00 --out DATA12", "raw a3 0f 00 00 00 00 00 00 00 0c 00 00 --in 12",
    "raw 93 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00 --out DATA512",
    "raw 8b 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00 --out DATA4096",
    "raw 9c 00 00 00 00 00 00 00 00 08 00 00 00 08 00 00 --out DATA4096",
    "raw 3b 02 00 00 00 00 00 02 00 00 --out DATA512", "raw 3c 02 00 00 00 00 00 02 00 00 --in 512",
    "raw 1d 04 00 00 00 00", "raw 8f 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00",
    "raw 2f 02 00 00 00 00 00 00 08 00 --out DATA4096", "raw 03 00 00 00 fc 00 --in 252",
    "raw 34 00 00 00 00 00 00 00 08 00", "raw b7 0f 00 00 00 00 00 00 00 08 00 00 --in 8",
)  # fmt: skip


def disks(target: Target) -> None:
    numbers = bytes(range(1, 48)) + b"\0"
    with results(), Initiator(target.path, memory_nbytes=MEMORY_NBYTES * 4) as hba:
        for number, way in enumerate((programs._library, programs._door, programs._mount)):
            with contextlib.suppress(RuntimeError):
                way(Lun(hba, 0), Reader(numbers))
            answered_as("disks", bytes((number,)) + numbers + (1 << 20).to_bytes(4, "little"))


def doors(target: Target) -> None:
    """Programs behind the door."""
    script = (
        "dd if=/dev/vscsi0b of=/dev/null bs=4096 count=2 2>&1; blockdev --getsize64 /dev/vscsi0b; sg_inq /dev/vscsi0"
    )
    with wrap(Link, "_serve", _message):
        in_process.call("--socket", target.path, "run", "--", "sh", "-c", script)
    found, EARS.items["door"] = EARS.items.pop("door", []), []
    hello = item(0, b"")  # its stamp is another each time
    for at in range(1, len(found), 6):
        EARS.whole("door", b"".join([hello, *found[1:3], *found[at : at + 6]]))
    nothing = bytes(len(door.FIELDS))
    opened = item(lib.DOOR_HELLO, nothing + door.STAMP.encode()) + item(lib.DOOR_OPEN, nothing + b"/dev/vscsi0b")
    for operation in range(1, 15):
        EARS.whole("door", opened + item(operation, nothing) + item(operation, bytes((2,)) * len(door.FIELDS)))
        fields = bytes((5,)) * len(door.FIELDS)
        EARS.whole(
            "door",
            item(operation, fields + b"/dev/vscsi0b") + item(operation, bytes(len(door.FIELDS)) + b"/dev/vscsi3"),
        )
    EARS.items.clear()


LUN = {"lun": 1}
KEPT = {"registrations": [{"port": "01" * 16, "key": "00000000000000ab", "all_tg_pt": False}], "type": 5,
        "holder": "01" * 16}  # fmt: skip
QUESTIONS: tuple[list[dict[str, Any]], ...] = (
    [{"action": "resize", "lun": 0, "nbytes": 131072, "shrink": False}, {"action": "resize", "lun": 0, "nbytes": 512}],
    [{"action": "eject", **LUN, "force": True}, {"action": "load", **LUN, "store": "mem:64k"}],
    [{"action": "eject", **LUN}, {"action": "load", **LUN}],
    [{"action": "fault-add", "lun": 0, "rule": "read sense=3/11/00"}, {"action": "fault-list"},
     {"action": "fault-remove", "lun": 0, "id": 1}, {"action": "fault-clear", "lun": None}],
    [{"action": "schedule", "lun": 3, "weight": "2+ff:7", "iops": "100", "bw": "1M", "depth": "4"}],
)  # fmt: skip


def texts() -> None:
    """What users write."""
    EARS.whole("configuration", b"t" + (ROOT / "docs" / "vscsi-target.toml").read_bytes())
    EARS.whole("configuration", b"tworkers = 4\n")
    EARS.whole("configuration", b"t[[lun]]\nnumber = 0\nstore = 'mem:1M'\nro = true\ninitiators = ['00*']\n")
    for text in (
        "0=disk.img,size=1G,bs=4096,cache=wt",
        "3=mem:64M,ro,serial=X,naa=0x5000000000000001",
        "1=a,,b,initiators=ff+00*,fault=read sense=3/11/00",
    ):
        EARS.whole("configuration", b"l" + text.encode())
    for text in ("read,lba=0-7,sense=3/11/00,every=3", "write delay=10ms p=0.5 count=2", "opcode=0x28 status=busy"):
        EARS.whole("configuration", b"r" + text.encode())

    for fields in QUESTIONS:
        EARS.whole("admin", b"".join(item(0, json.dumps(each).encode()) for each in fields))
    EARS.whole("documents", bytes((files.DOCUMENTS.index("identification.json"),)) + b'{"0": "616263", "2": ""}')
    EARS.whole("documents", bytes((files.DOCUMENTS.index("reservations.json"),)) + json.dumps(KEPT).encode())
    for kind, body in (
        (bus.JSON, {"op": "refused", "reason": "this target has 64 connections already"}),
        (bus.DESCRIPTORS, {"op": "event-channel", "id": 1, "port": 1}),
    ):
        said = json.dumps(body).encode()
        welcome = item(bus.JSON, json.dumps({"op": "welcome", "version": 1, "domid": 1}).encode())
        EARS.whole("answers-on-the-bus", welcome + item(kind, b"\1\6" * (kind == bus.DESCRIPTORS) + said))
    EARS.whole("pages", sense.INVALID_FIELD_IN_CDB.at(2, 3).encode(descriptor=True))
    record = Record(512, b"n" * 512, bytes(512)).encode()
    EARS.whole("documents", bytes((files.DOCUMENTS.index("atomic.journal"),)) + record)


def keep() -> None:
    """The packs: the shortest inputs first, as many as there is room for."""
    from fuzz.python.registry import load

    for name, one in load().items():
        chosen, room = [], PACK_NBYTES
        for data in sorted(EARS.seeds[name], key=len):
            if len(data) + 4 <= room:
                chosen.append(data)
                room -= len(data) + 4
        one.pack.parent.mkdir(parents=True, exist_ok=True)
        one.pack.write_bytes(pack(chosen))
        print(f"{name}: {len(chosen)} of {len(EARS.seeds[name])} inputs, {one.pack.stat().st_size} bytes")


def main() -> int:
    """Everything there is to record."""
    folder = Path(tempfile.mkdtemp(prefix="vscsi-record-"))
    for nbytes in (4, 12, 512, 4096):
        (folder / f"DATA{nbytes}").write_bytes(bytes(nbytes))
    luns = [f"0={folder / 'disk.img'},size=128k", *commands.UNITS[1:], f"4=crypt:{folder / 'secret.img'},size=64k"]
    global MORE
    MORE = tuple(words.replace("DATA", f"{folder}/DATA") for words in MORE)
    with contextlib.ExitStack() as stack:
        for owner, name, ear in (
            (InitiatorConnection, "_send", _said),
            (TargetConnection, "_send", _answered),
            (SrpDevice, "on_iu", _iu),
            (ReverseRing, "answer", _reverse),
            (worker, "execute", _command),
            (State, "save", _saved),
            (pcap.Recorder, "_packets", _record),
        ):
            stack.enter_context(wrap(owner, name, ear))
        target = Target(
            folder / "socket", *luns, pcap=PcapFile(str(folder / "pcap")), target_port_id=conversation.PORT_ID
        )
        stack.callback(target.stop)
        conversations(target)
        logins(target)
        EARS.items.clear()
        command_lines(target)
        disks(target)
        doors(target)
        texts()
    shutil.rmtree(folder)
    keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
