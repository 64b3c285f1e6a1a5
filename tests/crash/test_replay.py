# SPDX-License-Identifier: BSD-2-Clause
"""What a medium can hold after a crash, in cases small enough to be seen at a glance."""

from crash.log import Log, Op
from crash.replay import Medium

A, B, ZERO = b"a" * 512, b"b" * 512, bytes(512)


def play(*steps):
    """A medium after steps: ("begin" or "end", Op). Ends are known before it is played, as in a log."""
    log, medium = Log(), Medium()
    for what, op in steps:
        (log.begin if what == "begin" else log.end)(op)
    for what, op in log.entries:
        (medium.begin if what == "begin" else medium.end)(op)
    return medium.contents(0)


def test_a_durable_write_settles_but_for_what_still_runs():
    one, two = Op("write", "f", 0, A, durable=True), Op("write", "f", 0, B, durable=True)
    assert play(("begin", one), ("begin", two), ("end", two)) == [B, A]
    one, two = Op("write", "f", 0, A, durable=True), Op("write", "f", 0, B, durable=True)
    assert play(("begin", one), ("begin", two), ("end", two), ("end", one)) == [A]


def test_a_flush_covers_what_ended_before_it_began():
    write, flush = Op("write", "f", 0, A), Op("flush", "f")
    assert play(("begin", write), ("end", write), ("begin", flush), ("end", flush)) == [A]
    write, flush = Op("write", "f", 0, A), Op("flush", "f")
    assert play(("begin", write), ("begin", flush), ("end", write), ("end", flush)) == [ZERO, A]
    write, flush = Op("write", "f", 0, A), Op("flush", "f")
    assert play(("begin", write), ("end", write), ("begin", flush)) == [ZERO, A]
