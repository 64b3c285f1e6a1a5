# SPDX-License-Identifier: BSD-2-Clause
"""The store: the key/value tree of the XenBus handshake, mirrored by both ends of one connection, and its watches.

Knows paths, values, who may write where, and how much. Knows no socket and no meaning of any node.
Both ends apply the same batches in the same order by the same rules, so what one accepts the other accepts too.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping

from .errors import BusError

PATH_NBYTES_MAX = 256
VALUE_NBYTES_MAX = 1024
DEPTH_MAX = 16
NODES_MAX = 8192
"""Nodes below one peer's directory, folders included."""

INITIATOR_ROOT = "device"
TARGET_ROOT = "backend"

# What Xen's store allows in a path, and the separators its device numbers never need are absent.
_PATH = re.compile(rf"[A-Za-z0-9_@.:+-]+(?:/[A-Za-z0-9_@.:+-]+){{1,{DEPTH_MAX - 1}}}")


class _Node:
    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.value: str | None = None
        self.children: dict[str, _Node] = {}


def check_batch(batch: object, root: str) -> dict[str, str | None]:
    """`batch` as a dict if each entry is well formed and lies below `root`; BusError says what is wrong."""
    if not isinstance(batch, Mapping):
        raise BusError("a store batch is not a mapping of paths to values")
    for path, value in batch.items():
        if not isinstance(path, str) or len(path) > PATH_NBYTES_MAX or not _PATH.fullmatch(path):
            raise BusError(f"store path {str(path)[:64]!a} is malformed, too long or too deep")
        if not path.startswith(root + "/"):
            raise BusError(f"store path {path!a} is outside the writer's own directory {root}/")
        if value is None:
            continue
        if not isinstance(value, str) or not value.isprintable():
            raise BusError(f"the value of store path {path!a} is not printable text")
        if len(value) > VALUE_NBYTES_MAX or len(value.encode()) > VALUE_NBYTES_MAX:
            raise BusError(f"the value of store path {path!a} is longer than {VALUE_NBYTES_MAX} bytes")
    return dict(batch)


class Store(Mapping[str, str]):
    """The tree as this end sees it: a read-only mapping of paths to values, safe to read from any thread.

    A folder that was never given a value exists for `children` alone. A batch appears whole or not at all.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._top = _Node()
        self._nodes: dict[str, int] = {}
        self._watches: list[tuple[str, Callable[[str], None]]] = []

    # ---- reading ----

    def _find(self, path: str) -> _Node | None:
        node: _Node | None = self._top
        for name in path.split("/"):
            node = node.children.get(name) if node else None
        return node

    def __getitem__(self, path: str) -> str:
        with self._lock:
            node = self._find(path)
            if node is None or node.value is None:
                raise KeyError(path)
            return node.value

    def __iter__(self) -> Iterator[str]:
        return iter(self.subtree(""))

    def __len__(self) -> int:
        return len(self.subtree(""))

    def children(self, path: str) -> list[str]:
        """Names directly below `path` in the order they were made; [] if there is no such node."""
        with self._lock:
            node = self._find(path)
            return list(node.children) if node else []

    def subtree(self, path: str) -> dict[str, str]:
        """Every value at or below `path` ("" for all), by full path: one consistent snapshot."""
        with self._lock:
            node = self._find(path) if path else self._top
            found: dict[str, str] = {}
            if node:
                _collect(node, path, found)
            return found

    def below(self, path: str) -> dict[str, str]:
        """The values below `path`, by their paths relative to it: one consistent snapshot of a device's nodes."""
        return {at[len(path) + 1 :]: value for at, value in self.subtree(path).items() if at != path}

    # ---- writing: for the connection only ----

    def apply(self, batch: Mapping[str, str | None], root: str) -> list[str]:
        """Apply a batch that `check_batch` has passed, as one transaction; the paths it changed, in order.

        A value written again counts as changed, as in Xen. A node removed takes all below it along, and each of
        them is listed. BusError, with nothing applied, if more than NODES_MAX nodes could exist below `root`.
        """
        with self._lock:
            new = self._new_nodes(batch)
            if self._nodes.get(root, 0) + new > NODES_MAX:
                raise BusError(f"more than {NODES_MAX} store nodes below {root}/")
            changed: list[str] = []
            for path, value in batch.items():
                if value is None:
                    self._remove(path, root, changed)
                else:
                    self._set(path, value, root)
                    changed.append(path)
            return changed

    def _new_nodes(self, batch: Mapping[str, str | None]) -> int:
        """How many nodes the batch would make if none were removed before."""
        new: set[str] = set()
        for path, value in batch.items():
            if value is None:
                continue
            node: _Node | None = self._top
            at = ""
            for name in path.split("/"):
                at = f"{at}/{name}" if at else name
                node = node.children.get(name) if node else None
                if node is None:
                    new.add(at)
        return sum("/" in path for path in new)

    def _set(self, path: str, value: str, root: str) -> None:
        node = self._top
        for name in path.split("/"):
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = _Node()
                if node is not self._top:
                    self._nodes[root] = self._nodes.get(root, 0) + 1
            node = child
        node.value = value

    def _remove(self, path: str, root: str, changed: list[str]) -> None:
        parent_path, _, name = path.rpartition("/")
        parent = self._find(parent_path)
        node = parent.children.pop(name, None) if parent else None
        if node is None:
            return
        changed.append(path)
        found: dict[str, str] = {}
        self._nodes[root] -= _collect(node, path, found)
        found.pop(path, None)
        changed.extend(found)

    # ---- watches ----

    def watch(self, prefix: str, callback: Callable[[str], None]) -> None:
        """Call `callback(path)` for each path at or below `prefix` that the peer changes. "" watches everything."""
        with self._lock:
            self._watches.append((prefix, callback))

    def unwatch(self, prefix: str, callback: Callable[[str], None]) -> None:
        """Undo one `watch`; nothing happens if there is none."""
        with self._lock:
            if (prefix, callback) in self._watches:
                self._watches.remove((prefix, callback))

    def notify(self, changed: list[str]) -> None:
        """Call the watches that `changed` concerns, in order, without holding any lock."""
        for path in changed:
            with self._lock:
                watches = list(self._watches)
            for prefix, callback in watches:
                if not prefix or path == prefix or path.startswith(prefix + "/"):
                    callback(path)


def _collect(node: _Node, path: str, found: dict[str, str]) -> int:
    """Put the values at and below `node` into `found`; how many nodes. Not recursive: the peer chooses the depth."""
    count = 0
    stack = [(path, node)]
    while stack:
        at, node = stack.pop()
        count += 1
        if node.value is not None:
            found[at] = node.value
        stack.extend((f"{at}/{name}" if at else name, child) for name, child in reversed(node.children.items()))
    return count
