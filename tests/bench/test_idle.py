# SPDX-License-Identifier: BSD-2-Clause
"""The idle target's switches: what is waited for, whose are counted. With a made-up /proc/PID/task and clock."""

import shutil
import threading
from pathlib import Path

import bench_document  # noqa: F401  (finds bench/)
from comparison import idle


class Machine:
    """Threads as the kernel shows them; `at` has what happens when."""

    def __init__(self, folder):
        self.folder, self.now, self.at = folder, 0.0, []

    def thread(self, number, name, switches):
        (self.folder / str(number)).mkdir(exist_ok=True)
        text = f"Name:\t{name}\nState:\tS\nvoluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t1\n"
        (self.folder / str(number) / "status").write_text(text)

    def end(self, number):
        shutil.rmtree(self.folder / str(number))

    def sleep(self, seconds):
        self.now += seconds
        while self.at and self.at[0][0] <= self.now:
            self.at.pop(0)[1]()

    def measure(self, seconds):
        return idle.measure(self.folder, seconds, clock=lambda: self.now, sleep=self.sleep)


def test_workers_of_earlier_load_are_waited_for(tmp_path):
    machine = Machine(tmp_path)
    machine.thread(1, "vscsi-target", 100)
    machine.thread(2, "iou-wrk-1", 10)
    machine.at = [(5, lambda: machine.end(2))]
    found = machine.measure(10)
    assert (found.switches, machine.now) == (0, 15)
    assert found.words == "waited 5.0 s until no io_uring worker was left; 10 s, 1 threads, switches: none"


def test_workers_that_stay_are_told(tmp_path):
    machine = Machine(tmp_path)
    machine.thread(1, "vscsi-target", 100)
    machine.thread(2, "iou-wrk-1", 10)
    machine.at = [(20, lambda: machine.end(2))]
    found = machine.measure(10)
    assert found.words.startswith("waited 15.0 s, measured though io_uring workers were left: 1")
    assert found.by == {"iou-wrk-1": 1}


def test_every_thread_counts(tmp_path):
    machine = Machine(tmp_path)
    machine.thread(1, "vscsi-target", 100)
    machine.thread(2, "vscsi-loop-0", 5)
    machine.thread(3, "vscsi-target", 8)

    def wake():
        machine.thread(1, "vscsi-target", 103)
        machine.thread(3, "vscsi-target", 9)
        machine.thread(4, "short", 1)

    machine.at = [(2, wake)]
    found = machine.measure(2)
    assert found.by == {"short": 2, "vscsi-target": 4}
    assert found.switches == 6
    assert found.words.endswith("switches: short 2, vscsi-target 4")


def test_a_real_thread_that_wakes_is_seen():
    folder = Path("/proc/self/task")
    go, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (go.wait(), done.set(), go.clear()))
    thread.start()
    before = idle.threads(folder)
    go.set()
    thread.join()
    assert str(thread.native_id) in before
    assert sum(idle.between(before, idle.threads(folder)).values()) >= 1
