# SPDX-License-Identifier: BSD-2-Clause
"""The crash harness: what reaches an image while a real target serves it, and every state a crash could have left.

log.py keeps one sequence of what the image saw (begin and end of each write, hole, flush) and of what the initiators
sent and were answered. folder.py records below the target's C engines, as a file system of its own (FUSE); store.py
records the slow path, as a backing store in Python. promises.py knows what the answers promise, replay.py which
contents every sector can have after a crash at each place of the sequence; work.py makes the load. What is assumed:
what a completed flush covers is there; of everything else each sector (512 bytes) may be there or not, whatever the
others are. As sectors are independent, checking every sector with every content it can have is checking every subset
and every order; images are only put together where a program has to look at them (journals, file systems).

Longer and repeatable: VSCSI_CRASH_COMMANDS (commands of each initiator), VSCSI_CRASH_STATES (images put together per
file system, times 20 for journals), VSCSI_CRASH_SEED (a failure prints it; threads still interleave as they like).
"""
