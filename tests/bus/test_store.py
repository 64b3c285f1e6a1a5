# SPDX-License-Identifier: BSD-2-Clause
"""The store: transactions, removal, counting and watches, against a plain dictionary as the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.bus.errors import BusError
from vscsi.bus.store import NODES_MAX, Store, check_batch

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda names: "device/" + "/".join(names))
BATCH = st.dictionaries(NAMES, st.one_of(st.none(), st.sampled_from(["", "1", "2"])), max_size=6)


def at_or_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


@given(st.lists(BATCH, max_size=8))
def test_like_a_dictionary(batches: list[dict[str, str | None]]) -> None:
    store, model = Store(), dict[str, str]()
    for batch in batches:
        expected: list[str] = []
        for path, value in batch.items():
            gone = [each for each in model if at_or_below(each, path)] if value is None else []
            if value is None:
                for each in gone:
                    del model[each]
            else:
                model[path] = value
                expected.append(path)
            expected.extend(gone)
        changed = store.apply(check_batch(batch, "device"), "device")
        assert set(expected) <= set(changed)
        assert {path for path in changed if batch.get(path, "") is not None} <= set(expected)
        assert dict(store) == model
        assert len(store) == len(model)
    for path in model:
        assert store[path] == model[path]
        assert path.rpartition("/")[2] in store.children(path.rpartition("/")[0])
    assert store.subtree("device/a") == {path: value for path, value in model.items() if at_or_below(path, "device/a")}
    everything = {path for leaf in _tree(store, "device") for path in [leaf]}
    assert store._nodes.get("device", 0) == len(everything)


def _tree(store: Store, path: str) -> list[str]:
    found = []
    for name in store.children(path):
        found += [f"{path}/{name}", *_tree(store, f"{path}/{name}")]
    return found


def test_below_gives_relative_names() -> None:
    store = Store()
    store.apply({"device/vbd/5": "x", "device/vbd/5/ring-ref": "8", "device/vbd/51/state": "1"}, "device")
    assert store.below("device/vbd/5") == {"ring-ref": "8"}
    assert store.below("device/vbd/6") == {}


def test_a_folder_has_no_value() -> None:
    store = Store()
    store.apply({"device/a/b": "1"}, "device")
    assert "device/a" not in store
    assert store.get("device/a") is None
    assert store.children("device") == ["a"]
    assert store.children("device/none") == []
    with pytest.raises(KeyError):
        store["device/a"]


def test_entries_apply_in_order() -> None:
    store = Store()
    store.apply({"device/a/old": "1"}, "device")
    store.apply({"device/a": None, "device/a/new": "2"}, "device")
    assert dict(store) == {"device/a/new": "2"}
    store.apply({"device/a/newer": "3", "device/a": None}, "device")
    assert dict(store) == {}


def test_nothing_of_a_batch_that_does_not_fit_is_applied() -> None:
    store = Store()
    store.apply({f"device/{n}": "1" for n in range(NODES_MAX - 1)}, "device")
    before = dict(store)
    with pytest.raises(BusError, match="more than 8192 store nodes below device/"):
        store.apply({"device/x": "1", "device/y": "1"}, "device")
    assert dict(store) == before
    store.apply({"device/x": "1"}, "device")
    store.apply({"backend/x": "1"}, "backend")
    with pytest.raises(BusError):
        store.apply({"device/y": "1"}, "device")


def test_watches() -> None:
    store, seen = Store(), list[tuple[str, str]]()
    for prefix in ("device/vbd/1", "device/vbd", ""):
        store.watch(prefix, lambda path, prefix=prefix: seen.append((prefix, path)))
    store.notify(store.apply({"device/vbd/1/state": "1", "device/vbd/11/state": "1"}, "device"))
    assert seen == [
        ("device/vbd/1", "device/vbd/1/state"),
        ("device/vbd", "device/vbd/1/state"),
        ("", "device/vbd/1/state"),
        ("device/vbd", "device/vbd/11/state"),
        ("", "device/vbd/11/state"),
    ]


def test_a_removal_is_told_for_each_node_that_went() -> None:
    store, seen = Store(), list[str]()
    store.apply({"device/vbd/1/state": "4", "device/vbd/1/ring-ref": "9"}, "device")
    store.watch("device/vbd/1/state", seen.append)
    store.notify(store.apply({"device/vbd": None}, "device"))
    assert seen == ["device/vbd/1/state"]
    store.notify(store.apply({"device/vbd": None}, "device"))
    assert seen == ["device/vbd/1/state"], "nothing was there any more"


def test_a_value_written_again_is_told_again() -> None:
    store, seen = Store(), list[str]()
    store.watch("device/x", seen.append)
    for _ in range(2):
        store.notify(store.apply({"device/x": "4"}, "device"))
    assert seen == ["device/x", "device/x"]


def test_unwatch_also_from_within_a_callback() -> None:
    store, seen = Store(), list[str]()

    def once(path: str) -> None:
        seen.append(path)
        store.unwatch("device", once)

    store.watch("device", once)
    store.notify(store.apply({"device/x": "1", "device/y": "1"}, "device"))
    store.unwatch("device", once)
    assert seen == ["device/x"]


def test_limits_hold_for_what_we_write_too() -> None:
    longest = "device/" + "x" * 249
    assert check_batch({longest: "v" * 1024}, "device") == {longest: "v" * 1024}
    with pytest.raises(BusError):
        check_batch({longest + "x": "v"}, "device")
    with pytest.raises(BusError):
        check_batch({longest: "v" * 1025}, "device")
    assert check_batch({"device" + "/x" * 15: "v"}, "device")
    with pytest.raises(BusError):
        check_batch({"device" + "/x" * 16: "v"}, "device")
