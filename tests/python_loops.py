# SPDX-License-Identifier: BSD-2-Clause
"""A Server whose loops are Python's (fake_native), running in a thread, for tests of its conversations."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

from bus_initiator import Raw
from fake_native import fake_native

from target.server import Server, ServerOptions
from vscsi.bus.local import Listener

A, B = b"initiator port A", b"initiator port B"
MULTI = 1


class FakeServer(Server):
    def _install_commands(self) -> None:
        pass

    def _start_device(self) -> None:
        pass

    def _start_workers(self) -> None:
        self.workers = SimpleNamespace(join=lambda seconds=None: True)


def unit(lun: int, **changes) -> SimpleNamespace:
    fields = {
        "lun": lun, "index": -1, "block_nbytes": 512, "blocks": 2048, "physical_block_nbytes": 4096,
        "readonly": False, "discard": True, "native_config": lambda: None, "closed": False,
        "store": SimpleNamespace(witness=None),
    }  # fmt: skip
    open_to_all = SimpleNamespace(masked=False, restricted=False)
    fields["part"] = lambda kind: open_to_all
    made = SimpleNamespace(**(fields | changes))
    made.close = lambda: setattr(made, "closed", True)
    return made


class Running:
    def __init__(self, tmp_path, **options) -> None:
        self.native = fake_native()
        self.lib = self.native.lib
        self.units = [unit(0), unit(3, readonly=True)]
        self.path = tmp_path / "socket"
        options.setdefault("stop_seconds", 0.3)
        self.server = FakeServer(Listener(self.path), self.units, ServerOptions(**options), native=self.native)
        ready = threading.Event()
        self.server.on_ready = ready.set
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert ready.wait(5)
        self.raws: list[Raw] = []

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:
            self.failure = error

    def raw(self) -> Raw:
        self.raws.append(Raw(self.path))
        return self.raws[-1]

    def do(self, function):
        """Runs it in the serving thread."""
        done, result = threading.Event(), []

        def call() -> None:
            try:
                result.append((function(), None))
            except BaseException as error:
                result.append((None, error))
            done.set()

        self.server.call(call)
        assert done.wait(5)
        value, error = result[0]
        if error is not None:
            raise error
        return value

    def device(self, domid: int = 1, devid: int = 0):
        peer = next(p for p in self.server.peers if p.connection.domid == domid)
        return peer.devices["vscsi-srp", devid]

    def until(self, predicate, what: str) -> None:
        deadline = time.monotonic() + 5
        while not self.do(predicate):
            assert time.monotonic() < deadline, what
            time.sleep(0.005)

    def attentions(self) -> list[int]:
        return [args[3] for args in self.lib.named("vt_ua_establish")]

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        for raw in self.raws:
            raw.close()
        if self.failure is not None:
            raise self.failure


def running_server(tmp_path, request) -> Iterator[Running]:
    """Body of a fixture; `@pytest.mark.options(...)` gives ServerOptions."""
    marker = request.node.get_closest_marker("options")
    made = Running(tmp_path, **(marker.kwargs if marker else {}))
    yield made
    made.stop()
