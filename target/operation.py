# SPDX-License-Identifier: BSD-2-Clause
"""The one long operation that a logical unit can be busy with: SANITIZE, FORMAT UNIT.

Saves what it is about to do before it does it, works in a thread of its own, and goes on after the target was killed.
While it runs every other command is refused with its sense and progress; LOGICAL UNIT RESET and lost nexuses do not
stop it, the target's end pauses it. Must not know what is done to the blocks: that is a `Work`.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from target import debug
from target.part import Part, part
from target.scsi_device import LockRefused, TargetDevice
from vscsi.scsi import sense
from vscsi.scsi.sense import CheckCondition, Sense

log = logging.getLogger(__name__)
DELAY = debug.declare("operation.delay", "let every step of SANITIZE and FORMAT UNIT take N milliseconds longer")

DOCUMENT = "operation"
SAVE_SECONDS = 5.0
"""How often progress is made durable: what a kill may make it do again."""
_PROGRESS = 1 << 16
LOST = {"kind": "lost", "ause": False, "failed": True}
"""The document in place of one that could not be read."""


class Work(ABC):
    """What an operation does to a unit, in steps that may be done twice. `parameters` is JSON and says it all.

    What comes from a document that was tampered with: LookupError, TypeError or ValueError.
    """

    kind: ClassVar[str]
    running: ClassVar[Sense]
    """Every other command ends with it meanwhile."""
    failed: ClassVar[Sense]
    """Media access ends with it after a failure."""

    def __init__(self, unit: Any, parameters: dict[str, Any]) -> None:
        self.unit, self.parameters = unit, parameters

    @property
    @abstractmethod
    def total(self) -> int:
        """How much there is to do, in blocks."""

    @abstractmethod
    def step(self, done: int) -> int:
        """Does the next piece, short enough to be waited for; what is done then. CheckCondition, OSError."""

    @abstractmethod
    def finish(self) -> None:
        """Makes everything durable, before other commands are let in again. CheckCondition, OSError."""


_WORKS: dict[str, type[Work]] = {}


def work(kind: type[Work]) -> type[Work]:
    """Registers a kind of work, to be found again after a restart."""
    _WORKS[kind.kind] = kind
    return kind


class Run:
    """One operation in progress. `ended` is set when it has come to its end, has failed or has been paused."""

    def __init__(self, work: Work, done: int = 0) -> None:
        self.work, self.done = work, done
        self.ended = threading.Event()
        self.succeeded = self.paused = False

    @property
    def progress(self) -> int:
        """In 65536ths, as sense data has it."""
        return min(self.done * _PROGRESS // max(1, self.work.total), _PROGRESS - 1)

    def sense(self) -> CheckCondition:
        return self.work.running.error(progress=self.progress)


@part
class Operation(Part):
    """A unit's operation: none, one running, or one that has failed and left the unit unusable."""

    start_rank = 1  # what others have to finish they finish first: it would be written over what is erased

    def __init__(self, unit: Any) -> None:
        super().__init__(unit)
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()
        self._failed: dict[str, Any] | None = None

    # ---- for commands ----

    def sense(self) -> CheckCondition | None:
        """What every other command ends with now; None while nothing runs."""
        run = self._run
        return None if run is None else run.sense()

    def obstacle(self) -> CheckCondition | None:
        return self.sense()

    @property
    def has_failed(self) -> bool:
        return self._failed is not None

    @property
    def may_leave_failure(self) -> bool:
        """Whether the operation that failed allowed an unrestricted exit (AUSE)."""
        return self._failed is not None and bool(self._failed.get("ause"))

    def begin(self, work: Work, *, ause: bool = False) -> Run:
        """Starts; from its return on nothing stops it but its end. CheckCondition if one runs already; OSError if
        it cannot be remembered, and then nothing has been done."""
        with self._lock:
            if self._run is not None:
                raise self._run.sense()
            self._save(work, 0, ause)
            return self._launch(Run(work), ause)

    def leave_failure(self) -> None:
        """The failed operation is forgotten: the unit is what it was left as."""
        with self._lock:
            self.unit.state.remove(DOCUMENT)
            self._clear_failure()

    # ---- hooks ----

    def start(self) -> None:
        state = self.unit.state
        document = state.load(DOCUMENT)
        if document is None:
            if DOCUMENT in state.damaged:
                self._lost()
            return
        if document == LOST:
            self._set_failure(sense.FORMAT_COMMAND_FAILED, document)
            return
        try:
            work = _WORKS[document["kind"]](self.unit, document["parameters"])
        except (LookupError, TypeError, ValueError) as error:
            state.reject(DOCUMENT, repr(error))
            self._lost()
            return
        if document.get("failed"):
            self._set_failure(work.failed, document)
            return
        log.info("lun %d: %s goes on", self.unit.lun, work.kind)
        done = document.get("done")
        if document.get("blocks") != self.unit.blocks or type(done) is not int or not 0 <= done <= work.total:
            done = 0
        with self._lock:
            self._launch(Run(work, done), bool(document.get("ause")))

    def _lost(self) -> None:
        """Something was being done to the blocks, and nobody knows what: no use of them before it is done anew."""
        log.error(
            "lun %d: FORMAT UNIT or SANITIZE was under way, and how cannot be read: format it anew", self.unit.lun
        )
        try:
            self.unit.state.save(DOCUMENT, LOST)
        except OSError as error:
            log.error("lun %d: that cannot be remembered: %s", self.unit.lun, error)
        self._set_failure(sense.FORMAT_COMMAND_FAILED, LOST)

    def shutdown(self) -> None:
        self._pause.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    # ---- the thread ----

    @property
    def _device(self) -> TargetDevice:
        assert self.unit.device is not None
        return self.unit.device

    def _launch(self, run: Run, ause: bool) -> Run:
        """Under the lock. From here on other commands are refused."""
        self._run = run
        self._tell(run)
        self._clear_failure()
        self._thread = threading.Thread(target=self._work, args=(run, ause), name="vscsi-operation", daemon=True)
        self._thread.start()
        return run

    def _tell(self, run: Run | None) -> None:
        device = self._device
        self.unit.occupied = None if run is None else run.sense
        if run is None:
            device.operation(self.unit, 0)
        else:
            device.operation(self.unit, run.work.running.code, run.progress)

    def _stopped(self) -> bool:
        return self._pause.is_set() or self._device.stopping

    def _work(self, run: Run, ause: bool) -> None:
        try:
            if self._alone() and self._forget() and self._steps(run, ause):
                run.work.finish()
                self.unit.state.remove(DOCUMENT)
                run.succeeded = True
                log.info("lun %d: %s is done", self.unit.lun, run.work.kind)
            else:
                run.paused = True  # the unit stays as it is until the target has ended
                run.ended.set()
                return
        except (CheckCondition, OSError) as error:
            log.error("lun %d: %s failed: %s", self.unit.lun, run.work.kind, error)
        except Exception:
            log.exception("lun %d: internal error in %s", self.unit.lun, run.work.kind)
        with self._lock:
            if not run.succeeded:
                self._fail(run, ause)
            self._run = self._thread = None
            self._tell(None)
        run.ended.set()

    def _alone(self) -> bool:
        """Waits for the commands that were let in before. Twice: some may have been waiting for our lock itself."""
        turns = 2
        while turns and not self._stopped():
            try:
                with self._device.locked(self.unit, 0, self.unit.blocks, seconds=0.5):
                    turns -= 1
            except LockRefused:
                continue
        return not turns

    def _forget(self) -> bool:
        for each in self.unit.parts():
            each.sanitized()
        return True

    def _steps(self, run: Run, ause: bool) -> bool:
        """False if it has been paused."""
        saved, blocks = time.monotonic(), self.unit.blocks
        while run.done < run.work.total:
            if self._stopped():
                return False
            if blocks != self.unit.blocks:
                run.done, blocks = 0, self.unit.blocks  # the image has been resized: from the beginning
                continue
            run.done = run.work.step(run.done)
            self._tell(run)
            if time.monotonic() - saved >= SAVE_SECONDS:
                self.unit.flush()  # what is said to be done must be
                self._save(run.work, run.done, ause)
                saved = time.monotonic()
            if DELAY.value:
                self._pause.wait(DELAY.value / 1000)
        return True

    # ---- what is remembered ----

    def _save(self, work: Work, done: int, ause: bool, *, failed: bool = False) -> dict[str, Any]:
        document = {
            "kind": work.kind, "parameters": work.parameters, "blocks": self.unit.blocks, "done": done, "ause": ause,
            "failed": failed,
        }  # fmt: skip
        self.unit.state.save(DOCUMENT, document)
        return document

    def _fail(self, run: Run, ause: bool) -> None:
        document: dict[str, Any] = {"ause": ause}
        try:
            document = self._save(run.work, run.done, ause, failed=True)
        except OSError as error:
            log.error("lun %d: the failure cannot be remembered: %s", self.unit.lun, error)
        self._set_failure(run.work.failed, document)

    def _set_failure(self, failed: Sense, document: dict[str, Any]) -> None:
        self._failed = document
        self.unit.set_state(failed)

    def _clear_failure(self) -> None:
        if self._failed is None:
            return
        self._failed = None
        if self.unit.not_ready in (sense.SANITIZE_COMMAND_FAILED, sense.FORMAT_COMMAND_FAILED):
            self.unit.set_state(None)
