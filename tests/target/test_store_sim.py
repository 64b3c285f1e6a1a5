# SPDX-License-Identifier: BSD-2-Clause
"""Stores on a simulated disk: what can be said of it, who shares one, and that it is a store like any other."""

import pytest
from fake_device import FakeDevice, do_command_in

from target.native import lib
from target.stores import Can, StoreError, StoreSpec, open_store
from target.stores.sim import Disk, Geometry
from target.stores.sim import parse as parse_disk
from vscsi.scsi import cdb

FAST = "rpm=60000&seek=0&step=0&rate=1G"


def opened(text: str, **kw):
    return open_store(text, StoreSpec("", **kw))


def test_what_is_said_of_a_disk():
    assert parse_disk("mem:1M") == ("mem:1M", Geometry())
    inner, geometry = parse_disk("a.img?rpm=5400&seek=9.5&step=1&rate=100M&disk=left")
    assert inner == "a.img" and geometry == Geometry(5400, 9.5, 1, 100 << 20, "left")


@pytest.mark.parametrize(
    "text, words",
    [
        ("mem:1M?rpm=0", "rpm"), ("mem:1M?rpm=fast", "not a number"), ("mem:1M?seek=-1", "not a number"),
        ("mem:1M?heads=4", "heads=4"), ("mem:1M?rpm", "'rpm'"), ("mem:1M?rate=1", "less than"),
        ("null:1M", "file descriptor"), ("/no/such/file", "no such file"), ("mem:1M?rpm=nan", "not a number"),
    ],
)  # fmt: skip
def test_wrong_ones_are_one_clear_line(text, words):
    with pytest.raises(StoreError, match=words) as error:
        opened(f"sim:{text}")
    assert "\n" not in str(error.value)
    assert not Disk._named


def test_it_is_the_store_behind_it(tmp_path):
    image = tmp_path / "image"
    store = opened(f"sim:{image}?{FAST}", size=1 << 20)
    assert image.stat().st_size == 1 << 20 and store.nbytes == store.measure() == 1 << 20
    assert store.can & Can.WRITE and store.fd is not None and store.rotational
    store.write(memoryview(b"x" * 4096), 8192)
    store.flush()
    buffer = store.buffer(8192)
    store.readinto(buffer, 8192)
    assert bytes(buffer) == b"x" * 4096 + bytes(4096)
    store.reserve(0, 4096)
    store.prefetch(0, 4096)
    assert (8192, 4096, True) in list(store.extents(0, 1 << 20)) and store.used()
    store.trim(8192, 4096)
    store.readinto(buffer, 8192)
    store.evict(0, 4096)
    assert bytes(buffer) == bytes(8192) and store.free()
    store.resize(2 << 20)
    assert store.measure() == 2 << 20
    store.close()
    store.close()


def test_an_image_made_for_nothing_is_taken_away(tmp_path):
    store = opened(f"sim:{tmp_path}/new?{FAST}", size=1 << 20)
    store.abandon()
    store.close()
    assert not list(tmp_path.iterdir())


def test_stores_on_one_disk_lie_behind_each_other():
    first, second = opened(f"sim:mem:1M?{FAST}&disk=a"), opened(f"sim:mem:2M?{FAST}&disk=a")
    alone = opened(f"sim:mem:1M?{FAST}")
    assert first.disk is second.disk is not alone.disk
    assert (first.base, second.base, alone.base) == (0, 1 << 20, 0)
    assert first.device == second.device != alone.device
    with pytest.raises(StoreError, match="there already"):
        opened("sim:mem:1M?rpm=7200&disk=a")
    for store in (first, alone, second):
        store.close()
    assert not Disk._named


def test_what_python_reads_waits_too():
    store = opened("sim:mem:1M?rpm=60000&seek=0&step=0&rate=1G")
    before = int(lib.vt_disk_serve(store.disk.native, 0, 0, 1))
    store.readinto(memoryview(bytearray(4096)), 65536)
    assert int(lib.vt_disk_serve(store.disk.native, 69632, 0, 1)) > before
    store.close()


def test_inquiry_says_how_fast_it_turns():
    device = FakeDevice(f"0=sim:mem:1M?{FAST.replace('60000', '5400')}")
    page = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0xB1, allocation_length=64))
    device.close()
    assert int.from_bytes(page[4:6], "big") == 5400
